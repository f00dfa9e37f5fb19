package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
		programs, err = build(context.Background(), root, true, false)
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "building the programs that the tests run:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// A user has a separate home folder and cache folder, and the built programs in the
// cache folder. The cluster is the one named "default".
type user struct {
	cluster
	t    *testing.T
	home string
	env  []string
}

func newUser(t *testing.T) user {
	t.Helper()
	home := t.TempDir()
	u := user{
		cluster{root: filepath.Join(home, "cache", "informers-cluster"), name: "default"}, t, home,
		[]string{asProgram + "=1", "HOME=" + home, "XDG_CACHE_HOME=" + home + "/cache", "PATH=" + os.Getenv("PATH")},
	}
	bin := filepath.Join(u.root, "bin")
	if err := errors.Join(os.MkdirAll(u.root, 0o700), os.Symlink(filepath.Dir(programs), bin)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dirs, _ := filepath.Glob(filepath.Join(u.root, "clusters", "*"))
		for _, dir := range dirs {
			if err := (cluster{root: u.root, name: filepath.Base(dir)}).remove(context.Background()); err != nil {
				t.Errorf("removing a test's cluster: %v", err)
			}
		}
	})
	return u
}

func (u user) command(args string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	u.t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, os.Args[0], strings.Fields(args)...)
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd.Env, cmd.Stdout, cmd.Stderr = u.env, stdout, stderr
	return cmd, stdout, stderr
}

// ok runs the program, which must succeed, and returns its stdout.
func (u user) ok(args string) string {
	u.t.Helper()
	cmd, stdout, stderr := u.command(args)
	if err := cmd.Run(); err != nil {
		u.t.Fatalf("%s: %v: %s", args, err, stderr)
	}
	return stdout.String()
}

// fails runs the program, which must fail with one line on stderr that contains want.
// The progress of a build may come before it.
func (u user) fails(want, args string) {
	u.t.Helper()
	cmd, stdout, stderr := u.command(args)
	_ = cmd.Run()
	code := cmd.ProcessState.ExitCode()
	before, line, _ := strings.Cut(stderr.String(), "cluster: ")
	if before != "" && !strings.HasPrefix(before, "downloading ") || strings.Count(line, "\n") != 1 ||
		code != 1 || stdout.Len() > 0 || !strings.Contains(line, want) {
		u.t.Errorf("%s: exit code %d, stdout %q, stderr %q; want code 1 and one line on stderr with %q",
			args, code, stdout, stderr, want)
	}
	u.t.Logf("%s: %s", args, line)
}

// kubectl runs kubectl on the cluster, in a shell that has evaluated up's line.
func (u user) kubectl(export, args string) string {
	u.t.Helper()
	cmd := exec.CommandContext(u.t.Context(), "sh", "-c", export+"kubectl "+args)
	cmd.Env = u.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		u.t.Fatalf("kubectl %s: %v: %s", args, err, out)
	}
	return string(out)
}

// pids returns the pid of each program of a cluster.
func (u user) pids(name string) map[string]int {
	u.t.Helper()
	running, err := cluster{root: u.root, name: name}.processes(context.Background())
	if err != nil {
		u.t.Fatal(err)
	}
	pids := map[string]int{}
	for _, p := range running {
		// A kwokctl has a copy for a moment, when it starts a component.
		if other, ok := pids[p.program]; ok && slices.Contains(components, p.program) {
			u.t.Errorf("cluster %q runs %s twice: pids %d and %d", name, p.program, other, p.Pid)
		}
		pids[p.program] = int(p.Pid)
	}
	return pids
}

// podRuns creates a pod and waits until it is ready, which needs all components.
func (u user) podRuns(export, pod string) {
	u.t.Helper()
	u.kubectl(export, "run "+pod+" --image=nginx")
	u.kubectl(export, "wait --for=condition=Ready --timeout=60s pod/"+pod)
}

