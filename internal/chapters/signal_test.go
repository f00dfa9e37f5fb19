package chapters

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"example.com/informers/internal/program"
)

// detector makes the informer panic when a handler has changed an object of the store.
const detector = "KUBE_CACHE_MUTATION_DETECTOR=true"

// TestSignals: SIGINT and SIGTERM end a program with exit code 0 within 2 s,
// whatever the server does.
func TestSignals(t *testing.T) {
	servers := []struct {
		name    string
		prepare func(t *testing.T, name string) *program.Program
	}{
		{"server refuses", func(t *testing.T, name string) *program.Program {
			p := start(t, name, nil, "--kubeconfig", refusing(t))
			time.Sleep(time.Second) // a back-off can't be observed from outside
			return p
		}},
		{"server is silent", func(t *testing.T, name string) *program.Program {
			p := start(t, name, nil, "--kubeconfig", silent(t))
			time.Sleep(time.Second)
			return p
		}},
		{"synced", func(t *testing.T, name string) *program.Program {
			_, kubeconfig := serve(t, apiserver(3))
			p := start(t, name, []string{detector}, "--kubeconfig", kubeconfig)
			p.Await(t, &p.Stdout, last[name], 5*time.Second)
			return p
		}},
		{"outage after the sync", func(t *testing.T, name string) *program.Program {
			server, kubeconfig := serve(t, apiserver(3))
			p := start(t, name, []string{detector}, "--kubeconfig", kubeconfig)
			p.Await(t, &p.Stdout, last[name], 5*time.Second)
			stop(server)
			time.Sleep(3 * time.Second) // until it waits seconds between two tries
			return p
		}},
	}
	for name := range last {
		for _, server := range servers {
			for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
				t.Run(fmt.Sprintf("%s/%s/%s", name, server.name, sig), func(t *testing.T) {
					t.Parallel()
					p := server.prepare(t, name)
					took := p.Signal(t, sig, 2*time.Second)
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

// last is the last line that the initial state of apiserver(3) makes a program
// print which runs until ^C.
var last = map[string]string{
	"03-handlers": "(key: default/pod-2)",
	"04-sync":     "cache is synced",
	"05-resync":   "run",
}

// TestSecondSignal: a program whose handler hangs waits for it after the first
// ^C and is killed by the second.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	_, kubeconfig := serve(t, apiserver(3000))
	cmd := exec.Command(filepath.Join(binDir, "03-handlers"), "--kubeconfig", kubeconfig)
	// Nobody reads on: the lines of 3000 pods are more than a pipe holds.
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // until the pipe is full
	go func() { ended <- cmd.Wait() }()

	for signals := 1; ; signals++ {
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if status := cmd.ProcessState.Sys().(syscall.WaitStatus); err == nil || signals != 2 || status.Signal() != syscall.SIGINT {
				t.Errorf("ended after %d signals: %s", signals, cmd.ProcessState)
			}
			return
		case <-time.After(time.Second):
			if signals == 2 {
				_ = cmd.Process.Kill()
				t.Fatal("two signals did not end it")
			}
		}
	}
}
