// attach runs the playground's informer on the cluster of a kubeconfig. It prints what it sees, one JSON object
// a line: an event of the engine, or {"store": …} with the keys and resourceVersions that the store has. It takes
// commands from stdin, a line each, and ends when stdin does.
//
// Without --allow-writes it lists and watches pods, and does nothing else. With it, commands write pods in a
// namespace that attach makes, and removes at its end.
package main

import (
	"bufio"
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
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"example.com/informers/playground/control"
	"example.com/informers/playground/engine"
)

var (
	kubeconfig  = flag.String("kubeconfig", "", "`path` of a kubeconfig (default: as kubectl)")
	kubecontext = flag.String("context", "", "`name` of a context in it (default: current)")
	namespace   = flag.String("namespace", metav1.NamespaceAll, "`namespace` to use (default: all)")
	resync      = flag.Duration("resync", 30*time.Second, "time between two resyncs, 0 for none")
	allowWrites = flag.Bool("allow-writes", false, "make a namespace, in which commands write pods")
)

func main() {
	flag.Parse()
	// ^C in a terminal also reaches the program that started this one, and it closes stdin.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGPIPE) // without a reader, the namespace still has to go
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
	server := control.Server{Config: config, Watched: *namespace, ReadOnly: true}
	if *allowWrites {
		name, err := control.NewNamespace(ctx, config)
		if err != nil {
			return fmt.Errorf("make a namespace for the page's pods: %w", err)
		}
		defer remove(ctx, config, name)
		server = control.Server{Config: config, Namespace: name, Watched: name}
	}
	return serve(ctx, server)
}

// remove removes the namespace, also after ^C.
func remove(ctx context.Context, config *rest.Config, name string) {
	fmt.Fprintln(os.Stderr, "removing the namespace", name)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := control.RemoveNamespace(ctx, config, name); err != nil {
		fmt.Fprintf(os.Stderr, "remove the namespace %s: %v: remove it with kubectl\n", name, err)
	}
}

// serve carries out commands until ctx or stdin ends.
func serve(ctx context.Context, server control.Server) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	commands := make(chan control.Command)
	go func() {
		defer cancel()
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			var c control.Command
			if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
				fmt.Fprintln(os.Stderr, "not a command:", err)
				continue
			}
			commands <- c
		}
	}()
	settings := &control.Settings{
		Resync: int(resync.Milliseconds()), RunEvery: 10_000, WatchList: true, Handlers: []control.Handler{{Name: "a"}, {Name: "b"}},
	}
	for again := true; again; settings = nil {
		var err error
		if again, err = play(ctx, server, settings, commands); err != nil {
			return err
		}
	}
	return nil
}

// play runs one playground, until ctx ends or a command asks for a new one. Unless settings are nil, an informer
// starts with it.
func play(ctx context.Context, server control.Server, settings *control.Settings, commands <-chan control.Command) (again bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	print := func(line any) {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() == nil {
			_ = out.Encode(line) // without a reader, nothing is left to do
		}
	}
	print(engine.Event{Stage: engine.Synced, Kind: "attached", Text: "server " + server.Config.Host, Key: server.Namespace})
	p := control.New(ctx, server, func(event engine.Event) { print(event) })
	if settings != nil {
		if err := p.Do(control.Command{Do: "start", Settings: *settings}); err != nil { //nolint:contextcheck // p has ctx
			return false, err
		}
	}
	defer p.Wait()
	defer cancel()
	go func() {
		var last map[string]string
		wait.UntilWithContext(ctx, func(context.Context) {
			if store := p.Store(); !maps.Equal(store, last) {
				last = store
				print(map[string]any{"store": store})
			}
		}, 300*time.Millisecond)
	}()
	for {
		select {
		case c := <-commands:
			if c.Do == "reset" {
				cancel()
				p.Wait()
				if server.ReadOnly {
					return true, nil
				}
				return true, p.Clear(context.WithoutCancel(ctx))
			}
			_ = p.Do(c) //nolint:contextcheck // p has ctx; an error is an event, too
		case <-ctx.Done():
			return false, nil
		}
	}
}
