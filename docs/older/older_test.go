package older

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	applyv1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog"
	klogv2 "k8s.io/klog/v2"
)

const today = "v0.37.2"

// TestMain is also the program that the tests of signals run: the function that the
// environment names.
func TestMain(m *testing.M) {
	switch os.Getenv("OLDER") {
	case "Stop":
		Stop(func(<-chan struct{}) { fmt.Println("ready") })
		fmt.Println("cleaned up")
	case "StopNever":
		client := fake.NewSimpleClientset()
		factory := informers.NewSharedInformerFactory(client, 0)
		pods := factory.Core().V1().Pods().Informer()
		go func() {
			cache.WaitForCacheSync(make(chan struct{}), pods.HasSynced)
			fmt.Println("ready")
		}()
		StopNever(factory)
	default:
		os.Exit(m.Run())
	}
}

// afterSignal runs a function, sends it a signal when it is ready, and returns what it
// printed then.
func afterSignal(t *testing.T, name string, signal os.Signal) (printed string, exited bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "OLDER="+name)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatal("not ready: ", lines.Text())
	}
	if err := cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		printed += lines.Text()
	}
	_ = cmd.Wait() // killed by the signal, or not
	return printed, cmd.ProcessState.Exited()
}

// Kubernetes ends a container with SIGTERM.
func TestStopKnowsOnlyInterrupt(t *testing.T) {
	if printed, _ := afterSignal(t, "Stop", os.Interrupt); printed != "cleaned up" {
		t.Errorf("after SIGINT it printed %q", printed)
	}
	if printed, exited := afterSignal(t, "Stop", syscall.SIGTERM); printed != "" || exited {
		t.Errorf("after SIGTERM it printed %q, exited by itself: %t", printed, exited)
	}
}

func TestStopNeverRunsNoDefer(t *testing.T) {
	if printed, exited := afterSignal(t, "StopNever", os.Interrupt); printed != "" || exited {
		t.Errorf("after SIGINT it printed %q, exited by itself: %t", printed, exited)
	}
}

func TestLoadConfigIgnoresKUBECONFIG(t *testing.T) {
	dir := t.TempDir()
	cluster, user := filepath.Join(dir, "cluster"), filepath.Join(dir, "context")
	write(t, cluster, "clusters: [{name: c, cluster: {server: 'https://c:6443'}}]\n")
	write(t, user, "contexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x\n")
	t.Setenv("HOME", dir)
	t.Setenv("KUBECONFIG", cluster+string(filepath.ListSeparator)+user)
	args, flags := os.Args, flag.CommandLine
	defer func() { os.Args, flag.CommandLine = args, flags }()
	os.Args, flag.CommandLine = args[:1], flag.NewFlagSet("", flag.PanicOnError)
	_, err := LoadConfig()
	want := filepath.Join(dir, ".kube", "config")
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want an error of %s", err, want)
	}
}

func TestClientWithoutConfigPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	NewClient(func() (*rest.Config, error) { return nil, errors.New("no such file") })
}

func TestIsGoneMissesAWrappedError(t *testing.T) {
	err := apierrors.NewNotFound(v1.Resource("pods"), "web")
	if !IsGone(err) {
		t.Error("a plain error is missed")
	}
	wrapped := fmt.Errorf("sync: %w", err)
	if IsGone(wrapped) || !apierrors.IsNotFound(wrapped) {
		t.Error("a wrapped error is not missed, or by IsNotFound too")
	}
}

var web = &v1.Pod{ObjectMeta: metav1.ObjectMeta{
	Namespace: "default", Name: "web", ResourceVersion: "1",
}}

var tombstone = cache.DeletedFinalStateUnknown{Key: "default/web", Obj: web}

func TestDeleteHandlerPanicsOnATombstone(t *testing.T) {
	Handlers().OnDelete(web)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Handlers().OnDelete(tombstone)
}

func TestDeletedKeyOfATombstoneIsEmpty(t *testing.T) {
	if key := DeletedKey(web); key != "default/web" {
		t.Errorf("key of a pod: %q", key)
	}
	if key := DeletedKey(tombstone); key != "" {
		t.Errorf("key of a tombstone: %q", key)
	}
}

func TestLabelInPlaceChangesTheStore(t *testing.T) {
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	if err := store.Add(web.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	LabelInPlace(store.List()[0])
	if labels := store.List()[0].(*v1.Pod).Labels; labels["test"] != "test" {
		t.Errorf("labels in the store: %v", labels)
	}
}

func TestQueueTakesTheSamePodTwice(t *testing.T) {
	queue := NewQueue()
	defer queue.ShutDown()
	queue.Add("default/web")
	queue.Add("default/web")
	if queue.Len() != 1 {
		t.Errorf("a key twice: %d", queue.Len())
	}
	queue.Add(web)
	queue.Add(web.DeepCopy())
	if queue.Len() != 3 {
		t.Errorf("and a pod twice: %d", queue.Len())
	}
}

func TestSkipResyncSkipsWhatHasOneVersion(t *testing.T) {
	handled := 0
	handlers := SkipResync(func(*v1.Pod) { handled++ })
	handlers.OnUpdate(web, web)
	if handled != 0 {
		t.Error("a resync is handled")
	}
	written := web.DeepCopy()
	written.ResourceVersion = "2"
	handlers.OnUpdate(web, written)
	if handled != 1 {
		t.Error("a write is not handled")
	}
}

func TestPollHidesTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		err := Poll(fake.NewSimpleClientset()) // has no pod
		if waited := time.Since(begin); waited != time.Minute {
			t.Errorf("waited %s", waited)
		}
		if err == nil || strings.Contains(err.Error(), "not found") {
			t.Errorf("error: %v", err)
		}
	})
}

