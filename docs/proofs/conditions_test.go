package proofs

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clientfeatures "k8s.io/client-go/features"
	clientfeaturestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
)

// The conditions under which a sentence of the pages holds: how a connection ends, with and
// without WatchList, what a transform returns.

// withWatchList runs a test with the feature gate on and off.
func withWatchList(t *testing.T, test func(t *testing.T, on bool)) {
	t.Helper()
	for _, on := range []bool{true, false} {
		t.Run(fmt.Sprintf("WatchList %t", on), func(t *testing.T) {
			clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, on)
			test(t, on)
		})
	}
}

// logs returns a context whose logger keeps the lines of verbosity 0.
func logs(t *testing.T) (context.Context, ktesting.Buffer) {
	t.Helper()
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(0)))
	buffer := logger.GetSink().(ktesting.Underlier).GetBuffer()
	return klog.NewContext(t.Context(), logger), buffer
}

// handled replaces the handlers of utilruntime.HandleError: one of them sleeps by a clock from
// outside the bubble. It returns where the messages are kept.
func handled(t *testing.T) *[]string {
	t.Helper()
	var messages []string
	handlers := utilruntime.ErrorHandlers
	t.Cleanup(func() { utilruntime.ErrorHandlers = handlers })
	utilruntime.ErrorHandlers = []utilruntime.ErrorHandler{
		func(_ context.Context, _ error, msg string, _ ...any) { messages = append(messages, msg) },
	}
	return &messages
}

// Connections

// A lineServer speaks HTTP/2 over pipes, so a bubble's clock governs its connections too.
type lineServer struct {
	net.Listener // closed, only its address is used
	dials        chan net.Conn
	mu           sync.Mutex
	conn         *lineConn // the newest connection
}

// A lineConn can stop to deliver what the server writes.
type lineConn struct {
	net.Conn
	silent atomic.Bool
}

func (c *lineConn) Write(b []byte) (int, error) {
	if c.silent.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (l *lineServer) Accept() (net.Conn, error) {
	conn, ok := <-l.dials
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (l *lineServer) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dials != nil {
		close(l.dials)
		l.dials = nil
	}
	return nil
}

func (l *lineServer) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	l.mu.Lock()
	l.conn = &lineConn{Conn: server}
	dials, conn := l.dials, l.conn
	l.mu.Unlock()
	dials <- conn
	return client, nil
}

func (l *lineServer) newest() *lineConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// newLineServer returns the server and the config of a client that reaches it.
func newLineServer(t *testing.T, handler http.Handler) (*lineServer, *rest.Config) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	line := &lineServer{Listener: server.Listener, dials: make(chan net.Conn)}
	server.Listener = line
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return line, &rest.Config{
		Host: "https://example.com", // a name in the certificate of httptest
		TLSClientConfig: rest.TLSClientConfig{CAData: pem.EncodeToMemory(
			&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})},
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
		Dial:  line.dial,
	}
}

// send writes an event of a watch.
func send(t *testing.T, w http.ResponseWriter, event watch.EventType, pod *corev1.Pod) {
	t.Helper()
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	if err := errors.Join(
		json.NewEncoder(w).Encode(map[string]any{"type": event, "object": pod}),
		http.NewResponseController(w).Flush(),
	); err != nil {
		t.Error(err)
	}
}

