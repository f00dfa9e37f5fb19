// ttl is the controller of 12-production on controller-runtime, with the same Lease and annotation.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const (
	name          = "informers-ttl"
	ttlAnnotation = "informers.example.com/ttl" // such as 90s, from the pod's creation

	reconcileTimeout = 10 * time.Second // for one pod
)

var (
	namespace = flag.String("namespace", metav1.NamespaceAll, "`namespace` to use (default: all)")
	workers   = flag.Int("workers", 4, "how many pods to process at a time, 1 or more")
	address   = flag.String("http", "0", "`address` of health and metrics (default: none)")
)

func main() {
	klog.InitFlags(nil)
	flag.Parse()
	handler := slog.NewTextHandler(os.Stdout, nil)
	klog.SetSlogLogger(slog.New(handler))
	ctrl.SetLogger(logr.FromSlogHandler(handler))

	if err := run(ctrl.SetupSignalHandler()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if *workers < 1 {
		return errors.New("--workers must be 1 or more")
	}
	// ctrl.GetConfig does not read the kubeconfig's namespace, where the Lease is outside a cluster.
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = flag.Lookup("kubeconfig").Value.String() // ctrl defines it
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil)
	restConfig, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return errors.New("no cluster configured: " +
			"set KUBECONFIG or --kubeconfig to a kubeconfig that names one")
	}
	if err != nil {
		return fmt.Errorf("load kubeconfig: %w", err)
	}
	leaseNamespace, _, err := loader.Namespace()
	if err != nil {
		return fmt.Errorf("load kubeconfig: %w", err)
	}
	restConfig.QPS = -1 // the server has priority and fairness; the default is 5 requests a second
	var clock serverClock
	restConfig.Wrap(clock.wrap)

	options := ctrl.Options{
		LeaderElection: true, LeaderElectionID: name, LeaderElectionNamespace: leaseNamespace,
		LeaderElectionReleaseOnCancel: true,
		// Half of it is the time-out of a request: 2.5 s + 2 s + 5 s + 2 · 2.5 s < 15 s.
		RenewDeadline:           new(5 * time.Second),
		GracefulShutdownTimeout: new(20 * time.Second),
		Cache:                   cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
		Controller: config.Controller{
			MaxConcurrentReconciles: *workers, ReconciliationTimeout: reconcileTimeout,
			RecoverPanic: new(false), // the default goes on after a panic
		},
	}
	if *namespace != metav1.NamespaceAll {
		options.Cache.DefaultNamespaces = map[string]cache.Config{*namespace: {}}
	}
	var pods cache.Informer
	options.Metrics = metricsserver.Options{BindAddress: *address, ExtraHandlers: map[string]http.Handler{
		"/livez": healthz.CheckHandler{Checker: healthz.Ping}, // it exits when the Lease is lost
		"/readyz": healthz.CheckHandler{Checker: func(*http.Request) error {
			if !pods.HasSynced() {
				return errors.New("cache is not synced")
			}
			return nil
		}},
	}}
	mgr, err := ctrl.NewManager(restConfig, options)
	if err != nil {
		return err
	}
	// A cache that has an informer before Start is filled before the election. EnableWarmup would do
	// so, too, and add every pod to the queue of a replica that only waits.
	pods, err = mgr.GetCache().GetInformer(ctx, &corev1.Pod{}, cache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	r := &reconciler{Client: mgr.GetClient(), events: mgr.GetEventRecorder(name), clock: &clock}
	if err := ctrl.NewControllerManagedBy(mgr).For(&corev1.Pod{}).Complete(r); err != nil {
		return err
	}
	// Until its cache is filled, Start does not end by itself.
	context.AfterFunc(ctx, func() {
		if !pods.HasSynced() {
			os.Exit(0)
		}
	})
	return mgr.Start(ctx)
}

type reconciler struct {
	client.Client // reads from the cache, writes to the API server
	events        events.EventRecorder
	clock         *serverClock
}

func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	log := ctrl.LoggerFrom(ctx)
	var pod corev1.Pod
	if err := r.Get(ctx, request.NamespacedName, &pod); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	over, ok, err := expiry(&pod)
	if err != nil {
		r.events.Eventf(&pod, nil, corev1.EventTypeWarning, "BadTTL", "Check", "%s", err)
		return ctrl.Result{}, nil
	}
	if !ok {
		return ctrl.Result{}, nil
	}
	if left := over.Sub(r.clock.Now()); left > 0 {
		log.Info("is to be deleted", "in", left.Round(time.Second))
		return ctrl.Result{RequeueAfter: min(left, time.Hour)}, nil
	}
	// The manager cancels ctx at ^C. The API server can stop a delete halfway then, and a pod without
	// a node is Terminating until the garbage collector of pods comes, every 20 s.
	deleteCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reconcileTimeout)
	defer cancel()
	err = r.Delete(deleteCtx, &pod, client.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion})
	if err != nil {
		if client.IgnoreNotFound(err) == nil || apierrors.IsConflict(err) {
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("delete: %w", err)
	}
	ttl := over.Sub(pod.CreationTimestamp.Time)
	log.Info("is deleted: its time is over", "ttl", ttl)
	r.events.Eventf(&pod, nil, corev1.EventTypeNormal, "TimeOver", "Delete",
		"deleted %s after its creation", ttl)
	return ctrl.Result{}, nil
}

// expiry returns when a pod's time is over; ok is false if the pod has no such time or is
// already being deleted. It needs no cluster, no cache, and no clock.
func expiry(pod *corev1.Pod) (over time.Time, ok bool, err error) {
	text, ok := pod.Annotations[ttlAnnotation]
	if !ok || pod.DeletionTimestamp != nil {
		return time.Time{}, false, nil
	}
	ttl, err := time.ParseDuration(text)
	if err != nil || ttl < 0 {
		return time.Time{}, false, fmt.Errorf(
			"annotation %s is %q, want a duration such as 90s", ttlAnnotation, text)
	}
	return pod.CreationTimestamp.Add(ttl), true, nil
}

// A serverClock is the API server's, which sets the pods' creation times, as its last answer said.
// If this machine's clock is wrong or jumps, that changes nothing: time.Since does not use it.
type serverClock struct {
	last atomic.Pointer[answer]
}

type answer struct{ date, at time.Time }

func (c *serverClock) Now() time.Time {
	last := cmp.Or(c.last.Load(), &answer{time.Now(), time.Now()})
	return last.date.Add(time.Since(last.at))
}

func (c *serverClock) wrap(next http.RoundTripper) http.RoundTripper { return dated{next, c} }

type dated struct {
	http.RoundTripper
	clock *serverClock
}

func (d dated) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := d.RoundTripper.RoundTrip(request)
	if err == nil {
		if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
			d.clock.last.Store(&answer{date, time.Now()})
		}
	}
	return response, err
}

// WrappedRoundTripper is for client-go, which looks for the transport below.
func (d dated) WrappedRoundTripper() http.RoundTripper { return d.RoundTripper }
