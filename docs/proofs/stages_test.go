package proofs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	corev1informers "k8s.io/client-go/informers/core/v1"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"example.com/informers/internal/outputs"
)

// A stagesScene is an informer, and the test instead of the API server: it answers each
// request by hand. All is in a bubble, so times are exact and cost nothing.
type stagesScene struct {
	requests chan *stagesRequest
	pods     corev1informers.PodIndexInformer
	lister   corev1listers.PodLister
	told     []error // what the watch error handler was told
}

type stagesRequest struct {
	verb    string
	options metav1.ListOptions
	at      time.Time
	reply   chan stagesReply
}

type stagesReply struct {
	list  *corev1.PodList
	watch *watch.FakeWatcher
	err   error
}

// stages tells a story of an informer that has not been started.
func stages(t *testing.T, tell func(t *testing.T, s *stagesScene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stagesScene{requests: make(chan *stagesRequest)}
		lw := &cache.ListWatch{
			ListWithContextFunc: func(
				ctx context.Context, o metav1.ListOptions,
			) (runtime.Object, error) {
				reply := s.ask(ctx, "list", o)
				return reply.list, reply.err
			},
			WatchFuncWithContext: func(
				ctx context.Context, o metav1.ListOptions,
			) (watch.Interface, error) {
				reply := s.ask(ctx, "watch", o)
				if reply.err != nil {
					return nil, reply.err
				}
				return reply.watch, nil
			},
		}
		untyped := cache.NewSharedIndexInformerWithOptions(lw, &corev1.Pod{},
			cache.SharedIndexInformerOptions{Indexers: cache.Indexers{
				cache.NamespaceIndex: cache.MetaNamespaceIndexFunc,
			}})
		s.pods = cache.NewTypedSharedIndexInformer[*corev1.Pod](untyped)
		s.lister = corev1listers.NewPodLister(s.pods.GetIndexer())
		if err := s.pods.SetWatchErrorHandlerWithContext(
			func(_ context.Context, _ *cache.Reflector, err error) {
				s.told = append(s.told, err)
			}); err != nil {
			t.Fatal(err)
		}
		tell(t, s)
	})
}

func (s *stagesScene) ask(ctx context.Context, verb string, o metav1.ListOptions) stagesReply {
	r := &stagesRequest{verb: verb, options: o, at: time.Now(), reply: make(chan stagesReply)}
	select {
	case s.requests <- r:
		return <-r.reply
	case <-ctx.Done():
		return stagesReply{err: ctx.Err()}
	}
}

// start runs the informer until the test has ended.
func (s *stagesScene) start(ctx context.Context, t *testing.T) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.pods.RunWithContext(ctx)
	}()
	t.Cleanup(func() { <-done }) // the test's context has ended then
}

// next is the next request, however long the reflector backs off.
func (s *stagesScene) next(t *testing.T, verb string) *stagesRequest {
	t.Helper()
	r := <-s.requests
	if r.verb != verb {
		t.Fatalf("%s, want %s", r.verb, verb)
	}
	return r
}

// quiet fails the test if there is a request now.
func (s *stagesScene) quiet(t *testing.T) {
	t.Helper()
	synctest.Wait()
	select {
	case r := <-s.requests:
		t.Fatalf("a %s", r.verb)
	default:
	}
}

func (r *stagesRequest) refuse(err error) { r.reply <- stagesReply{err: err} }

func (r *stagesRequest) open() *watch.FakeWatcher {
	w := watch.NewFake()
	r.reply <- stagesReply{watch: w}
	return w
}

func (r *stagesRequest) list(resourceVersion string, pods ...*corev1.Pod) {
	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: resourceVersion}}
	for _, pod := range pods {
		list.Items = append(list.Items, *pod)
	}
	r.reply <- stagesReply{list: list}
}