// What client-go takes for an end is resumed. Anything else is an error in the stream: it is
// logged, the watch error handler is not told, and what was missed comes by a relist.
func TestNotEveryLostConnectionIsResumed(t *testing.T) {
	const undecodable = `{"type":"MODIFIED","object":{"apiVersion":"v1","kind":"Pod",` +
		`"metadata":{"namespace":"default","name":"a","resourceVersion":"101"},` +
		`"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"much"}}}]}}}` + "\n"
	for _, test := range []struct {
		name   string
		end    func(line *lineServer, w http.ResponseWriter, r *http.Request)
		relist bool
		after  time.Duration // at least, after the end
		logged string
	}{
		{"the server ends the stream",
			func(*lineServer, http.ResponseWriter, *http.Request) {},
			false, 0, ""},
		{"the connection is closed",
			func(line *lineServer, _ http.ResponseWriter, _ *http.Request) { _ = line.newest().Close() },
			false, 0, ""},
		{"the stream is reset", // RST_STREAM
			func(*lineServer, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			true, 800 * time.Millisecond, "INTERNAL_ERROR; received from peer"},
		{"a ping is not answered",
			func(line *lineServer, _ http.ResponseWriter, r *http.Request) {
				line.newest().silent.Store(true)
				<-r.Context().Done()
			},
			true, 44 * time.Second, "http2: client connection lost"},
		{"an event cannot be decoded",
			func(_ *lineServer, w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, undecodable)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			},
			true, 800 * time.Millisecond, "quantities must match the regular expression"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, logged := logs(t)

				var line *lineServer
				var requests atomic.Int32
				var ended, again time.Time
				var relisted bool
				handler := func(w http.ResponseWriter, r *http.Request) {
					initial := r.URL.Query().Get("sendInitialEvents") == "true"
					w.Header().Set("Content-Type", "application/json")
					if requests.Add(1) == 1 {
						send(t, w, watch.Added, stagesPod("a", 80))
						send(t, w, watch.Added, stagesPod("b", 90))
						send(t, w, watch.Bookmark, stagesBookmark("100", true))
						time.Sleep(61 * time.Second) // the client pings after 30 s without a frame
						ended = time.Now()
						test.end(line, w, r)
						return
					}
					// In the meantime b was deleted.
					again, relisted = time.Now(), initial
					if initial {
						send(t, w, watch.Added, stagesPod("a", 80))
						send(t, w, watch.Bookmark, stagesBookmark("200", true))
					} else {
						equal(t, "resumes from", r.URL.Query().Get("resourceVersion"), "100")
						send(t, w, watch.Deleted, stagesPod("b", 150))
					}
					<-r.Context().Done()
				}
				line, config := newLineServer(t, http.HandlerFunc(handler))
				client, err := kubernetes.NewForConfig(config)
				if err != nil {
					t.Fatal(err)
				}
				factory := informers.NewSharedInformerFactory(client, 0)
				pods := factory.Core().V1().Pods().TypedInformer()
				told := 0
				if err := pods.SetWatchErrorHandlerWithContext(
					func(context.Context, *cache.Reflector, error) { told++ }); err != nil {
					t.Fatal(err)
				}
				var deleted []string
				if _, err := pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
					DeleteFunc: func(pod corev1informers.DeletedPod) {
						deleted = append(deleted, fmt.Sprintf("%s tombstone=%t",
							pod.GetName(), pod.FinalStateUnknown != nil))
					},
				}); err != nil {
					t.Fatal(err)
				}
				factory.StartWithContext(ctx)
				t.Cleanup(factory.Shutdown)
				time.Sleep(3 * time.Minute)
				synctest.Wait()

				equal(t, "relist", relisted, test.relist)
				equal(t, "deleted", deleted, fmt.Sprintf("[b tombstone=%t]", test.relist))
				equal(t, "told", told, 0)
				after := again.Sub(ended)
				if after < test.after || after > test.after+2*time.Second {
					t.Errorf("the next request comes after %s, want %s", after, test.after)
				}
				equal(t, "logged", strings.Contains(logged.String(), "watch ended with error"), test.relist)
				if !strings.Contains(logged.String(), test.logged) {
					t.Errorf("no %q in the log:\n%s", test.logged, logged)
				}
			})
		})
	}
}

// An error before the bookmark makes the reflector fall back to LIST at once. A watch that only
// ends is opened again.
func TestErrorBeforeTheBookmarkFallsBackToList(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(w *watch.FakeWatcher)
		next string
	}{
		{"an error event", func(w *watch.FakeWatcher) {
			w.Error(&apierrors.NewInternalError(errors.New("cannot decode")).ErrStatus)
		}, "list"},
		{"an end", func(w *watch.FakeWatcher) { w.Stop() }, "watch"},
	} {
		t.Run(test.name, func(t *testing.T) {
			stages(t, func(t *testing.T, s *stagesScene) {
				s.start(t.Context(), t)
				w := s.next(t, "watch").open()
				w.Add(stagesPod("web", 90))
				time.Sleep(2 * time.Second)
				ended := time.Now()
				test.end(w)
				r := s.next(t, test.next)
				equal(t, "at once", r.at, ended)
				if test.next == "list" {
					r.list("100", stagesPod("web", 90))
					r = s.next(t, "watch")
					r.open()
				} else {
					equal(t, "initial events", *r.options.SendInitialEvents, true)
					r.initial("100", stagesPod("web", 90))
				}
				synctest.Wait()
				equal(t, "stored", s.stored("web"), "90")
				equal(t, "told", len(s.told), 0)
			})
		})
	}
}

