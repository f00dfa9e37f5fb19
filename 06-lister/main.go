// 06-lister reads pods from the cache, and waits until it shows a write of our own.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

var (
	kubeconfig  = flag.String("kubeconfig", "", "`path` of a kubeconfig (default: found as kubectl finds it)")
	kubecontext = flag.String("context", "", "`name` of a context in it (default: its current one)")
	namespace   = flag.String("namespace", metav1.NamespaceAll, "`name` of a namespace (default: all)")
	syncTimeout = flag.Duration("sync-timeout", time.Minute, "how long to wait for the cache")
	annotate    = flag.String("annotate", "", "`name` of a pod in --namespace to annotate (default: none)")
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
	return kubernetes.NewForConfig(config)
}

func run(ctx context.Context, client kubernetes.Interface, stdout io.Writer) error {
	if *annotate != "" && *namespace == metav1.NamespaceAll {
		return errors.New("--annotate needs --namespace")
	}

	// Handlers run in a goroutine of the informer: a Logger keeps lines whole.
	out := log.New(stdout, "", 0)

	factory := informers.NewSharedInformerFactoryWithOptions(client, 30*time.Second, informers.WithNamespace(*namespace))
	pods := factory.Core().V1().Pods().TypedInformer()

	// A lister finds by name, namespace and label; for all else there are indexes of our own.
	// Both read the store of pods. To ask for it before the start makes the factory start it.
	lister, index := factory.Core().V1().Pods().Lister(), pods.GetTypedIndexer()
	if err := pods.AddTypedIndexers(corev1informers.PodIndexers{"node": func(pod *corev1.Pod) ([]string, error) {
		return []string{pod.Spec.NodeName}, nil
	}}); err != nil {
		return fmt.Errorf("add index: %w", err)
	}

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

	// Handlers get pointers into the store, which is shared: NEVER modify them.
	handleAdd := func(pod *corev1.Pod) {
		out.Printf("handleAdd is called for Pod (key: %s)", cache.MetaObjectToName(pod))
	}
	handleUpdate := func(old, pod *corev1.Pod) {
		out.Printf("handleUpdate is called for Pod (key: %s)", cache.MetaObjectToName(pod))
	}
	// Of a deleted pod only the key is sure: the informer may have missed the delete.
	handleDelete := func(pod corev1informers.DeletedPod) {
		out.Printf("handleDelete is called for Pod (key: %s)", pod.GetKey())
	}
	handler, err := pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
		AddFunc: handleAdd, UpdateFunc: handleUpdate, DeleteFunc: handleDelete,
	})
	if err != nil {
		return fmt.Errorf("add handlers: %w", err)
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
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

	// All this is read from memory: no request is made.
	all, err := lister.Pods(*namespace).List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	out.Printf("pods in the lister: %d", len(all))
	for _, node := range slices.Sorted(slices.Values(index.ListIndexFuncValues("node"))) {
		there, err := index.ByTypedIndex("node", node)
		if err != nil {
			return fmt.Errorf("read index: %w", err)
		}
		out.Printf("pods on node %s: %d", cmp.Or(node, "<none>"), len(there))
	}

	if *annotate != "" {
		cached, err := lister.Pods(*namespace).Get(*annotate)
		if err != nil {
			return fmt.Errorf("--annotate: %w", err)
		}
		pod := cached.DeepCopy() // what is cached belongs to everybody
		metav1.SetMetaDataAnnotation(&pod.ObjectMeta, "informers.example.com/seen", time.Now().Format(time.RFC3339))
		if pod, err = client.CoreV1().Pods(pod.Namespace).Update(ctx, pod, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("--annotate: %w", err)
		}
		out.Printf("written: resourceVersion %s; read before: resourceVersion %s", pod.ResourceVersion, cached.ResourceVersion)

		// The watch brings our own writes too, a little later. The store says how far it has read.
		if err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
			order, err := resourceversion.CompareResourceVersion(index.LastStoreSyncResourceVersion(), pod.ResourceVersion)
			return order >= 0, err
		}); err != nil {
			return fmt.Errorf("wait for own write: %w", err)
		}
		out.Print("the lister has read it")
	}

	<-ctx.Done()

	// Wait for a call that is under way. factory.Shutdown would also wait for the
	// reflector, which may sit out a long back-off if the server is down.
	return cache.ShutDownEventHandler(pods, handler)
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