// sync answers the first request: the pods, and the bookmark 100.
func (s *stagesScene) sync(t *testing.T, pods ...*corev1.Pod) *watch.FakeWatcher {
	t.Helper()
	s.start(t.Context(), t)
	return s.next(t, "watch").initial("100", pods...)
}

func (r *stagesRequest) initial(resourceVersion string, pods ...*corev1.Pod) *watch.FakeWatcher {
	w := r.open()
	for _, pod := range pods {
		w.Add(pod)
	}
	w.Action(watch.Bookmark, stagesBookmark(resourceVersion, true))
	synctest.Wait()
	return w
}

func stagesBookmark(resourceVersion string, initialEventsEnd bool) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: resourceVersion}}
	if initialEventsEnd {
		pod.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	return pod
}

func stagesPod(name string, resourceVersion int) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: name, ResourceVersion: strconv.Itoa(resourceVersion),
	}}
}

func stagesGone() *metav1.Status {
	err := apierrors.NewResourceExpired("too old resource version")
	return &err.ErrStatus
}

func stagesRefused() error {
	return &os.SyscallError{Syscall: "connect", Err: syscall.ECONNREFUSED}
}

func stagesForbidden() error {
	return apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("you may not"))
}

// handle adds a handler that gets each call as a line, and returns its registration.
func (s *stagesScene) handle(
	t *testing.T, call func(line string),
) cache.ResourceEventHandlerRegistration {
	t.Helper()
	registration, err := s.pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
		AddFunc: func(pod *corev1.Pod) { call("Add " + pod.Name + " " + pod.ResourceVersion) },
		UpdateFunc: func(old, pod *corev1.Pod) {
			call("Update " + pod.Name + " " + old.ResourceVersion + " to " + pod.ResourceVersion)
		},
		DeleteFunc: func(pod corev1informers.DeletedPod) {
			call(fmt.Sprintf("Delete %s tombstone=%t", pod.GetName(), pod.FinalStateUnknown != nil))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return registration
}

func (s *stagesScene) stored(name string) string {
	pod, err := s.lister.Pods("default").Get(name)
	if err != nil {
		return "none"
	}
	return pod.ResourceVersion
}

// The whole way of one pod, as the page shows it.
func TestStagesOfOnePod(t *testing.T) {
	var out strings.Builder
	say := func(who, format string, args ...any) {
		fmt.Fprintf(&out, "%-10s %s\n", who, fmt.Sprintf(format, args...))
	}
	stages(t, func(t *testing.T, s *stagesScene) {
		s.handle(t, func(line string) { say("handler", "%s", line) })
		s.start(t.Context(), t)
		r := s.next(t, "watch")
		say("reflector", "WATCH resourceVersion=%q sendInitialEvents=%t",
			r.options.ResourceVersion, *r.options.SendInitialEvents)
		w := r.open()
		w.Add(stagesPod("web", 90))
		synctest.Wait()
		say("server", "ADDED web 90")
		say("store", "%d pods", len(s.pods.GetStore().ListKeys()))
		say("server", "BOOKMARK 100 initial-events-end")
		w.Action(watch.Bookmark, stagesBookmark("100", true))
		synctest.Wait()
		say("store", "%d pod, synced %t", len(s.pods.GetStore().ListKeys()), s.pods.HasSynced())
		say("server", "MODIFIED web 101")
		w.Modify(stagesPod("web", 101))
		synctest.Wait()
		say("server", "BOOKMARK 150")
		w.Action(watch.Bookmark, stagesBookmark("150", false))
		synctest.Wait()
		say("server", "ends the watch")
		w.Stop()
		r = s.next(t, "watch")
		say("reflector", "WATCH resourceVersion=%q", r.options.ResourceVersion)
		w = r.open()
		say("server", "DELETED web 151")
		w.Delete(stagesPod("web", 151))
		synctest.Wait()
	})
	outputs.Shown(t, root, out.String(), *update)
}

// WatchList

func TestStoreIsFilledAtTheBookmark(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		s.start(t.Context(), t)
		r := s.next(t, "watch")
		o := r.options
		equal(t, "resourceVersion", o.ResourceVersion, "")
		equal(t, "match", o.ResourceVersionMatch, metav1.ResourceVersionMatchNotOlderThan)
		equal(t, "initial events", *o.SendInitialEvents && o.AllowWatchBookmarks, true)
		if timeout := *o.TimeoutSeconds; timeout < 300 || timeout > 600 {
			t.Errorf("timeout %d s", timeout)
		}
		w := r.open()
		for i := range 3 {
			w.Add(stagesPod(strconv.Itoa(i), i+1))
		}
		synctest.Wait()
		equal(t, "before", s.pods.GetStore().ListKeys(), "[]")
		equal(t, "synced before", s.pods.HasSynced(), false)
		w.Action(watch.Bookmark, stagesBookmark("100", true))
		synctest.Wait()
		equal(t, "after", len(s.pods.GetStore().ListKeys()), 3)
		equal(t, "synced after", s.pods.HasSynced(), true)
		w.Modify(stagesPod("0", 101)) // the same request goes on
		s.quiet(t)
		equal(t, "goes on", s.stored("0"), "101")
	})
}

