package proofs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/cache/synctrack"
	"k8s.io/client-go/util/workqueue"

	"example.com/informers/internal/outputs"
)

// A syncedScene has three pods, on a server that takes 50 ms for an answer. All is in a bubble:
// the times are exact.
type syncedScene struct {
	client  *fake.Clientset
	factory informers.SharedInformerFactory
	pods    corev1informers.PodIndexInformer
	began   time.Time
	out     strings.Builder
}

// syncedStory runs a story in a bubble, and holds the page to what it prints.
func syncedStory(t *testing.T, tell func(t *testing.T, s *syncedScene)) {
	t.Helper()
	s := &syncedScene{}
	synctest.Test(t, func(t *testing.T) {
		s.began = time.Now()
		s.client = fake.NewClientset(pod("a", "1"), pod("b", "1"), pod("c", "1"))
		s.client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			time.Sleep(50 * time.Millisecond)
			return false, nil, nil
		})
		s.factory = informers.NewSharedInformerFactory(s.client, 0)
		s.pods = s.factory.Core().V1().Pods().TypedInformer()
		t.Cleanup(s.factory.Shutdown) // the test's context has ended then
		tell(t, s)
	})
	outputs.Shown(t, root, s.out.String(), *update)
}

// printf prints a line, with the time since the story began.
func (s *syncedScene) printf(format string, args ...any) {
	fmt.Fprintf(&s.out, "%6s  %s\n", time.Since(s.began), fmt.Sprintf(format, args...))
}

func (s *syncedScene) stored() int { return len(s.pods.GetStore().ListKeys()) }

func TestSyncedNobodyWaits(t *testing.T) {
	syncedStory(t, func(t *testing.T, s *syncedScene) {
		lister := s.factory.Core().V1().Pods().Lister()

		// wrong: the store fills in the background
		s.factory.StartWithContext(t.Context())
		pods, err := lister.List(labels.Everything())

		s.printf("lister: %d pods, error %v", len(pods), err)
		equal(t, "pods at once", len(pods), 0)
		equal(t, "error", err, nil)
		s.factory.WaitForCacheSyncWithContext(t.Context())
		pods, err = lister.List(labels.Everything())
		s.printf("lister: %d pods, error %v", len(pods), err)
		equal(t, "pods in the end", len(pods), 3)
	})
}

func TestSyncedStoreIsNotHandlers(t *testing.T) {
	syncedStory(t, func(t *testing.T, s *syncedScene) {
		ctx := t.Context()
		var handled atomic.Int32
		handler, err := s.pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
			AddFunc: func(*corev1.Pod) {
				time.Sleep(time.Second) // a slow handler
				handled.Add(1)
			},
		})
		if err != nil {
			t.Fatal(err)
		}

		// wrong: the store is filled, the handler has seen nothing yet
		s.factory.StartWithContext(ctx)
		result := s.factory.WaitForCacheSyncWithContext(ctx)

		s.printf("factory's wait: error %v, %d pods in the store", result.Err, s.stored())
		s.printf("handler has finished %d pods", handled.Load())
		s.printf("informer synced: %t, handler synced: %t", s.pods.HasSynced(), handler.HasSynced())
		equal(t, "stored", s.stored(), 3)
		equal(t, "handled", handled.Load(), 0)
		equal(t, "informer synced", s.pods.HasSynced(), true)
		equal(t, "handler synced", handler.HasSynced(), false)
	})
}

func TestSyncedRightWay(t *testing.T) {
	syncedStory(t, func(t *testing.T, s *syncedScene) {
		ctx := t.Context()
		var handled atomic.Int32
		handler, err := s.pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
			AddFunc: func(*corev1.Pod) {
				time.Sleep(time.Second)
				handled.Add(1)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.factory.StartWithContext(ctx)

		// right: ask the registration
		if !cache.WaitFor(ctx, "", handler.HasSyncedChecker()) {
			t.Fatal(context.Cause(ctx))
		}

		s.printf("handler has finished %d pods", handled.Load())
		s.printf("informer synced: %t, handler synced: %t", s.pods.HasSynced(), handler.HasSynced())
		equal(t, "handled", handled.Load(), 3)
		equal(t, "informer synced", s.pods.HasSynced(), true)
		equal(t, "handler synced", handler.HasSynced(), true)
	})
}

func TestSyncedHandlersDiffer(t *testing.T) {
	syncedStory(t, func(t *testing.T, s *syncedScene) {
		add := func(busy time.Duration) cache.ResourceEventHandlerRegistration {
			handler, err := s.pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
				AddFunc: func(*corev1.Pod) { time.Sleep(busy) },
			})
			if err != nil {
				t.Fatal(err)
			}
			return handler
		}
		fast, slow := add(time.Millisecond), add(time.Second)
		s.factory.StartWithContext(t.Context())
		cache.WaitFor(t.Context(), "", fast.HasSyncedChecker())
		s.printf("fast handler synced: %t, slow handler synced: %t", fast.HasSynced(), slow.HasSynced())
		equal(t, "fast first", slow.HasSynced(), false)
		cache.WaitFor(t.Context(), "", slow.HasSyncedChecker())
		s.printf("fast handler synced: %t, slow handler synced: %t", fast.HasSynced(), slow.HasSynced())
	})
}

