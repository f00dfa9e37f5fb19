// 12-production is the controller of 08 as a cluster runs it: two replicas, of which one acts.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corev1listers "k8s.io/client-go/listers/core/v1"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubeconfigs that use oidc, as kubectl does
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // of queue, requests, election, informer
	"k8s.io/klog/v2"
)

const (
	name          = "informers-ttl"             // of the Lease, in the metrics, and in Events
	ttlAnnotation = "informers.example.com/ttl" // such as 90s, from the pod's creation

	// The leader renews its Lease every 2 s, and gives up if it cannot for 8 s. Others take the
	// Lease when they have seen it unchanged for 15 s.
	leaseDuration = 15 * time.Second
	renewDeadline = 8 * time.Second
	retryPeriod   = 2 * time.Second

	requestTimeout   = time.Second      // for one request about the Lease
	reconcileTimeout = 10 * time.Second // for one pod
	shutdownTimeout  = 20 * time.Second // the kubelet kills after 30 s
)

var (
	kubeconfig  = flag.String("kubeconfig", "", "`path` of a kubeconfig (default: as kubectl)")
	kubecontext = flag.String("context", "", "`name` of a context in it (default: current)")
	namespace   = flag.String("namespace", metav1.NamespaceAll, "`namespace` to use (default: all)")
	syncTimeout = flag.Duration("sync-timeout", time.Minute, "how long to wait for the cache")
	workers     = flag.Int("workers", 4, "how many pods to process at a time, 1 or more")
	address     = flag.String("http", "localhost:0", "`address` of health and metrics; 0: any port")
)

func main() {
	klog.InitFlags(nil) // -v=4 logs what client-go does
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first ^C ends ctx, a second one kills the program
	context.AfterFunc(ctx, func() { exitLater() })

	// client-go logs with klog: the same format, and the same level. -v=4 is -4 for slog.
	v, _ := strconv.Atoi(flag.Lookup("v").Value.String())
	options := &slog.HandlerOptions{Level: slog.Level(-v)}
	logger := slog.New(slog.NewTextHandler(os.Stdout, options))
	klog.SetSlogLogger(logger)

	c, err := newCluster()
	if err == nil {
		err = run(ctx, c, logger)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// exitLater exits after shutdownTimeout, whatever hangs, unless its timer is stopped. It does not
// release the Lease: something may still act.
func exitLater() *time.Timer {
	return time.AfterFunc(shutdownTimeout, func() {
		fmt.Fprintf(os.Stderr, "not stopped within %s\n", shutdownTimeout)
		os.Exit(1)
	})
}

// A cluster is where the program works.
type cluster struct {
	client, election kubernetes.Interface
	namespace        string // of the Lease: the program's pod has it, or the kubeconfig's context
	clock            serverClock
	metrics          *cache.InformerName // one for each factory in a process
}

// newCluster finds the cluster as kubectl does: --kubeconfig, or KUBECONFIG with
// one file or several, or ~/.kube/config, or the pod that the program runs in.
func newCluster() (*cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = *kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: *kubecontext}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("no cluster configured: " +
			"set KUBECONFIG or --kubeconfig to a kubeconfig that names one")
	}
	if err != nil {
		return nil, fmt.Errorf("load kubeconfig: %w", err)
	}
	c := &cluster{}
	if c.namespace, _, err = loader.Namespace(); err != nil {
		return nil, fmt.Errorf("load kubeconfig: %w", err)
	}
	config.QPS = -1 // the server has priority and fairness; the default is 5 requests a second
	config.Wrap(c.clock.wrap)
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}

	// A leader that gives up stops its workers only after it has tried to release the Lease: two
	// requests. With a time-out, that is before others act, even if the answer to the last renewal
	// was late: 1 s + 2 s until the next one + 8 s + 2 · 1 s < 15 s.
	config = rest.AddUserAgent(rest.CopyConfig(config), "leader-election")
	config.Timeout = requestTimeout
	if c.election, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	c.metrics, err = cache.NewInformerName(name)
	return c, err
}

