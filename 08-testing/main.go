// 08-testing is the controller of 07, with its decision apart, so that a table can test it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
)

const (
	ttlAnnotation = "informers.example.com/ttl" // such as 90s, from the pod's creation on
	maxRetries    = 10                          // after 5 ms, 10 ms, … 2.56 s: 5 s in all
	retryLater    = 30 * time.Second
)

var (
	kubeconfig  = flag.String("kubeconfig", "", "`path` of a kubeconfig (default: found as kubectl finds it)")
	kubecontext = flag.String("context", "", "`name` of a context in it (default: its current one)")
	namespace   = flag.String("namespace", metav1.NamespaceAll, "`name` of a namespace (default: all)")
	syncTimeout = flag.Duration("sync-timeout", time.Minute, "how long to wait for the cache")
	workers     = flag.Int("workers", 4, "how many pods to work on at a time")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first ^C ends ctx, a second one kills

	client, err := newClient()
	if err == nil {
		err = run(ctx, client, os.Stdout)
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// newClient finds the cluster as kubectl does: --kubeconfig, or KUBECONFIG with
// one file or several, or ~/.kube/config, or the pod that the program runs in.
func newClient() (kubernetes.Interface, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = *kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: *kubecontext})
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("no cluster configured: set KUBECONFIG or --kubeconfig to a kubeconfig that names one")
	}
	if err != nil {
		return nil, fmt.Errorf("load kubeconfig: %w", err)
	}
	config.QPS = -1 // the server has its own priority and fairness; else it is 5 requests a second
	return kubernetes.NewForConfig(config)
}

