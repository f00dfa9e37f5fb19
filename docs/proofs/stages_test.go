package proofs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
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
	"k8s.io/client-go/features"
	featurestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
)

// The stages of docs/how-an-informer-works.md.

func TestStagesOfOnePod(t *testing.T) {
	var out strings.Builder
	say := func(who, format string, args ...any) {
		fmt.Fprintf(&out, "%-10s %s\n", who, fmt.Sprintf(format, args...))
	}
	play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
		s.handle(t, lines(func(line string) { say("handler", "%s", line) }))
		s.unfinished = true
		s.start(t)
		first := s.last()
		say("reflector", "WATCH resourceVersion=%q sendInitialEvents=%t",
			first.ResourceVersion, first.initial())
		equal(t, "match", first.ResourceVersionMatch, metav1.ResourceVersionMatchNotOlderThan)
		equal(t, "synced before the bookmark", s.pods.HasSynced(), false)
		say("server", "ADDED web 90")
		say("store", "%d pods", len(s.keys()))
		say("server", "BOOKMARK 100 initial-events-end")
		s.bookmark(100, true)
		synctest.Wait()
		say("store", "%d pod, synced %t", len(s.keys()), s.pods.HasSynced())
		equal(t, "the same request goes on", s.verbs(), "[watch]")
		say("server", "MODIFIED web 101")
		s.put(pod("web", 101))
		synctest.Wait()
		say("server", "BOOKMARK 150")
		s.bookmark(150, false)
		synctest.Wait()
		equal(t, "the bookmark moves", s.pods.LastSyncResourceVersion(), "150")
		say("server", "ends the watch")
		s.end(io.EOF)
		synctest.Wait()
		say("reflector", "WATCH resourceVersion=%q", s.last().ResourceVersion)
		say("server", "DELETED web 151")
		s.remove(pod("web", 151))
		synctest.Wait()
	})
	shown(t, out.String())
}

// WatchList

// A server that never sends the bookmark: no error, and no sync. The reflector checks every 10 s
// since the request, and warns if nothing has arrived, or the last event is 10 s old.
func TestBookmarkWarning(t *testing.T) {
	for _, test := range []struct {
		name   string
		events []time.Duration
		want   string
	}{
		{"no event at all", nil, "[10s 20s 30s]"},
		{"all pods at once", []time.Duration{5 * time.Millisecond}, "[20s 30s]"},
		{"a pod after 12 s", []time.Duration{5 * time.Millisecond, 12 * time.Second}, "[30s]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			play(t, serve(), func(t *testing.T, s *scene) {
				ctx, logged := logs(t, 0)
				s.unfinished = true
				s.startWith(ctx, t)
				for i, at := range test.events {
					time.Sleep(at - time.Since(s.began))
					s.put(pod(fmt.Sprint("web-", i), 90+i))
				}
				s.pass(35*time.Second - time.Since(s.began))
				var at []time.Duration
				for _, entry := range logged.Data() {
					if strings.Contains(entry.Message, "event bookmark expired") {
						at = append(at, entry.Timestamp.Sub(s.began).Round(time.Second))
					}
				}
				equal(t, "warns at", at, test.want)
				s.pass(time.Hour)
				equal(t, "synced", s.pods.HasSynced(), false)
				equal(t, "told", len(s.told), 0)
			})
		})
	}
}

