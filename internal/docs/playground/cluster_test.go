package playground

import (
	"bufio"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"

	"example.com/informers/playground/apiserver"
)

// serve runs go run ./playground --cluster, and returns the address that it prints.
func serve(t *testing.T, kubeconfig string, flags ...string) (address string) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "playground")
	build := exec.Command("go", "build", "-o", binary, "./playground")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program := exec.Command(binary, append([]string{"--no-open", "--cluster", "--kubeconfig", kubeconfig}, flags...)...)
	program.Dir, program.Stderr = root, os.Stderr
	stdout, err := program.StdoutPipe()
	if err == nil {
		err = program.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = program.Process.Signal(syscall.SIGINT)
		if err := program.Wait(); err != nil {
			t.Errorf("^C: %v", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// TestCluster opens what go run ./playground --cluster serves, for an API server in memory over HTTP.
func TestCluster(t *testing.T) {
	server := apiserver.New(apiserver.Options{})
	go server.RunPods(t.Context())
	web := httptest.NewServer(server)
	t.Cleanup(func() { web.CloseClientConnections(); web.Close() })
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(`{"apiVersion":"v1","kind":"Config","current-context":"c",
		"clusters":[{"name":"c","cluster":{"server":"`+web.URL+`"}}],"contexts":[{"name":"c","context":{"cluster":"c"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}

	p := openAt(t, serve(t, kubeconfig, "--resync", "3s"), 1280)
	p.await(t, "document.querySelector('header').textContent.includes('On a cluster, server http://127.0.0.1')")
	post := `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"nginx"},"spec":{"containers":[{"name":"nginx","image":"nginx:1.22"}]}}`
	response, err := web.Client().Post(web.URL+"/api/v1/namespaces/default/pods", "application/json", strings.NewReader(post))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	p.await(t, "document.querySelector('pre').textContent.includes('handleAdd is called for Pod (key: default/nginx): new')")
	p.await(t, "document.querySelector('pre').textContent.includes(', phase Running, Ready')")
	p.await(t, "document.querySelector('pre').textContent.includes('(key: default/nginx): resync')")
	p.await(t, "!document.querySelector('.differs') && document.querySelectorAll('td').length === 3")
	p.click(t, "403")
	p.await(t, "document.querySelector('.errors').textContent.includes('pods is forbidden')")
	p.click(t, "All well again")
	p.await(t, "[...document.querySelectorAll('.token')].some(e => e.textContent.includes('relist'))")
	p.keep(t)
	if problem, err := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.querySelector('.problem')?.textContent ?? ''")); err != nil || problem != "" {
		t.Errorf("the page reports %q, %v", problem, err)
	}
}

// TestBadCluster: one line says what is wrong, and nothing is served.
func TestBadCluster(t *testing.T) {
	cmd := exec.Command("go", "run", "./playground", "--no-open", "--cluster", "--kubeconfig", "/nope")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if want := "load kubeconfig: stat /nope: no such file or directory\n"; err == nil || !strings.Contains(string(out), want) || strings.Contains(string(out), "http://") {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
}
