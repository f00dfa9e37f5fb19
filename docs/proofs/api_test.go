package proofs

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
)

func TestWritesToTheStoreTellNobody(t *testing.T) {
	play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
		s.record(t)
		s.start(t)
		equal(t, "delete from the store", s.pods.GetStore().Delete(pod("web", 90)), nil)
		synctest.Wait()
		equal(t, "calls", s.calls, "[Add web 90]")
		s.put(pod("web", 101))
		synctest.Wait()
		equal(t, "the next write is an Add", s.calls[1:], "[Add web 101]")
	})
}

func TestUnknownIndex(t *testing.T) {
	byNode := cache.Indexers{"node": func(any) ([]string, error) { return nil, nil }}
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, byNode)
	_, byIndex := indexer.ByIndex("nod", "a")
	_, index := indexer.Index("nod", pod("web", 1))
	_, keys := indexer.IndexKeys("nod", "a")
	for name, err := range map[string]error{
		"ByIndex": byIndex, "Index": index, "IndexKeys": keys,
		"AddIndexers of a name that is taken": indexer.AddIndexers(byNode),
	} {
		equal(t, name+" returns an error", err != nil, true)
	}
	equal(t, "ListIndexFuncValues", len(indexer.ListIndexFuncValues("nod")), 0)
}

func TestWaitForWithANameLogs(t *testing.T) {
	for name, want := range map[string]bool{"": false, "pods": true} {
		ctx, logged := logs(t, 0)
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		factory := informers.NewSharedInformerFactory(fake.NewClientset(), 0)
		informer := factory.Core().V1().Pods().Informer()
		equal(t, "synced", cache.WaitFor(ctx, name, informer.HasSyncedChecker()), false)
		equal(t, fmt.Sprintf("WaitFor with the name %q logs", name), logged.String() != "", want)
	}
}

// A queue that is shut down still hands out the keys that are ready, not those that wait.
func TestShutDownOfAQueue(t *testing.T) {
	for name, test := range map[string]struct {
		shutDown func(workqueue.TypedDelayingInterface[string])
		waits    time.Duration
	}{
		"ShutDown":          {workqueue.TypedDelayingInterface[string].ShutDown, 0},
		"ShutDownWithDrain": {workqueue.TypedDelayingInterface[string].ShutDownWithDrain, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				queue := workqueue.NewTypedDelayingQueue[string]()
				queue.Add("working")
				key, _ := queue.Get()
				queue.Add("ready")
				queue.AddAfter("later", time.Minute)
				begin := time.Now()
				time.AfterFunc(time.Second, func() { queue.Done(key) })
				test.shutDown(queue)
				equal(t, "waits for the worker", time.Since(begin), test.waits)
				queue.Add("too late")
				time.Sleep(time.Hour)
				var rest []string
				for key, down := queue.Get(); !down; key, down = queue.Get() {
					rest = append(rest, key)
					queue.Done(key)
				}
				equal(t, "handed out afterwards", rest, []string{"ready"})
			})
		})
	}
}

func TestDefaultLimiterHasOneBucketForAllKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter := workqueue.DefaultTypedControllerRateLimiter[int]()
		var waits []time.Duration
		for key := range 1100 {
			waits = append(waits, limiter.When(key).Round(time.Millisecond))
		}
		equal(t, "first try of each key again", waits[0], 5*time.Millisecond)
		equal(t, "key 100", waits[99], 5*time.Millisecond)
		equal(t, "key 101", waits[100], 100*time.Millisecond)
		equal(t, "key 1100", waits[1099], 100*time.Second)
	})
}

func TestPollRunsAtOnceOnlyIfImmediate(t *testing.T) {
	for _, tt := range []struct {
		immediate bool
		timeout   time.Duration
		runs      int
	}{
		{true, 0, 1}, {false, 0, 0}, // the context has ended before the start
		{true, 10 * time.Second, 3}, {false, 10 * time.Second, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			runs := 0
			err := wait.PollUntilContextTimeout(t.Context(), 4*time.Second, tt.timeout, tt.immediate,
				func(context.Context) (bool, error) { runs++; return false, nil })
			equal(t, fmt.Sprintf("runs, immediate %t, timeout %s", tt.immediate, tt.timeout), runs, tt.runs)
			equal(t, "error", errors.Is(err, context.DeadlineExceeded), true)
			equal(t, "Interrupted", wait.Interrupted(err), true)
			equal(t, "Interrupted, of a cancel", wait.Interrupted(context.Canceled), true)
		})
	}
}

