package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
)

// WorkerSettings are those of a work queue and its one worker, as in chapter 07.
type WorkerSettings struct {
	Takes time.Duration // how long the worker needs for a key
	Fails int           // how many times a key fails at first
}

type worker struct {
	engine   *Engine
	settings WorkerSettings
	queue    workqueue.TypedRateLimitingInterface[string]
	failures map[string]int // only the worker uses it
	seen     sync.Mutex     // an Add is seen before the Get that it allows
}

func (e *Engine) newWorker(ctx context.Context, settings WorkerSettings) *worker {
	w := &worker{
		engine: e, settings: settings, failures: map[string]int{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](5*time.Millisecond, 30*time.Second)),
	}
	context.AfterFunc(ctx, w.queue.ShutDown)
	go func() {
		for w.processNextWorkItem() {
		}
	}()
	return w
}

func (w *worker) see(kind, key string) {
	w.engine.see(Event{Stage: Work, Kind: kind, Key: key, Text: fmt.Sprintf("%d in the queue", w.queue.Len())})
}

func (w *worker) add(key string) {
	w.seen.Lock()
	defer w.seen.Unlock()
	w.queue.Add(key)
	w.see("Add", key)
}

func (w *worker) processNextWorkItem() bool {
	key, shutdown := w.queue.Get()
	if shutdown {
		return false
	}
	defer w.queue.Done(key)
	w.seen.Lock()
	w.see("Get", key)
	w.seen.Unlock()
	time.Sleep(w.settings.Takes)
	if w.failures[key] < w.settings.Fails {
		w.failures[key]++
		w.queue.AddRateLimited(key)
		w.see(fmt.Sprintf("fails: AddRateLimited, try %d", w.queue.NumRequeues(key)), key)
		return true
	}
	w.queue.Forget(key)
	w.see("Done", key)
	return true
}
