package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhoGetsThePage: a page elsewhere cannot read this one, and a frame cannot show it.
func TestWhoGetsThePage(t *testing.T) {
	wasm := filepath.Join(t.TempDir(), "informer.wasm.gz")
	if err := os.WriteFile(wasm, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := newHandler("..", map[string]string{"informer.wasm.gz": wasm}, "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	h.events = &feed{} // as on a cluster
	for _, test := range []struct {
		method, path, host, origin string
		code                       int
		says                       string
	}{
		{"GET", h.prefix, "127.0.0.1:1", "", 200, "<title>Playground"},
		{"GET", h.prefix, "127.0.0.1:1", "http://127.0.0.1:1", 200, "<title>Playground"},
		{"GET", h.prefix + "index.js", "127.0.0.1:1", "", 200, "informer.wasm.gz"},
		{"GET", h.prefix + "informer.wasm.gz", "127.0.0.1:1", "", 200, "program"},
		{"GET", h.prefix + "repository/04-sync/README.md", "127.0.0.1:1", "", 200, "# 04 Sync"},
		{"GET", h.prefix + "repository/go.mod", "127.0.0.1:1", "", 404, "playground: it has no go.mod\n"},
		{"GET", h.prefix + "repository/../../other.md", "127.0.0.1:1", "", 404, "playground: it has no ../../other.md\n"},
		{"GET", "/", "127.0.0.1:1", "", 403, "playground: open the address that it printed\n"},
		{"GET", "/guess/", "127.0.0.1:1", "", 403, "playground: open the address that it printed\n"},
		{"GET", h.prefix, "example.com", "", 403, "playground: this is not its host\n"},
		{"GET", h.prefix, "127.0.0.1:1", "http://example.com", 403, "playground: no requests from other pages\n"},
		{"GET", h.prefix, "127.0.0.1:1", "null", 403, "playground: no requests from other pages\n"},
		{"POST", h.prefix, "127.0.0.1:1", "http://127.0.0.1:1", 405, "playground: it serves only\n"},
		{"POST", h.prefix + "events", "127.0.0.1:1", "", 405, "playground: it serves only\n"},
		{"POST", h.prefix + "events", "127.0.0.1:1", "http://example.com", 403, "playground: no requests from other pages\n"},
		{"POST", h.prefix + "events", "127.0.0.1:1", "http://127.0.0.1:1", 400, "playground: a command is an object in JSON\n"},
	} {
		r := httptest.NewRequest(test.method, "http://"+test.host+h.prefix, nil)
		r.URL.Path = test.path
		if test.origin != "" {
			r.Header.Set("Origin", test.origin)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != test.code || !strings.Contains(w.Body.String(), test.says) {
			t.Errorf("%+v: %d %.80q", test, w.Code, w.Body)
		}
		policy := w.Header().Get("Content-Security-Policy")
		if !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "unsafe-inline") || strings.Contains(policy, "'unsafe-eval'") {
			t.Errorf("%+v: the policy is %q", test, policy)
		}
	}
	if a, err := newHandler("..", nil, ""); err != nil || a.prefix == h.prefix {
		t.Errorf("two runs have the same address %q, %v", h.prefix, err)
	}
}

// TestBadInput: one line on stderr, exit code 1, and nothing built or served.
func TestBadInput(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "playground")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	taken := httptest.NewServer(http.NotFoundHandler())
	defer taken.Close()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--address", "0.0.0.0:8080"}, `--address must be a loopback address with a port, such as 127.0.0.1:8080, not "0.0.0.0:8080"`},
		{[]string{"--address", "8080"}, `--address must be a loopback address with a port, such as 127.0.0.1:8080, not "8080"`},
		{[]string{"05"}, `playground takes flags only, not "05"`},
		{[]string{"--namespace", "default"}, "--namespace needs --cluster"},
		{[]string{"--allow-writes"}, "--allow-writes needs --cluster"},
		{[]string{"--cluster", "--allow-writes", "--namespace", "default"}, "--allow-writes makes a namespace: leave out --namespace"},
		{[]string{"--site", "."}, "--site: . is not empty"},
		{[]string{"--address", taken.Listener.Addr().String()}, "listen tcp " + taken.Listener.Addr().String() + ": bind: address already in use: choose another port with --address"},
	} {
		cmd := exec.Command(binary, append([]string{"--no-open"}, test.args...)...)
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run()
		if cmd.ProcessState.ExitCode() != 1 || stdout.String() != "" || stderr.String() != test.want+"\n" {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q, want %q", test.args, cmd.ProcessState.ExitCode(), &stdout, &stderr, test.want)
		}
	}
}
