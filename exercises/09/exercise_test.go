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
		t.Cleanup(factory.Shutdown) // t.Context has ended by then

		// What a pod needs cannot be done in the first 10 s. Time is virtual.
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
		inVain := tries.Load() - done.Load()

		if done.Load() == 0 {
			api.Watch.Modify(server.Pod("web", "2"))
			after(time.Minute)
			if done.Load() == 0 {
				t.Fatalf(`reconcile failed for default/web (calls: %d) and was not called again: not in the 30 s
that followed, and not in the minute after the next write to default/web.
A work queue never hands out a key that somebody works on. It keeps what is added meanwhile until
that work has ended, and for this queue the work on default/web still goes on.`, tries.Load())
			}
			t.Fatal(`reconcile failed for default/web, and was called again only when somebody wrote to the pod.
That may take days. What fails has to be tried again by itself.`)
		}
		if inVain > 30 {
			t.Fatalf(`in 10 s reconcile failed %d times for default/web.
A server in trouble gets no rest that way, and other pods do not get their turn. A pause has to
follow each failure, and to grow with each failure in a row.`, inVain)
		}

		down.Store(true)
		api.Watch.Modify(server.Pod("web", "2"))
		after(50 * time.Millisecond)
		down.Store(false)
		if after(time.Second); done.Load() != 2 {
			t.Fatal(`reconcile failed for default/web, succeeded, and failed again later.
The first try after the second failure did not come within a second: the pause went on to grow
from where it had been, as if there had been no success in between.`)
		}
	})
}

// after lets time pass, and all that happens in it.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
