// 07-workqueue deletes pods when their time is over: a controller with a work queue.
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
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubeconfigs that use oidc, as kubectl does
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

const ttlAnnotation = "informers.example.com/ttl" // such as 90s, from the pod's creation

var (
	kubeconfig  = flag.String("kubeconfig", "", "`path` of a kubeconfig (default: as kubectl)")
	kubecontext = flag.String("context", "", "`name` of a context in it (default: current)")
	namespace   = flag.String("namespace", metav1.NamespaceAll, "`namespace` to use (default: all)")
	syncTimeout = flag.Duration("sync-timeout", time.Minute, "how long to wait for the cache")
	workers     = flag.Int("workers", 4, "how many pods to process at a time, 1 or more")
)

func main() {
	klog.InitFlags(nil) // -v=4 logs what client-go does
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first ^C ends ctx, a second one kills the program

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
	config.QPS = -1 // the server has priority and fairness; the default is 5 requests a second
	return kubernetes.NewForConfig(config)
}

func run(ctx context.Context, client kubernetes.Interface, stdout io.Writer) error {
	if *syncTimeout <= 0 {
		return errors.New("--sync-timeout must be more than 0")
	}
	if *workers < 1 {
		return errors.New("--workers must be 1 or more")
	}

	// Several goroutines print: a Logger keeps lines whole.
	out := log.New(stdout, "", 0)

	// No resync: every pod that has to be checked again is in the queue.
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(*namespace))
	pods := factory.Core().V1().Pods().TypedInformer()

	// client-go retries forever, less and less often, and calls this with each error.
	onError := func(_ context.Context, _ *cache.Reflector, err error) {
		log.Print("watch pods: ", err)
	}
	if err := pods.SetWatchErrorHandlerWithContext(onError); err != nil {
		return fmt.Errorf("set watch error handler: %w", err)
	}

	// Handlers only say which pod to check. The queue holds each key once, however often
	// it is added, and never hands it to two workers at the same time.
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](
		5*time.Millisecond, 30*time.Second)
	queue := workqueue.NewTypedRateLimitingQueue(limiter)
	defer queue.ShutDown() // if we return early
	_, err := pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
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
	sink := &typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events(*namespace)}
	broadcaster.StartRecordingToSink(sink)
	events := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "informers-ttl"})

	lister := factory.Core().V1().Pods().Lister()
	c := &controller{client: client, lister: lister, queue: queue, recorder: events, out: out}
	factory.StartWithContext(ctx)

	// Workers read the lister, so they wait for the store; handlers only add keys.
	syncCtx, cancelSync := context.WithTimeout(ctx, *syncTimeout)
	defer cancelSync()
	if factory.WaitForCacheSyncWithContext(syncCtx).Err != nil {
		return fmt.Errorf("cache is not synced: %w", reason(ctx, client))
	}
	out.Print("cache is synced")

	var wg sync.WaitGroup
	for range *workers {
		wg.Go(func() {
			for c.processNextWorkItem(ctx) {
			}
		})
	}
	<-ctx.Done()
	queue.ShutDown()
	wg.Wait()
	return nil
}

type controller struct {
	client   kubernetes.Interface
	lister   corev1listers.PodLister
	queue    workqueue.TypedRateLimitingInterface[cache.ObjectName]
	recorder record.EventRecorder
	out      *log.Logger
}

// processNextWorkItem handles one key, and returns whether there may be another.
func (c *controller) processNextWorkItem(ctx context.Context) bool {
	key, shutdown := c.queue.Get()
	if shutdown || ctx.Err() != nil {
		return false
	}
	defer c.queue.Done(key) // otherwise the queue never hands out this key again

	requeueAfter, err := c.reconcile(ctx, key)
	switch {
	case err == nil:
		c.queue.Forget(key) // the next failure waits 5 ms again
		if requeueAfter > 0 {
			c.queue.AddAfter(key, requeueAfter)
		}
	case ctx.Err() == nil: // otherwise we are stopping; the next start checks every pod
		log.Printf("%s: %v", key, err)
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

	text, ok := pod.Annotations[ttlAnnotation]
	if !ok || pod.DeletionTimestamp != nil {
		return 0, nil
	}
	ttl, err := time.ParseDuration(text)
	if err != nil || ttl < 0 {
		// No retry can fix this. A fix is a write to the pod, and that enqueues the key.
		c.recorder.Eventf(pod, corev1.EventTypeWarning, "BadTTL",
			"annotation %s is %q, want a duration such as 90s", ttlAnnotation, text)
		return 0, nil
	}
	if left := time.Until(pod.CreationTimestamp.Add(ttl)); left > 0 {
		c.out.Printf("%s is to be deleted in %s", key, left.Round(time.Second))
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
	c.out.Printf("%s is deleted: its %s are over", key, ttl)
	c.recorder.Eventf(pod, corev1.EventTypeNormal, "TimeOver", "deleted %s after its creation", ttl)
	return 0, nil
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
