// 03-handlers is called for every pod that is added, updated or deleted.
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
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	// Several goroutines print: a Logger keeps lines whole.
	out := log.New(stdout, "", 0)

	factory := informers.NewSharedInformerFactoryWithOptions(client, 30*time.Second,
		informers.WithNamespace(*namespace))
	pods := factory.Core().V1().Pods().TypedInformer()

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

	factory.StartWithContext(ctx)
	<-ctx.Done()

	// Wait for a call in progress. factory.Shutdown would also wait for the reflector,
	// which may be in a long back-off if the server is down.
	return cache.ShutDownEventHandler(pods, handler)
}
