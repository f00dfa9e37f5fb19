package promises

import (
	"fmt"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"example.com/informers/internal/chapters"
)

// detector makes the informer panic when a handler has changed an object of the store.
const detector = "KUBE_CACHE_MUTATION_DETECTOR=true"

// TestSignals: SIGINT and SIGTERM stop a program with exit code 0 within 2 s,
// whatever the server does.
func TestSignals(t *testing.T) {
	servers := []struct {
		name    string
		prepare func(t *testing.T, name string) *chapters.Program
	}{
		{"server refuses", func(t *testing.T, name string) *chapters.Program {
			p := start(t, name, nil, "--kubeconfig", refusing(t))
			time.Sleep(3 * time.Second) // a back-off can't be observed from outside
			return p
		}},
		{"server is silent", func(t *testing.T, name string) *chapters.Program {
			kubeconfig, connected := silentServer(t)
			p := start(t, name, nil, "--kubeconfig", kubeconfig)
			<-connected
			return p
		}},
		{"synced", func(t *testing.T, name string) *chapters.Program {
			_, kubeconfig := serve(t, apiserver(3))
			p := start(t, name, []string{detector}, "--kubeconfig", kubeconfig)
			p.Await(t, &p.Stdout, started(name), 5*time.Second)
			return p
		}},
		{"outage after the sync", func(t *testing.T, name string) *chapters.Program {
			server, kubeconfig := serve(t, apiserver(3))
			p := start(t, name, []string{detector}, "--kubeconfig", kubeconfig)
			p.Await(t, &p.Stdout, started(name), 5*time.Second)
			stop(server)
			time.Sleep(3 * time.Second) // until it waits seconds between two tries
			return p
		}},
	}
	for _, name := range all[2:] {
		for _, server := range servers {
			if server.name == "server refuses" && looksUp(t, name) {
				continue // it ends by itself
			}
			for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
				t.Run(fmt.Sprintf("%s/%s/%s", name, server.name, sig), func(t *testing.T) {
					t.Parallel()
					p := server.prepare(t, name)
					limit := 2 * time.Second
					if imports(t, name, "k8s.io/client-go/tools/leaderelection") {
						limit += 2 * time.Second // two requests to release the Lease, 1 s each
					}
					took := p.Signal(t, sig, limit)
					if code := p.ProcessState.ExitCode(); code != 0 {
						t.Errorf("exit code %d, want 0, stderr %q", code, &p.Stderr)
					}
					t.Logf("ended after %s", took.Round(time.Millisecond))
				})
			}
		}
	}

	// 01 and 02 end by themselves; ^C ends them sooner.
	for name, server := range map[string]string{"01-clientset": silent(t), "02-factory": refusing(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, name, nil, "--kubeconfig", server)
			p.Await(t, &p.Stdout, map[string]string{"01-clientset": "server https://", "02-factory": "right after start"}[name], 5*time.Second)
			p.Signal(t, syscall.SIGINT, 1500*time.Millisecond)
			if code := p.ProcessState.ExitCode(); code != 0 || p.Stderr.String() != "" {
				t.Errorf("exit code %d, stderr %q", code, &p.Stderr)
			}
		})
	}
}

// started is what a chapter that runs until ^C prints when it knows the pods of apiserver(3).
func started(chapter string) string {
	if chapter == "03-handlers" { // it does not wait for the sync
		return "(key: default/pod-2)"
	}
	return "cache is synced"
}

// TestSecondSignal: a program whose handler hangs waits for it after the first
// ^C and is killed by the second.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hang := chapters.Overlay(t, root, dir, "03-handlers",
		`out.Printf("handleAdd is called for Pod (key: %s)", cache.MetaObjectToName(pod))`, `out.Print("hanging"); select {}`)
	if err := chapters.Build(root, dir, []string{"03-handlers"}, hang); err != nil {
		t.Fatal(err)
	}
	_, kubeconfig := serve(t, apiserver(1))
	p := chapters.Start(t, filepath.Join(dir, "03-handlers"), nil, "--kubeconfig", kubeconfig)
	p.Await(t, &p.Stdout, "hanging", 10*time.Second)

	ended := make(chan error, 1)
	go func() { ended <- p.Wait() }()
	if err := p.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Fatalf("one signal ended it: %v", err)
	case <-time.After(time.Second):
	}
	if err := p.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if status := p.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGINT {
			t.Errorf("ended with %v, want SIGINT", err)
		}
	case <-time.After(10 * time.Second):
		_ = p.Process.Kill()
		t.Errorf("two signals did not end it; a kill did: %v", <-ended)
	}
}

// TestForbiddenWatch: a client that may list but not watch is synced anyway, from a
// list, and gets a relist at each retry.
func TestForbiddenWatch(t *testing.T) {
	t.Parallel()
	pods := apiserver(2)
	_, kubeconfig := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") != "" {
			writeStatus(w, http.StatusForbidden, metav1.StatusReasonForbidden, `User "jane" cannot watch resource "pods"`)
			return
		}
		pods.ServeHTTP(w, r)
	}))
	p := start(t, "05-resync", []string{detector}, "--kubeconfig", kubeconfig)
	p.Await(t, &p.Stdout, "cache is synced\n", 10*time.Second)
	p.Await(t, &p.Stdout, "handleUpdate is called for Pod (key: default/pod-0): relist, resourceVersion 101\n", 20*time.Second)
	p.Await(t, &p.Stderr, `cannot watch resource "pods"`, time.Second)
	p.Signal(t, syscall.SIGINT, 2*time.Second)
}