// With WatchList the reflector retries a refused connection by itself, and its wait ignores the
// context. Without, the LIST fails, and each failure is told.
func TestRefusedConnectionIsToldWithoutWatchList(t *testing.T) {
	withWatchList(t, func(t *testing.T, on bool) {
		stages(t, func(t *testing.T, s *stagesScene) {
			ctx, cancel := context.WithCancel(t.Context())
			s.start(ctx, t)
			verb := map[bool]string{true: "watch", false: "list"}[on]
			for range 3 {
				s.next(t, verb).refuse(apierrors.NewTooManyRequests("later", 1))
				s.next(t, verb).refuse(stagesRefused())
			}
			synctest.Wait()
			equal(t, "told", len(s.told), map[bool]int{true: 0, false: 6}[on])
			cancelled := time.Now()
			cancel()
			for !s.pods.IsStopped() {
				time.Sleep(time.Millisecond)
			}
			waited := time.Since(cancelled)
			equal(t, "the end waits for the back-off", waited > time.Second, on)
		})
	})
}

// Once the store is filled, a refused connection is told in neither case.
func TestRefusedConnectionAfterTheSyncIsNotTold(t *testing.T) {
	withWatchList(t, func(t *testing.T, on bool) {
		stages(t, func(t *testing.T, s *stagesScene) {
			s.start(t.Context(), t)
			var w *watch.FakeWatcher
			if on {
				w = s.next(t, "watch").initial("100")
			} else {
				s.next(t, "list").list("100")
				w = s.next(t, "watch").open()
			}
			time.Sleep(time.Minute)
			w.Stop()
			for range 3 {
				s.next(t, "watch").refuse(stagesRefused())
				s.next(t, "watch").refuse(apierrors.NewTooManyRequests("later", 1))
			}
			r := s.next(t, "watch")
			equal(t, "resumes from", r.options.ResourceVersion, "100")
			equal(t, "told", len(s.told), 0)
			r.open()
		})
	})
}

// The fake clientset has no WatchList, so it behaves like a client whose gate is off.
func TestRefusedConnectionIsToldByTheFake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve()
		s.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, stagesRefused()
		})
		factory := informers.NewSharedInformerFactory(s, 0)
		pods := factory.Core().V1().Pods().TypedInformer()
		told := 0
		if err := pods.SetWatchErrorHandlerWithContext(
			func(context.Context, *cache.Reflector, error) { told++ }); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		factory.StartWithContext(ctx)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		equal(t, "told at each try", told, len(s.requests()))
		if told < 5 {
			t.Errorf("told %d times", told)
		}
		began := time.Now()
		cancel()
		factory.Shutdown()
		equal(t, "Shutdown takes", time.Since(began), time.Duration(0))
	})
}

// The ticker ticks every 10 s since the request. A tick warns if nothing has come at all, or the
// last event is 10 s old.
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
			stages(t, func(t *testing.T, s *stagesScene) {
				ctx, logged := logs(t)
				s.start(ctx, t)
				w := s.next(t, "watch").open()
				began := time.Now()
				for i, at := range test.events {
					time.Sleep(at - time.Since(began))
					w.Add(stagesPod(fmt.Sprint("web-", i), 90+i))
				}
				time.Sleep(35*time.Second - time.Since(began))
				synctest.Wait()
				var at []time.Duration
				for _, entry := range logged.Data() {
					if strings.Contains(entry.Message, "event bookmark expired") {
						at = append(at, entry.Timestamp.Sub(began).Round(time.Second))
					}
				}
				equal(t, "warns at", at, test.want)
			})
		})
	}
}

// Transforms

// setTransform is a transform that sees what client-go passes, not only pods.
func (s *stagesScene) setTransform(t *testing.T, transform cache.TransformFunc) {
	t.Helper()
	if err := s.pods.SetTransform(transform); err != nil {
		t.Fatal(err)
	}
}

// bad fails for pods whose name says so.
func bad(obj any) (any, error) {
	if pod := obj.(*corev1.Pod); strings.HasPrefix(pod.Name, "bad") {
		return nil, errors.New("cannot transform " + pod.Name)
	}
	return obj, nil
}