// A server that never sends the bookmark: no error, and a sync that does not come.
func TestNoBookmarkNoSync(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		s.start(t.Context(), t)
		s.next(t, "watch").open().Add(stagesPod("web", 1))
		time.Sleep(time.Hour)
		equal(t, "synced", s.pods.HasSynced(), false)
		equal(t, "told", len(s.told), 0)
	})
}

func TestWatchListFallsBackToList(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		s.start(t.Context(), t)
		first := s.next(t, "watch")
		first.refuse(apierrors.NewBadRequest("sendInitialEvents is not known here"))
		r := s.next(t, "list")
		equal(t, "at once", r.at, first.at)
		equal(t, "list from", r.options.ResourceVersion, "0")
		r.list("90", stagesPod("web", 80))
		r = s.next(t, "watch")
		equal(t, "watch from", r.options.ResourceVersion, "90")
		equal(t, "initial events", r.options.SendInitialEvents == nil, true)
		r.open()
		synctest.Wait()
		equal(t, "stored", s.stored("web"), "80")
		equal(t, "told", len(s.told), 0)
	})
}

func TestBookmarkMovesTheResourceVersion(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		calls := 0
		s.handle(t, func(string) { calls++ })
		w := s.sync(t, stagesPod("web", 90))
		equal(t, "after the first", s.pods.LastSyncResourceVersion(), "100")
		w.Action(watch.Bookmark, stagesBookmark("150", false))
		synctest.Wait()
		equal(t, "after another", s.pods.LastSyncResourceVersion(), "150")
		equal(t, "calls", calls, 1)
		w.Stop()
		r := s.next(t, "watch")
		equal(t, "watch from", r.options.ResourceVersion, "150")
		r.open()
	})
}

// Reflector

func TestEndedWatchIsNotARelist(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		var calls []string
		s.handle(t, func(line string) { calls = append(calls, line) })
		w := s.sync(t, stagesPod("web", 90))
		time.Sleep(7 * time.Minute)
		w.Modify(stagesPod("web", 101))
		ended := time.Now()
		w.Stop()
		r := s.next(t, "watch")
		equal(t, "at once", r.at, ended)
		equal(t, "from", r.options.ResourceVersion, "101")
		equal(t, "initial events", r.options.SendInitialEvents == nil, true)
		r.open().Modify(stagesPod("web", 102))
		synctest.Wait()
		equal(t, "calls", calls, "[Add web 90 Update web 90 to 101 Update web 101 to 102]")
	})
}

// A watch that ends within a second and brought nothing is taken for a failure.
func TestVeryShortWatchIsARelist(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		s.sync(t, stagesPod("web", 90)).Stop()
		r := s.next(t, "watch")
		equal(t, "initial events", *r.options.SendInitialEvents, true)
		r.initial("100", stagesPod("web", 90))
	})
}

