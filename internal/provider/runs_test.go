package provider

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
	"time"
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
	time.Sleep(time.Hour) // at select {}, a program without cgo reports a deadlock and exits
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

// On a machine go, docker, kubectl and the program in cluster/ are this script. It
// records which clusters it creates and deletes.
const script = `#!/bin/sh
case "$*" in
"env GOMOD") echo "$DIR/go.mod" ;;
"-C $DIR/cluster build -o "*) cp "$0" "$5" ;;
"tool kind create cluster --name "*) echo "create $6" >>"$DIR/calls"; eval "$CREATE" ;;
"tool kind delete cluster --name "*) echo "delete $6" >>"$DIR/calls"; eval "$REMOVE" ;;
"up --name "*) echo "create $3" >>"$DIR/calls"; eval "$CREATE"; echo "export KUBECONFIG=k PATH='$PATH'" ;;
"down --name "*) echo "delete $3" >>"$DIR/calls"; eval "$REMOVE" ;;
esac
`

type machine struct {
	t          *testing.T
	dir, which string
}

// onMachines runs a test for kind and for local. The machine runs create and remove,
// lines of sh, when it creates or removes a cluster.
func onMachines(t *testing.T, create, remove string, test func(t *testing.T, m machine)) {
	for _, which := range []string{"kind", "local"} {
		t.Run(which, func(t *testing.T) {
			dir := t.TempDir()
			for name, value := range map[string]string{
				"XDG_CACHE_HOME": dir, "DIR": dir, "PATH": dir + ":" + os.Getenv("PATH"),
				"CREATE": create, "REMOVE": remove,
			} {
				t.Setenv(name, value)
			}
			for _, name := range []string{"go", "docker", "kubectl"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			test(t, machine{t, dir, which})
		})
	}
}

// open opens a cluster and returns what it logs, now and later.
func (m machine) open(keep bool) (*Cluster, *bytes.Buffer) {
	m.t.Helper()
	log := new(bytes.Buffer)
	c, err := Open(m.t.Context(), Options{Which: m.which, Prefix: "test", Keep: keep, Log: log})
	if err != nil {
		m.t.Fatal(err)
	}
	return c, log
}

func (m machine) close(clusters ...*Cluster) {
	m.t.Helper()
	for _, c := range clusters {
		if err := c.Close(m.t.Context()); err != nil {
			m.t.Error(err)
		}
	}
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
	return strings.Split(strings.TrimSpace(string(content)), "\n")
}

func (m machine) expect(want ...string) {
	m.t.Helper()
	if got := m.calls(); !slices.Equal(got, want) {
		m.t.Errorf("calls %q, want %q", got, want)
	}
}

// expectRuns checks the names of the folders of runs.
func (m machine) expectRuns(want ...string) {
	m.t.Helper()
	entries, err := os.ReadDir(filepath.Join(m.dir, "informers-runs"))
	if err != nil {
		m.t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		m.t.Errorf("folders of runs %q, want %q", got, want)
	}
}

func TestOpenAndClose(t *testing.T) {
	onMachines(t, "", "", func(t *testing.T, m machine) {
		a, _ := m.open(false)
		b, log := m.open(false)
		if log.String() != "" {
			t.Errorf("log %q, want none", log)
		}
		m.expect("create "+a.Name, "create "+b.Name)
		m.expectRuns(a.Name+"."+m.which, b.Name+"."+m.which)
		m.close(a, b, a)
		m.expect("delete "+a.Name, "delete "+b.Name)
		m.expectRuns()
	})
}

// TestSweep: it removes a killed run's cluster, and no other, not even that of a run
// that no longer refers to it.
func TestSweep(t *testing.T) {
	noLock := `test ! -e "$8.lock"` // as kind delete --kubeconfig does
	onMachines(t, "", noLock, func(t *testing.T, m machine) {
		other := map[string]string{"kind": "local", "local": "kind"}[m.which]
		kept, keptLog := m.open(true)
		m.close(kept, kept)
		keptDir := filepath.Join(m.dir, "informers-runs", kept.Name)
		for _, want := range map[string][]string{
			"kind": {
				fmt.Sprintf("export KUBECONFIG=%q\n", keptDir+"/kubeconfig"),
				fmt.Sprintf("kind delete cluster --name %s && rm -r %q\n", kept.Name, keptDir),
			},
			"local": {`eval "$(go -C cluster run . up --name ` + kept.Name + ")\"\n", "down --name " + kept.Name + "\n"},
		}[m.which] {
			if !strings.Contains(keptLog.String(), want) {
				t.Errorf("log %q, want %q", keptLog, want)
			}
		}
		m.expect("create " + kept.Name) // and no delete
		forgotten, _ := m.open(false)
		name := forgotten.Name
		live, kill := startRun(t, m.which)
		dead, killDead := startRun(t, m.which)
		killDead()
		others, killOther := startRun(t, other)
		killOther()
		runs := filepath.Join(m.dir, "informers-runs")
		if err := errors.Join(
			os.WriteFile(filepath.Join(runs, dead+"."+m.which, "kubeconfig.lock"), nil, 0o600),
			os.Mkdir(filepath.Join(runs, "new"), 0o700), // of a run that is about to lock it
		); err != nil {
			t.Fatal(err)
		}
		m.calls()
		collected := make(chan struct{})
		runtime.AddCleanup(new([64]byte), func(c chan struct{}) { close(c) }, collected)
		for range 2 { // the collector closes files at some later time, in the same way
			runtime.GC()
		}
		<-collected

		var log bytes.Buffer
		if err := Sweep(t.Context(), m.which, "", &log); err != nil {
			t.Error(err)
		}
		removing := "removing the " + m.which + " cluster %s, left behind by a killed run\n"
		if want := fmt.Sprintf(removing, dead); log.String() != want {
			t.Errorf("log %q, want %q", &log, want)
		}
		m.expect("delete " + dead)
		left := []string{name + "." + m.which, live + "." + m.which, others + "." + other, "new"}
		if m.which == "kind" {
			left = append(left, kept.Name) // with its kubeconfig
		}
		m.expectRuns(left...)

		// The next Open finds that the other run has been killed in the meantime.
		kill()
		c, opened := m.open(false)
		if want := fmt.Sprintf(removing, live); opened.String() != want {
			t.Errorf("log %q, want %q", opened, want)
		}
		m.close(c)
		m.expect("delete "+live, "create "+c.Name, "delete "+c.Name)
	})
}

// TestRemoveFails: if a cluster cannot be removed, Close says so, and so does the
// next run; a later one removes it.
func TestRemoveFails(t *testing.T) {
	onMachines(t, "", "echo no daemon >&2; exit 1", func(t *testing.T, m machine) {
		c, _ := m.open(false)
		if err := c.Close(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "exit status 1: no daemon") {
			t.Errorf("Close: %v", err)
		}
		dead, kill := startRun(t, m.which)
		kill()
		next, log := m.open(false)
		if !strings.HasSuffix(log.String(), "exit status 1: no daemon\n") || strings.Count(log.String(), "\n") != 2 {
			t.Errorf("log %q, want one line that says why it was not removed", log)
		}
		m.expect("create "+c.Name, "delete "+c.Name, "create "+dead, "delete "+dead, "create "+next.Name)
		t.Setenv("REMOVE", "")
		if err := Sweep(t.Context(), m.which, "", io.Discard); err != nil {
			t.Error(err)
		}
		m.close(c, next)
		m.expect("delete "+dead, "delete "+c.Name, "delete "+next.Name)
		m.expectRuns()
	})
}

// TestOpenFails: a cluster that cannot be created is removed, even if it would be
// kept. If a program outlives the interrupted one, as docker run does, the cluster is
// removed only after that program has exited.
func TestOpenFails(t *testing.T) {
	for name, test := range map[string]struct{ create, want string }{
		"error":       {"echo no space left >&2; exit 1", "exit status 1: no space left"},
		"interrupted": {`echo >"$DIR/begun"; exec sleep 60`, "context canceled"},
	} {
		outlived := `test "$1" = up || (sleep 0.3; echo container >>"$DIR/calls") >/dev/null 2>&1 & `
		t.Run(name, func(t *testing.T) {
			onMachines(t, outlived+test.create, "", func(t *testing.T, m machine) {
				begun := filepath.Join(m.dir, "begun")
				if err := syscall.Mkfifo(begun, 0o600); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					_, _ = os.ReadFile(begun)
					cancel()
				}()
				_, err := Open(ctx, Options{Which: m.which, Prefix: "test", Keep: true})
				said := fmt.Sprint(err)
				if !strings.HasPrefix(said, m.which+" cluster: ") || !strings.HasSuffix(said, test.want) {
					t.Errorf("Open: %v, want %s", err, test.want)
				}
				calls := m.calls()
				want := []string{calls[0], "container", strings.Replace(calls[0], "create", "delete", 1)}
				if m.which == "local" {
					want = slices.Delete(want, 1, 2)
				}
				if !slices.Equal(calls, want) {
					t.Errorf("calls %q, want %q", calls, want)
				}
				m.expectRuns()
			})
		})
	}
}

// TestKindOutlivesRun: as long as a killed run's kind still runs, no Sweep removes the
// cluster, because kind would go on to create it. Two runs of cluster/ wait for each other.
func TestKindOutlivesRun(t *testing.T) {
	onMachines(t, `kill -KILL $PPID; read end <"$DIR/end"`, "", func(t *testing.T, m machine) {
		end := filepath.Join(m.dir, "end")
		if m.which == "local" {
			t.Skip("cluster/ has a lock")
		}
		if err := syscall.Mkfifo(end, 0o600); err != nil {
			t.Fatal(err)
		}
		run := exec.CommandContext(t.Context(), os.Args[0])
		run.Env = append(os.Environ(), asRun+"="+m.which)
		if err := run.Run(); err == nil {
			t.Fatal("the run was not killed")
		}
		var log bytes.Buffer
		if err := Sweep(t.Context(), m.which, "", &log); err != nil || log.Len() > 0 {
			t.Errorf("Sweep: %v, log %q", err, &log)
		}
		if err := os.WriteFile(end, nil, 0o600); err != nil {
			t.Error(err)
		}
	})
}
