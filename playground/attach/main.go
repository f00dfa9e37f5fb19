// attach runs the playground's engine on the cluster of a kubeconfig, and prints what it sees: one JSON
// object a line, an event of the engine, or {"store": …} with the keys and resourceVersions that the store
// has. It lists and watches pods, and does nothing else.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubeconfigs that use oidc, as kubectl does
	"k8s.io/client-go/tools/clientcmd"

	"example.com/informers/playground/engine"
)

var (
	kubeconfig  = flag.String("kubeconfig", "", "`path` of a kubeconfig (default: as kubectl)")
	kubecontext = flag.String("context", "", "`name` of a context in it (default: current)")
	namespace   = flag.String("namespace", metav1.NamespaceAll, "`namespace` to use (default: all)")
	resync      = flag.Duration("resync", 30*time.Second, "time between two resyncs, 0 for none")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first ^C ends ctx, a second one kills the program
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = *kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: *kubecontext})
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return errors.New("no cluster configured: set KUBECONFIG or --kubeconfig to a kubeconfig that names one")
	}
	if err != nil {
		return fmt.Errorf("load kubeconfig: %w", err)
	}

	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	print := func(line any) {
		mu.Lock()
		defer mu.Unlock()
		_ = out.Encode(line) // without a reader, nothing is left to do
	}
	print(engine.Event{Stage: engine.Synced, Kind: "attached", Text: "server " + config.Host})
	settings := engine.Settings{
		Resync: *resync, RunEvery: 10 * time.Second, WatchList: true, Namespace: *namespace,
		Handlers: []engine.HandlerSettings{{Name: "a"}, {Name: "b"}},
	}
	e, err := engine.Start(ctx, config, settings, func(event engine.Event) { print(event) })
	if err != nil {
		return err
	}
	var last map[string]string
	wait.UntilWithContext(ctx, func(context.Context) {
		if store := e.Store(); !maps.Equal(store, last) {
			last = store
			print(map[string]any{"store": store})
		}
	}, 300*time.Millisecond)
	return nil
}