// With LIST one object that cannot be transformed keeps all others out of the store.
func TestTransformErrorWithListStoresNothing(t *testing.T) {
	clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, false)
	stages(t, func(t *testing.T, s *stagesScene) {
		s.setTransform(t, bad)
		s.start(t.Context(), t)
		for range 5 {
			s.next(t, "list").list("100", stagesPod("bad", 90), stagesPod("good", 91))
		}
		synctest.Wait()
		equal(t, "stored", s.pods.GetStore().ListKeys(), "[]")
		equal(t, "synced", s.pods.HasSynced(), false)
		equal(t, "told", len(s.told), 5)
		equal(t, "told of", s.told[0],
			"unable to sync list result: cannot transform bad")

		s.next(t, "list").list("100", stagesPod("good", 91)) // the bad one has been deleted
		s.next(t, "watch").open()
		synctest.Wait()
		equal(t, "synced without it", s.pods.HasSynced(), true)
	})
}

func TestTransformErrorOverTheFakeStoresNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		s := serve(pod("bad", "90"), pod("good", "91"))
		factory := informers.NewSharedInformerFactoryWithOptions(s, 0, informers.WithTransform(bad))
		pods := factory.Core().V1().Pods().TypedInformer()
		told := 0
		if err := pods.SetWatchErrorHandlerWithContext(
			func(context.Context, *cache.Reflector, error) { told++ }); err != nil {
			t.Fatal(err)
		}
		factory.StartWithContext(ctx)
		equal(t, "the wait fails", factory.WaitForCacheSyncWithContext(ctx).Err != nil, true)
		factory.Shutdown()
		equal(t, "stored", pods.GetStore().ListKeys(), "[]")
		equal(t, "told at each try", told, len(s.requests()))
	})
}

// After the sync a transform's error loses one event: the store keeps what it had.
func TestTransformErrorKeepsTheOldState(t *testing.T) {
	handled(t)
	withWatchList(t, func(t *testing.T, on bool) {
		stages(t, func(t *testing.T, s *stagesScene) {
			fails := map[string]bool{"101": true, "102": true}
			s.setTransform(t, func(obj any) (any, error) {
				if fails[obj.(*corev1.Pod).ResourceVersion] {
					return nil, errors.New("cannot transform")
				}
				return obj, nil
			})
			s.start(t.Context(), t)
			var w *watch.FakeWatcher
			pods := []*corev1.Pod{stagesPod("changed", 90), stagesPod("deleted", 91)}
			if on {
				w = s.next(t, "watch").initial("100", pods...)
			} else {
				s.next(t, "list").list("100", pods...)
				w = s.next(t, "watch").open()
			}
			w.Modify(stagesPod("changed", 101))
			w.Delete(stagesPod("deleted", 102))
			synctest.Wait()
			equal(t, "changed, as before", s.stored("changed"), "90")
			equal(t, "deleted, still there", s.stored("deleted"), "91")
			equal(t, "told", len(s.told), 0)
			w.Modify(stagesPod("changed", 103))
			synctest.Wait()
			equal(t, "changed, by the next event", s.stored("changed"), "103")
		})
	})
}

// With WatchList a relist takes an object that cannot be transformed for one that is gone.
func TestTransformErrorInARelistIsADelete(t *testing.T) {
	handled(t)
	stages(t, func(t *testing.T, s *stagesScene) {
		fail := false
		s.setTransform(t, func(obj any) (any, error) {
			if fail && obj.(*corev1.Pod).Name == "web" {
				return nil, errors.New("cannot transform")
			}
			return obj, nil
		})
		var calls []string
		s.handle(t, func(line string) { calls = append(calls, line) })
		w := s.sync(t, stagesPod("web", 90))
		fail = true
		w.Error(stagesGone())
		s.next(t, "watch").initial("200", stagesPod("web", 90))
		equal(t, "calls", calls, "[Add web 90 Delete web tombstone=true]")
	})
}

