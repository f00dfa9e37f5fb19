package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"
)

// asProgram in the environment makes this test binary run as the program itself, so
// that the tests run what a user runs, with the race detector.
const asProgram = "CLUSTER_TEST_AS_PROGRAM"

// programs is the folder of built programs that all tests share.
var programs string

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		os.Exit(0)
	}
	err := func() error {
		root, err := folder()
		if err != nil {
			return err
		}
		unlock, err := lock(context.Background(), root)
		if err != nil {
			return err
		}
		defer unlock()
		programs, err = build(context.Background(), root)
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "building the programs that the tests run:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// A user has a separate home folder and cache folder, and the built programs in the
// cache folder.
type user struct {
	t    *testing.T
	home string
	env  []string
}

func newUser(t *testing.T) user {
	t.Helper()
	home := t.TempDir()
	u := user{t, home, []string{asProgram + "=1", "HOME=" + home, "XDG_CACHE_HOME=" + home + "/cache", "PATH=" + os.Getenv("PATH")}}
	bin := filepath.Join(u.cluster("").root, "bin")
	if err := os.MkdirAll(filepath.Dir(bin), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(programs), bin); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dirs, _ := filepath.Glob(u.cluster("*").file())
		for _, dir := range dirs {
			if err := u.cluster(filepath.Base(dir)).remove(context.Background()); err != nil {
				t.Errorf("removing a test's cluster: %v", err)
			}
		}
	})
	return u
}

func (u user) cluster(name string) cluster {
	return cluster{root: filepath.Join(u.home, "cache", "informers-cluster"), name: name}
}

func (u user) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	u.t.Cleanup(cancel)
	self, err := os.Executable()
	if err != nil {
		u.t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = u.env
	return cmd
}

// output runs the program and returns what it printed and its exit code.
func (u user) output(args ...string) (stdout, stderr string, code int) {
	u.t.Helper()
	cmd := u.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		u.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// ok runs the program, which must succeed, and returns its stdout.
func (u user) ok(args ...string) string {
	u.t.Helper()
	stdout, stderr, code := u.output(args...)
	if code != 0 {
		u.t.Fatalf("%v: exit code %d: %s", args, code, stderr)
	}
	return stdout
}

// fails runs the program, which must fail with one line on stderr that contains want.
func (u user) fails(want string, args ...string) {
	u.t.Helper()
	stdout, stderr, code := u.output(args...)
	if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, want) {
		u.t.Errorf("%v: exit code %d, stdout %q, stderr %q; want code 1 and one line on stderr with %q", args, code, stdout, stderr, want)
	}
	u.t.Logf("%v: %s", args, strings.TrimSpace(stderr))
}

// kubectl runs kubectl on the cluster, in a shell that has evaluated up's line.
func (u user) kubectl(export string, args ...string) string {
	u.t.Helper()
	cmd := exec.CommandContext(u.t.Context(), "sh", append([]string{"-c", `eval "$1"; shift; exec kubectl "$@"`, "sh", export}, args...)...)
	cmd.Env = u.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		u.t.Fatalf("kubectl %v: %v: %s", args, err, out)
	}
	return string(out)
}

// pids returns the pid of each program of a cluster.
func (u user) pids(name string) map[string]int {
	u.t.Helper()
	running, err := u.cluster(name).processes(context.Background())
	if err != nil {
		u.t.Fatal(err)
	}
	pids := map[string]int{}
	for _, p := range running {
		if other, ok := pids[p.program]; ok {
			u.t.Errorf("cluster %q runs %s twice: pids %d and %d", name, p.program, other, p.Pid)
		}
		pids[p.program] = int(p.Pid)
	}
	return pids
}

// podRuns creates a pod and waits until it is ready, which needs all components.
func (u user) podRuns(export, pod string) {
	u.t.Helper()
	u.kubectl(export, "run", pod, "--image=nginx")
	u.kubectl(export, "wait", "--for=condition=Ready", "pod/"+pod, "--timeout=60s")
}