// again runs up or restart after harm, and checks that it prints the same line and
// replaces these components, and no others.
func (u user) again(export, verb string, harm func(pids map[string]int), replaced ...string) {
	u.t.Helper()
	before := u.pids("default")
	harm(before)
	if got := u.ok(verb); got != export {
		u.t.Errorf("%s prints %q, the first up %q", verb, got, export)
	}
	after := u.pids("default")
	for _, component := range components {
		if after[component] == 0 || slices.Contains(replaced, component) != (after[component] != before[component]) {
			u.t.Errorf("after %s, which should replace %v: %s had pid %d, now %d",
				verb, replaced, component, before[component], after[component])
		}
	}
	u.podRuns(export, fmt.Sprintf("again-%d", time.Now().UnixNano()))
}

// crash kills all processes of the cluster, as a reboot does.
func (u user) crash() {
	u.t.Helper()
	if err := u.kill(u.t.Context(), func(proc) bool { return true }); err != nil {
		u.t.Fatal(err)
	}
}

func TestWrongUseIsOneLine(t *testing.T) {
	u := newUser(t)
	for args, want := range map[string]string{
		"":                   `unknown verb ""`,
		"start":              `unknown verb "start"`,
		"up --nmae=x":        `flag provided but not defined: -nmae`,
		"up --name":          `flag needs an argument: -name`,
		"down x":             `unexpected argument "x"`,
		"down --name ../x":   `cannot be named "../x"`,
		"up --name=":         `cannot be named ""`,
		"status":             `does not run`,
		"restart":            `has no running API server`,
		"restart --api-only": `--api-only is only for up`,
		"down --download":    `--download is only for up`,
	} {
		u.fails(want, args)
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
		if got := u.kubectl(export, "version"); strings.Count(got, " Version: "+kubernetes()+"\n") != 2 {
			t.Errorf("kubectl version prints %q, want %s twice", got, kubernetes())
		}
	})
	t.Run("loopback only", func(t *testing.T) { loopbackOnly(t, u) })
	t.Run("private files", func(t *testing.T) { privateFiles(t, u) })
	u.podRuns(export, "silent")
	t.Run("a pod lives as on a kubelet", func(t *testing.T) { podLife(t, u, export) })
	t.Run("logs", func(t *testing.T) {
		if got := u.kubectl(export, "logs silent"); got != "No container runs here: kwok only plays the kubelet, so there is no log.\n" {
			t.Errorf("kubectl logs prints %q", got)
		}
	})
	t.Run("audit log", func(t *testing.T) {
		u.kubectl(export, "get pods silent")
		u.kubectl(export, "get secrets")
		log, err := os.ReadFile(u.file("logs", "audit.log"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(log)) {
			if !strings.Contains(line, `"objectRef":{"resource":"pods"`) {
				t.Errorf("a line that is not a request for pods: %q", line)
			}
		}
		if !regexp.MustCompile(`"verb":"get",.*"userAgent":"kubectl/.*"name":"silent"`).Match(log) {
			t.Errorf("kubectl get is not in the audit log:\n%s", log)
		}
	})
	t.Run("controllers", func(t *testing.T) {
		for _, args := range []string{
			"create job once --image=busybox",
			"wait --for=condition=Complete job/once --timeout=60s",
			"create deployment web --image=nginx --replicas=3",
			"rollout status deployment/web --timeout=60s",
			"scale deployment/web --replicas=1",
			"wait --for=jsonpath={.status.replicas}=1 deployment/web --timeout=60s",
		} {
			u.kubectl(export, args)
		}
	})

	kill := func(victims ...string) func(map[string]int) {
		return func(pids map[string]int) {
			for _, victim := range victims {
				if err := syscall.Kill(pids[victim], syscall.SIGKILL); err != nil {
					t.Fatalf("killing %s: %v", victim, err)
				}
			}
		}
	}
	u.again(export, "up", kill())
	u.again(export, "restart", kill(), "kube-apiserver")
	u.again(export, "up", kill(components...), components...)
	for _, victim := range components {
		u.again(export, "up", kill(victim), victim)
	}

	// etcd's pid file names an unrelated process.
	stranger := exec.CommandContext(t.Context(), "sleep", "600")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- stranger.Wait() }()
	blame := func() {
		if err := os.WriteFile(u.pidFile("etcd"), []byte(strconv.Itoa(stranger.Process.Pid)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	u.again(export, "up", func(pids map[string]int) { kill("etcd")(pids); blame() }, "etcd")
	blame()
	u.ok("down")
	select {
	case err := <-exited:
		t.Errorf("the unrelated process was killed: %v", err)
	default:
	}

	if left := u.pids("default"); len(left) > 0 {
		t.Errorf("down leaves processes %v", left)
	}
	entries, err := os.ReadDir(u.root)
	if err != nil || len(entries) != 1 || entries[0].Name() != "bin" {
		t.Errorf("down leaves %v, %v; want only bin", entries, err)
	}
	if got, err := os.ReadFile(config); string(got) != theirs {
		t.Errorf("the user's kubeconfig is now %q, %v", got, err)
	}
}

func loopbackOnly(t *testing.T, u user) {
	for program, pid := range u.pids("default") {
		p, err := process.NewProcess(int32(pid))
		if err != nil {
			t.Fatal(err)
		}
		sockets, err := p.Connections()
		if err != nil {
			t.Fatal(err)
		}
		listening := 0
		for _, s := range sockets {
			if s.Status != "LISTEN" {
				continue
			}
			listening++
			if !net.ParseIP(s.Laddr.IP).IsLoopback() {
				t.Errorf("%s listens on %s", program, s.Laddr.IP)
			}
		}
		if listening == 0 {
			t.Errorf("%s listens nowhere", program)
		}
	}
}

// privateFiles: no other user can open the cluster's folder. The other modes protect
// the secrets in it if someone changes that one.
func privateFiles(t *testing.T, u user) {
	paths, err := filepath.Glob(u.file("pki", "*"))
	if err != nil || len(paths) < 4 {
		t.Fatalf("found the keys and certificates %v, %v", paths, err)
	}
	for _, path := range append(paths, u.file(), u.file("etcd"), u.kubeconfig(), u.file("logs", "audit.log")) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v; want no access for others", path, info, err)
		}
	}
}

