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
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubeconfigs that use oidc, as kubectl does
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

var (
	kubeconfig  = flag.String("kubeconfig", "", "`path` of a kubeconfig (default: as kubectl)")
	kubecontext = flag.String("context", "", "`name` of a context in it (default: current)")
	namespace   = flag.String("namespace", metav1.NamespaceAll, "`namespace` to use (default: all)")
	syncTimeout = flag.Duration("sync-timeout", time.Minute, "how long to wait for the cache")
	annotate    = flag.String("annotate", "", "`name` of a pod to annotate (default: none)")
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
	return kubernetes.NewForConfig(config)
}

func run(ctx context.Context, client kubernetes.Interface, stdout io.Writer) error {
	if *syncTimeout <= 0 {
		return errors.New("--sync-timeout must be more than 0")
	}
	if *annotate != "" && *namespace == metav1.NamespaceAll {
		return errors.New("--annotate needs --namespace")
	}

	// Several goroutines print: a Logger keeps lines whole.
	out := log.New(stdout, "", 0)

	factory := informers.NewSharedInformerFactoryWithOptions(client, 30*time.Second,
		informers.WithNamespace(*namespace))
	pods := factory.Core().V1().Pods().TypedInformer()

	// A lister finds pods by name, namespace, and label; an index by any value that we compute.
	// Both read the informer's store. Request one before Start, or the informer does not run.
	lister, index := factory.Core().V1().Pods().Lister(), pods.GetTypedIndexer()
	byNode := func(pod *corev1.Pod) ([]string, error) { return []string{pod.Spec.NodeName}, nil }
	if err := pods.AddTypedIndexers(corev1informers.PodIndexers{"node": byNode}); err != nil {
		return fmt.Errorf("add index: %w", err)
	}

	// client-go retries forever, less and less often, and calls this with each error.
	onError := func(_ context.Context, _ *cache.Reflector, err error) {
		log.Print("watch pods: ", err)
	}
	if err := pods.SetWatchErrorHandlerWithContext(onError); err != nil {
		return fmt.Errorf("set watch error handler: %w", err)
	}

	// Handlers get pointers into the store, which is shared: NEVER modify them.
	handleAdd := func(pod *corev1.Pod) {
		out.Printf("handleAdd is called for Pod (key: %s)", cache.MetaObjectToName(pod))
	}
	handleUpdate := func(old, pod *corev1.Pod) {
		out.Printf("handleUpdate is called for Pod (key: %s)", cache.MetaObjectToName(pod))
	}
	// For a deleted pod, rely on the key only: the informer may have missed the delete.
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

	// First the store is filled, then the handlers are called for each pod in it.
	syncCtx, cancelSync := context.WithTimeout(ctx, *syncTimeout)
	defer cancelSync()
	if factory.WaitForCacheSyncWithContext(syncCtx).Err != nil {
		return fmt.Errorf("cache is not synced: %w", reason(ctx, client))
	}
	out.Print("store is synced")
	if !cache.WaitFor(syncCtx, "", handler.HasSyncedChecker()) {
		return errors.New("cache is not synced: the handlers are still busy with the first pods")
	}
	out.Print("handler is synced")
	out.Print("cache is synced")

	all, err := lister.Pods(*namespace).List(labels.Everything()) // from memory, no request
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
		pod := cached.DeepCopy() // the cached one is shared
		now := time.Now().Format(time.RFC3339)
		metav1.SetMetaDataAnnotation(&pod.ObjectMeta, "informers.example.com/seen", now)
		pod, err = client.CoreV1().Pods(pod.Namespace).Update(ctx, pod, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("--annotate: %w", err)
		}
		out.Printf("written: resourceVersion %s; read before: resourceVersion %s",
			pod.ResourceVersion, cached.ResourceVersion)

		// The watch reports our own writes too, a little later. The store says how far it has read.
		caughtUp := func(context.Context) (bool, error) {
			read := index.LastStoreSyncResourceVersion()
			order, err := resourceversion.CompareResourceVersion(read, pod.ResourceVersion)
			return order >= 0, err
		}
		err = wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 10*time.Second, true, caughtUp)
		if err != nil {
			return fmt.Errorf("wait for own write: %w", err)
		}
		out.Print("the lister has read it")
	}

	<-ctx.Done()

	// Wait for a call in progress. factory.Shutdown would also wait for the reflector,
	// which may be in a long back-off if the server is down.
	return cache.ShutDownEventHandler(pods, handler)
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
