package proofs

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

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
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
		for i := range keys {
			queue.AddAfter(cache.NewObjectName("default", fmt.Sprintf("web-%06d", i)), 720*time.Hour)
		}
		b.ReportMetric(float64(heap()-before)/keys, "bytes/key")
		queue.ShutDown()
	}
}