// podLife compares the life of a pod with the life that was observed on a kubelet.
func podLife(t *testing.T, u user, export string) {
	const line = `{{.object.metadata.name}} {{.type}} {{or .object.spec.nodeName "-"}} {{.object.status.phase}}` +
		`{{range .object.status.conditions}}{{if eq .status "True"}} {{.type}}{{end}}{{end}}` +
		`{{with .object.metadata}}{{if .deletionTimestamp}} grace {{.deletionGracePeriodSeconds}}{{end}}{{end}}{{"\n"}}`
	watch := exec.CommandContext(t.Context(), "sh", "-c", export+
		`exec kubectl get pods --watch --output-watch-events --output go-template='`+line+`'`)
	watch.Env = u.env
	stdout, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() { // the watch has begun: it shows the other pod
		t.Fatal("kubectl get --watch prints nothing")
	}
	u.podRuns(export, "nginx")
	u.kubectl(export, "delete pod nginx")
	got := ""
	for !strings.Contains(got, "DELETED") && lines.Scan() {
		if event, ok := strings.CutPrefix(lines.Text(), "nginx "); ok {
			got += event + "\n"
		}
	}
	const want = `ADDED - Pending
MODIFIED node-0 Pending PodScheduled
MODIFIED node-0 Pending Initialized PodScheduled
MODIFIED node-0 Pending PodReadyToStartContainers Initialized PodScheduled
MODIFIED node-0 Running PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled
MODIFIED node-0 Running PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled grace 30
MODIFIED node-0 Succeeded PodReadyToStartContainers Initialized PodScheduled grace 30
MODIFIED node-0 Succeeded PodReadyToStartContainers Initialized PodScheduled grace 0
DELETED node-0 Succeeded PodReadyToStartContainers Initialized PodScheduled grace 0
`
	if got != want {
		t.Errorf("the pod's life:\n%swant:\n%s", got, want)
	}
}