// A transform that fails on what it has already transformed makes WatchList fall back to LIST.
func TestTransformThatFailsTheSecondTimeFallsBackToList(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		s.setTransform(t, func(obj any) (any, error) {
			pod := obj.(*corev1.Pod)
			if pod.Annotations["size"] == "" {
				return nil, errors.New("no annotation size")
			}
			delete(pod.Annotations, "size")
			return pod, nil
		})
		sized := func() *corev1.Pod {
			pod := stagesPod("web", 90)
			pod.Annotations = map[string]string{"size": "big"}
			return pod
		}
		s.start(t.Context(), t)
		s.next(t, "watch").initial("100", sized())
		equal(t, "synced", s.pods.HasSynced(), false)
		s.next(t, "list").list("100", sized())
		s.next(t, "watch").open()
		synctest.Wait()
		equal(t, "synced by the list", s.pods.HasSynced(), true)
		equal(t, "stored", s.stored("web"), "90")
		equal(t, "told", len(s.told), 0)
	})
}

// client-go does not look at what a transform returns, nor at the errors that follow from it.
func TestTransformThatReturnsNilEmptiesTheStore(t *testing.T) {
	messages := handled(t)
	withWatchList(t, func(t *testing.T, on bool) {
		stages(t, func(t *testing.T, s *stagesScene) {
			s.setTransform(t, func(obj any) (any, error) {
				if pod, ok := obj.(*corev1.Pod); ok && pod.Name != "unwanted" {
					return pod, nil
				}
				return nil, nil // wrong: to drop an object, use a selector
			})
			ctx, logged := logs(t)
			s.start(ctx, t)
			pods := []*corev1.Pod{stagesPod("unwanted", 90), stagesPod("wanted", 91)}
			var w *watch.FakeWatcher
			if on {
				w = s.next(t, "watch").initial("100", pods...)
			} else {
				s.next(t, "list").list("100", pods...)
				w = s.next(t, "watch").open()
			}
			synctest.Wait()
			equal(t, "synced", s.pods.HasSynced(), true)
			equal(t, "stored", s.pods.GetStore().ListKeys(), "[]")
			w.Add(stagesPod("wanted-too", 101))
			synctest.Wait()
			equal(t, "stored then", s.pods.GetStore().ListKeys(), "[default/wanted-too]")
			equal(t, "told", len(s.told), 0)
			equal(t, "logged", logged.String()+strings.Join(*messages, ""), "")
		})
	})
}

// An informer stores whatever has metadata. Typed code finds out when it reads.
func TestTransformToAnotherTypePanicsInTypedCode(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		s.setTransform(t, func(obj any) (any, error) {
			if pod, ok := obj.(*corev1.Pod); ok {
				return &metav1.PartialObjectMetadata{ObjectMeta: pod.ObjectMeta}, nil
			}
			return obj, nil // the second time
		})
		s.sync(t, stagesPod("web", 90))
		equal(t, "synced", s.pods.HasSynced(), true)
		equal(t, "stored", s.pods.GetStore().ListKeys(), "[default/web]")
		defer func() {
			equal(t, "panic", strings.Contains(fmt.Sprint(recover()),
				"interface conversion: interface {} is *v1.PartialObjectMetadata, not *v1.Pod"), true)
		}()
		_, err := s.lister.List(labels.Everything())
		t.Errorf("no panic, error %v", err)
	})
}

// The transform of a typed handler's informer: the same, in the goroutine of the handler.
func TestTransformToAnotherTypeCrashesATypedHandler(t *testing.T) {
	if os.Getenv("STAGES_CRASH") == "" {
		out, code := stagesAlone(t, "STAGES_CRASH", "true")
		equal(t, "exit code", code, 2)
		if !strings.Contains(out, "panic: interface conversion: interface {} is *v1.PartialObjectMetadata") {
			t.Error(out)
		}
		return
	}
	stages(t, func(t *testing.T, s *stagesScene) {
		s.setTransform(t, func(any) (any, error) {
			return &metav1.PartialObjectMetadata{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			}, nil
		})
		s.handle(t, func(string) {})
		s.sync(t, stagesPod("web", 90))
	})
}

func TestTransformThatPanicsEndsTheProgram(t *testing.T) {
	if os.Getenv("STAGES_CRASH") == "" {
		out, code := stagesAlone(t, "STAGES_CRASH", "true")
		equal(t, "exit code", code, 2)
		if !strings.Contains(out, "panic: cannot transform web") {
			t.Error(out)
		}
		return
	}
	stages(t, func(t *testing.T, s *stagesScene) {
		s.transform(t, func(pod *corev1.Pod) error { panic("cannot transform " + pod.Name) })
		s.start(t.Context(), t)
		s.next(t, "watch").open().Add(stagesPod("web", 90)) // and nothing that the panic would cut off
		time.Sleep(time.Minute)
	})
}