// What fails before the bookmark makes the reflector fall back to LIST at once. A watch that only
// ends is opened again.
func TestWatchListFallsBackToList(t *testing.T) {
	notTwice := transform(func(pod *corev1.Pod) error {
		if pod.Labels["team"] == "" {
			return errors.New("no label team")
		}
		delete(pod.Labels, "team")
		return nil
	})
	for name, test := range map[string]struct {
		end     func(s *scene)
		options []informers.SharedInformerOption
		want    string
	}{
		"refused": {func(s *scene) {
			s.fail(func(r request) error {
				if r.initial() {
					return apierrors.NewBadRequest("sendInitialEvents is not known here")
				}
				return nil
			})
			s.end(io.EOF)
		}, nil, "[watch watch list watch]"},
		"an error event": {func(s *scene) {
			s.abort(apierrors.NewInternalError(errors.New("cannot decode")))
		}, nil, "[watch list watch]"},
		"a transform that fails the second time": {
			func(s *scene) { s.bookmark(100, true) },
			[]informers.SharedInformerOption{notTwice}, "[watch list watch]"},
		"an end": {func(s *scene) {
			s.unfinished = false
			s.end(io.EOF)
		}, nil, "[watch watch]"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, serve(labeled("web", 90)), func(t *testing.T, s *scene) {
				s.unfinished = true
				s.start(t)
				s.pass(2 * time.Second)
				test.end(s)
				synctest.Wait()
				equal(t, "requests, all at once", s.verbs(), test.want)
				for _, r := range s.seen() {
					if r.verb == "list" {
						equal(t, "list from", r.ResourceVersion, "0")
						equal(t, "watch from", s.last().ResourceVersion, "100")
					}
				}
				equal(t, "synced", s.pods.HasSynced(), true)
				equal(t, "stored", s.stored("web"), "90")
				equal(t, "told", len(s.told), 0)
				s.end(io.EOF) // client-go leaves a watch open whose objects it could not store
			}, test.options...)
		})
	}
}

// Reflector

func TestRelistAfter410(t *testing.T) {
	play(t, serve(pod("kept", 80), pod("changed", 90)), func(t *testing.T, s *scene) {
		s.record(t)
		s.start(t)
		s.calls = nil
		s.pass(5 * time.Minute)
		ended := time.Now()
		s.replace(pod("kept", 80), pod("changed", 190))
		s.fail(func(r request) error {
			if r.ResourceVersion != "" {
				return gone()
			}
			return nil
		})
		s.relist()
		requests := s.seen()[1:]
		if wait := requests[0].at.Sub(ended); wait < 800*time.Millisecond || wait > 1600*time.Millisecond {
			t.Errorf("relists after %s", wait)
		}
		equal(t, "requests", len(requests), 2)
		for i, from := range []string{"100", ""} {
			equal(t, "from", requests[i].ResourceVersion, from)
			equal(t, "initial events", requests[i].initial(), true)
		}
		slices.Sort(s.calls) // the order is a map's
		equal(t, "calls", s.calls, "[Update changed 90 to 190 Update kept 80 to 80]")
		equal(t, "told", len(s.told), 0)
	})
}

func TestTombstoneAfterRelist(t *testing.T) {
	play(t, serve(pod("missed", 90), pod("seen", 91)), func(t *testing.T, s *scene) {
		var deleted []corev1informers.DeletedPod
		var storedThen []string
		s.handle(t, corev1informers.PodHandlerFuncs{DeleteFunc: func(pod corev1informers.DeletedPod) {
			deleted = append(deleted, pod)
			storedThen = s.keys()
		}})
		s.start(t)
		s.remove(pod("seen", 101))
		synctest.Wait()
		s.replace(pod("new", 150)) // missed was changed, then deleted, and the watch saw neither
		s.relist()
		equal(t, "deletes", len(deleted), 2)
		equal(t, "seen: tombstone", deleted[0].FinalStateUnknown != nil, false)
		equal(t, "seen: version of the delete", deleted[0].OptionalObj.ResourceVersion, "101")
		equal(t, "missed: tombstone", deleted[1].FinalStateUnknown != nil, true)
		equal(t, "missed: key", deleted[1].GetKey(), "default/missed")
		equal(t, "missed: stale version", deleted[1].OptionalObj.ResourceVersion, "90")
		equal(t, "the store is replaced before the handler runs", storedThen, "[default/new]")
	})
}

// The back-off starts over every two minutes, although nothing ever went well.
func TestBackoffGrows(t *testing.T) {
	const first, most, reset = 800 * time.Millisecond, 30 * time.Second, 2 * time.Minute
	play(t, serve(), func(t *testing.T, s *scene) {
		s.fail(always(forbidden()))
		s.start(t)
		s.pass(15 * time.Minute)
		requests := s.seen()
		equal(t, "told at each try", len(s.told), len(requests)/2)
		began, low, startedOver := s.began, first, 0
		for i := 2; i < len(requests); i += 2 { // each try is a WatchList and a LIST
			equal(t, "try", requests[i].verb+" "+requests[i-1].verb, "watch list")
			failed := requests[i-1].at
			if failed.Sub(began) > reset {
				began, low, startedOver = failed, first, startedOver+1
			}
			if wait := requests[i].at.Sub(failed); wait < low || wait > 2*low {
				t.Errorf("%s, want %s to %s", wait, low, 2*low)
			}
			low = min(2*low, most)
		}
		if startedOver < 2 {
			t.Errorf("started over %d times", startedOver)
		}
	})
}

