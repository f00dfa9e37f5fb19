package exercise

import (
	"errors"
	"io"
	"log"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"example.com/informers/exercises/internal/server"
)

func TestRun(t *testing.T) {
	log.SetOutput(io.Discard)
	synctest.Test(t, func(t *testing.T) {
		api := server.New(server.Pod("web", "1"))
		factory := informers.NewSharedInformerFactory(api, 0)
		t.Cleanup(factory.Shutdown) // t.Context is canceled before a Cleanup runs

		// In the first 10 s each try fails. Time is virtual.
		var down atomic.Bool
		var tries, done atomic.Int32
		down.Store(true)
		go func() {
			if err := Run(t.Context(), factory, func(cache.ObjectName) error {
				time.Sleep(10 * time.Millisecond)
				tries.Add(1)
				if down.Load() {
					return errors.New("the registry does not answer")
				}
				done.Add(1)
				return nil
			}); err != nil {
				t.Error(err)
			}
		}()
		after(10 * time.Second)
		down.Store(false)
		after(20 * time.Second)
		failed := tries.Load() - done.Load()

		if done.Load() == 0 {
			api.Watch.Modify(server.Pod("web", "2"))
			after(time.Minute)
			if done.Load() == 0 {
				t.Fatalf(`reconcile failed for default/web (calls: %d) and was not called again: not in the next
30 s, and not in the minute after the next write to default/web.
A work queue does not hand out a key that is being processed. If the key is added in the meantime,
it waits until that is done, and for this queue default/web is still being processed.`, tries.Load())
			}
			t.Fatal(`reconcile failed for default/web, and was called again only after a write to the pod.
That can take days. The program has to retry a failure by itself.`)
		}
		if failed > 30 {
			t.Fatalf(`in 10 s reconcile failed %d times for default/web.
That gives a server in trouble no time to recover, and other pods have to wait. A pause has to
follow each failure, and it has to grow with each failure in a row.`, failed)
		}

		down.Store(true)
		api.Watch.Modify(server.Pod("web", "2"))
		after(50 * time.Millisecond)
		down.Store(false)
		if after(time.Second); done.Load() != 2 {
			t.Fatal(`reconcile failed for default/web, succeeded, and failed again later.
There was no try within a second after the second failure: the pause continued to grow, as if
there had been no success in between.`)
		}
	})
}

// after lets time pass, and waits for everything that happens in it.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