func run(ctx context.Context, client kubernetes.Interface, stdout io.Writer) error {
	if *workers < 1 {
		return errors.New("--workers must be 1 or more")
	}

	// Workers are goroutines: a Logger keeps lines whole.
	out := log.New(stdout, "", 0)

	// No resync: whatever has to be looked at again is in the queue.
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(*namespace))
	pods := factory.Core().V1().Pods().TypedInformer()

	// client-go retries for ever. Without this handler it also logs each failure.
	var lastErr atomic.Value
	lastErr.Store("none")
	if err := pods.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		if old := lastErr.Swap(cause(err)); old != cause(err) {
			log.Print("watch pods: ", cause(err))
		}
	}); err != nil {
		return fmt.Errorf("set watch error handler: %w", err)
	}

	// Handlers only say which pod to look at. The queue has each key once, however
	// often it is added, and never hands it to two workers at a time.
	queue := workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](5*time.Millisecond, retryLater))
	defer queue.ShutDown() // if we return early
	handler, err := pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
		AddFunc:    func(pod *corev1.Pod) { queue.Add(cache.MetaObjectToName(pod)) },
		UpdateFunc: func(_, pod *corev1.Pod) { queue.Add(cache.MetaObjectToName(pod)) },
		DeleteFunc: func(pod corev1informers.DeletedPod) { queue.Add(pod.GetObjectName()) },
	})
	if err != nil {
		return fmt.Errorf("add handlers: %w", err)
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	// Events tell the pod's owner, in kubectl describe, what we did and why.
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events(*namespace)})
	recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "informers-ttl"})

	c := &controller{client: client, lister: factory.Core().V1().Pods().Lister(), queue: queue, recorder: recorder, out: out}
	factory.StartWithContext(ctx)

	// First the store is filled, then the handlers are called for all that is in it.
	syncCtx, cancelSync := context.WithTimeout(ctx, *syncTimeout)
	defer cancelSync()
	if factory.WaitForCacheSyncWithContext(syncCtx).Err != nil {
		return fmt.Errorf("cache is not synced: %w", reason(ctx, client, lastErr.Load()))
	}
	out.Print("store is synced")
	if !cache.WaitFor(syncCtx, "", handler.HasSyncedChecker()) {
		return errors.New("cache is not synced: the handlers are still busy with the first pods")
	}
	out.Print("handler is synced")
	out.Print("cache is synced")

	// Workers begin when the lister is complete: what it does not have is then gone.
	var working sync.WaitGroup
	for range *workers {
		working.Go(func() {
			for c.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	queue.ShutDown()
	working.Wait()
	return nil
}

type controller struct {
	client   kubernetes.Interface
	lister   corev1listers.PodLister
	queue    workqueue.TypedRateLimitingInterface[cache.ObjectName]
	recorder record.EventRecorder
	out      *log.Logger
}

// next works on one key of the queue, and says whether there may be another.
func (c *controller) next(ctx context.Context) bool {
	key, shutdown := c.queue.Get()
	if shutdown || ctx.Err() != nil {
		return false
	}
	defer c.queue.Done(key) // without it the key never comes again

	again, err := c.reconcile(ctx, key)
	switch {
	case err == nil:
		c.queue.Forget(key) // the next failure waits 5 ms again
		if again > 0 {
			c.queue.AddAfter(key, again)
		}
	case ctx.Err() != nil: // we end; the next start begins with what is there
	case c.queue.NumRequeues(key) < maxRetries:
		c.queue.AddRateLimited(key)
	default: // it may take long: no more hurry, unless the pod changes
		c.queue.Forget(key)
		c.queue.AddAfter(key, retryLater)
		log.Printf("giving up on %s for %s: %v", key, retryLater, err)
	}
	return true
}

// reconcile looks at what is, not at what happened: so it may be called at any time,
// for any reason, and again. It returns when to look again, 0 for not before a change.
func (c *controller) reconcile(ctx context.Context, key cache.ObjectName) (again time.Duration, err error) {
	pod, err := c.lister.Pods(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read from the cache: %w", err)
	}

	over, ok, err := end(pod)
	if err != nil {
		// No retry mends this. Who does it writes to the pod, and that brings the key back.
		c.recorder.Event(pod, corev1.EventTypeWarning, "BadTTL", err.Error())
		return 0, nil
	}
	if !ok {
		return 0, nil
	}
	if left := time.Until(over); left > 0 {
		c.out.Printf("%s is to be deleted in %s", key, left.Round(time.Second))
		return left, nil
	}

	// The cache may be behind: another pod of this name, or one with more time to live.
	// So only what we have read may be deleted.
	err = c.client.CoreV1().Pods(key.Namespace).Delete(ctx, key.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return 0, nil // the write that was faster is on its way to us, and brings the key back
	}
	if err != nil {
		return 0, fmt.Errorf("delete: %w", err)
	}
	ttl := over.Sub(pod.CreationTimestamp.Time)
	c.out.Printf("%s is deleted: its %s are over", key, ttl)
	c.recorder.Eventf(pod, corev1.EventTypeNormal, "TimeOver", "deleted %s after its creation", ttl)
	return 0, nil
}

// end returns when a pod's time is over; ok is false if it may stay for ever or is on its
// way out. It needs no cluster, no cache and no clock.
func end(pod *corev1.Pod) (over time.Time, ok bool, err error) {
	text, ok := pod.Annotations[ttlAnnotation]
	if !ok || pod.DeletionTimestamp != nil {
		return time.Time{}, false, nil
	}
	ttl, err := time.ParseDuration(text)
	if err != nil || ttl < 0 {
		return time.Time{}, false, fmt.Errorf("annotation %s is %q, want a duration such as 90s", ttlAnnotation, text)
	}
	return pod.CreationTimestamp.Add(ttl), true, nil
}

// cause is the innermost error: the outer ones name a URL with a random timeout.
func cause(err error) string {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err.Error()
}

// reason asks the server why the store is not filled: a refused connection never
// reaches the watch error handler (client-go's reflector.go, isWatchErrorRetriable).
func reason(ctx context.Context, client kubernetes.Interface, watchErr any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := client.CoreV1().Pods(*namespace).List(ctx, metav1.ListOptions{Limit: 1}); err != nil {
		return err
	}
	return fmt.Errorf("not filled within %s, last watch error: %v", *syncTimeout, watchErr)
}