func TestLogHasAVerbosityOfItsOwn(t *testing.T) {
	flags := flag.NewFlagSet("", flag.PanicOnError)
	klog.InitFlags(flags)
	if err := flags.Set("v", "2"); err != nil {
		t.Fatal(err)
	}
	if !bool(klog.V(2)) || klogv2.V(2).Enabled() {
		t.Error("-v=2 of klog is the verbosity of client-go too")
	}
}

func TestOldFakeCannotApply(t *testing.T) {
	pod := applyv1.Pod("web", "default")
	options := metav1.ApplyOptions{FieldManager: "test"}
	_, err := NewFake().CoreV1().Pods("default").Apply(context.Background(), pod, options)
	t.Log(err)
	if err == nil {
		t.Error("it can")
	}
}

// scene is a factory over a fake clientset with one pod.
func scene() (informers.SharedInformerFactory, cache.SharedIndexInformer) {
	factory := informers.NewSharedInformerFactory(fake.NewSimpleClientset(web.DeepCopy()), 0)
	return factory, factory.Core().V1().Pods().Informer()
}

// With `go factory.Start` the wait may come first.
func TestWaitBeforeStartWaitsForNothing(t *testing.T) {
	factory, informer := scene()
	stop := make(chan struct{})
	defer close(stop)
	if waited := factory.WaitForCacheSync(stop); len(waited) != 0 || informer.HasSynced() {
		t.Errorf("waited for %v, synced: %t", waited, informer.HasSynced())
	}
}

func TestLateListerStaysEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		factory := informers.NewSharedInformerFactory(fake.NewSimpleClientset(web.DeepCopy()), 0)
		lister := LateLister(factory)
		time.Sleep(time.Hour)
		if pods, err := lister.List(labels.Everything()); err != nil || len(pods) != 0 {
			t.Errorf("%d pods, %v", len(pods), err)
		}
	})
}

func TestWatchErrorHandlerAfterStartIsRefused(t *testing.T) {
	factory, informer := scene()
	stop := make(chan struct{})
	defer close(stop)
	factory.Start(stop)
	Wait(informer, stop)
	if err := informer.SetWatchErrorHandler(func(*cache.Reflector, error) {}); err == nil {
		t.Error("no error")
	}
	OnWatchError(informer) // says nothing
}

func TestStopDoesNotWaitForHandlers(t *testing.T) {
	factory, informer := scene()
	begun, release, end := make(chan struct{}), make(chan struct{}), make(chan struct{})
	AddHandlers(informer, cache.ResourceEventHandlerFuncs{AddFunc: func(interface{}) {
		close(begun)
		<-release
		close(end)
	}})
	stop := make(chan struct{})
	factory.Start(stop)
	<-begun
	StopInformers(stop)
	select {
	case <-end:
		t.Error("the handler has returned")
	default: // main would return now
	}
	close(release)
	<-end
}

// TestToday: the same code compiles with today's client-go, and the same goes wrong.
func TestToday(t *testing.T) {
	skipToday(t)
	for mod, want := range map[string]string{"go.mod": "v0.22.17", "go.v0.37.mod": today} {
		list := exec.Command("go", "list", "-modfile", mod, "-m", "-f", "{{.Version}}", "k8s.io/client-go")
		out, err := list.Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%s has client-go %s, want %s (%v)", mod, got, want, err)
		}
	}
	cmd := exec.Command("go", "test", "-modfile=go.v0.37.mod", ".")
	cmd.Env = append(os.Environ(), "OLDER=today")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestNoContext: the code before client-go v0.18 compiles with its client-go, and not with today's.
func TestNoContext(t *testing.T) {
	skipToday(t)
	cmd := exec.Command("go", "test", ".")
	cmd.Dir = "nocontext"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	source, err := os.ReadFile("nocontext/list.go")
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "list.go")
	write(t, list, string(source))
	out, err := exec.Command("go", "vet", "-modfile=go.v0.37.mod", list).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not enough arguments") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestGoFix: the go command itself brings two of the old forms up to date.
