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
	// This also ends a watch, so later chapters leave it out.
	config.Timeout = 10 * time.Second

	raw, _ := loader.RawConfig() // inside a cluster there is no kubeconfig, hence no context
	name := cmp.Or(*kubecontext, raw.CurrentContext, "in-cluster")
	fmt.Printf("context %s, server %s\n", name, config.Host)
	return kubernetes.NewForConfig(config)
}

func run(ctx context.Context, client kubernetes.Interface, out io.Writer) error {
	version, err := client.Discovery().ServerVersionWithContext(ctx)
	if err != nil {
		return fmt.Errorf("get server version: %w", err)
	}
	fmt.Fprintf(out, "connected to Kubernetes %s\n", version)

	// A page holds up to Limit pods. All pages show the state at the time of the first one.
	opts, count := metav1.ListOptions{Limit: 500}, 0
	for {
		page, err := client.CoreV1().Pods(*namespace).List(ctx, opts)
		if err != nil {
			return fmt.Errorf("list pods: %w", err)
		}
		for _, pod := range page.Items {
			node := cmp.Or(pod.Spec.NodeName, "<none>")
			fmt.Fprintf(out, "%s/%s is %s on node %s\n",
				pod.Namespace, pod.Name, pod.Status.Phase, node)
		}
		count += len(page.Items)
		if opts.Continue = page.Continue; opts.Continue == "" {
			// The list is already out of date: nothing reports later changes to us.
			fmt.Fprintf(out, "%d pods at resourceVersion %s\n", count, page.ResourceVersion)
			return nil
		}
	}
}