func TestRelistAfter410(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		var calls []string
		s.handle(t, func(line string) { calls = append(calls, line) })
		w := s.sync(t, stagesPod("kept", 80), stagesPod("changed", 90))
		calls = nil
		time.Sleep(5 * time.Minute)
		ended := time.Now()
		w.Error(stagesGone())
		r := s.next(t, "watch")
		if wait := r.at.Sub(ended); wait < 800*time.Millisecond || wait > 1600*time.Millisecond {
			t.Errorf("relists after %s", wait)
		}
		equal(t, "first from", r.options.ResourceVersion, "100")
		equal(t, "initial events", *r.options.SendInitialEvents, true)
		r.refuse(apierrors.NewResourceExpired("too old resource version"))
		r = s.next(t, "watch")
		equal(t, "then from", r.options.ResourceVersion, "")
		r.initial("200", stagesPod("kept", 80), stagesPod("changed", 190))
		slices.Sort(calls) // of a relist the order is a map's
		equal(t, "calls", calls, "[Update changed 90 to 190 Update kept 80 to 80]")
		equal(t, "told", len(s.told), 0)
	})
}

func TestTombstoneAfterRelist(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		var deleted []corev1informers.DeletedPod
		var storedThen []string
		if _, err := s.pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
			DeleteFunc: func(pod corev1informers.DeletedPod) {
				deleted = append(deleted, pod)
				storedThen = s.pods.GetStore().ListKeys()
			},
		}); err != nil {
			t.Fatal(err)
		}
		w := s.sync(t, stagesPod("missed", 90), stagesPod("seen", 91))
		w.Delete(stagesPod("seen", 101))
		w.Error(stagesGone())
		s.next(t, "watch").initial("200", stagesPod("new", 150))
		equal(t, "deletes", len(deleted), 2)
		equal(t, "seen: tombstone", deleted[0].FinalStateUnknown != nil, false)
		equal(t, "seen: version of the delete", deleted[0].OptionalObj.ResourceVersion, "101")
		equal(t, "missed: tombstone", deleted[1].FinalStateUnknown != nil, true)
		equal(t, "missed: key", deleted[1].GetKey(), "default/missed")
		equal(t, "missed: stale version", deleted[1].OptionalObj.ResourceVersion, "90")
		equal(t, "the store is replaced before the handler runs", storedThen, "[default/new]")
	})
}

func TestBackoffGrows(t *testing.T) {
	const first, most, reset = 800 * time.Millisecond, 30 * time.Second, 2 * time.Minute
	stages(t, func(t *testing.T, s *stagesScene) {
		s.start(t.Context(), t)
		began, low, startedOver := time.Now(), first, 0
		for range 30 {
			s.next(t, "watch").refuse(stagesForbidden())
			s.next(t, "list").refuse(stagesForbidden()) // each try is a WatchList and a LIST
			failed := time.Now()
			// It starts over every two minutes, although nothing ever went well.
			if failed.Sub(began) > reset {
				began, low, startedOver = failed, first, startedOver+1
			}
			r := <-s.requests
			if wait := r.at.Sub(failed); wait < low || wait > 2*low {
				t.Errorf("%s, want %s to %s", wait, low, 2*low)
			} else {
				t.Log(wait)
			}
			low = min(2*low, most)
			go func() { s.requests <- r }() // it is still to be answered
		}
		if startedOver < 2 {
			t.Errorf("started over %d times", startedOver)
		}
		s.next(t, "watch").initial("100")
	})
}