func TestBackoffEndsAtItsCap(t *testing.T) {
	for name, tt := range map[string]struct {
		backoff wait.Backoff
		runs    int
		took    time.Duration
	}{
		"no steps": {wait.Backoff{Duration: time.Second, Factor: 2}, 0, 0},
		"no cap":   {wait.Backoff{Duration: time.Second, Factor: 2, Steps: 6}, 6, 31 * time.Second},
		"cap": {wait.Backoff{Duration: time.Second, Factor: 2, Steps: 6, Cap: 3 * time.Second},
			2, 3 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			runs, begin := 0, time.Now()
			err := wait.ExponentialBackoffWithContext(t.Context(), tt.backoff,
				func(context.Context) (bool, error) { runs++; return false, nil })
			equal(t, name+": error", wait.Interrupted(err), true)
			equal(t, name+": runs", runs, tt.runs)
			equal(t, name+": took", time.Since(begin), tt.took)
		})
	}
}

func TestTimeoutOfConfigEndsWatches(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		0: time.Hour, 10 * time.Second: 10 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			config := serve().config()
			config.Timeout = timeout
			client := kubernetes.NewForConfigOrDie(config)
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			begin := time.Now()
			pods, err := client.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for range pods.ResultChan() { //nolint:revive // until it is closed
			}
			equal(t, fmt.Sprintf("a watch with the timeout %s lasts", timeout), time.Since(begin), want)
		})
	}
}

// Eighty writes, forty for each of two API groups, one after the other.
func TestQPSOfConfig(t *testing.T) {
	for name, tt := range map[string]struct {
		qps   float32
		burst int
		took  time.Duration
	}{
		"default: a bucket for each group": {0, 0, 6 * time.Second},
		"the same, set: one bucket":        {5, 10, 14 * time.Second},
		"none":                             {-1, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			config := serve().config()
			config.QPS, config.Burst = tt.qps, tt.burst
			client := kubernetes.NewForConfigOrDie(config)
			begin := time.Now()
			for range 40 {
				pod := client.CoreV1().Pods("default").Delete(t.Context(), "web", metav1.DeleteOptions{})
				set := client.AppsV1().ReplicaSets("default").Delete(t.Context(), "web", metav1.DeleteOptions{})
				equal(t, "error", errors.Join(pod, set), nil)
			}
			equal(t, name, time.Since(begin).Round(time.Millisecond), tt.took)
		})
	}
	_, err := kubernetes.NewForConfig(&rest.Config{QPS: 50})
	equal(t, "QPS without Burst is an error", err != nil, true)
}

// Each package writes to its own API group, and does not try again when the server refuses.
func TestEventsGoToTheirOwnGroup(t *testing.T) {
	for group, send := range map[string]func(*testing.T, kubernetes.Interface) func(){
		"": func(t *testing.T, client kubernetes.Interface) func() {
			broadcaster := record.NewBroadcaster(record.WithContext(t.Context()))
			broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
			recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "test"})
			recorder.Event(pod("web", 1), corev1.EventTypeNormal, "Seen", "seen")
			return broadcaster.Shutdown
		},
		"events.k8s.io": func(t *testing.T, client kubernetes.Interface) func() {
			ctx, cancel := context.WithCancel(t.Context())
			broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
			equal(t, "start", broadcaster.StartRecordingToSinkWithContext(ctx), nil)
			recorder := broadcaster.NewRecorder(scheme.Scheme, "test")
			recorder.Eventf(pod("web", 1), nil, corev1.EventTypeNormal, "Seen", "See", "seen")
			return func() { cancel(); broadcaster.Shutdown() }
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var groups []string
			client := fake.NewClientset()
			client.PrependReactor("create", "events", func(a clienttesting.Action) (bool, runtime.Object, error) {
				groups = append(groups, a.GetResource().Group)
				return true, nil, forbidden()
			})
			stop := send(t, client)
			time.Sleep(time.Hour)
			synctest.Wait()
			equal(t, "tries", groups, []string{group})
			stop()
		})
	}
}

