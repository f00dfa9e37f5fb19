package exercise

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"example.com/informers/exercises/internal/server"
)

var web = cache.NewObjectName("default", "web")

func TestCounter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, counter := start(t, 30*time.Second)
		time.Sleep(95 * time.Second)
		synctest.Wait()
		written := server.Pod("web", "2")
		written.Status.Phase = corev1.PodRunning
		api.Watch.Modify(written)
		synctest.Wait()
		got := counter.Writes(web)
		if got == 0 {
			t.Fatal(`default/web was written once, but no write was counted.
The write changed its status. That leaves its spec and its generation unchanged.`)
		}
		if got != 1 {
			t.Fatalf(`in 95 s default/web was written once, but %d writes were counted.
The factory's resync period is 30 s: every 30 s an informer calls UpdateFunc for each pod in
its store, even if no one wrote to it. UpdateFunc says "here is this pod", not "it changed".`, got)
		}

		api, counter = start(t, 0)
		api.Relist(server.Pod("web", "1"))
		if got = counter.Writes(web); got != 0 {
			t.Fatalf(`no one wrote to default/web, but the count of writes is %d after a relist.
An informer that has to list again calls UpdateFunc for each pod that it finds again, with
another copy of it, even if the resync period is 0.`, got)
		}
	})
}

// start counts the writes to the pod web, which exists already.
func start(t *testing.T, resync time.Duration) (*server.Server, *Counter) {
	t.Helper()
	api := server.New(server.Pod("web", "1"))
	factory := informers.NewSharedInformerFactory(api, resync)
	counter, err := NewCounter(factory.Core().V1().Pods().TypedInformer())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(factory.Shutdown) // t.Context is canceled before a Cleanup runs
	factory.StartWithContext(t.Context())
	synctest.Wait()
	return api, counter
}