func TestWatchErrorHandlerIsTold(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		s.start(t.Context(), t)
		s.next(t, "watch").refuse(stagesForbidden())
		s.next(t, "list").refuse(stagesForbidden())
		synctest.Wait()
		equal(t, "told", len(s.told), 1)
		equal(t, "forbidden", apierrors.IsForbidden(s.told[0]), true)

		// Refused connections and 429 are retried within, and told to nobody.
		for range 5 {
			s.next(t, "watch").refuse(stagesRefused())
			s.next(t, "watch").refuse(apierrors.NewTooManyRequests("later", 1))
		}
		w := s.next(t, "watch").initial("100", stagesPod("web", 90))
		time.Sleep(time.Minute)
		w.Stop()
		s.next(t, "watch").refuse(stagesRefused())
		r := s.next(t, "watch")
		equal(t, "resumes from", r.options.ResourceVersion, "100")
		equal(t, "told in the end", len(s.told), 1)

		// What ends a watch with an error of another kind is told.
		r.refuse(apierrors.NewServiceUnavailable("no"))
		synctest.Wait()
		equal(t, "told of 503", len(s.told), 2)
		r = s.next(t, "watch")
		equal(t, "then it relists", *r.options.SendInitialEvents, true)
		equal(t, "from", r.options.ResourceVersion, "100")
		r.initial("101", stagesPod("web", 90))
	})
}

// RealFIFO

func TestEventsArriveInWatchOrderAcrossKeys(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		var got, want []string
		s.handle(t, func(line string) { got = append(got, line) })
		w := s.sync(t)
		names := []string{"c", "a", "b"}
		for i := range 300 {
			name, rv := names[i%3], 200+i
			if i < 3 {
				w.Add(stagesPod(name, rv))
				want = append(want, fmt.Sprintf("Add %s %d", name, rv))
			} else {
				w.Modify(stagesPod(name, rv))
				want = append(want, fmt.Sprintf("Update %s %d to %d", name, rv-3, rv))
			}
		}
		synctest.Wait()
		equal(t, "order", slices.Equal(got, want), true)
	})
}

func TestNothingIsMerged(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		var got []string
		release := make(chan struct{})
		s.handle(t, func(line string) {
			<-release // the handler is far behind
			got = append(got, line)
		})
		w := s.sync(t)
		want := []string{"Add web 200"}
		w.Add(stagesPod("web", 200))
		for rv := 201; rv <= 300; rv++ {
			w.Modify(stagesPod("web", rv))
			want = append(want, fmt.Sprintf("Update web %d to %d", rv-1, rv))
		}
		w.Delete(stagesPod("web", 301))
		want = append(want, "Delete web tombstone=false")
		synctest.Wait()
		close(release)
		synctest.Wait()
		equal(t, "every version", slices.Equal(got, want), true)
	})
}

func TestTransformIsFirst(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		s.transform(t, func(pod *corev1.Pod) error {
			pod.Annotations = nil
			return nil
		})
		var handled []string
		s.handleAdds(t, func(pod *corev1.Pod) {
			handled = append(handled, fmt.Sprint(pod.Annotations))
		})
		big := func(name string, rv int) *corev1.Pod {
			pod := stagesPod(name, rv)
			pod.Annotations = map[string]string{"big": "value"}
			return pod
		}
		w := s.sync(t, big("initial", 90))
		w.Add(big("new", 101))
		synctest.Wait()
		equal(t, "handled", handled, "[map[] map[]]")
		for _, obj := range s.pods.GetStore().List() {
			equal(t, "stored", obj.(*corev1.Pod).Annotations, "map[]")
		}
	})
}

// With WatchList an object of the initial state is transformed on its way into the
// reflector's temporary store, and again into the queue.
func TestTransformRunsTwiceOnTheInitialState(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		times := map[string]int{}
		s.transform(t, func(pod *corev1.Pod) error {
			times[pod.Name]++
			return nil
		})
		w := s.sync(t, stagesPod("initial", 90))
		w.Add(stagesPod("new", 101))
		synctest.Wait()
		equal(t, "times", times, "map[initial:2 new:1]")
	})
}

