package e2e

import (
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/e2e-framework/pkg/features"

	"example.com/informers/internal/outputs"
	"example.com/informers/internal/program"
)

const makeDemo = "make demo"

// TestOutputs runs what the chapters' READMEs show, as they say: a pod web is there
// before, and nginx is created, becomes ready and is deleted while 03 to 05 run. 06 writes to
// web; 07 and 08 delete nginx when its time is over.
func TestOutputs(t *testing.T) {
	t.Parallel()
	testenv.Test(t, features.New("the chapters' READMEs").WithLabel("part", "outputs").
		Assess("show what a run prints", step(runChapters)).
		Feature())
}

func runChapters(t *testing.T) {
	s := &scene{client: client, kubeconfig: cluster.Kubeconfig, namespace: metav1.NamespaceDefault}
	if cluster.Which == "current" {
		ns, err := newNamespace(t.Context(), t, client, "e2e")
		if err != nil {
			t.Fatal(err)
		}
		s.namespace = ns
	}
	s.record = watchPods(t, s.client, s.namespace)
	s.create(t, "web")
	defer func() {
		s.delete(t, "web")
		s.awaitGone(t, "web")
	}()
	s.awaitReady(t, "web")

	running := map[string]*scene{}
	commands := []string{makeDemo}
	begin := func(chapter string, args ...string) *scene {
		on := *s
		on.record = watchPods(t, s.client, s.namespace)
		on.chapter = s.start(t, chapter, args...)
		running[chapter] = &on
		commands = append(commands, runCommand(chapter))
		return &on
	}
	for _, chapter := range program.Chapters[:5] {
		begin(chapter)
	}
	for _, chapter := range []string{"01-clientset", "02-factory"} {
		if code := running[chapter].chapter.End(t, timeout); code != 0 {
			t.Errorf("%s: exit code %d", chapter, code)
		}
	}
	running["03-handlers"].awaitAdd(t, "web", timeout)
	running["04-sync"].awaitLine(t, "cache is synced")
	running["05-resync"].awaitLine(t, "run")
	s.create(t, "nginx")
	s.awaitReady(t, "nginx")
	s.delete(t, "nginx")
	for _, chapter := range []string{"03-handlers", "04-sync"} {
		running[chapter].awaitStep(t, deleted(s.key("nginx"), ".*"), timeout)
		running[chapter].interrupt(t)
	}
	running["05-resync"].awaitStep(t, updated(s.key("web"), ": resync, .*"), timeout)
	running["05-resync"].interrupt(t)
	// After those before: the kubelet may answer a write to web with its own write.
	lister := begin("06-lister", "--annotate", "web")
	lister.awaitLine(t, "the lister has read it")
	lister.awaitStep(t, updated(s.key("web"), ""), timeout)
	lister.interrupt(t)
	for _, chapter := range []string{"07-workqueue", "08-testing"} {
		on := begin(chapter)
		on.awaitLine(t, "cache is synced")
		on.createPod(t, withTTL(plain("nginx"), "10s"))
		on.awaitGone(t, "nginx")
		on.awaitDeletion(t, "nginx")
		on.interrupt(t)
	}

	for _, chapter := range program.Chapters {
		checkOutput(t, runCommand(chapter), strings.ReplaceAll(running[chapter].chapter.Stdout.String(), s.namespace+"/", "default/"))
	}
	blocks, err := outputs.Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		if b.Kind == "output" && !slices.Contains(commands, b.Command) {
			t.Errorf("%s: no test runs %s", b.File, b.Command)
		}
	}
}

func runCommand(chapter string) string {
	command := "go run ./" + chapter + " --namespace default"
	if chapter == "06-lister" {
		command += " --annotate web"
	}
	return command
}

// checkOutput holds what a README shows to what is printed today. With --update the
// README gets it.
func checkOutput(t *testing.T, command, printed string) {
	t.Helper()
	t.Logf("$ %s\n%s", command, printed)
	blocks, err := outputs.Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(blocks, func(b outputs.Block) bool { return b.Kind == "output" && b.Command == command })
	if i < 0 {
		t.Fatalf("no README shows %s", command)
	}
	if *update {
		err = blocks[i].Write(root, printed)
	} else {
		err = blocks[i].Check(printed)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	show := features.New("the demo").WithLabel("part", "demo").
		Assess("prints what the README shows", step(func(t *testing.T) {
			printed, err := demo(t)
			if err != nil {
				t.Errorf("make demo: %v\n%s", err, printed)
			}
			checkOutput(t, makeDemo, printed)
		}))
	noShow := features.New("the demo of a broken chapter").WithLabel("part", "demo").
		Assess("fails with a chapter that says nothing of a delete, and says so", step(func(t *testing.T) {
			flag := program.Overlay(t, root, t.TempDir(), "05-resync",
				"UpdateFunc: handleUpdate, DeleteFunc: handleDelete,", "UpdateFunc: handleUpdate,",
				"	handleDelete := func", "	_ = func")
			printed, err := demo(t, "GOFLAGS="+flag)
			stderr := ""
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				stderr = string(exit.Stderr)
			}
			if stderr != "cluster: current (asked for)\ndemo: 05-resync did not print the Delete of nginx\n" {
				t.Errorf("%v, stderr %q, printed:\n%s", err, stderr, printed)
			}
		}))
	testenv.TestInParallel(t, show.Feature(), noShow.Feature())
}

// demo runs make demo's program as a whole, on the suite's cluster.
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
