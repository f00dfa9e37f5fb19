package exercise

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"

	"example.com/informers/exercises/internal/server"
)

func TestPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := server.New(server.Pod("web", "1"))
		factory := informers.NewSharedInformerFactory(api, 0)
		t.Cleanup(factory.Shutdown) // t.Context is canceled before a Cleanup runs

		var busy, most atomic.Int32
		var shown atomic.Pointer[corev1.Pod]
		shown.Store(&corev1.Pod{})
		go func() {
			if err := Publish(t.Context(), factory, func(pod *corev1.Pod) {
				most.Store(max(most.Load(), busy.Add(1)))
				time.Sleep(1030 * time.Millisecond) // virtual, as all time here
				shown.Store(pod)
				busy.Add(-1)
			}); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()

		for i := range 100 { // a pod that starts, crashes, and starts again
			time.Sleep(100 * time.Millisecond)
			api.Watch.Modify(server.Pod("web", fmt.Sprint(2+i)))
		}
		const last = "101"
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		soon := shown.Load().ResourceVersion
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		late := shown.Load().ResourceVersion

		if n := most.Load(); n > 1 {
			t.Fatalf(`%d goroutines showed default/web at the same time.
They can overtake each other, so the dashboard can end with an older state. And nothing limits
their number: each goroutine holds its own pod while it waits.`, n)
		}
		if late != last {
			t.Fatalf(`default/web has the resourceVersion %s, but the dashboard stays at %s.
The last write was dropped, and there will be no other event for it.`, last, late)
		}
		if soon != last {
			t.Fatalf(`2.5 s after the last write default/web has the resourceVersion %s, and the dashboard shows %s.
There were 100 writes in 10 s, and it takes 1 s to show one. An informer calls a handler for one
event after another, and keeps all the events that the handler has not processed yet. They wait
in memory, without a limit, and the dashboard shows the last write a minute and a half too late.`, last, soon)
		}
	})
}