// run works while it holds the Lease. How it ends is in its defer lines, from the bottom up.
func run(ctx context.Context, c *cluster, logger *slog.Logger) error {
	if *syncTimeout <= 0 {
		return errors.New("--sync-timeout must be more than 0")
	}
	if *workers < 1 {
		return errors.New("--workers must be 1 or more")
	}

	// No resync: every pod that has to be checked again is in the queue.
	factory := informers.NewSharedInformerFactoryWithOptions(c.client, 0,
		informers.WithNamespace(*namespace), informers.WithInformerName(c.metrics),
		informers.WithTransform(dropManagedFields))
	pods := factory.Core().V1().Pods().TypedInformer()

	// client-go retries forever, less and less often, and calls this with each error.
	onError := func(_ context.Context, _ *cache.Reflector, err error) {
		logger.Error("watch pods", "err", err)
	}
	if err := pods.SetWatchErrorHandlerWithContext(onError); err != nil {
		return fmt.Errorf("set watch error handler: %w", err)
	}

	watchdog := leaderelection.NewLeaderHealthzAdaptor(leaseDuration)
	if *address != "" {
		listener, err := net.Listen("tcp", *address)
		if err != nil {
			return fmt.Errorf("--http: %w", err)
		}
		logger.Info("serving metrics and health", "address", listener.Addr())
		server := &http.Server{Handler: health(pods.HasSynced, watchdog), ReadTimeout: time.Minute}
		defer func() { _ = server.Close() }()
		go func() { _ = server.Serve(listener) }()
	}

	// What is in progress may be finished after ^C: work ends with the Lease, after the workers.
	work, endWork := context.WithCancel(context.WithoutCancel(ctx))
	defer endWork() // factory.Shutdown would wait for a reflector that sleeps between two tries
	factory.StartWithContext(work)
	syncCtx, cancelSync := context.WithTimeout(ctx, *syncTimeout)
	defer cancelSync()
	if factory.WaitForCacheSyncWithContext(syncCtx).Err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("cache is not synced: %w", reason(ctx, c.client))
	}
	logger.Info("cache is synced", "pods", len(pods.GetStore().ListKeys()))

	// A replica that cannot fill its cache must not lead, so the election comes after the sync.
	host, _ := os.Hostname()                  // in a cluster the pod's name
	id := host + "_" + string(uuid.NewUUID()) // a restarted program is not the one that died
	leading := make(chan context.Context, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: c.namespace, Name: name},
			Client:     c.election.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: id},
		},
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		ReleaseOnCancel: true, Name: name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(lead context.Context) { leading <- lead },
			OnStoppedLeading: func() {}, // work hears of it by its context
			OnNewLeader:      func(id string) { logger.Info("leader", "identity", id) },
		},
	})
	if err != nil {
		return fmt.Errorf("elect a leader: %w", err)
	}
	watchdog.SetLeaderElection(elector) // RunOrDie would do that
	var election sync.WaitGroup
	election.Go(func() { elector.Run(work) })
	defer election.Wait() // until the Lease is released
	defer endWork()
	select {
	case <-ctx.Done():
		return nil
	case lead := <-leading:
		ctl := &controller{client: c.client, lister: factory.Core().V1().Pods().Lister(),
			leads: elector.IsLeader, clock: &c.clock, logger: logger}
		return ctl.lead(ctx, lead, pods)
	}
}

// dropManagedFields makes the store smaller: managedFields can be half of a pod.
func dropManagedFields(object any) (any, error) {
	if o, ok := object.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return object, nil
}