func TestWrongUseIsOneLine(t *testing.T) {
	u := newUser(t)
	for _, test := range []struct {
		want string
		args []string
	}{
		{`unknown verb ""`, nil},
		{`unknown verb "start"`, []string{"start"}},
		{`flag provided but not defined: -nmae`, []string{"up", "--nmae=x"}},
		{`flag needs an argument: -name`, []string{"up", "--name"}},
		{`unexpected argument "x"`, []string{"down", "x"}},
		{`cannot be named "../x"`, []string{"down", "--name", "../x"}},
		{`cannot be named ""`, []string{"up", "--name="}},
		{`does not run`, []string{"status"}},
		{`has no running API server`, []string{"restart"}},
		{`--api-only is only for up`, []string{"restart", "--api-only"}},
	} {
		u.fails(test.want, test.args...)
	}
	if help := u.ok("help"); !strings.HasPrefix(help, "usage: ") {
		t.Errorf("help prints %q", help)
	}
}

func TestUpAndDown(t *testing.T) {
	u := newUser(t)
	config := filepath.Join(u.home, ".kube", "config")
	const theirs = "apiVersion: v1\nkind: Config\ncurrent-context: production\n"
	if err := errors.Join(os.Mkdir(filepath.Dir(config), 0o700), os.WriteFile(config, []byte(theirs), 0o600)); err != nil {
		t.Fatal(err)
	}
	u.env = append(u.env, "KUBECONFIG="+config)

	export := u.ok("up")
	if !strings.HasPrefix(export, "export KUBECONFIG=") || strings.Count(export, "\n") != 1 {
		t.Errorf("up prints %q, want one export line", export)
	}
	if status := u.ok("status"); !strings.Contains(status, `cluster "default" is ready`) {
		t.Errorf("status prints %q", status)
	}

	t.Run("versions", func(t *testing.T) {
		var v struct{ ClientVersion, ServerVersion struct{ GitVersion string } }
		if err := json.Unmarshal([]byte(u.kubectl(export, "version", "--output=json")), &v); err != nil {
			t.Fatal(err)
		}
		if want := kubernetes(); v.ClientVersion.GitVersion != want || v.ServerVersion.GitVersion != want {
			t.Errorf("kubectl version prints %+v, want %s twice", v, want)
		}
	})
	t.Run("loopback only", func(t *testing.T) {
		listening := 0
		for program, pid := range u.pids("default") {
			p, err := process.NewProcess(int32(pid))
			if err != nil {
				t.Fatal(err)
			}
			sockets, err := p.Connections()
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range sockets {
				if s.Status != "LISTEN" {
					continue
				}
				listening++
				if ip := net.ParseIP(s.Laddr.IP); !ip.IsLoopback() {
					t.Errorf("%s listens on %s", program, s.Laddr.IP)
				}
			}
		}
		if listening < len(components) {
			t.Errorf("found %d listening sockets, want at least one of each component", listening)
		}
	})
	t.Run("private files", func(t *testing.T) {
		dir := u.cluster("default").file()
		secrets, err := filepath.Glob(filepath.Join(dir, "pki", "*"))
		if err != nil || len(secrets) < 4 {
			t.Fatalf("found the keys and certificates %v, %v", secrets, err)
		}
		// No other user can open the first folder. The other modes protect the files
		// if someone changes that one.
		for path, want := range map[string]fs.FileMode{
			dir: 0o700, filepath.Join(dir, "etcd"): 0o700, u.cluster("default").kubeconfig(): 0o600,
			filepath.Join(dir, "logs", "audit.log"): 0o600,
		} {
			checkMode(t, path, want)
		}
		for _, path := range secrets {
			checkMode(t, path, 0o600)
		}
	})
	t.Run("a pod lives as on a kubelet", func(t *testing.T) { podLife(t, u, export) })
	t.Run("logs", func(t *testing.T) {
		u.podRuns(export, "silent")
		if got := u.kubectl(export, "logs", "silent"); got != "No container runs here: kwok only plays the kubelet, so there is no log.\n" {
			t.Errorf("kubectl logs prints %q", got)
		}
	})
	t.Run("audit log", func(t *testing.T) {
		u.kubectl(export, "get", "pods", "silent", "--output=name")
		u.kubectl(export, "get", "secrets")
		log, err := os.ReadFile(u.cluster("default").file("logs", "audit.log"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for line := range bytes.Lines(log) {
			var e struct {
				Verb, UserAgent string
				ObjectRef       struct{ Resource, Name string }
			}
			if err := json.Unmarshal(line, &e); err != nil || e.ObjectRef.Resource != "pods" {
				t.Errorf("a line that is not a request for pods: %q, %v", line, err)
			}
			found = found || e.Verb == "get" && e.ObjectRef.Name == "silent" && strings.HasPrefix(e.UserAgent, "kubectl/")
		}
		if !found {
			t.Errorf("kubectl get is not in the audit log:\n%s", log)
		}
	})
	t.Run("a job completes", func(t *testing.T) {
		u.kubectl(export, "create", "job", "once", "--image=busybox")
		u.kubectl(export, "wait", "--for=condition=Complete", "job/once", "--timeout=60s")
	})
	t.Run("a deployment scales", func(t *testing.T) {
		u.kubectl(export, "create", "deployment", "web", "--image=nginx", "--replicas=3")
		u.kubectl(export, "rollout", "status", "deployment/web", "--timeout=60s")
		u.kubectl(export, "scale", "deployment/web", "--replicas=1")
		u.kubectl(export, "wait", "--for=jsonpath={.status.replicas}=1", "deployment/web", "--timeout=60s")
	})
	t.Run("up again is the same cluster", func(t *testing.T) {
		before := u.pids("default")
		if again := u.ok("up"); again != export {
			t.Errorf("up prints %q, then %q", export, again)
		}
		if after := u.pids("default"); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("processes were %v and are %v", before, after)
		}
	})

	u.ok("down")
	if left := u.pids("default"); len(left) > 0 {
		t.Errorf("down leaves processes %v", left)
	}
	entries, err := os.ReadDir(u.cluster("").root)
	if err != nil || len(entries) != 1 || entries[0].Name() != "bin" {
		t.Errorf("down leaves %v, %v; want only bin", entries, err)
	}
	if got, err := os.ReadFile(config); string(got) != theirs {
		t.Errorf("the user's kubeconfig is now %q, %v", got, err)
	}
}

func checkMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
		t.Errorf("%s: %v, %v; want mode %v", path, info, err, want)
	}
}