func TestTransformErrorLosesTheObject(t *testing.T) {
	// The handler of today also sleeps, by a clock from outside the bubble.
	var logged []string
	defer func(handlers []utilruntime.ErrorHandler) { utilruntime.ErrorHandlers = handlers }(
		utilruntime.ErrorHandlers)
	utilruntime.ErrorHandlers = []utilruntime.ErrorHandler{
		func(_ context.Context, _ error, msg string, _ ...any) { logged = append(logged, msg) },
	}
	stages(t, func(t *testing.T, s *stagesScene) {
		s.transform(t, func(pod *corev1.Pod) error {
			if strings.HasPrefix(pod.Name, "bad") {
				return errors.New("cannot transform " + pod.Name)
			}
			return nil
		})
		w := s.sync(t, stagesPod("bad-initial", 90), stagesPod("good", 91))
		w.Add(stagesPod("bad-new", 101))
		w.Modify(stagesPod("good", 102))
		synctest.Wait()
		equal(t, "synced", s.pods.HasSynced(), true)
		equal(t, "stored", s.pods.GetStore().ListKeys(), "[default/good]")
		equal(t, "goes on", s.stored("good"), "102")
		equal(t, "told", len(s.told), 0)
		equal(t, "logged", slices.Compact(logged),
			"[Unable to add watch event object to store]")
	})
}

func (s *stagesScene) transform(t *testing.T, f func(*corev1.Pod) error) {
	t.Helper()
	if err := s.pods.SetTransform(func(obj any) (any, error) {
		return obj, f(obj.(*corev1.Pod))
	}); err != nil {
		t.Fatal(err)
	}
}

// Store

func TestStoreIsUpdatedBeforeTheHandlerRuns(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		var got []string
		step := make(chan struct{})
		s.handle(t, func(line string) {
			<-step
			got = append(got, line+", store "+s.stored("web"))
		})
		w := s.sync(t, stagesPod("web", 90))
		close(step)
		synctest.Wait()
		step = make(chan struct{})
		w.Modify(stagesPod("web", 101))
		w.Modify(stagesPod("web", 102)) // while the handler works on 101
		synctest.Wait()
		close(step)
		synctest.Wait()
		equal(t, "calls", strings.Join(got, "; "), "Add web 90, store 90; "+
			"Update web 90 to 101, store 102; Update web 101 to 102, store 102")
	})
}

func TestIndexIsConsistentWithStore(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		on := func(node string, rv int) *corev1.Pod {
			pod := stagesPod("web", rv)
			pod.Spec.NodeName = node
			return pod
		}
		if err := s.pods.AddTypedIndexers(corev1informers.PodIndexers{
			"node": func(pod *corev1.Pod) ([]string, error) {
				return []string{pod.Spec.NodeName}, nil
			},
		}); err != nil {
			t.Fatal(err)
		}
		var got []string
		s.handle(t, func(line string) {
			for _, node := range []string{"one", "two"} {
				pods, err := s.pods.GetTypedIndexer().ByTypedIndex("node", node)
				if err != nil {
					t.Error(err)
				}
				line += fmt.Sprintf(", %s %d", node, len(pods))
			}
			got = append(got, line)
		})
		w := s.sync(t, on("one", 90))
		w.Modify(on("two", 101))
		synctest.Wait()
		w.Delete(on("two", 102))
		synctest.Wait()
		equal(t, "calls", strings.Join(got, "; "), "Add web 90, one 1, two 0; "+
			"Update web 90 to 101, one 0, two 1; Delete web tombstone=false, one 0, two 0")
	})
}

func TestIndexFuncErrorPanics(t *testing.T) {
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{
		"node": func(any) ([]string, error) { return nil, errors.New("no node") },
	})
	defer func() {
		equal(t, "panic", recover(), `unable to calculate an index entry for key "default/web" `+
			`on index "node": no node`)
	}()
	t.Error(indexer.Add(stagesPod("web", 1)))
}

// Processor and listeners