// health answers the kubelet, and Prometheus. A restart neither fills a cache sooner nor repairs an
// API server: meanwhile the program is live, and --sync-timeout says how long it waits.
func health(synced func() bool, watchdog *leaderelection.HealthzAdaptor) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", legacyregistry.Handler())
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !synced() {
			http.Error(w, "cache is not synced", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) {
		if err := watchdog.Check(r); err != nil { // a leader that neither renews nor ends
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	return mux
}

type controller struct {
	client   kubernetes.Interface
	lister   corev1listers.PodLister
	queue    workqueue.TypedRateLimitingInterface[cache.ObjectName]
	recorder record.EventRecorder
	leads    func() bool
	clock    *serverClock
	logger   *slog.Logger
}

// lead works until ctx ends, and finishes what is in progress. If the Lease is lost, it stops that.
func (c *controller) lead(ctx, lead context.Context, pods corev1informers.PodIndexInformer) error {
	// Events tell the pod's owner, in kubectl describe, what we did and why.
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	sink := &typedcorev1.EventSinkImpl{Interface: c.client.CoreV1().Events(*namespace)}
	broadcaster.StartRecordingToSink(sink)
	c.recorder = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: name})

	// Handlers only say which pod to check. The queue holds each key once, however often
	// it is added, and never hands it to two workers at the same time.
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](
		5*time.Millisecond, 30*time.Second)
	config := workqueue.TypedRateLimitingQueueConfig[cache.ObjectName]{Name: name}
	c.queue = workqueue.NewTypedRateLimitingQueueWithConfig(limiter, config)
	defer c.queue.ShutDown() // if we return early

	// A replica that does not lead has no handler, because nobody would empty its queue. A late
	// handler gets an Add for each pod in the store, and that costs no request.
	handler, err := pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
		AddFunc:    func(pod *corev1.Pod) { c.queue.Add(cache.MetaObjectToName(pod)) },
		UpdateFunc: func(_, pod *corev1.Pod) { c.queue.Add(cache.MetaObjectToName(pod)) },
		DeleteFunc: func(pod corev1informers.DeletedPod) { c.queue.Add(pod.GetObjectName()) },
	})
	if err != nil {
		return fmt.Errorf("add handlers: %w", err)
	}
	defer func() { _ = pods.RemoveEventHandler(handler) }()

	var wg sync.WaitGroup
	for range *workers {
		wg.Go(func() {
			defer utilruntime.HandleCrashWithContext(lead) // logs a panic, and panics again
			for c.processNextWorkItem(lead) {
			}
		})
	}
	select {
	case <-ctx.Done():
	case <-lead.Done():
		defer exitLater().Stop()
		err = errors.New("the Lease is lost: another replica may act now")
	}
	c.queue.ShutDown()
	wg.Wait()
	return err
}

// processNextWorkItem handles one key, and returns whether there may be another.
func (c *controller) processNextWorkItem(ctx context.Context) bool {
	key, shutdown := c.queue.Get()
	// A leader that reads another one's name in the Lease asks again until its deadline.
	if shutdown || c.queue.ShuttingDown() || !c.leads() {
		return false
	}
	defer c.queue.Done(key) // otherwise the queue never hands out this key again

	podCtx, cancel := context.WithTimeout(ctx, reconcileTimeout)
	defer cancel()
	requeueAfter, err := c.reconcile(podCtx, key)
	switch {
	case err == nil:
		c.queue.Forget(key) // the next failure waits 5 ms again
		if requeueAfter > 0 {
			c.queue.AddAfter(key, requeueAfter)
		}
	case ctx.Err() == nil && !c.queue.ShuttingDown(): // otherwise the next leader checks every pod
		c.logger.Error("will be tried again", "pod", key, "err", err)
		c.queue.AddRateLimited(key) // each failure in a row doubles the wait
	}
	return true
}

// reconcile acts on the pod's current state, so it can run at any time, and again. It returns
// when to check the pod again, 0 for not before it changes.
func (c *controller) reconcile(ctx context.Context, key cache.ObjectName) (time.Duration, error) {
	pod, err := c.lister.Pods(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read from the cache: %w", err)
	}

	over, ok, err := expiry(pod)
	if err != nil {
		// No retry can fix this. A fix is a write to the pod, and that enqueues the key.
		c.recorder.Event(pod, corev1.EventTypeWarning, "BadTTL", err.Error())
		return 0, nil
	}
	if !ok {
		return 0, nil
	}
	if left := over.Sub(c.clock.Now()); left > 0 {
		c.logger.Info("is to be deleted", "pod", key, "in", left.Round(time.Second))
		return min(left, time.Hour), nil // a key that waits cannot be removed from the queue
	}

	// The cache may lag behind: by now this may be another pod with the same name, or the
	// pod may have more time to live. Delete only the version that we have read.
	err = c.client.CoreV1().Pods(key.Namespace).Delete(ctx, key.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return 0, nil // the other write is on its way to us, and enqueues the key
	}
	if err != nil {
		return 0, fmt.Errorf("delete: %w", err)
	}
	ttl := over.Sub(pod.CreationTimestamp.Time)
	c.logger.Info("is deleted: its time is over", "pod", key, "ttl", ttl)
	c.recorder.Eventf(pod, corev1.EventTypeNormal, "TimeOver", "deleted %s after its creation", ttl)
	return 0, nil
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

// reason asks the server why the store is not filled: the watch error handler may
// not hear of a refused connection (client-go's reflector.go, isWatchErrorRetriable).
func reason(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := client.CoreV1().Pods(*namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	return fmt.Errorf("not filled within %s, although the server answers a list", *syncTimeout)
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
