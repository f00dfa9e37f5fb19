package clusters

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// asRun in the environment makes this test binary a run that opens a cluster of that
// kind, prints its name, and waits to be killed.
const asRun = "CLUSTERS_TEST_AS_RUN"

func TestMain(m *testing.M) {
	which := os.Getenv(asRun)
	if which == "" {
		os.Exit(m.Run())
	}
	c, err := Open(context.Background(), Options{Which: which, Prefix: "killed"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(c.Name)
	select {}
}

// startRun starts a separate run and returns the name of its cluster.
func startRun(t *testing.T, which string) (name string, kill func()) {
	t.Helper()
	run := exec.CommandContext(t.Context(), os.Args[0])
	run.Env = append(os.Environ(), asRun+"="+which)
	run.Stderr = os.Stderr
	stdout, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = run.Process.Kill() // SIGKILL
		_ = run.Wait()
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("a run did not open a %s cluster: %v", which, err)
	}
	return strings.TrimSpace(line), kill
}

// On a machine go, docker, kubectl and the program in cluster/ are scripts that record
// how they are called.
type machine struct {
	t     *testing.T
	dir   string
	which string
}

// newMachine returns a machine that runs create and remove, lines of sh, when a
// cluster is created or removed.
func newMachine(t *testing.T, which, create, remove string) machine {
	m := machine{t, t.TempDir(), which}
	t.Setenv("XDG_CACHE_HOME", filepath.Join(m.dir, "cache"))
	t.Setenv("PATH", m.dir+":"+os.Getenv("PATH"))
	t.Setenv("DIR", m.dir)
	m.does(create, remove)
	note := `echo "$$: ${0##*/} $*" | sed 's/^[0-9]*: //' >>"$DIR/calls"` + "\n"
	for name, content := range map[string]string{
		"docker":  "#!/bin/sh\n",
		"kubectl": "#!/bin/sh\n",
		"go": "#!/bin/sh\n" + note + `case "$1 $2 $3" in
"env GOMOD ") echo "$DIR/go.mod" ;;
"-C $DIR/cluster build") cp "$DIR/program" "$5" ;;
"tool kind create") eval "$CREATE" ;;
"tool kind delete") eval "$REMOVE" ;;
esac`,
		"program": "#!/bin/sh\n" + note + `case "$1" in
up) eval "$CREATE"; echo "export KUBECONFIG='$DIR/kubeconfig' PATH=$DIR:\"\$PATH\"" ;;
down) eval "$REMOVE" ;;
esac`,
		"kubeconfig": `{contexts: [{name: a, context: {cluster: a}}, {name: b, context: {cluster: b}}],
clusters: [{name: a, cluster: {server: "https://a"}}, {name: b, cluster: {server: "https://b"}}], current-context: a}`,
	} {
		if err := os.WriteFile(filepath.Join(m.dir, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m machine) does(create, remove string) {
	m.t.Setenv("CREATE", create)
	m.t.Setenv("REMOVE", remove)
}

func (m machine) open(ctx context.Context, keep bool) (*Cluster, string, error) {
	var log bytes.Buffer
	c, err := Open(ctx, Options{Which: m.which, Prefix: "test", Keep: keep, Log: &log})
	if err == nil {
		c.log = &log
	}
	return c, log.String(), err
}

// calls returns the calls that created or removed clusters since the last call of
// calls, in the form "create NAME".
func (m machine) calls() []string {
	m.t.Helper()
	path := filepath.Join(m.dir, "calls")
	content, err := os.ReadFile(path)
	if err := errors.Join(err, os.Remove(path)); err != nil {
		m.t.Fatal(err)
	}
	var calls []string
	for line := range strings.Lines(string(content)) {
		f := strings.Fields(line)
		switch {
		case len(f) > 5 && f[2] == "kind" && f[4] == "cluster": // go tool kind create cluster --name NAME …
			calls = append(calls, f[3]+" "+f[6])
		case f[0] == "cluster": // up --name NAME
			calls = append(calls, map[string]string{"up": "create", "down": "delete"}[f[1]]+" "+f[3])
		case f[0] != "go":
			calls = append(calls, strings.TrimSpace(line))
		}
	}
	return calls
}

func (m machine) expect(want ...string) {
	m.t.Helper()
	if got := m.calls(); !slices.Equal(got, want) {
		m.t.Errorf("calls %q, want %q", got, want)
	}
}

// runs returns the names of the folders of runs.
func (m machine) runs() []string {
	m.t.Helper()
	entries, err := os.ReadDir(filepath.Join(m.dir, "cache", "informers-cluster", "runs"))
	if err != nil {
		m.t.Fatal(err)
	}
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func (m machine) expectRuns(want ...string) {
	m.t.Helper()
	slices.Sort(want)
	if got := m.runs(); !slices.Equal(got, want) {
		m.t.Errorf("folders of runs %q, want %q", got, want)
	}
}

// both runs a test for kind and for local.
func both(t *testing.T, test func(t *testing.T, which, other string)) {
	t.Run("kind", func(t *testing.T) { test(t, "kind", "local") })
	t.Run("local", func(t *testing.T) { test(t, "local", "kind") })
}

func TestOpenAndClose(t *testing.T) {
	both(t, func(t *testing.T, which, _ string) {
		m := newMachine(t, which, "", "")
		a, _, err := m.open(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		b, log, err := m.open(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if want := "cluster: " + which + " (asked for)\n"; log != want {
			t.Errorf("log %q, want %q", log, want)
		}
		m.expect("create "+a.Name, "create "+b.Name)
		m.expectRuns(a.Name, b.Name)
		for _, c := range []*Cluster{a, b, a} {
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		m.expect("delete "+a.Name, "delete "+b.Name)
		m.expectRuns()
	})
}

// TestSweptBeforeClose: a Sweep may take the lock while Close waits for it.
func TestSweptBeforeClose(t *testing.T) {
	both(t, func(t *testing.T, which, _ string) {
		m := newMachine(t, which, "", "")
		c, _, err := m.open(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.RemoveAll(c.dir), c.Close(t.Context())); err != nil {
			t.Error(err)
		}
		m.expect("create " + c.Name)
	})
}

func TestSweep(t *testing.T) {
	both(t, func(t *testing.T, which, other string) {
		m := newMachine(t, which, "", `test ! -e "$8.lock"`) // as kind delete --kubeconfig does
		kept, _, err := m.open(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		mine, _, err := m.open(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		live, kill := startRun(t, which)
		dead, killDead := startRun(t, which)
		killDead()
		deadDir := filepath.Join(filepath.Dir(mine.dir), dead)
		_ = os.Remove(filepath.Join(deadDir, "cluster")) // killed before it was built
		if err := os.WriteFile(filepath.Join(deadDir, "kubeconfig.lock"), nil, 0); err != nil {
			t.Fatal(err)
		}
		others, killOther := startRun(t, other)
		killOther()
		if err := kept.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		stranger := filepath.Join(filepath.Dir(mine.dir), "stranger") // no lock file
		if err := os.Mkdir(stranger, 0o700); err != nil {
			t.Fatal(err)
		}
		m.calls()

		var log bytes.Buffer
		if err := Sweep(t.Context(), which, "", &log); err != nil {
			t.Error(err)
		}
		if want := fmt.Sprintf("removing the %s cluster %s, left behind by a killed run\n", which, dead); log.String() != want {
			t.Errorf("log %q, want %q", &log, want)
		}
		m.expect("delete " + dead)
		left := []string{mine.Name, live, others, "stranger"}
		if which == "kind" {
			left = append(left, kept.Name) // with its kubeconfig
		}
		m.expectRuns(left...)

		// The next Open finds that the other run has been killed in the meantime.
		kill()
		c, opened, err := m.open(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("cluster: %s (asked for)\nremoving the %[1]s cluster %s, left behind by a killed run\n", which, live); opened != want {
			t.Errorf("log %q, want %q", opened, want)
		}
		m.expect("delete "+live, "create "+c.Name)
		if err := errors.Join(mine.Close(t.Context()), c.Close(t.Context())); err != nil {
			t.Error(err)
		}
		m.expect("delete "+mine.Name, "delete "+c.Name)
	})
}

// TestForgotten: a run counts as alive even if it no longer refers to its cluster.
func TestForgotten(t *testing.T) {
	both(t, func(t *testing.T, which, _ string) {
		m := newMachine(t, which, "", "")
		if _, _, err := m.open(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		collected := make(chan struct{})
		runtime.AddCleanup(new([64]byte), func(c chan struct{}) { close(c) }, collected)
		for range 2 { // the collector closes files at some later time, in the same way
			runtime.GC()
		}
		<-collected
		var log bytes.Buffer
		if err := Sweep(t.Context(), which, "", &log); err != nil || log.Len() > 0 {
			t.Errorf("Sweep: %v, log %q", err, &log)
		}
	})
}

// TestRemoveFails: the next run removes a cluster that cannot be removed now.
func TestRemoveFails(t *testing.T) {
	both(t, func(t *testing.T, which, _ string) {
		m := newMachine(t, which, "", "echo no daemon >&2; exit 1")
		c, _, err := m.open(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			err := c.Close(t.Context())
			if err == nil || !strings.HasSuffix(err.Error(), "exit status 1: no daemon") {
				t.Errorf("Close: %v", err)
			}
		}
		next, log, err := m.open(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(log, "exit status 1: no daemon\n") || strings.Count(log, "\n") != 3 {
			t.Errorf("log %q, want one line that says why it was not removed", log)
		}
		m.expect("create "+c.Name, "delete "+c.Name, "delete "+c.Name, "delete "+c.Name, "create "+next.Name)
		m.does("", "")
		if err := Sweep(t.Context(), which, "", io.Discard); err != nil {
			t.Error(err)
		}
		m.expect("delete " + c.Name)
		m.expectRuns(next.Name)
		if err := next.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestOpenFails(t *testing.T) {
	both(t, func(t *testing.T, which, _ string) {
		m := newMachine(t, which, "echo no space left >&2; exit 1", "")
		_, _, err := m.open(t.Context(), false)
		if err == nil || !strings.HasPrefix(err.Error(), which+" cluster: ") || !strings.HasSuffix(err.Error(), "exit status 1: no space left") {
			t.Errorf("Open: %v", err)
		}
		if calls := m.calls(); len(calls) != 2 || strings.Replace(calls[0], "create", "delete", 1) != calls[1] {
			t.Errorf("calls %q, want the cluster created and removed", calls)
		}
		m.expectRuns()
	})
}

// TestOpenInterrupted: if a program outlives the interrupted one, as docker run does,
// the cluster is removed only after that program has exited.
func TestOpenInterrupted(t *testing.T) {
	both(t, func(t *testing.T, which, _ string) {
		create := `echo >"$DIR/begun"; exec sleep 60`
		if which == "kind" {
			create = `(sleep 0.3; echo container >>"$DIR/calls") >/dev/null 2>&1 & ` + create
		}
		m := newMachine(t, which, create, "")
		begun := filepath.Join(m.dir, "begun")
		if err := syscall.Mkfifo(begun, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, _ = os.ReadFile(begun)
			cancel()
		}()
		_, _, err := m.open(ctx, true)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Open: %v", err)
		}
		calls := m.calls()
		want := []string{calls[0], strings.Replace(calls[0], "create", "delete", 1)}
		if which == "kind" {
			want = slices.Insert(want, 1, "container")
		}
		if !slices.Equal(calls, want) {
			t.Errorf("calls %q, want %q", calls, want)
		}
		m.expectRuns()
	})
}

func TestKeep(t *testing.T) {
	both(t, func(t *testing.T, which, _ string) {
		m := newMachine(t, which, "", "")
		c, _, err := m.open(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.Kubeconfig, nil, 0o600); err != nil { // as kind does
			t.Fatal(err)
		}
		if err := errors.Join(c.Close(t.Context()), c.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
		log := c.log.(*bytes.Buffer).String()
		for _, want := range map[string][]string{
			"kind":  {"export KUBECONFIG=\"" + c.Kubeconfig + "\"\n", "kind delete cluster --name " + c.Name + " && rm -r \"" + filepath.Dir(c.Kubeconfig) + "\"\n"},
			"local": {`eval "$(go -C cluster run . up --name ` + c.Name + ")\"\n", "down --name " + c.Name + "\n"},
		}[which] {
			if !strings.Contains(log, want) {
				t.Errorf("log %q, want %q", log, want)
			}
		}
		if err := Sweep(t.Context(), which, "", io.Discard); err != nil {
			t.Error(err)
		}
		m.expect("create " + c.Name)
		if _, err := os.Stat(c.Kubeconfig); (err == nil) != (which == "kind") {
			t.Errorf("the kubeconfig of a kept %s cluster: %v", which, err)
		}
	})
}