func TestWatchErrorHandlerIsTold(t *testing.T) {
	withWatchList(t, func(t *testing.T, _ bool) {
		play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
			s.fail(always(forbidden()))
			s.start(t)
			equal(t, "told", len(s.told), 1)
			equal(t, "forbidden", apierrors.IsForbidden(s.told[0]), true)
			s.fail(nil)
			s.pass(2 * time.Minute)
			equal(t, "synced", s.pods.HasSynced(), true)

			// An answer of another kind is told, and a relist follows.
			s.fail(func(request) error {
				s.fail(nil)
				return apierrors.NewServiceUnavailable("no")
			})
			s.end(io.EOF)
			s.pass(2 * time.Minute)
			equal(t, "told of 503", len(s.told), 2)
			equal(t, "from", s.last().ResourceVersion, "100")
			verbs := s.verbs()
			equal(t, "a relist", s.last().initial() || verbs[len(verbs)-2] == "list", true)
		})
	})
}

// With WatchList the reflector retries a refused connection by itself, and its wait ignores the
// context. With LIST, and so over the fake clientset, each failure is told. Each informer is
// stopped at the seventh refusal, whose back-off is 30 to 60 s.
func TestRefusedConnection(t *testing.T) {
	const atTheStart, later = false, true
	for _, test := range []struct {
		name            string
		watchList, fake bool
		synced          bool
		told            int // of the six before that
		from, to        time.Duration
	}{
		{"WatchList", true, false, atTheStart, 0, 30 * time.Second, time.Minute},
		{"LIST", false, false, atTheStart, 6, 0, 0},
		{"fake clientset", true, true, atTheStart, 6, 0, 0},
		{"WatchList, after the sync", true, false, later, 0, 0, 0},
		{"LIST, after the sync", false, false, later, 0, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			featurestesting.SetFeatureDuringTest(t, features.WatchListClient, test.watchList)
			tries, stop := 0, func() {}
			refuse := func() error {
				if tries++; tries == 7 {
					stop()
				}
				if tries%2 == 0 {
					return apierrors.NewTooManyRequests("later", 1)
				}
				return refused()
			}
			act := func(t *testing.T, s *scene) {
				var ctx context.Context
				ctx, stop = context.WithCancel(t.Context())
				s.startWith(ctx, t)
				if test.synced {
					s.pass(time.Minute)
					s.fail(func(request) error { return refuse() })
					s.end(io.EOF)
				}
				<-ctx.Done()
				cancelled := time.Now()
				s.factory.Shutdown()
				if took := time.Since(cancelled); took < test.from || took > test.to {
					t.Errorf("Shutdown took %s, want %s to %s", took, test.from, test.to)
				}
				equal(t, "told", len(s.told), test.told)
			}
			if test.fake {
				client := fake.NewClientset()
				client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
					return true, nil, refuse()
				})
				playWith(t, client, act)
				return
			}
			server := serve()
			if !test.synced {
				server.fail(func(request) error { return refuse() })
			}
			play(t, server, act)
		})
	}
}