// A transform of an informer is called with objects of the server, and with those alone: no
// tombstone, no bookmark, and nothing at a resync.
func TestTransformSeesNoTombstone(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		var seen []string
		s.setTransform(t, func(obj any) (any, error) {
			pod, ok := obj.(*corev1.Pod)
			if !ok {
				t.Errorf("a %T", obj)
				return obj, nil
			}
			seen = append(seen, pod.Name+" "+pod.ResourceVersion)
			pod.Labels = map[string]string{"transformed": "yes"}
			return pod, nil
		})
		var deleted []corev1informers.DeletedPod
		if _, err := s.pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
			DeleteFunc: func(pod corev1informers.DeletedPod) { deleted = append(deleted, pod) },
		}); err != nil {
			t.Fatal(err)
		}
		w := s.sync(t, stagesPod("missed", 90), stagesPod("seen", 91))
		seen = nil
		w.Action(watch.Bookmark, stagesBookmark("100", false))
		w.Delete(stagesPod("seen", 101))
		w.Error(stagesGone())
		s.next(t, "watch").initial("200")
		equal(t, "seen", seen, "[seen 101]")
		equal(t, "deletes", len(deleted), 2)
		equal(t, "missed: tombstone", deleted[1].FinalStateUnknown != nil, true)
		for _, pod := range deleted {
			equal(t, pod.GetName(), pod.OptionalObj.Labels["transformed"], "yes")
		}
	})
}

func TestResyncIsNotTransformed(t *testing.T) {
	transformed := 0
	count := informers.WithTransform(func(obj any) (any, error) {
		transformed++
		return obj, nil
	})
	tell(t, serve(pod("web", "1")), 30*time.Second, func(t *testing.T, s *story) {
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		equal(t, "calls: an Add and twenty resyncs", len(s.calls), 21)
		equal(t, "transformed: the list's, once without WatchList", transformed, 1)
	}, count)
}

// Conditions of a pod

// onReady calls handle once for each time that a pod becomes ready, and once for each pod that
// was ready before the program started.
func onReady(handle func(pod *corev1.Pod)) corev1informers.PodHandlerFuncs {
	return corev1informers.PodHandlerFuncs{
		AddFunc: func(pod *corev1.Pod) {
			if isReady(pod) {
				handle(pod)
			}
		},
		UpdateFunc: func(old, pod *corev1.Pod) {
			if isReady(pod) && (!isReady(old) || old.UID != pod.UID) {
				handle(pod)
			}
		},
	}
}

// whileReady calls handle whenever a pod is ready: that is level-driven, and repeats itself.
func whileReady(handle func(pod *corev1.Pod)) corev1informers.PodHandlerFuncs {
	look := func(pod *corev1.Pod) {
		if isReady(pod) {
			handle(pod)
		}
	}
	return corev1informers.PodHandlerFuncs{
		AddFunc:    look,
		UpdateFunc: func(_, pod *corev1.Pod) { look(pod) },
	}
}