// tools/record drops Events of one object after the 25th, without a word.
func TestRecorderDropsTooManyEventsOfOneObject(t *testing.T) {
	correlator := record.NewEventCorrelator(clock.RealClock{})
	dropped := 0
	for i := range 30 {
		event := &corev1.Event{
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "web"},
			Reason:         fmt.Sprint("Reason", i),
		}
		result, err := correlator.EventCorrelate(event)
		equal(t, "error", err, nil)
		if result.Skip {
			dropped++
		}
	}
	equal(t, "dropped of 30", dropped, 5)
}

func TestFakeRecorderBlocksWhenItIsFull(t *testing.T) {
	for name, fake := range map[string]func() (<-chan string, func()){
		"record": func() (<-chan string, func()) {
			r := record.NewFakeRecorder(1)
			return r.Events, func() { r.Event(nil, corev1.EventTypeNormal, "Seen", "seen") }
		},
		"events": func() (<-chan string, func()) {
			r := events.NewFakeRecorder(1)
			return r.Events, func() { r.Eventf(nil, nil, corev1.EventTypeNormal, "Seen", "See", "seen") }
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			sent, record := fake()
			returned := 0
			go func() {
				for range 3 {
					record()
					returned++
				}
			}()
			synctest.Wait()
			equal(t, name+": calls that return before the first Event is read", returned, 1)
			<-sent
			synctest.Wait()
			equal(t, name+": calls that return after it", returned, 2)
			<-sent
			<-sent
		})
	}
}

// queued acts with a queue in virtual time.
func queued(t *testing.T, act func(t *testing.T, queue workqueue.TypedRateLimitingInterface[string])) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())
		act(t, queue)
		queue.ShutDown()
	})
}

func TestLenCountsOnlyWhatAWorkerCouldTakeNow(t *testing.T) {
	queued(t, func(t *testing.T, queue workqueue.TypedRateLimitingInterface[string]) {
		length := func(what string, want int) {
			t.Helper()
			synctest.Wait()
			equal(t, "length, "+what, queue.Len(), want)
		}
		get := func() {
			t.Helper()
			if key, _ := queue.Get(); key != "web" {
				t.Errorf("key %q", key)
			}
		}
		queue.AddAfter("web", time.Minute)
		length("delayed", 0)
		time.Sleep(time.Minute)
		length("its time has come", 1)
		get()
		length("processing", 0)
		queue.Add("web")
		length("added while processing", 0)
		queue.Done("web")
		length("done, and added before that", 1)
		get()
		queue.AddRateLimited("web")
		queue.Done("web")
		length("waits to be retried", 0)
		time.Sleep(5 * time.Millisecond)
		length("to be retried", 1)
	})
}

func TestAddAfterCannotBeTakenBack(t *testing.T) {
	for _, test := range []struct {
		name string
		then func(queue workqueue.TypedRateLimitingInterface[string])
		at   time.Duration
	}{
		{"nothing", func(workqueue.TypedRateLimitingInterface[string]) {}, time.Hour},
		{"Forget", func(queue workqueue.TypedRateLimitingInterface[string]) { queue.Forget("web") }, time.Hour},
		{"a later time", func(queue workqueue.TypedRateLimitingInterface[string]) {
			queue.AddAfter("web", 2*time.Hour)
		}, time.Hour},
		{"an earlier time", func(queue workqueue.TypedRateLimitingInterface[string]) {
			queue.AddAfter("web", time.Minute)
		}, time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			queued(t, func(t *testing.T, queue workqueue.TypedRateLimitingInterface[string]) {
				begin := time.Now()
				queue.AddAfter("web", time.Hour)
				test.then(queue)
				key, _ := queue.Get()
				queue.Done(key)
				equal(t, "comes after", time.Since(begin), test.at)
				time.Sleep(3 * time.Hour)
				synctest.Wait()
				equal(t, "and once", queue.Len(), 0)
			})
		})
	}
}

// BenchmarkAddAfterMemory measures what keys cost that wait for a time far away, with
// their strings: when the pod is gone, the queue alone keeps them.
func BenchmarkAddAfterMemory(b *testing.B) {
	const keys = 200_000
	heap := func() uint64 {
		goruntime.GC()
		var stats goruntime.MemStats
		goruntime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		limiter := workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]()
		queue := workqueue.NewTypedRateLimitingQueue(limiter)
		for i := range keys {
			queue.AddAfter(cache.NewObjectName("default", fmt.Sprintf("web-%06d", i)), 720*time.Hour)
		}
		b.ReportMetric(float64(heap()-before)/keys, "bytes/key")
		queue.ShutDown()
	}
}
