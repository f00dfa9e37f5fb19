package proofs

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/features"
	featurestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"example.com/informers/internal/readmes"
)

var update = flag.Bool("update", false, "rewrite what the pages show")

// shown compares what the page shows for this test with text.
func shown(t *testing.T, text string) {
	t.Helper()
	readmes.Shown(t, "../..", text, *update)
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// pod has a resourceVersion, which the fake clientset does not set.
func pod(name string, resourceVersion int) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: name, ResourceVersion: strconv.Itoa(resourceVersion),
	}}
}

// A scene is an informer of pods in a bubble of virtual time, where times are exact.
type scene struct {
	*server // nil if the scene has another client
	factory informers.SharedInformerFactory
	pods    corev1informers.PodIndexInformer
	lister  corev1listers.PodLister
	began   time.Time
	calls   []string // of the handler that record adds
	told    []error  // what the watch error handler got
}

// play acts with an informer over a server. The act starts it.
func play(
	t *testing.T, s *server, act func(*testing.T, *scene), options ...informers.SharedInformerOption,
) {
	t.Helper()
	client, err := kubernetes.NewForConfig(s.config())
	if err != nil {
		t.Fatal(err)
	}
	playWith(t, client, func(t *testing.T, scene *scene) {
		scene.server = s
		act(t, scene)
	}, options...)
}

// playWith does the same with another client, such as the fake clientset.
func playWith(
	t *testing.T, client kubernetes.Interface, act func(*testing.T, *scene),
	options ...informers.SharedInformerOption,
) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		factory := informers.NewSharedInformerFactoryWithOptions(client, 0, options...)
		pods := factory.Core().V1().Pods()
		s := &scene{factory: factory, pods: pods.TypedInformer(), lister: pods.Lister(), began: time.Now()}
		if err := s.pods.SetWatchErrorHandlerWithContext(
			func(_ context.Context, _ *cache.Reflector, err error) { s.told = append(s.told, err) },
		); err != nil {
			t.Fatal(err)
		}
		act(t, s)
	})
}

// resync sets the period of the factory.
func resync(period time.Duration) informers.SharedInformerOption {
	return informers.WithCustomResyncConfig(map[metav1.Object]time.Duration{&corev1.Pod{}: period})
}

// every sets the period of a handler.
func every(period time.Duration) cache.HandlerOptions {
	return cache.HandlerOptions{ResyncPeriod: &period}
}

// transform sets the transform of pods.
func transform(transform func(*corev1.Pod) error) informers.SharedInformerOption {
	return informers.WithTransform(func(obj any) (any, error) { return obj, transform(obj.(*corev1.Pod)) })
}

// start runs the informer until the test has ended, and waits until it has filled its store.
func (s *scene) start(t *testing.T) { s.startWith(t.Context(), t) }

func (s *scene) startWith(ctx context.Context, t *testing.T) {
	s.factory.StartWithContext(ctx)
	t.Cleanup(s.factory.Shutdown)
	synctest.Wait()
}

// relist ends the watch, and returns when the reflector has the state again.
func (s *scene) relist() {
	s.expire()
	s.pass(time.Minute) // as long as a back-off can be
}

// pass lets time pass.
func (s *scene) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// handle adds a handler.
func (s *scene) handle(
	t *testing.T, handler cache.TypedResourceEventHandler[*corev1.Pod], options ...cache.HandlerOptions,
) cache.ResourceEventHandlerRegistration {
	t.Helper()
	registration, err := s.pods.AddTypedEventHandler(handler, options...)
	if err != nil {
		t.Fatal(err)
	}
	return registration
}

// record adds a handler whose calls are kept, to be read after synctest.Wait.
func (s *scene) record(t *testing.T) {
	t.Helper()
	s.handle(t, lines(func(line string) { s.calls = append(s.calls, line) }))
}

// lines is a handler that gets each call as a line.
func lines(call func(line string)) corev1informers.PodHandlerFuncs {
	return corev1informers.PodHandlerFuncs{
		AddFunc: func(pod *corev1.Pod) { call("Add " + pod.Name + " " + pod.ResourceVersion) },
		UpdateFunc: func(old, pod *corev1.Pod) {
			call("Update " + pod.Name + " " + old.ResourceVersion + " to " + pod.ResourceVersion)
		},
		DeleteFunc: func(pod corev1informers.DeletedPod) {
			call(fmt.Sprintf("Delete %s tombstone=%t", pod.GetName(), pod.FinalStateUnknown != nil))
		},
	}
}

// keys are those of the store.
func (s *scene) keys() []string { return s.pods.GetStore().ListKeys() }

// get returns a pod that the store has.
func (s *scene) get(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	pod, err := s.lister.Pods("default").Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// stored is the resourceVersion of a pod in the store.
func (s *scene) stored(name string) string {
	pod, err := s.lister.Pods("default").Get(name)
	if err != nil {
		return "none"
	}
	return pod.ResourceVersion
}

// withWatchList runs a test with the feature gate on and off.
func withWatchList(t *testing.T, test func(t *testing.T, on bool)) {
	t.Helper()
	for _, on := range []bool{true, false} {
		t.Run(fmt.Sprintf("WatchList=%t", on), func(t *testing.T) {
			featurestesting.SetFeatureDuringTest(t, features.WatchListClient, on)
			test(t, on)
		})
	}
}

// logs returns a context whose logger keeps the lines up to a verbosity.
func logs(t *testing.T, verbosity int) (context.Context, ktesting.Buffer) {
	t.Helper()
	config := ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(verbosity))
	logger := ktesting.NewLogger(t, config)
	return klog.NewContext(t.Context(), logger), logger.GetSink().(ktesting.Underlier).GetBuffer()
}

// alone runs the test again, in a process that may end, and returns what it printed.
func alone(t *testing.T, variable, value string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), variable+"="+value)
	printed, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(printed), cmd.ProcessState.ExitCode()
}
