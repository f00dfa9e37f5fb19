// 05-resync runs a function periodically alongside the handlers, and tells a resync from a write.
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
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	resync      = flag.Duration("resync", 30*time.Second, "time between two resyncs, 0 for none")
	runEvery    = flag.Duration("run-every", 10*time.Second, "time between two runs")
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
	if *resync < 0 || *runEvery <= 0 {
		return errors.New("--resync must be 0 or more and --run-every more than 0")
	}

	// Several goroutines print: a Logger keeps lines whole.
	out := log.New(stdout, "", 0)

	factory := informers.NewSharedInformerFactoryWithOptions(client, *resync,
		informers.WithNamespace(*namespace))
	pods := factory.Core().V1().Pods().TypedInformer()

	// client-go retries forever, less and less often, and calls this with each error.
	onError := func(_ context.Context, _ *cache.Reflector, err error) {
		log.Print("watch pods: ", err)
	}
	if err := pods.SetWatchErrorHandlerWithContext(onError); err != nil {
		return fmt.Errorf("set watch error handler: %w", err)
	}

	// Handlers get pointers into the store, which is shared: NEVER modify them.
	handleAdd := func(pod *corev1.Pod, isInInitialList bool) {
		origin := "new"
		if isInInitialList {
			origin = "initial"
		}
		out.Printf("handleAdd is called for Pod (key: %s): %s, %s",
			cache.MetaObjectToName(pod), origin, strings.Join(facts(pod), ", "))
	}
	handleUpdate := func(old, pod *corev1.Pod) {
		out.Printf("handleUpdate is called for Pod (key: %s): %s",
			cache.MetaObjectToName(pod), change(old, pod))
	}
	// For a deleted pod, rely on the key only: the informer may have missed the delete.
	handleDelete := func(pod corev1informers.DeletedPod) {
		out.Printf("handleDelete is called for Pod (key: %s): tombstone=%t",
			pod.GetKey(), pod.FinalStateUnknown != nil)
	}
	handler, err := pods.AddTypedEventHandler(corev1informers.PodDetailedHandlerFuncs{
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

	wait.UntilWithContext(ctx, func(context.Context) { out.Print("run") }, *runEvery)

	// Wait for a call in progress. factory.Shutdown would also wait for the reflector,
	// which may be in a long back-off if the server is down.
	return cache.ShutDownEventHandler(pods, handler)
}

// change says why handleUpdate is called. Only a resync passes the stored object itself.
func change(old, pod *corev1.Pod) string {
	switch {
	case old == pod:
		return "resync, resourceVersion " + pod.ResourceVersion
	case old.ResourceVersion == pod.ResourceVersion:
		return "relist, resourceVersion " + pod.ResourceVersion
	}
	known := func(fact string) bool { return slices.Contains(facts(old), fact) }
	versions := old.ResourceVersion + " → " + pod.ResourceVersion
	return strings.Join(append([]string{versions}, slices.DeleteFunc(facts(pod), known)...), ", ")
}

// facts are what the program prints about a pod.
func facts(pod *corev1.Pod) []string {
	node := cmp.Or(pod.Spec.NodeName, "<none>")
	facts := []string{"phase " + string(pod.Status.Phase), "node " + node}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			facts = append(facts, string(c.Type))
		}
	}
	if pod.DeletionTimestamp != nil {
		facts = append(facts, "deletion")
	}
	return facts
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