// What client-go takes for an end is resumed. Anything else is an error in the stream: it is
// logged, the watch error handler is not told, and what was missed comes by a relist. A watch that
// ends within a second without an event is taken for a failure, too.
func TestErrorOfTheStreamDecidesWhatFollows(t *testing.T) {
	for _, test := range []struct {
		err     error
		relists bool
		short   bool
	}{
		{err: io.EOF},
		{err: io.ErrUnexpectedEOF},
		{err: errors.New("http2: server sent GOAWAY and closed the connection")},
		{err: &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}},
		{err: net.ErrClosed},
		{err: &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}},
		{err: errors.New("http2: client connection lost"), relists: true}, // a ping was not answered
		{err: errors.New("stream error: stream ID 1; INTERNAL_ERROR; received from peer"), relists: true},
		{err: errors.New("unable to decode watch event"), relists: true},
		{err: io.EOF, short: true, relists: true},
	} {
		t.Run(test.err.Error(), func(t *testing.T) {
			play(t, serve(pod("missed", 90)), func(t *testing.T, s *scene) {
				ctx, logged := logs(t, 0)
				s.record(t)
				s.startWith(ctx, t)
				from := "100"
				if !test.short {
					s.pass(7 * time.Minute)
					s.put(pod("missed", 101))
					from = "101"
				}
				ended := time.Now()
				s.end(test.err)
				s.remove(pod("missed", 102)) // on no watch
				s.pass(time.Minute)
				equal(t, "requests", s.verbs(), "[watch watch]")
				equal(t, "relist", s.last().initial(), test.relists)
				equal(t, "from", s.last().ResourceVersion, from)
				equal(t, "at once", s.last().at.Equal(ended), !test.relists)
				equal(t, "delete", s.calls[len(s.calls)-1],
					fmt.Sprint("Delete missed tombstone=", test.relists))
				equal(t, "logged", strings.Contains(logged.String(), "watch ended with error"), test.relists)
				equal(t, "told", len(s.told), 0)
			})
		})
	}
}

func TestWatchAsksForFiveToTenMinutes(t *testing.T) {
	play(t, serve(), func(t *testing.T, s *scene) {
		s.start(t)
		for range 10 {
			s.relist()
		}
		seen := map[int64]bool{}
		for _, r := range s.seen() {
			seen[*r.TimeoutSeconds] = true
			if seconds := *r.TimeoutSeconds; seconds < 300 || seconds > 600 {
				t.Errorf("timeoutSeconds=%d", seconds)
			}
		}
		if len(seen) < 2 {
			t.Errorf("always %v", seen)
		}
	})
}

// What is logged, and at which verbosity: 0 is always printed.
func TestStagesLog(t *testing.T) {
	var out strings.Builder
	play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
		ctx, logged := logs(t, 5)
		shownSoFar := 0
		when := func(what string) {
			synctest.Wait()
			fmt.Fprintf(&out, "%s\n", what)
			for _, entry := range logged.Data()[shownSoFar:] {
				message, _, _ := strings.Cut(entry.Message, ".")
				if !strings.Contains(message, "Response") { // of the client, not of the informer
					fmt.Fprintf(&out, "  -v=%d %s\n", entry.Verbosity, message)
				}
			}
			shownSoFar = len(logged.Data())
		}
		// Each fault is of one try, which the next step begins with.
		faults := make(chan error)
		s.fail(func(request) error { return <-faults })
		s.unfinished = true
		s.startWith(ctx, t)
		when("start")
		faults <- refused()
		time.Sleep(time.Minute)
		when("connection refused")
		faults <- forbidden()
		faults <- forbidden() // of the LIST
		time.Sleep(time.Minute)
		when("forbidden")
		faults <- nil
		time.Sleep(15 * time.Second)
		when("no bookmark for 15 s")
		s.bookmark(100, true)
		when("the bookmark")
		time.Sleep(5 * time.Minute)
		s.put(pod("web", 101))
		s.end(io.EOF)
		when("the watch ends")
		faults <- refused()
		time.Sleep(time.Minute)
		when("connection refused")
		faults <- nil
		synctest.Wait()
		s.expire()
		time.Sleep(time.Minute)
		when("410")
		s.unfinished = false
		faults <- nil
		synctest.Wait()
		s.abort(&apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure,
			Code: http.StatusGatewayTimeout, Reason: metav1.StatusReasonTimeout}})
		time.Sleep(time.Minute)
		when("relisted, then another error")
		s.fail(nil)
		faults <- nil
	})
	shown(t, out.String())
}

// Store

func TestStoreIsUpdatedBeforeTheHandlerRuns(t *testing.T) {
	play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
		s.handle(t, lines(func(line string) {
			line += ", store " + s.stored("web")
			time.Sleep(time.Second) // while the handler works on 101, 102 arrives
			s.calls = append(s.calls, line+", then "+s.stored("web"))
		}))
		s.start(t)
		s.pass(time.Second)
		s.put(pod("web", 101))
		synctest.Wait()
		s.put(pod("web", 102))
		s.pass(time.Minute)
		equal(t, "calls", strings.Join(s.calls, "; "), "Add web 90, store 90, then 90; "+
			"Update web 90 to 101, store 101, then 102; Update web 101 to 102, store 102, then 102")
	})
}