// podLife compares the life of a pod with the life that was observed on a kubelet.
func podLife(t *testing.T, u user, export string) {
	watch := exec.CommandContext(t.Context(), "sh", "-c", `eval "$1"; exec kubectl get pods --field-selector metadata.name=nginx --watch --output-watch-events --output json`, "sh", export)
	watch.Env = u.env
	events, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	u.podRuns(export, "nginx")
	u.kubectl(export, "delete", "pod", "nginx")

	var got []string
	for decoder := json.NewDecoder(events); ; {
		var e struct {
			Type   string
			Object struct {
				Metadata struct {
					DeletionTimestamp          string
					DeletionGracePeriodSeconds *int
				}
				Spec   struct{ NodeName string }
				Status struct {
					Phase      string
					Conditions []struct{ Type, Status string }
				}
			}
		}
		if err := decoder.Decode(&e); err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		o := e.Object
		line := []string{e.Type, o.Spec.NodeName, o.Status.Phase}
		for _, c := range o.Status.Conditions {
			if c.Status == "True" && c.Type != "ContainersReady" {
				line = append(line, c.Type)
			}
		}
		slices.Sort(line[3:])
		if o.Metadata.DeletionTimestamp != "" {
			line = append(line, "grace "+strconv.Itoa(*o.Metadata.DeletionGracePeriodSeconds))
		}
		got = append(got, strings.Join(line, " "))
		if e.Type == "DELETED" {
			break
		}
	}
	want := []string{
		"ADDED  Pending",
		"MODIFIED node-0 Pending PodScheduled",
		"MODIFIED node-0 Pending Initialized PodScheduled",
		"MODIFIED node-0 Pending Initialized PodReadyToStartContainers PodScheduled",
		"MODIFIED node-0 Running Initialized PodReadyToStartContainers PodScheduled Ready",
		"MODIFIED node-0 Running Initialized PodReadyToStartContainers PodScheduled Ready grace 30",
		"MODIFIED node-0 Succeeded Initialized PodReadyToStartContainers PodScheduled grace 30",
		"MODIFIED node-0 Succeeded Initialized PodReadyToStartContainers PodScheduled grace 0",
		"DELETED node-0 Succeeded Initialized PodReadyToStartContainers PodScheduled grace 0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the pod's life:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestUpAfterKill(t *testing.T) {
	u := newUser(t)
	export := u.ok("up")
	for _, victims := range append([][]string{components}, slices.Collect(slices.Chunk(components, 1))...) {
		before := u.pids("default")
		for _, victim := range victims {
			if err := syscall.Kill(before[victim], syscall.SIGKILL); err != nil {
				t.Fatalf("killing %s: %v", victim, err)
			}
		}
		if again := u.ok("up"); again != export {
			t.Errorf("after a kill of %v up prints %q, was %q", victims, again, export)
		}
		for component, pid := range u.pids("default") {
			if killed := slices.Contains(victims, component); killed != (pid != before[component]) {
				t.Errorf("after a kill of %v: %s had pid %d, now %d", victims, component, before[component], pid)
			}
		}
		u.podRuns(export, fmt.Sprintf("after-%d-%s", len(victims), victims[0]))
	}
}

func TestRestart(t *testing.T) {
	u := newUser(t)
	export := u.ok("up")
	before := u.pids("default")
	if again := u.ok("restart"); again != export {
		t.Errorf("restart prints %q, up %q", again, export)
	}
	after := u.pids("default")
	if after["kube-apiserver"] == before["kube-apiserver"] {
		t.Errorf("processes %v: the API server was not replaced", after)
	}
	delete(before, "kube-apiserver")
	delete(after, "kube-apiserver")
	if fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("other processes %v, before %v", after, before)
	}
	u.podRuns(export, "after-restart")
}