func TestOneGoroutineAHandler(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		var running, handlers atomic.Int32
		for range 2 {
			var mine atomic.Int32
			s.handle(t, func(string) {
				if mine.Add(1) > 1 {
					t.Error("two calls of one handler at the same time")
				}
				if running.Add(1) == 2 {
					handlers.Store(2)
				}
				time.Sleep(time.Second)
				running.Add(-1)
				mine.Add(-1)
			})
		}
		w := s.sync(t, stagesPod("a", 90), stagesPod("b", 91))
		w.Modify(stagesPod("a", 101))
		time.Sleep(time.Minute)
		equal(t, "handlers at the same time", handlers.Load(), 2)
	})
}

func TestSlowHandlerDoesNotBlockOthers(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		var fast int
		release := make(chan struct{})
		s.handle(t, func(string) { <-release })
		s.handle(t, func(string) { fast++ })
		w := s.sync(t)
		for i := range 1000 {
			w.Add(stagesPod(strconv.Itoa(i), 200+i))
		}
		synctest.Wait()
		equal(t, "the other handler's calls", fast, 1000)
		equal(t, "stored", len(s.pods.GetStore().ListKeys()), 1000)
		close(release)
	})
}

func TestSlowHandlerBuffersWithoutBound(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		const writes = 50_000
		var calls int
		release := make(chan struct{})
		s.handle(t, func(string) {
			<-release
			calls++
		})
		w := s.sync(t, stagesPod("web", 100))
		for i := range writes {
			w.Modify(stagesPod("web", 101+i)) // the server is never held up
		}
		synctest.Wait()
		equal(t, "calls while it is stuck", calls, 0)
		equal(t, "stored", s.stored("web"), strconv.Itoa(100+writes))
		close(release)
		synctest.Wait()
		equal(t, "calls", calls, writes+1)
	})
}

// stagesAlone runs the test once more, in a process that may end, and returns what it printed.
func stagesAlone(t *testing.T, variable, value string) (out string, code int) {
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

func TestPanickingHandler(t *testing.T) {
	if os.Getenv("STAGES_CRASH") == "" {
		out, code := stagesAlone(t, "STAGES_CRASH", "true")
		equal(t, "exit code", code, 2)
		for _, line := range []string{`"Observed a panic" panic="no bad pods"`, "panic: no bad pods"} {
			if !strings.Contains(out, line) {
				t.Errorf("no line %q in:\n%s", line, out)
			}
		}
		return
	}
	stages(t, func(t *testing.T, s *stagesScene) {
		s.handle(t, func(string) { panic("no bad pods") })
		s.sync(t, stagesPod("bad", 90))
		fmt.Println("still here")
	})
}

// A program may choose to live on, by a variable of the whole process.
func TestPanickingHandlerGoesOn(t *testing.T) {
	if os.Getenv("STAGES_CRASH") == "" {
		out, code := stagesAlone(t, "STAGES_CRASH", "false")
		if code != 0 {
			t.Error(out)
		}
		return
	}
	utilruntime.ReallyCrash = false
	stages(t, func(t *testing.T, s *stagesScene) {
		var got []string
		var at []time.Time
		registration := s.handle(t, func(line string) {
			if line == "Add bad 90" {
				panic("no bad pods")
			}
			got, at = append(got, line), append(at, time.Now())
		})
		began := time.Now()
		w := s.sync(t, stagesPod("bad", 90))
		w.Add(stagesPod("good", 101))
		time.Sleep(time.Minute)
		synctest.Wait()
		equal(t, "the next call", got, "[Add good 101]")
		equal(t, "a second later", at[0].Sub(began).Round(10*time.Millisecond), "1s")
		equal(t, "the store is synced", s.pods.HasSynced(), true)
		equal(t, "the handler never is", registration.HasSynced(), false)
	})
}

// Lister

func TestListerReturnsSharedPointers(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		var handled *corev1.Pod
		s.handleAdds(t, func(pod *corev1.Pod) { handled = pod })
		s.sync(t, stagesPod("web", 90))
		one, err := s.lister.Pods("default").Get("web")
		all, err2 := s.lister.List(labels.Everything())
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		equal(t, "Get, List and the handler share", one == all[0] && one == handled, true)
		equal(t, "a copy does not", one == one.DeepCopy(), false)
	})
}

