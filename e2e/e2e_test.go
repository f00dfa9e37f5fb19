// Package e2e runs each chapter on a cluster (CLUSTER=auto, kind, local or current), creates and deletes
// an nginx pod beside it, and holds the lines to what Kubernetes guarantees of
// one pod: Add, then Updates, then Delete. How many Updates is not guaranteed.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"example.com/informers/internal/clusters"
	"example.com/informers/internal/program"
)

const (
	root    = ".."
	name    = "informers-e2e"
	timeout = time.Minute // for what takes seconds on an idle machine
)

var (
	update = flag.Bool("update", false, "write the outputs of the READMEs anew")

	binDir    string
	cluster   *clusters.Cluster
	namespace = "default"
	client    kubernetes.Interface
)

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "4") // the tests wait most of the time
	// ^C and SIGTERM end kind, and then the cluster is removed as after any run.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, m)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, m *testing.M) (code int, err error) {
	binDir, err = os.MkdirTemp("", "informers-e2e")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(binDir) }()
	if err := program.Build(root, binDir, program.Chapters); err != nil {
		return 1, err
	}

	c, err := clusters.Open(ctx, clusters.Options{Which: os.Getenv("CLUSTER"), Prefix: name, Log: os.Stderr})
	if err != nil {
		return 1, err
	}
	cluster = c
	defer func() { err = errors.Join(err, c.Close(context.WithoutCancel(ctx))) }()
	if client, err = c.Client(); err != nil {
		return 1, err
	}
	if c.Which == "current" { // a cluster that others use too
		namespace = name
		namespaces := client.CoreV1().Namespaces()
		if _, err := namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
			return 1, err
		}
		defer func() {
			err = errors.Join(err, namespaces.Delete(context.WithoutCancel(ctx), namespace, metav1.DeleteOptions{}))
		}()
	}
	// Without its service account the first pod of a namespace is refused.
	if err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, timeout, true, func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	}); err != nil {
		return 1, fmt.Errorf("wait for the service account: %w", err)
	}
	return m.Run(), ctx.Err()
}

// create makes a pod as kubectl run does.
func create(t *testing.T, name string) {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"run": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: name, Image: cluster.Nginx}}},
	}
	if _, err := client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// start runs a chapter as the README does, and gives it time for the sync.
func start(t *testing.T, chapter string, args ...string) *program.Program {
	t.Helper()
	args = append([]string{"--namespace", namespace}, args...)
	return program.Start(t, filepath.Join(binDir, chapter), []string{"KUBECONFIG=" + cluster.Kubeconfig, "KUBE_CACHE_MUTATION_DETECTOR=true"}, args...)
}