func TestReadyOnceForEachTransition(t *testing.T) {
	as := func(name, version string, ready corev1.ConditionStatus) *corev1.Pod {
		pod := pod(name, version)
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
		return pod
	}
	server := serve(as("before", "1", corev1.ConditionTrue), as("web", "2", corev1.ConditionFalse))
	tell(t, server, 30*time.Second, func(t *testing.T, s *story) {
		var once, repeated []string
		for _, handlers := range []corev1informers.PodHandlerFuncs{
			onReady(func(pod *corev1.Pod) { once = append(once, pod.Name) }),
			whileReady(func(pod *corev1.Pod) { repeated = append(repeated, pod.Name) }),
		} {
			if _, err := s.informer.AddTypedEventHandler(handlers); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		equal(t, "ready before the start", once, "[before]")
		s.watch.Modify(as("web", "3", corev1.ConditionTrue))
		s.watch.Modify(as("web", "4", corev1.ConditionTrue)) // another field changed
		synctest.Wait()
		equal(t, "once", once, "[before web]")
		equal(t, "repeated", repeated, "[before web web]")
		s.watch.Modify(as("web", "5", corev1.ConditionFalse))
		s.watch.Modify(as("web", "6", corev1.ConditionTrue))
		synctest.Wait()
		equal(t, "ready again", once, "[before web web]")
		time.Sleep(31 * time.Second) // a resync
		synctest.Wait()
		equal(t, "once, after a resync", once, "[before web web]")
		equal(t, "repeated: four, and two by the resync", len(repeated), 6)

		// A relist shows only the last state: that web was not ready in between is lost, and
		// that it is another pod only its UID says.
		s.pods = []*corev1.Pod{as("before", "1", corev1.ConditionTrue), as("web", "9", corev1.ConditionTrue)}
		s.expire()
		equal(t, "not ready in between, missed", once, "[before web web]")
		s.pods[1].UID, s.pods[1].ResourceVersion = "new", "12"
		s.expire()
		equal(t, "another pod of that name", once, "[before web web web]")
	})
}

// Factories without contexts

func dynamicStart(
	ctx context.Context, client dynamic.Interface,
) (dynamicinformer.DynamicSharedInformerFactory, cache.GenericLister, error) {
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	pods := factory.ForResource(corev1.SchemeGroupVersion.WithResource("pods"))
	lister := pods.Lister() // before the start
	factory.Start(ctx.Done())
	for resource, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return nil, nil, fmt.Errorf("sync %s: %w", resource, context.Cause(ctx))
		}
	}
	return factory, lister, nil
}

func metadataStart(
	ctx context.Context, client metadata.Interface,
) (metadatainformer.SharedInformerFactory, cache.GenericLister, error) {
	factory := metadatainformer.NewSharedInformerFactory(client, 0)
	pods := factory.ForResource(corev1.SchemeGroupVersion.WithResource("pods"))
	lister := pods.Lister()
	factory.Start(ctx.Done())
	for resource, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return nil, nil, fmt.Errorf("sync %s: %w", resource, context.Cause(ctx))
		}
	}
	return factory, lister, nil
}

// This test fails when a new client-go gives these interfaces the forms with a context.
func TestDynamicAndMetadataFactoriesHaveNoContext(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), metav1.AddMetaToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	web := &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
	}
	for _, factory := range []reflect.Type{
		reflect.TypeFor[dynamicinformer.DynamicSharedInformerFactory](),
		reflect.TypeFor[metadatainformer.SharedInformerFactory](),
	} {
		for _, method := range []string{"StartWithContext", "WaitForCacheSyncWithContext"} {
			_, ok := factory.MethodByName(method)
			equal(t, factory.String()+" has "+method, ok, false)
		}
	}
	type factory interface{ Shutdown() }
	for name, start := range map[string]func(context.Context) (factory, cache.GenericLister, error){
		"dynamic": func(ctx context.Context) (factory, cache.GenericLister, error) {
			return dynamicStart(ctx, dynamicfake.NewSimpleDynamicClient(scheme, pod("web", "1")))
		},
		"metadata": func(ctx context.Context) (factory, cache.GenericLister, error) {
			return metadataStart(ctx, metadatafake.NewSimpleMetadataClient(scheme, web))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				factory, lister, err := start(ctx)
				if err != nil {
					t.Fatal(err)
				}
				pods, err := lister.List(labels.Everything())
				equal(t, "error", err, nil)
				equal(t, "pods", len(pods), 1)
				cancel()
				factory.Shutdown()

				broken, fail := context.WithCancelCause(t.Context())
				fail(errors.New("no time"))
				_, _, err = start(broken)
				equal(t, "the wait has no error of its own", err, "sync /v1, Resource=pods: no time")
			})
		})
	}
}

// Periods

// UntilWithContext waits for its period after a run, NonSlidingUntilWithContext from its start.
func TestUntilWaitsAfterEachRun(t *testing.T) {
	for _, test := range []struct {
		name  string
		until func(context.Context, func(context.Context), time.Duration)
		want  string
	}{
		{"sliding", wait.UntilWithContext, "[0 14 28 42]"},
		{"not sliding", wait.NonSlidingUntilWithContext, "[0 10 20 30 40 50]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 55*time.Second)
				defer cancel()
				began := time.Now()
				var at []int
				test.until(ctx, func(context.Context) {
					at = append(at, int(time.Since(began).Seconds()))
					time.Sleep(4 * time.Second)
				}, 10*time.Second)
				equal(t, "starts", at, test.want)
			})
		})
	}
}
