package older

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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

// TestMain is also the program that the tests of signals run: the function that the
// environment names.
func TestMain(m *testing.M) {
	switch os.Getenv("OLDER") {
	case "Stop":
		Stop(func(<-chan struct{}) {
			stacks := make([]byte, 1<<16)
			for !bytes.Contains(stacks, []byte("goroutine 1 [chan receive]")) { // until Stop waits
				runtime.Gosched()
				runtime.Stack(stacks, true)
			}
			fmt.Println("ready")
		})
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

// afterSignal runs a function, sends it a signal when it is ready, and returns what it printed then
// and how it ended.
func afterSignal(t *testing.T, name string, signal os.Signal) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "OLDER="+name)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatal("not ready: ", lines.Text())
	}
	if err := cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	printed := ""
	for lines.Scan() {
		printed += lines.Text() + ", "
	}
	_ = cmd.Wait() // killed by the signal, or not
	return printed + cmd.ProcessState.String()
}

// Kubernetes ends a container with SIGTERM.
func TestStopKnowsOnlyInterrupt(t *testing.T) {
	equal(t, "after SIGINT", afterSignal(t, "Stop", os.Interrupt), "cleaned up, exit status 0")
	equal(t, "after SIGTERM", afterSignal(t, "Stop", syscall.SIGTERM), "signal: terminated")
}

func TestStopNeverRunsNoDefer(t *testing.T) {
	equal(t, "after SIGINT", afterSignal(t, "StopNever", os.Interrupt), "signal: interrupt")
}

func TestLoadConfigIgnoresKUBECONFIG(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	kubeconfig := filepath.Join(home, "kubeconfig")
	t.Setenv("KUBECONFIG", kubeconfig)
	const text = "clusters: [{name: c, cluster: {server: 'https://c:6443'}}]\n" +
		"contexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x\n"
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args, flags := os.Args, flag.CommandLine
	defer func() { os.Args, flag.CommandLine = args, flags }()
	os.Args, flag.CommandLine = args[:1], flag.NewFlagSet("", flag.PanicOnError)
	_, err := LoadConfig()
	want := filepath.Join(home, ".kube", "config")
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want an error of %s", err, want)
	}
}

func TestClientWithoutConfigPanics(t *testing.T) {
	equal(t, "panics", panics(func() {
		NewClient(func() (*rest.Config, error) { return nil, errors.New("no such file") })
	}), true)
}

func TestIsGoneMissesAWrappedError(t *testing.T) {
	err := apierrors.NewNotFound(v1.Resource("pods"), "web")
	wrapped := fmt.Errorf("sync: %w", err)
	equal(t, "IsGone", IsGone(err), true)
	equal(t, "IsGone of a wrapped error", IsGone(wrapped), false)
	equal(t, "IsNotFound of a wrapped error", apierrors.IsNotFound(wrapped), true)
}

var web = &v1.Pod{ObjectMeta: metav1.ObjectMeta{
	Namespace: "default", Name: "web", ResourceVersion: "1",
}}

var tombstone = cache.DeletedFinalStateUnknown{Key: "default/web", Obj: web}

func TestDeleteHandlerPanicsOnATombstone(t *testing.T) {
	equal(t, "panics on a pod", panics(func() { Handlers().OnDelete(web) }), false)
	equal(t, "panics on a tombstone", panics(func() { Handlers().OnDelete(tombstone) }), true)
}

func TestDeletedKeyOfATombstoneIsEmpty(t *testing.T) {
	equal(t, "key of a pod", DeletedKey(web), "default/web")
	equal(t, "key of a tombstone", DeletedKey(tombstone), "")
}

func TestLabelInPlaceChangesTheStore(t *testing.T) {
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	equal(t, "error", store.Add(web.DeepCopy()), nil)
	LabelInPlace(store.List()[0])
	equal(t, "label in the store", store.List()[0].(*v1.Pod).Labels["test"], "test")
}

func TestQueueTakesTheSamePodTwice(t *testing.T) {
	queue := NewQueue()
	defer queue.ShutDown()
	queue.Add("default/web")
	queue.Add("default/web")
	equal(t, "length after a key twice", queue.Len(), 1)
	queue.Add(web)
	queue.Add(web.DeepCopy())
	equal(t, "length after a pod twice", queue.Len(), 3)
}

func TestSkipResyncSkipsWhatHasOneVersion(t *testing.T) {
	handled := 0
	handlers := SkipResync(func(*v1.Pod) { handled++ })
	handlers.OnUpdate(web, web)
	equal(t, "handled after a resync", handled, 0)
	written := web.DeepCopy()
	written.ResourceVersion = "2"
	handlers.OnUpdate(web, written)
	equal(t, "handled after a write", handled, 1)
}

func TestPollHidesTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		err := Poll(fake.NewSimpleClientset()) // has no pod
		equal(t, "waited", time.Since(begin), time.Minute)
		if err == nil || strings.Contains(err.Error(), "not found") {
			t.Errorf("error: %v", err)
		}
	})
}

func TestLogHasAVerbosityOfItsOwn(t *testing.T) {
	flags := flag.NewFlagSet("", flag.PanicOnError)
	klog.InitFlags(flags)
	equal(t, "error", flags.Set("v", "2"), nil)
	equal(t, "-v=2 for klog", bool(klog.V(2)), true)
	equal(t, "-v=2 for client-go", klogv2.V(2).Enabled(), false)
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
	equal(t, "waited for", len(factory.WaitForCacheSync(stop)), 0)
	equal(t, "synced", informer.HasSynced(), false)
}

func TestLateListerStaysEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		factory := informers.NewSharedInformerFactory(fake.NewSimpleClientset(web.DeepCopy()), 0)
		lister := LateLister(factory)
		time.Sleep(time.Hour)
		pods, err := lister.List(labels.Everything())
		equal(t, "error", err, nil)
		equal(t, "pods", len(pods), 0)
	})
}

func TestWatchErrorHandlerAfterStartIsRefused(t *testing.T) {
	factory, informer := scene()
	stop := make(chan struct{})
	defer close(stop)
	factory.Start(stop)
	Wait(informer, stop)
	equal(t, "an error", informer.SetWatchErrorHandler(func(*cache.Reflector, error) {}) != nil, true)
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

func panics(call func()) (panicked bool) {
	defer func() { panicked = recover() != nil }()
	call()
	return false
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}