// TestAPIOnly: etcd and the API server alone accept a pod, even after a crash of both, and
// the cluster keeps only these two.
func TestAPIOnly(t *testing.T) {
	u := newUser(t)
	export := u.ok("up --api-only")
	check := func(pod string) {
		t.Helper()
		u.kubectl(export, "run "+pod+" --image=nginx")
		if running := u.pids("default"); len(running) != 2 || running["etcd"] == 0 || running["kube-apiserver"] == 0 {
			t.Errorf("it runs %v, want only etcd and kube-apiserver", running)
		}
		if status := u.ok("status"); !strings.Contains(status, `cluster "default" is ready`) {
			t.Errorf("status prints %q", status)
		}
	}
	check("first")
	u.fails("it was created with --api-only; ", "up")
	for _, step := range []string{"up --api-only", "restart", "crash"} {
		if step == "crash" {
			u.crash()
			u.fails("does not run", "status")
			step = "up --api-only"
		}
		if again := u.ok(step); again != export {
			t.Errorf("%s prints %q, the first up %q", step, again, export)
		}
		check(strings.Fields(step)[0] + strconv.Itoa(len(u.kubectl(export, "get pods"))))
	}
	if pods := u.kubectl(export, "get pods --output=name"); strings.Count(pods, "pod/") != 4 {
		t.Errorf("the pods are %q", pods)
	}
	u.ok("down")
	u.ok("up")
	u.fails("it was created without --api-only; ", "up --api-only")
}

func TestInterruptedStart(t *testing.T) {
	u := newUser(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		cmd, _, stderr := u.command("up")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for u.pids("default")["kube-apiserver"] == 0 {
			select {
			case err := <-ended:
				t.Fatalf("up exited before the API server started: %v: %s", err, stderr)
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
			t.Errorf("after %v stderr is %q, want %q", signal, stderr, want)
		}
		if left := u.pids("default"); len(left) > 0 {
			t.Errorf("%v leaves processes %v", signal, left)
		}
		if _, err := os.Stat(u.file()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v leaves files: %v", signal, err)
		}
	}
	u.podRuns(u.ok("up"), "after-all")
}

func TestUpsAtOnce(t *testing.T) {
	u := newUser(t)
	names := []string{"default", "default", "other"}
	exports := make([]string, len(names))
	ended := make(chan bool)
	for i, name := range names {
		cmd, stdout, stderr := u.command("up --name " + name)
		go func() {
			if err := cmd.Run(); err != nil {
				t.Errorf("up of %s: %v: %s", name, err, stderr)
			}
			exports[i] = stdout.String()
			ended <- true
		}()
	}
	for range names {
		<-ended
	}
	if exports[0] != exports[1] || exports[0] == exports[2] {
		t.Errorf("up of %q prints %q", names, exports)
	}
	for i, name := range names[1:] {
		if running := u.pids(name); len(running) != len(components) {
			t.Errorf("cluster %s runs %v", name, running)
		}
		u.podRuns(exports[i+1], name)
		if pods := u.kubectl(exports[i+1], "get pods --output=name"); pods != "pod/"+name+"\n" {
			t.Errorf("cluster %s has the pods %q", name, pods)
		}
	}
	u.ok("down --name other")
	if running := u.pids("default"); len(running) != len(components) {
		t.Errorf("after the other cluster was taken down, this one runs %v", running)
	}
}

// TestReboot: the cluster does not run, and another program has one of its ports, or
// this program has other versions now. At the end all is cleaned.
func TestReboot(t *testing.T) {
	u := newUser(t)
	export := u.ok("up")
	server, err := url.Parse(u.kubectl(export, "config view --minify --output=jsonpath={.clusters[0].cluster.server}"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := process.NewProcess(int32(u.pids("default")["kube-apiserver"]))
	if err != nil {
		t.Fatal(err)
	}
	args, _ := p.Cmdline()
	etcd := regexp.MustCompile(`--etcd-servers=http://(\S+)`).FindStringSubmatch(args)
	if etcd == nil {
		t.Fatalf("no etcd address in %q", args)
	}
	for component, address := range map[string]string{"kube-apiserver": server.Host, "etcd": etcd[1]} {
		u.crash()
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

	before := u.pids("default")
	if err := os.WriteFile(u.file("made-with"), []byte("/of/last/year"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.podRuns(u.ok("up"), "created-again")
	for component, pid := range u.pids("default") {
		if pid == before[component] {
			t.Errorf("%s of the old cluster still runs", component)
		}
	}
	u.ok("clean")
	if _, err := os.Stat(u.root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("clean leaves %s: %v", u.root, err)
	}
	if _, err := os.Stat(programs); err != nil {
		t.Errorf("clean followed a link out of its folder: %v", err)
	}
}