// TestChapters is one story for all chapters: a pod web is there before they
// start; nginx is created, becomes ready and is deleted while 03 to 05 run.
func TestChapters(t *testing.T) {
	t.Parallel()
	watcher := start(t, "05-resync", "--resync", "0")
	create(t, "web")
	watcher.Await(t, &watcher.Stdout, "phase Running, Ready", 2*timeout) // the image may have to be pulled
	watcher.Signal(t, syscall.SIGTERM, 2*time.Second)

	clientset := start(t, "01-clientset")
	factory := start(t, "02-factory")
	if code := clientset.End(t, timeout) + factory.End(t, timeout); code != 0 {
		t.Errorf("exit codes of 01 and 02: %d", code)
	}
	t.Run("01-clientset", func(t *testing.T) {
		check(t, clientset, `context \S+, server https://127\.0\.0\.1:\d+
connected to Kubernetes v\d+\.\d+\.\d+\S*
default/web is Running on node \S+
1 pods at resourceVersion \d+
`)
	})
	t.Run("02-factory", func(t *testing.T) {
		check(t, factory, `before start: 0 pods in the store
right after start: (0 pods in the store
then: )?1 pods in the store
`)
	})

	// All three see the same pod at the same time.
	running := map[string]*program.Program{}
	for _, chapter := range []string{"03-handlers", "04-sync", "05-resync"} {
		running[chapter] = start(t, chapter)
		// From here on an Add is not initial: 03 knows no better sign.
		running[chapter].Await(t, &running[chapter].Stdout, map[string]string{
			"03-handlers": "/web)\n", "04-sync": "cache is synced\n", "05-resync": "run\n",
		}[chapter], timeout)
	}
	create(t, "nginx")
	running["05-resync"].Await(t, &running["05-resync"].Stdout, "phase Running, Ready", timeout)
	if err := client.CoreV1().Pods(namespace).Delete(t.Context(), "nginx", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, p := range running {
		p.Await(t, &p.Stdout, "handleDelete is called for Pod (key: "+namespace+"/nginx)", timeout)
	}

	for _, chapter := range []string{"03-handlers", "04-sync"} {
		p := running[chapter]
		p.Signal(t, syscall.SIGINT, 2*time.Second)
	}
	t.Run("03-handlers", func(t *testing.T) {
		check(t, running["03-handlers"], `handleAdd is called for Pod \(key: default/web\)
handleAdd is called for Pod \(key: default/nginx\)
(handleUpdate is called for Pod \(key: default/nginx\)
)+handleDelete is called for Pod \(key: default/nginx\)
`)
	})
	t.Run("04-sync", func(t *testing.T) {
		check(t, running["04-sync"], `(store is synced
handleAdd is called for Pod \(key: default/web\)|handleAdd is called for Pod \(key: default/web\)
store is synced)
handler is synced
cache is synced
handleAdd is called for Pod \(key: default/nginx\)
(handleUpdate is called for Pod \(key: default/nginx\)
)+handleDelete is called for Pod \(key: default/nginx\)
`)
	})
	t.Run("05-resync", func(t *testing.T) {
		p := running["05-resync"]
		p.Await(t, &p.Stdout, "/web): resync, resourceVersion ", 35*time.Second)
		if took := time.Since(p.Started); took < 30*time.Second {
			t.Errorf("resync after %s, want 30 s or more", took)
		}
		p.Signal(t, syscall.SIGINT, 2*time.Second)
		check(t, p, `(store is synced
)?handleAdd is called for Pod \(key: default/web\): initial, phase Running, node \S+, .*Ready.*
(store is synced
)?handler is synced
cache is synced
run
(run
)*handleAdd is called for Pod \(key: default/nginx\): new, phase Pending, node \S+(, .*)?
((run|handleUpdate is called for Pod \(key: default/nginx\): \d+ → \d+(, .*)?)
)+handleDelete is called for Pod \(key: default/nginx\): tombstone=false
(run
)*handleUpdate is called for Pod \(key: default/web\): resync, resourceVersion \d+
(run
)*`)
		updates := regexp.MustCompile(`handleUpdate .*nginx\): (\d+) → (\d+).*`).FindAllStringSubmatch(p.Stdout.String(), -1)
		for _, want := range []string{", node ", ", phase Running", ", Ready", ", deletion"} {
			if !slices.ContainsFunc(updates, func(update []string) bool { return strings.Contains(update[0], want) }) {
				t.Errorf("no Update of nginx says %q:\n%s", want, &p.Stdout)
			}
		}
		for i, update := range updates {
			if update[1] == update[2] || i > 0 && update[1] != updates[i-1][2] {
				t.Errorf("%q does not go on where the Update before it ended", update[0])
			}
		}
	})
}

// TestDemo runs make demo's program as a whole, on this cluster.
func TestDemo(t *testing.T) {
	t.Parallel()
	output, err := demo(t)
	t.Log(output)
	if err != nil {
		t.Fatal(err)
	}
	checkReadme(t, ".", output)
}

// TestDemoFails: the demo is no show. With a chapter that says nothing of a
// delete it fails, and says what was missing.
func TestDemoFails(t *testing.T) {
	t.Parallel()
	flag := program.Overlay(t, root, t.TempDir(), "05-resync",
		"UpdateFunc: handleUpdate, DeleteFunc: handleDelete,", "UpdateFunc: handleUpdate,",
		"	handleDelete := func", "	_ = func")
	output, err := demo(t, "GOFLAGS="+flag)
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) || string(exit.Stderr) != "cluster: current (asked for)\ndemo: 05-resync did not print the Delete of nginx\n" {
		t.Errorf("%v, stderr:\n%s\nstdout:\n%s", err, exit.Stderr, output)
	}
}

