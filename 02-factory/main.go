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
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubeconfigs that use oidc, as kubectl does
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

func run(ctx context.Context, client kubernetes.Interface, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()

	// Use one factory in a program: everything that uses its pod informer shares one
	// watch and one store. Every 30 s handlers (03) see the store again: no request.
	factory := informers.NewSharedInformerFactoryWithOptions(client, 30*time.Second,
		informers.WithNamespace(*namespace))

	// Requesting an informer registers it with the factory.
	pods := factory.Core().V1().Pods().TypedInformer()
	count := len(pods.GetStore().ListKeys())
	fmt.Fprintf(out, "before start: %d pods in the store\n", count)

	// This starts what is registered, and does not wait until it has synced.
	factory.StartWithContext(ctx)
	count = len(pods.GetStore().ListKeys())
	fmt.Fprintf(out, "right after start: %d pods in the store\n", count)

	// Reading the store sends no request, so we can do it as often as we like.
	for ctx.Err() == nil {
		if now := len(pods.GetStore().ListKeys()); now != count {
			count = now
			fmt.Fprintf(out, "then: %d pods in the store\n", count)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}