func TestGoFix(t *testing.T) {
	skipToday(t)
	out, _ := exec.Command("go", "fix", "-diff", ".").Output() // fails if there is something to fix
	for _, line := range []string{"+\t\tDeleteFunc: func(obj any) {", "+\tdata, err := os.ReadFile("} {
		if !strings.Contains(string(out), "\n"+line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
}

// TestSince: each of today's forms is in the version that the page names, and not in the one
// before it.
func TestSince(t *testing.T) {
	skipToday(t)
	// One of each minor version.
	newest := map[int]string{
		17: "v0.17.17", 18: "v0.18.19", 25: "v0.25.9", 26: "v0.26.9", 27: "v0.27.3", 30: "v0.30.14",
		31: "v0.31.14", 32: "v0.32.13", 33: "v0.33.13", 35: "v0.35.10", 36: "v0.36.6", 37: today,
	}
	dirs := map[string]string{}
	has := func(module string, minor int, file, text string) bool {
		at := "k8s.io/" + module + "@" + newest[minor]
		if dirs[at] == "" {
			dirs[at] = moduleDir(t, at)
		}
		source, err := os.ReadFile(filepath.Join(dirs[at], file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a file may be new, too
			t.Fatal(err)
		}
		return strings.Contains(string(source), text)
	}
	const oldest = 17
	for _, form := range forms {
		before := form.since > oldest && has(form.module, form.since-1, form.file, form.text)
		if before || !has(form.module, form.since, form.file, form.text) {
			t.Errorf("%s: %q did not come with v0.%d", form.file, form.text, form.since)
		}
	}
}

var forms = []struct {
	module, file, text string
	since              int
}{
	{"client-go", "tools/clientcmd/client_config.go", "ClientConfigLoadingRules", 17}, // or older
	{"client-go", "informers/factory.go", "func NewSharedInformerFactoryWithOptions(", 17},
	{"apimachinery", "pkg/util/wait/wait.go", "func UntilWithContext(", 17},
	{"client-go", "kubernetes/typed/core/v1/pod.go", "List(ctx context.Context", 18},
	{"client-go", "informers/factory.go", "Shutdown()", 26},
	{"client-go", "tools/cache/shared_informer.go", "(ResourceEventHandlerRegistration, error)", 26},
	{"apimachinery", "pkg/util/wait/poll.go", "func PollUntilContextTimeout(", 27},
	{"client-go", "tools/cache/controller.go", "func NewInformerWithOptions(", 31},
	{"client-go", "util/workqueue/rate_limiting_queue.go", "func NewTypedRateLimitingQueue[", 31},
	{"client-go", "kubernetes/fake/clientset_generated.go", "func NewClientset(", 31},
	{"apimachinery", "pkg/util/runtime/runtime.go", "func HandleErrorWithContext(", 31},
	{"client-go", "tools/cache/shared_informer.go", "RunWithContext(", 33},
	{"client-go", "tools/cache/shared_informer.go", "SetWatchErrorHandlerWithContext(", 33},
	{"client-go", "informers/factory.go", "StartWithContext(", 36},
	{"client-go", "tools/cache/shared_informer.go", "HasSyncedChecker()", 36},
	{"client-go", "tools/cache/shared_informer.go", "AddTypedEventHandler(", 37},
	{"client-go", "discovery/discovery_client.go", "ServerVersionWithContext(", 37},
}

// skipToday skips what does not depend on the client-go that it is compiled with.
func skipToday(t *testing.T) {
	t.Helper()
	if os.Getenv("OLDER") == "today" {
		t.Skip("done with the other client-go")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCommentSaidThatAResyncLists: where the most common mistake comes from.
func TestCommentSaidThatAResyncLists(t *testing.T) {
	skipToday(t)
	const comment = "lists will be executed after every\n// resyncPeriod"
	for version, want := range map[string]bool{"v0.17.17": true, "v0.22.17": false, today: false} {
		dir := moduleDir(t, "k8s.io/client-go@"+version)
		source, err := os.ReadFile(filepath.Join(dir, "tools/cache/reflector.go"))
		if got := strings.Contains(string(source), comment); err != nil || got != want {
			t.Errorf("%s: %t, want %t (%v)", version, got, want, err)
		}
	}
}

// TestFakeWasDeprecatedForAWhile: the only note was in capitals, which no linter reads.
func TestFakeWasDeprecatedForAWhile(t *testing.T) {
	skipToday(t)
	for version, want := range map[string]bool{
		"v0.30.14": false, "v0.31.14": true, "v0.33.13": true, "v0.35.10": false, today: false,
	} {
		dir := moduleDir(t, "k8s.io/client-go@"+version)
		source, err := os.ReadFile(filepath.Join(dir, "kubernetes/fake/clientset_generated.go"))
		if got := strings.Contains(string(source), "DEPRECATED: NewClientset"); err != nil || got != want {
			t.Errorf("%s: %t, want %t (%v)", version, got, want, err)
		}
	}
}

// moduleDir is where the source of a module lies.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.Command("go", "mod", "download", "-json", module).Output()
	var info struct{ Dir string }
	if err := errors.Join(err, json.Unmarshal(out, &info)); err != nil {
		t.Fatal(module, err)
	}
	return info.Dir
}
