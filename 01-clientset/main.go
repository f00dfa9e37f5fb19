// 01-clientset connects to a cluster as kubectl does and lists its pods once.
package main

import (
	"cmp"
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
	// A LIST should give up in time. A watch should not: later chapters leave this out.
	config.Timeout = 10 * time.Second

	raw, _ := loader.RawConfig() // inside a cluster there is no kubeconfig, hence no context
	fmt.Printf("context %s, server %s\n", cmp.Or(*kubecontext, raw.CurrentContext, "in-cluster"), config.Host)
	return kubernetes.NewForConfig(config)
}

func run(ctx context.Context, client kubernetes.Interface, out io.Writer) error {
	version, err := client.Discovery().ServerVersionWithContext(ctx)
	if err != nil {
		return fmt.Errorf("get server version: %w", err)
	}
	fmt.Fprintf(out, "connected to Kubernetes %s\n", version)

	// A page holds up to Limit pods; all pages show the moment of the first one.
	opts, count := metav1.ListOptions{Limit: 500}, 0
	for {
		page, err := client.CoreV1().Pods(*namespace).List(ctx, opts)
		if err != nil {
			return fmt.Errorf("list pods: %w", err)
		}
		for _, pod := range page.Items {
			fmt.Fprintf(out, "%s/%s is %s on node %s\n", pod.Namespace, pod.Name, pod.Status.Phase, cmp.Or(pod.Spec.NodeName, "<none>"))
		}
		count += len(page.Items)
		if opts.Continue = page.Continue; opts.Continue == "" {
			// Old already: nobody tells us what changes from here on.
			fmt.Fprintf(out, "%d pods at resourceVersion %s\n", count, page.ResourceVersion)
			return nil
		}
	}
}