func demo(t *testing.T, env ...string) (stdout string, err error) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "demo") // go run hides the exit code
	build := exec.Command("go", "build", "-o", binary, "./internal/demo")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Dir = root
	cmd.Env = slices.Concat(cluster.Env, []string{"CLUSTER=current"}, env)
	out, err := cmd.Output()
	return string(out), err
}

// check holds what p printed, and what its README shows, to a regular expression,
// and p to exit code 0.
func check(t *testing.T, p *program.Program, want string) {
	t.Helper()
	chapter := filepath.Base(p.Path)
	t.Logf("$ go run ./%s --namespace %s\n%s", chapter, namespace, &p.Stdout)
	if code := p.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d, stderr:\n%s", code, &p.Stderr)
	}
	match := regexp.MustCompile("^" + want + "$").MatchString
	output := strings.ReplaceAll(p.Stdout.String(), namespace+"/", "default/")
	if !match(output) {
		t.Errorf("printed:\n%swant:\n%s", output, want)
	}
	if shown := checkReadme(t, chapter, output); !match(shown) {
		t.Errorf("the README shows:\n%swant:\n%s", shown, want)
	}
}

// checkReadme returns the output under "Run it", which must be of a run like this
// one. What may differ from run to run is taken out on both sides.
func checkReadme(t *testing.T, chapter, output string) (shown string) {
	t.Helper()
	path := filepath.Join(root, chapter, "README.md")
	readme, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)(<!-- output of the e2e suite -->\n```text\n)(.*?)(```)")
	if *update {
		readme = block.ReplaceAll(readme, []byte("${1}"+strings.ReplaceAll(output, "$", "$$")+"${3}"))
		if err := os.WriteFile(path, readme, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found := block.FindSubmatch(readme)
	if found == nil {
		t.Fatalf("%s has no output", path)
	}
	if got, want := normal(string(found[2])), normal(output); got != want {
		t.Errorf("%s is not what a run prints: go test ./e2e -args -update\nit has:\n%s\na run:\n%s", path, got, want)
	}
	return string(found[2])
}

func TestNormal(t *testing.T) {
	for _, test := range []struct{ a, b string }{
		{"handleAdd … (key: demo-zd47l/web): initial, x", "handleAdd … (key: demo-9vdj2/web): initial, y"},
		{"run\nrun\nx: resync, resourceVersion 7", "x: resync, resourceVersion 812"},
		{"u: 1 → 2, Ready\nu: 2 → 3", "u: 4 → 9"},
	} {
		if normal(test.a) != normal(test.b) {
			t.Errorf("%q is not %q", normal(test.a), normal(test.b))
		}
	}
	for _, test := range []struct{ a, b string }{
		{"(key: demo-9vdj2/web): initial", "(key: demo-9vdj2/nginx): initial"},
		{"x: resync, resourceVersion 7", "x: relist, resourceVersion 7"},
		{"a\nb", "b\na"},
		{"tombstone=true", "tombstone=false"},
	} {
		if normal(test.a) == normal(test.b) {
			t.Errorf("%q and %q are both %q", test.a, test.b, normal(test.a))
		}
	}
}

// normal takes out of an output what no run can promise: names and numbers, the
// place of "store is synced", and how many runs and Updates there are of what.
func normal(output string) string {
	for _, rule := range []struct{ old, new string }{
		{`demo-[a-z0-9]+`, `demo-…`},
		{`store is synced\n`, ``},
		{`right after start: 1 .*\n`, "right after start: 0 pods in the store\nthen: 1 pods in the store\n"},
		{` → \d+.*`, ` → …`},
		{`: (new|initial), .*`, `: $1, …`},
		{`context \S+,`, `context …,`},
		{`node \S+`, `node …`},
		{`\d+(\.\d+)*`, `…`},
		{`--image \S+`, `--image …`},
		{`(?m)^pod.*\n`, ``}, // what kubectl says, at a time of its own
		{`(?m)^run\n`, ``},
	} {
		output = regexp.MustCompile(rule.old).ReplaceAllString(output, rule.new)
	}
	return strings.Join(slices.Compact(strings.Split(output, "\n")), "\n")
}