// TestAPIOnly: etcd and the API server alone accept a pod, even after a crash of both, and
// the cluster keeps only these two.
func TestAPIOnly(t *testing.T) {
	u := newUser(t)
	up := []string{"up", "--api-only"}
	export := u.ok(up...)
	check := func(pod string) {
		t.Helper()
		u.kubectl(export, "run", pod, "--image=nginx")
		if running := u.pids("default"); len(running) != 2 || running["etcd"] == 0 || running["kube-apiserver"] == 0 {
			t.Errorf("it runs %v, want only etcd and kube-apiserver", running)
		}
		if status := u.ok("status"); !strings.Contains(status, `cluster "default" is ready`) {
			t.Errorf("status prints %q", status)
		}
	}
	check("first")
	u.fails("it was created with --api-only; ", "up")
	if again := u.ok(up...); again != export {
		t.Errorf("up prints %q, then %q", export, again)
	}
	check("again")
	if again := u.ok("restart"); again != export {
		t.Errorf("restart prints %q, up %q", again, export)
	}
	check("restarted")
	if err := u.cluster("default").kill(t.Context(), func(proc) bool { return true }); err != nil {
		t.Fatal(err)
	}
	u.fails("does not run", "status")
	if again := u.ok(up...); again != export {
		t.Errorf("after a kill up prints %q, was %q", again, export)
	}
	check("killed")
	if pods := u.kubectl(export, "get", "pods", "--output=name"); pods != "pod/again\npod/first\npod/killed\npod/restarted\n" {
		t.Errorf("the pods are %q", pods)
	}
	u.ok("down")
	u.ok("up")
	u.fails("it was created without --api-only; ", up...)
}