func TestIndexIsConsistentWithStore(t *testing.T) {
	on := func(node string, version int) *corev1.Pod {
		pod := pod("web", version)
		pod.Spec.NodeName = node
		return pod
	}
	play(t, serve(on("one", 90)), func(t *testing.T, s *scene) {
		err := s.pods.AddTypedIndexers(corev1informers.PodIndexers{
			"node": func(pod *corev1.Pod) ([]string, error) { return []string{pod.Spec.NodeName}, nil },
		})
		equal(t, "error", err, nil)
		s.handle(t, lines(func(line string) {
			for _, node := range []string{"one", "two"} {
				pods, err := s.pods.GetTypedIndexer().ByTypedIndex("node", node)
				if err != nil {
					t.Error(err)
				}
				line += fmt.Sprintf(", %s %d", node, len(pods))
			}
			s.calls = append(s.calls, line)
		}))
		s.start(t)
		s.put(on("two", 101))
		synctest.Wait()
		s.remove(on("two", 102))
		synctest.Wait()
		equal(t, "calls", strings.Join(s.calls, "; "), "Add web 90, one 1, two 0; "+
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
	t.Error(indexer.Add(pod("web", 1)))
}

// Processor and listeners

func TestOneGoroutineAHandler(t *testing.T) {
	playWith(t, fake.NewClientset(pod("a", 90), pod("b", 91), pod("c", 92)), func(t *testing.T, s *scene) {
		var running, handlers atomic.Int32
		for range 2 {
			var mine atomic.Int32
			s.handle(t, lines(func(string) {
				if mine.Add(1) > 1 {
					t.Error("two calls of one handler at the same time")
				}
				if running.Add(1) == 2 {
					handlers.Store(2)
				}
				time.Sleep(time.Second)
				running.Add(-1)
				mine.Add(-1)
			}))
		}
		s.start(t)
		s.pass(time.Minute)
		equal(t, "handlers at the same time", handlers.Load(), 2)
	})
}

// Each write arrives, in the order of the watch, also at a handler that is far behind.
func TestSlowHandlerDoesNotBlockTheOthers(t *testing.T) {
	const pods, writes = 30, 3_000 // the buffer begins with 1,024
	play(t, serve(), func(t *testing.T, s *scene) {
		var got, want []string
		release := make(chan struct{})
		s.handle(t, lines(func(line string) {
			<-release
			got = append(got, line)
		}))
		s.record(t)
		s.start(t)
		for i := range writes {
			name, version := fmt.Sprint("web-", i*7%pods), 101+i
			s.put(pod(name, version)) // the server is never held up
			if i < pods {
				want = append(want, fmt.Sprintf("Add %s %d", name, version))
			} else {
				want = append(want, fmt.Sprintf("Update %s %d to %d", name, version-pods, version))
			}
		}
		synctest.Wait()
		equal(t, "calls of the slow handler", len(got), 0)
		equal(t, "calls of the other", slices.Equal(s.calls, want), true)
		equal(t, "pods in the store", len(s.keys()), pods)
		close(release)
		synctest.Wait()
		equal(t, "calls of the slow handler, all buffered", slices.Equal(got, want), true)
	})
}

// Each case runs in a separate process, which panics.
func TestPanicEndsTheProgram(t *testing.T) {
	const variable = "PANIC"
	toAnotherType := func(any) (any, error) {
		return &metav1.PartialObjectMetadata{ObjectMeta: pod("web", 1).ObjectMeta}, nil
	}
	for name, test := range map[string]struct {
		transform cache.TransformFunc
		handle    func(line string)
		prints    []string
	}{
		"a handler panics": {nil, func(string) { panic("no bad pods") },
			[]string{`"Observed a panic" panic="no bad pods"`, "panic: no bad pods"}},
		"a transform panics": {func(any) (any, error) { panic("cannot transform") }, func(string) {},
			[]string{"panic: cannot transform"}},
		"a typed handler gets another type": {toAnotherType, func(string) {},
			[]string{"panic: interface conversion: interface {} is *v1.PartialObjectMetadata"}},
		"a typed lister gets another type": {toAnotherType, nil,
			[]string{"synced true, [default/web]", "panic: interface conversion"}},
	} {
		switch os.Getenv(variable) {
		case "":
			out, code := alone(t, variable, name)
			equal(t, name+": exit code", code, 2)
			for _, line := range test.prints {
				if !strings.Contains(out, line) {
					t.Errorf("%s: no line %q in:\n%s", name, line, out)
				}
			}
		case name:
			playWith(t, fake.NewClientset(pod("web", 1)), func(t *testing.T, s *scene) {
				equal(t, "error", s.pods.SetTransform(test.transform), nil)
				if test.handle != nil {
					s.handle(t, lines(test.handle))
				}
				s.start(t)
				fmt.Printf("synced %t, %v\n", s.pods.HasSynced(), s.keys()) // the store takes what has metadata
				_, err := s.lister.List(labels.Everything())
				t.Log(err)
			})
		}
	}
}

// A program may choose to live on, by a variable of the whole process.
func TestPanickingHandlerGoesOn(t *testing.T) {
	const variable = "DO_NOT_CRASH"
	if os.Getenv(variable) == "" {
		if out, code := alone(t, variable, "yes"); code != 0 {
			t.Error(out)
		}
		return
	}
	utilruntime.ReallyCrash = false
	play(t, serve(pod("bad", 90)), func(t *testing.T, s *scene) {
		var at []time.Duration
		registration := s.handle(t, lines(func(line string) {
			if line == "Add bad 90" {
				panic("no bad pods")
			}
			s.calls, at = append(s.calls, line), append(at, time.Since(s.began).Round(10*time.Millisecond))
		}))
		s.start(t)
		s.put(pod("good", 101))
		s.pass(time.Minute)
		equal(t, "the next call", s.calls, "[Add good 101]")
		equal(t, "a second later", at, "[1s]")
		equal(t, "the store is synced", s.pods.HasSynced(), true)
		equal(t, "the handler never is", registration.HasSynced(), false)
	})
}

// Lister

func TestListerReturnsSharedPointers(t *testing.T) {
	playWith(t, fake.NewClientset(pod("web", 90)), func(t *testing.T, s *scene) {
		var handled *corev1.Pod
		s.handle(t, corev1informers.PodHandlerFuncs{AddFunc: func(pod *corev1.Pod) { handled = pod }})
		s.start(t)
		one := s.get(t, "web")
		all, err := s.lister.List(labels.Everything())
		equal(t, "error", err, nil)
		equal(t, "Get, List and the handler share", one == all[0] && one == handled, true)
		equal(t, "a copy does not", one == one.DeepCopy(), false)
	})
}

func TestListerAsksNobody(t *testing.T) {
	play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
		listed := func(what string, want int) {
			t.Helper()
			pods, err := s.lister.List(labels.Everything())
			equal(t, what+": error", err, nil)
			equal(t, what, len(pods), want)
		}
		listed("before the start", 0)
		s.start(t)
		listed("synced", 1)
		equal(t, "requests", s.verbs(), "[watch]")
		// What the server does not send, the lister does not know.
		s.fail(always(refused()))
		s.replace()
		s.end(io.EOF)
		s.pass(time.Hour)
		listed("in an outage", 1)
	})
}

// The fake clientset

// The reactor acts between the list and the watch, where a real watch would begin at the version
// of the list.
func TestFakeClientForgetsADeleteBeforeTheWatch(t *testing.T) {
	client := fake.NewClientset(pod("gone", 1))
	client.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
		pods := corev1.SchemeGroupVersion.WithResource("pods")
		return false, nil, errors.Join(
			client.Tracker().Add(pod("new", 2)), client.Tracker().Delete(pods, "default", "gone"))
	})
	playWith(t, client, func(t *testing.T, s *scene) {
		s.start(t)
		keys := s.keys()
		slices.Sort(keys)
		equal(t, "keys in the store", keys, "[default/gone default/new]")
	})
}