func TestSyncedLateHandler(t *testing.T) {
	syncedStory(t, func(t *testing.T, s *syncedScene) {
		ctx := t.Context()
		s.factory.StartWithContext(ctx)
		s.factory.WaitForCacheSyncWithContext(ctx)
		s.printf("store synced, %d pods; a handler is added", s.stored())
		var initial atomic.Int32
		handler, err := s.pods.AddTypedEventHandler(corev1informers.PodDetailedHandlerFuncs{
			AddFunc: func(pod *corev1.Pod, isInInitialList bool) {
				time.Sleep(time.Second)
				if isInInitialList {
					initial.Add(1)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.printf("informer synced: %t, handler synced: %t", s.pods.HasSynced(), handler.HasSynced())
		equal(t, "informer synced", s.pods.HasSynced(), true)
		equal(t, "handler synced", handler.HasSynced(), false)
		cache.WaitFor(ctx, "", handler.HasSyncedChecker())
		s.printf("handler synced: %t, %d Adds with isInInitialList", handler.HasSynced(), initial.Load())
		equal(t, "initial Adds", initial.Load(), 3)
	})
}

// A syncedWorker takes keys from its queue, a second each.
type syncedWorker struct {
	queue workqueue.TypedRateLimitingInterface[cache.ObjectName]
	done  atomic.Int32
	wg    sync.WaitGroup
}

func newSyncedWorker() *syncedWorker {
	limiter := workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]()
	return &syncedWorker{queue: workqueue.NewTypedRateLimitingQueue(limiter)}
}

// stop waits for the work on all keys.
func (w *syncedWorker) stop() {
	w.queue.ShutDown()
	w.wg.Wait()
}

// run works until the queue is shut down. It calls finished for each key.
func (w *syncedWorker) run(finished func(cache.ObjectName)) {
	for {
		key, shutdown := w.queue.Get()
		if shutdown {
			return
		}
		time.Sleep(time.Second) // work
		w.done.Add(1)
		finished(key)
		w.queue.Done(key)
	}
}

func TestSyncedHandlerIsNotWork(t *testing.T) {
	syncedStory(t, func(t *testing.T, s *syncedScene) {
		ctx, worker := t.Context(), newSyncedWorker()
		defer worker.stop()

		// wrong: the handler is done with a pod as soon as its key is in the queue
		handler, err := s.pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
			AddFunc: func(pod *corev1.Pod) { worker.queue.Add(cache.MetaObjectToName(pod)) },
		})
		if err != nil {
			t.Fatal(err)
		}
		worker.wg.Go(func() { worker.run(func(cache.ObjectName) {}) })
		s.factory.StartWithContext(ctx)
		cache.WaitFor(ctx, "", handler.HasSyncedChecker())

		s.printf("handler synced: %t, work done for %d of 3 pods", handler.HasSynced(), worker.done.Load())
		equal(t, "work", worker.done.Load(), 0)
	})
}

func TestSyncedWorkIsDone(t *testing.T) {
	syncedStory(t, func(t *testing.T, s *syncedScene) {
		ctx, worker := t.Context(), newSyncedWorker()
		defer worker.stop()

		// right: a tracker between the handler and the workers
		work := synctrack.NewAsyncTracker[cache.ObjectName]("work on pods")
		handler, err := s.pods.AddTypedEventHandler(corev1informers.PodDetailedHandlerFuncs{
			AddFunc: func(pod *corev1.Pod, isInInitialList bool) {
				if isInInitialList {
					work.Start(cache.MetaObjectToName(pod))
				}
				worker.queue.Add(cache.MetaObjectToName(pod))
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		worker.wg.Go(func() { worker.run(work.Finished) })
		s.factory.StartWithContext(ctx)
		cache.WaitFor(ctx, "", handler.HasSyncedChecker())
		work.UpstreamHasSynced()
		cache.WaitFor(ctx, "", work)

		s.printf("work done for %d of 3 pods", worker.done.Load())
		equal(t, "work", worker.done.Load(), 3)
	})
}

func TestSyncedWaitReturnsContextCause(t *testing.T) {
	syncedStory(t, func(t *testing.T, s *syncedScene) {
		s.client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			err := errors.New("you may not list pods")
			return true, nil, apierrors.NewForbidden(corev1.Resource("pods"), "", err)
		})
		var last atomic.Pointer[error]
		err := s.pods.SetWatchErrorHandlerWithContext(
			func(_ context.Context, _ *cache.Reflector, err error) { last.Store(&err) })
		if err != nil {
			t.Fatal(err)
		}

		// the error of the wait is the cause of its context, and nothing else
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second,
			errors.New("ten seconds are over"))
		defer cancel()
		s.factory.StartWithContext(ctx)
		err = s.factory.WaitForCacheSyncWithContext(ctx).AsError()

		s.printf("wait:  %v", err)
		s.printf("watch: %v", errors.Unwrap(*last.Load()))
		equal(t, "cause", errors.Is(err, context.Cause(ctx)), true)
		equal(t, "reason in the wait's error", apierrors.IsForbidden(err), false)
		equal(t, "reason in the watch's error", apierrors.IsForbidden(*last.Load()), true)
	})
}

// A look every 100 ms made the old wait come after quick handlers, by accident.
func TestSyncedPollIsLate(t *testing.T) {
	syncedStory(t, func(t *testing.T, s *syncedScene) {
		ctx := t.Context()
		var handled atomic.Int32
		if _, err := s.pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
			AddFunc: func(*corev1.Pod) {
				time.Sleep(time.Millisecond)
				handled.Add(1)
			},
		}); err != nil {
			t.Fatal(err)
		}
		s.factory.StartWithContext(ctx)
		channel := make(chan struct{})
		go func() {
			defer close(channel)
			s.factory.WaitForCacheSyncWithContext(ctx)
			s.printf("wait by channel: handler has finished %d pods", handled.Load())
			equal(t, "by channel", handled.Load(), 0)
		}()
		//nolint:forbidigo // the old way is what is measured
		cache.WaitForCacheSync(ctx.Done(), s.pods.HasSynced)
		<-channel
		s.printf("wait by polling: handler has finished %d pods", handled.Load())
		equal(t, "by polling", handled.Load(), 3)
	})
}
