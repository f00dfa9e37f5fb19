// 02-factory fills a store with the pods of a cluster in the background.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

var (
	kubeconfig  = flag.String("kubeconfig", "", "`path` of a kubeconfig (default: found as kubectl finds it)")
	kubecontext = flag.String("context", "", "`name` of a context in it (default: its current one)")
	namespace   = flag.String("namespace", metav1.NamespaceAll, "`name` of a namespace (default: all)")
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

func run(ctx context.Context, client kubernetes.Interface, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()

	// One factory a program: all who ask it for pods share one watch and one store.
	// 30 s is how often handlers (03) see the store again. It asks the server for nothing.
	factory := informers.NewSharedInformerFactoryWithOptions(client, 30*time.Second, informers.WithNamespace(*namespace))

	// Asking for an informer registers it.
	pods := factory.Core().V1().Pods().TypedInformer()
	count := len(pods.GetStore().ListKeys())
	fmt.Fprintf(out, "before start: %d pods in the store\n", count)

	// Starting runs what is registered, and does not wait for it.
	factory.StartWithContext(ctx)
	count = len(pods.GetStore().ListKeys())
	fmt.Fprintf(out, "right after start: %d pods in the store\n", count)

	// Reading the store is no request, so we may look as often as we like.
	for ctx.Err() == nil {
		if now := len(pods.GetStore().ListKeys()); now != count {
			count = now
			fmt.Fprintf(out, "then: %d pods in the store\n", count)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}