// errorsHandled replaces the handlers of utilruntime.HandleError: one of them sleeps by a clock
// from outside the bubble. It returns where the messages are kept.
func errorsHandled(t *testing.T) *[]string {
	t.Helper()
	var messages []string
	handlers := utilruntime.ErrorHandlers
	t.Cleanup(func() { utilruntime.ErrorHandlers = handlers })
	utilruntime.ErrorHandlers = []utilruntime.ErrorHandler{
		func(_ context.Context, _ error, msg string, _ ...any) { messages = append(messages, msg) },
	}
	return &messages
}

func labeled(name string, version int) *corev1.Pod {
	pod := pod(name, version)
	pod.Labels = map[string]string{"team": "red"}
	return pod
}

// With WatchList an object of the initial state is transformed on its way into the reflector's
// temporary store, and again into the queue. An object of a LIST or a watch is transformed once.
func TestTransformRunsTwiceOnTheInitialState(t *testing.T) {
	for _, test := range []struct {
		name      string
		transform func(*corev1.Pod) string
		initial   string
	}{
		{"appends", func(pod *corev1.Pod) string { return pod.Labels["team"] + "-blue" }, "red-blue-blue"},
		{"sets", func(*corev1.Pod) string { return "red-blue" }, "red-blue"},
	} {
		option := transform(func(pod *corev1.Pod) error {
			pod.Labels["team"] = test.transform(pod)
			return nil
		})
		act := func(t *testing.T, s *scene) {
			s.handle(t, corev1informers.PodHandlerFuncs{AddFunc: func(pod *corev1.Pod) {
				equal(t, test.name+", first in the store", pod == s.get(t, pod.Name), true)
			}})
			s.start(t)
			if s.server == nil {
				equal(t, test.name+", from a LIST", s.get(t, "initial").Labels["team"], "red-blue")
				return
			}
			s.put(labeled("new", 101))
			synctest.Wait()
			equal(t, test.name+", initial", s.get(t, "initial").Labels["team"], test.initial)
			equal(t, test.name+", new", s.get(t, "new").Labels["team"], "red-blue")
		}
		play(t, serve(labeled("initial", 90)), act, option)
		playWith(t, fake.NewClientset(labeled("initial", 90)), act, option) // without WatchList
	}
}

