package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

func TestMain(m *testing.M) {
	if os.Getenv("RUN_TTL") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestNoCluster: without a kubeconfig the program prints one line.
func TestNoCluster(t *testing.T) {
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{"RUN_TTL=yes", "HOME=" + t.TempDir()}
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	const want = "no cluster configured: set KUBECONFIG or --kubeconfig to a kubeconfig that names one\n"
	if code := cmd.ProcessState.ExitCode(); code != 1 || out.String() != want {
		t.Errorf("%v, printed:\n%s", err, &out)
	}
}

// TestInterrupted: the program exits at ^C, although the API server has not answered with the pods yet. The
// rest is tested on a cluster, by e2e.
func TestInterrupted(t *testing.T) {
	asked := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/api":
			_, _ = fmt.Fprint(w, `{"kind": "APIVersions", "versions": ["v1"]}`)
		case "/apis":
			_, _ = fmt.Fprint(w, `{"kind": "APIGroupList", "apiVersion": "v1"}`)
		case "/api/v1":
			_, _ = fmt.Fprint(w, `{"kind": "APIResourceList", "groupVersion": "v1", "resources": [
				{"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["list", "watch"]}]}`)
		default:
			select {
			case asked <- struct{}{}:
			default:
			}
			<-r.Context().Done()
		}
	}))
	t.Cleanup(server.Close)
	config := clientcmdapi.NewConfig()
	config.Clusters["fake"] = &clientcmdapi.Cluster{Server: server.URL}
	config.Contexts["fake"] = &clientcmdapi.Context{Cluster: "fake"}
	config.CurrentContext = "fake"
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "RUN_TTL=yes", "KUBECONFIG="+kubeconfig)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-asked:
	case <-ctx.Done():
		t.Error("it does not ask for pods")
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
}