func TestStrangerBehindPIDFile(t *testing.T) {
	u := newUser(t)
	export := u.ok("up")
	stranger := exec.CommandContext(t.Context(), "sleep", "600")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- stranger.Wait() }()
	pidFile := u.cluster("default").pidFile("etcd")
	blame := func() {
		t.Helper()
		if err := os.WriteFile(pidFile, []byte(strconv.Itoa(stranger.Process.Pid)), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	if err := syscall.Kill(u.pids("default")["etcd"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	blame()
	u.ok("up")
	if u.pids("default")["etcd"] == 0 {
		t.Error("up mistook an unrelated process for etcd")
	}
	u.podRuns(export, "after-the-stranger")
	blame()
	u.ok("down")
	if left := u.pids("default"); len(left) > 0 {
		t.Errorf("down leaves processes %v", left)
	}
	select {
	case err := <-exited:
		t.Errorf("the unrelated process was killed: %v", err)
	default:
	}
}

func TestInterruptedStart(t *testing.T) {
	u := newUser(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		cmd := u.command("up")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for u.pids("default")["kube-apiserver"] == 0 {
			select {
			case err := <-ended:
				t.Fatalf("up exited before the API server started: %v: %s", err, stderr.String())
			default:
			}
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err == nil {
			t.Errorf("up succeeded despite %v", signal)
		}
		if signal == syscall.SIGKILL {
			continue // up is killed and cannot clean up; the next up does
		}
		if want := "cluster: interrupted; run the same command again to continue\n"; stderr.String() != want {
			t.Errorf("after %v stderr is %q, want %q", signal, stderr.String(), want)
		}
		if left := u.pids("default"); len(left) > 0 {
			t.Errorf("%v leaves processes %v", signal, left)
		}
	}
	u.podRuns(u.ok("up"), "after-all")
}

func TestUpsAtOnce(t *testing.T) {
	u := newUser(t)
	type result struct{ name, stdout, stderr string }
	names := []string{"default", "default", "other"}
	results := make(chan result)
	for _, name := range names {
		cmd := u.command("up", "--name", name)
		go func() {
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, _ := cmd.Output()
			results <- result{name, string(stdout), stderr.String()}
		}()
	}
	exports := map[string]string{}
	for range names {
		r := <-results
		if r.stdout == "" || (exports[r.name] != "" && exports[r.name] != r.stdout) {
			t.Errorf("up of %s prints %q, before %q; stderr %s", r.name, r.stdout, exports[r.name], r.stderr)
		}
		exports[r.name] = r.stdout
	}
	for name, export := range exports {
		if running := u.pids(name); len(running) != len(components) {
			t.Errorf("cluster %s runs %v", name, running)
		}
		u.podRuns(export, name)
		if pods := u.kubectl(export, "get", "pods", "--output=name"); pods != "pod/"+name+"\n" {
			t.Errorf("cluster %s has the pods %q", name, pods)
		}
	}
	u.ok("down", "--name", "other")
	if running := u.pids("default"); len(running) != len(components) {
		t.Errorf("after the other cluster was taken down, this one runs %v", running)
	}
}

func TestPortTaken(t *testing.T) {
	u := newUser(t)
	export := u.ok("up")
	for _, component := range []string{"kube-apiserver", "etcd"} {
		server, err := url.Parse(u.kubectl(export, "config", "view", "--minify", "--output=jsonpath={.clusters[0].cluster.server}"))
		if err != nil {
			t.Fatal(err)
		}
		address := server.Host
		if component == "etcd" {
			address = etcdAddress(t, u)
		}
		// As after a reboot: the cluster does not run, and another program has the port.
		if err := u.cluster("default").kill(t.Context(), func(proc) bool { return true }); err != nil {
			t.Fatal(err)
		}
		taken, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		u.fails(component+" exited: listen tcp "+address+": bind: address already in use", "up")
		if err := taken.Close(); err != nil {
			t.Fatal(err)
		}
		u.podRuns(u.ok("up"), "after-"+component)
	}
}

// etcdAddress returns the address at which the API server finds etcd.
func etcdAddress(t *testing.T, u user) string {
	p, err := process.NewProcess(int32(u.pids("default")["kube-apiserver"]))
	if err != nil {
		t.Fatal(err)
	}
	args, err := p.CmdlineSlice()
	if err != nil {
		t.Fatal(err)
	}
	for _, arg := range args {
		if address, ok := strings.CutPrefix(arg, "--etcd-servers=http://"); ok {
			return address
		}
	}
	t.Fatalf("no etcd address in %q", args)
	return ""
}

func TestUpgradeMakesTheClusterAnew(t *testing.T) {
	u := newUser(t)
	u.ok("up")
	before := u.pids("default")
	if err := os.WriteFile(u.cluster("default").file("made-with"), []byte("/of/last/year"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.podRuns(u.ok("up"), "anew")
	for component, pid := range u.pids("default") {
		if pid == before[component] {
			t.Errorf("%s of the old cluster still runs", component)
		}
	}
	u.ok("clean")
	if _, err := os.Stat(u.cluster("").root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("clean leaves %s: %v", u.cluster("").root, err)
	}
	if _, err := os.Stat(programs); err != nil {
		t.Errorf("clean followed a link out of its folder: %v", err)
	}
}