// A transform of an informer is called with objects of the server, and with those alone: no
// tombstone, no bookmark, and nothing at a resync.
func TestTransformSeesNoTombstone(t *testing.T) {
	var seen []string
	option := informers.WithTransform(func(obj any) (any, error) {
		pod, ok := obj.(*corev1.Pod)
		if !ok {
			t.Errorf("a %T", obj)
			return obj, nil
		}
		seen = append(seen, pod.Name+" "+pod.ResourceVersion)
		pod.Labels = map[string]string{"transformed": "yes"}
		return pod, nil
	})
	play(t, serve(pod("kept", 90), pod("missed", 91), pod("seen", 92)), func(t *testing.T, s *scene) {
		var deleted []corev1informers.DeletedPod
		s.handle(t, corev1informers.PodHandlerFuncs{
			DeleteFunc: func(pod corev1informers.DeletedPod) { deleted = append(deleted, pod) },
		})
		s.start(t)
		seen = nil
		s.bookmark(100, false)
		s.remove(pod("seen", 101))
		s.pass(time.Hour) // with resyncs
		equal(t, "of a delete it sees the last state", seen, "[seen 101]")
		seen = nil
		s.replace(pod("kept", 90))
		s.relist()
		equal(t, "of a relist it sees what is there, twice", seen, "[kept 90 kept 90]")
		equal(t, "deletes", len(deleted), 2)
		for i, tombstone := range []bool{false, true} {
			equal(t, "tombstone", deleted[i].FinalStateUnknown != nil, tombstone)
			equal(t, deleted[i].GetName(), deleted[i].OptionalObj.Labels["transformed"], "yes")
		}
	}, option, resync(30*time.Second))
}

// With WatchList a relist takes an object that cannot be transformed for one that is gone.
func TestTransformErrorLosesTheObject(t *testing.T) {
	messages := errorsHandled(t)
	bad := "bad"
	option := transform(func(pod *corev1.Pod) error {
		if strings.HasPrefix(pod.Name, bad) {
			return errors.New("cannot transform")
		}
		return nil
	})
	play(t, serve(pod("bad-initial", 90), pod("good", 91)), func(t *testing.T, s *scene) {
		s.record(t)
		s.start(t)
		s.put(pod("bad-new", 101), pod("good", 102))
		synctest.Wait()
		equal(t, "synced", s.pods.HasSynced(), true)
		equal(t, "calls", s.calls, "[Add good 91 Update good 91 to 102]")
		bad = ""
		s.relist()
		equal(t, "after a relist", s.calls[2:], "[Delete good tombstone=true]")
		equal(t, "told", len(s.told), 0)
		equal(t, "logged", slices.Compact(*messages), "[Unable to add watch event object to store]")
	}, option)
}

