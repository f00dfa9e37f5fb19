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
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/cache/synctrack"
	"k8s.io/client-go/util/workqueue"
)

// synced plays with three pods, on a server that takes 50 ms for an answer, and compares the page
// with what is printed. A line begins with the time.
func synced(
	t *testing.T, act func(t *testing.T, s *scene, printf func(format string, args ...any)),
	reactions ...clienttesting.ReactionFunc,
) {
	t.Helper()
	var out strings.Builder
	client := fake.NewClientset(pod("a", 1), pod("b", 1), pod("c", 1))
	client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		time.Sleep(50 * time.Millisecond)
		return false, nil, nil
	})
	for _, reaction := range reactions {
		client.PrependReactor("list", "pods", reaction)
	}
	playWith(t, client, func(t *testing.T, s *scene) {
		t.Cleanup(s.factory.Shutdown) // the test's context is canceled then
		act(t, s, func(format string, args ...any) {
			fmt.Fprintf(&out, "%6s  %s\n", time.Since(s.began), fmt.Sprintf(format, args...))
		})
	})
	shown(t, out.String())
}

func TestSyncedNobodyWaits(t *testing.T) {
	synced(t, func(t *testing.T, s *scene, printf func(string, ...any)) {
		lister := s.lister

		// wrong: the store fills in the background
		s.factory.StartWithContext(t.Context())
		pods, err := lister.List(labels.Everything())

		printf("lister: %d pods, error %v", len(pods), err)
		s.factory.WaitForCacheSyncWithContext(t.Context())
		pods, err = lister.List(labels.Everything())
		printf("lister: %d pods, error %v", len(pods), err)
	})
}

func TestSyncedStoreIsNotHandlers(t *testing.T) {
	synced(t, func(t *testing.T, s *scene, printf func(string, ...any)) {
		ctx := t.Context()
		var handled atomic.Int32
		handler := s.handle(t, corev1informers.PodHandlerFuncs{
			AddFunc: func(*corev1.Pod) {
				time.Sleep(time.Second) // a slow handler
				handled.Add(1)
			},
		})

		// wrong: the store is filled, the handler has seen nothing yet
		s.factory.StartWithContext(ctx)
		result := s.factory.WaitForCacheSyncWithContext(ctx)

		printf("factory's wait: error %v, %d pods in the store", result.Err, len(s.keys()))
		printf("handler has finished %d pods", handled.Load())
		printf("informer synced: %t, handler synced: %t", s.pods.HasSynced(), handler.HasSynced())
	})
}

func TestSyncedRightWay(t *testing.T) {
	synced(t, func(t *testing.T, s *scene, printf func(string, ...any)) {
		ctx := t.Context()
		var handled atomic.Int32
		handler := s.handle(t, corev1informers.PodHandlerFuncs{
			AddFunc: func(*corev1.Pod) {
				time.Sleep(time.Second)
				handled.Add(1)
			},
		})
		s.factory.StartWithContext(ctx)

		// right: ask the registration
		if !cache.WaitFor(ctx, "", handler.HasSyncedChecker()) {
			t.Fatal(context.Cause(ctx))
		}

		printf("handler has finished %d pods", handled.Load())
		printf("informer synced: %t, handler synced: %t", s.pods.HasSynced(), handler.HasSynced())
	})
}

func TestSyncedHandlersDiffer(t *testing.T) {
	synced(t, func(t *testing.T, s *scene, printf func(string, ...any)) {
		add := func(busy time.Duration) cache.ResourceEventHandlerRegistration {
			return s.handle(t, corev1informers.PodHandlerFuncs{
				AddFunc: func(*corev1.Pod) { time.Sleep(busy) },
			})
		}
		fast, slow := add(time.Millisecond), add(time.Second)
		s.factory.StartWithContext(t.Context())
		cache.WaitFor(t.Context(), "", fast.HasSyncedChecker())
		printf("fast handler synced: %t, slow handler synced: %t", fast.HasSynced(), slow.HasSynced())
		cache.WaitFor(t.Context(), "", slow.HasSyncedChecker())
		printf("fast handler synced: %t, slow handler synced: %t", fast.HasSynced(), slow.HasSynced())
	})
}

func TestSyncedLateHandler(t *testing.T) {
	synced(t, func(t *testing.T, s *scene, printf func(string, ...any)) {
		ctx := t.Context()
		s.factory.StartWithContext(ctx)
		s.factory.WaitForCacheSyncWithContext(ctx)
		printf("store synced, %d pods; a handler is added", len(s.keys()))
		var initial atomic.Int32
		handler := s.handle(t, corev1informers.PodDetailedHandlerFuncs{
			AddFunc: func(pod *corev1.Pod, isInInitialList bool) {
				time.Sleep(time.Second)
				if isInInitialList {
					initial.Add(1)
				}
			},
		})
		printf("informer synced: %t, handler synced: %t", s.pods.HasSynced(), handler.HasSynced())
		cache.WaitFor(ctx, "", handler.HasSyncedChecker())
		printf("handler synced: %t, %d Adds with isInInitialList", handler.HasSynced(), initial.Load())
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
	synced(t, func(t *testing.T, s *scene, printf func(string, ...any)) {
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

		printf("handler synced: %t, work done for %d of 3 pods", handler.HasSynced(), worker.done.Load())
	})
}

func TestSyncedWorkIsDone(t *testing.T) {
	synced(t, func(t *testing.T, s *scene, printf func(string, ...any)) {
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

		printf("work done for %d of 3 pods", worker.done.Load())
	})
}

func TestSyncedWaitReturnsContextCause(t *testing.T) {
	synced(t, func(t *testing.T, s *scene, printf func(string, ...any)) {
		// the error of the wait is the cause of its context, and nothing else
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second,
			errors.New("ten seconds are over"))
		defer cancel()
		s.factory.StartWithContext(ctx)
		err := s.factory.WaitForCacheSyncWithContext(ctx).AsError()

		synctest.Wait()
		printf("wait:  %v", err)
		printf("watch: %v", errors.Unwrap(s.told[len(s.told)-1]))
	}, func(clienttesting.Action) (bool, runtime.Object, error) {
		err := errors.New("you may not list pods")
		return true, nil, apierrors.NewForbidden(corev1.Resource("pods"), "", err)
	})
}

// A look every 100 ms made the old wait come after quick handlers, by accident.
func TestSyncedPollIsLate(t *testing.T) {
	synced(t, func(t *testing.T, s *scene, printf func(string, ...any)) {
		ctx := t.Context()
		var handled atomic.Int32
		s.handle(t, corev1informers.PodHandlerFuncs{
			AddFunc: func(*corev1.Pod) {
				time.Sleep(time.Millisecond)
				handled.Add(1)
			},
		})
		s.factory.StartWithContext(ctx)
		channel := make(chan struct{})
		go func() {
			defer close(channel)
			s.factory.WaitForCacheSyncWithContext(ctx)
			printf("wait by channel: handler has finished %d pods", handled.Load())
		}()
		//nolint:forbidigo // the old way is what is measured
		cache.WaitForCacheSync(ctx.Done(), s.pods.HasSynced)
		<-channel
		printf("wait by polling: handler has finished %d pods", handled.Load())
	})
}