func (s *stagesScene) handleAdds(t *testing.T, call func(pod *corev1.Pod)) {
	t.Helper()
	handler := corev1informers.PodHandlerFuncs{AddFunc: call}
	if _, err := s.pods.AddTypedEventHandler(handler); err != nil {
		t.Fatal(err)
	}
}

func TestListerAsksNobody(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		list := func() int {
			pods, err := s.lister.List(labels.Everything())
			if err != nil {
				t.Fatal(err)
			}
			return len(pods)
		}
		equal(t, "before the start, and no error", list(), 0)
		w := s.sync(t, stagesPod("web", 90))
		for range 1000 {
			equal(t, "pods", list(), 1)
		}
		s.quiet(t)
		// What the server does not send, the lister does not know, for as long as it takes.
		time.Sleep(time.Minute)
		w.Stop()
		r := s.next(t, "watch")
		for range 100 {
			r.refuse(stagesRefused())
			r = s.next(t, "watch")
		}
		equal(t, "in an outage", list(), 1)
		r.open()
	})
}

// An answer of the lister is of the store as it is now: two answers may differ.
func TestListerIsNotASnapshotOverTime(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		w := s.sync(t, stagesPod("a", 90), stagesPod("b", 91))
		before := s.stored("a") + s.stored("b")
		w.Modify(stagesPod("a", 101))
		synctest.Wait()
		between := s.stored("a") + s.stored("b")
		w.Modify(stagesPod("b", 102))
		synctest.Wait()
		equal(t, "answers", []string{before, between, s.stored("a") + s.stored("b")},
			"[9091 10191 101102]")
	})
}

// What is logged, and at which verbosity: 0 is always printed.
func TestStagesLog(t *testing.T) {
	var out strings.Builder
	config := ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(5))
	logger := ktesting.NewLogger(t, config)
	logged := logger.GetSink().(ktesting.Underlier).GetBuffer()
	stages(t, func(t *testing.T, s *stagesScene) {
		shown := 0
		when := func(what string) {
			synctest.Wait()
			fmt.Fprintf(&out, "%s\n", what)
			for _, entry := range logged.Data()[shown:] {
				message, _, _ := strings.Cut(entry.Message, ".")
				fmt.Fprintf(&out, "  -v=%d %s\n", entry.Verbosity, message)
			}
			shown = len(logged.Data())
		}
		s.start(klog.NewContext(t.Context(), logger), t)
		r := s.next(t, "watch")
		when("start")
		r.refuse(stagesRefused())
		r = s.next(t, "watch")
		when("connection refused")
		r.refuse(stagesForbidden())
		s.next(t, "list").refuse(stagesForbidden())
		r = s.next(t, "watch")
		when("forbidden")
		w := r.open()
		time.Sleep(15 * time.Second)
		when("no bookmark for 15 s")
		w.Action(watch.Bookmark, stagesBookmark("100", true))
		when("the bookmark")
		time.Sleep(5 * time.Minute)
		w.Modify(stagesPod("web", 101))
		w.Stop()
		r = s.next(t, "watch")
		when("the watch ends")
		r.refuse(stagesRefused())
		r = s.next(t, "watch")
		when("connection refused")
		r.open().Error(stagesGone())
		r = s.next(t, "watch")
		when("410")
		w = r.initial("200")
		w.Error(&metav1.Status{Status: metav1.StatusFailure, Code: http.StatusGatewayTimeout,
			Reason: metav1.StatusReasonTimeout})
		r = s.next(t, "watch")
		when("relisted, then another error")
		r.initial("300")
	})
	outputs.Shown(t, root, out.String(), *update)
}