// With LIST one object that cannot be transformed keeps all others out of the store. The fake
// clientset has no WatchList.
func TestTransformErrorWithListStoresNothing(t *testing.T) {
	option := transform(func(pod *corev1.Pod) error {
		if pod.Name == "bad" {
			return errors.New("cannot transform bad")
		}
		return nil
	})
	client := fake.NewClientset(pod("bad", 90), pod("good", 91))
	playWith(t, client, func(t *testing.T, s *scene) {
		s.start(t)
		s.pass(10 * time.Minute)
		equal(t, "stored", s.keys(), "[]")
		equal(t, "synced", s.pods.HasSynced(), false)
		equal(t, "told at each try", len(s.told), len(client.Actions()))
		equal(t, "told of", s.told[0], "unable to sync list result: cannot transform bad")

		err := client.CoreV1().Pods("default").Delete(t.Context(), "bad", metav1.DeleteOptions{})
		equal(t, "error", err, nil)
		s.pass(time.Minute)
		equal(t, "synced without it", s.pods.HasSynced(), true)
	}, option)
}

// After the sync a transform's error loses one event: the store keeps what it had.
func TestTransformErrorKeepsTheOldState(t *testing.T) {
	errorsHandled(t)
	option := transform(func(pod *corev1.Pod) error {
		if pod.ResourceVersion == "101" || pod.ResourceVersion == "102" {
			return errors.New("cannot transform")
		}
		return nil
	})
	withWatchList(t, func(t *testing.T, _ bool) {
		play(t, serve(pod("changed", 90), pod("deleted", 91)), func(t *testing.T, s *scene) {
			s.start(t)
			s.put(pod("changed", 101))
			s.remove(pod("deleted", 102))
			synctest.Wait()
			equal(t, "changed, as before", s.stored("changed"), "90")
			equal(t, "deleted, still there", s.stored("deleted"), "91")
			equal(t, "told", len(s.told), 0)
			s.put(pod("changed", 103))
			synctest.Wait()
			equal(t, "changed, by the next event", s.stored("changed"), "103")
		}, option)
	})
}

// client-go does not look at what a transform returns, nor at the errors that follow from it.
func TestTransformThatReturnsNilEmptiesTheStore(t *testing.T) {
	messages := errorsHandled(t)
	option := informers.WithTransform(func(obj any) (any, error) {
		if pod, ok := obj.(*corev1.Pod); ok && pod.Name != "unwanted" {
			return pod, nil
		}
		return nil, nil // wrong: to drop an object, use a selector
	})
	withWatchList(t, func(t *testing.T, _ bool) {
		play(t, serve(pod("unwanted", 90), pod("wanted", 91)), func(t *testing.T, s *scene) {
			ctx, logged := logs(t, 0)
			s.startWith(ctx, t)
			equal(t, "synced", s.pods.HasSynced(), true)
			equal(t, "stored", s.keys(), "[]")
			s.put(pod("wanted-too", 101))
			synctest.Wait()
			equal(t, "stored then", s.keys(), "[default/wanted-too]")
			equal(t, "told", len(s.told), 0)
			equal(t, "logged", logged.String()+strings.Join(*messages, ""), "")
		}, option)
	})
}

// A handler that is not due when a pod is written gets no call if a transform drops the
// resourceVersion: the write looks like a resync, as each does over the fake clientset.
func TestTransformMustKeepTheResourceVersion(t *testing.T) {
	for drops, want := range map[bool]int{false: 1, true: 0} {
		option := transform(func(pod *corev1.Pod) error {
			if drops {
				pod.ResourceVersion = ""
			}
			return nil
		})
		play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
			calls := 0
			s.handle(t, corev1informers.PodHandlerFuncs{UpdateFunc: func(_, _ *corev1.Pod) { calls++ }},
				every(45*time.Second))
			s.start(t)
			s.pass(40 * time.Second)
			s.put(pod("web", 101))
			synctest.Wait()
			equal(t, fmt.Sprintf("calls, drops %t", drops), calls, want)
		}, option, resync(30*time.Second))
	}
}
