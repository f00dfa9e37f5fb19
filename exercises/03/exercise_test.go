package exercise

import (
	"slices"
	"testing"
	"testing/synctest"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"example.com/informers/exercises/internal/server"
)

func TestHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := server.New(server.Pod("db", "1"), server.Pod("web", "2"), server.Pod("nginx", "3"))
		factory := informers.NewSharedInformerFactory(api, 0)
		var known Known
		handler := &recovering{ResourceEventHandler: NewHandler(&known)}
		pods := factory.Core().V1().Pods().Informer()
		if _, err := pods.AddEventHandler(handler); err != nil { //nolint:forbidigo // the library does it this way
			t.Fatal(err)
		}
		t.Cleanup(factory.Shutdown) // t.Context is canceled before a Cleanup runs
		factory.StartWithContext(t.Context())
		synctest.Wait()

		api.Watch.Delete(server.Pod("nginx", "4"))
		synctest.Wait()
		want(t, &known, "nginx was deleted", "default/db", "default/web")

		// web is deleted while the watch is cut off; the informer finds out when it lists again.
		api.Relist(server.Pod("db", "1"))
		if handler.panicked != nil {
			t.Fatalf(`the delete of default/web came with an object of type %T, and the handler panicked:
%v
The watch was cut off while web was deleted, and a relist no longer found it. The informer knows
the key of the pod, but not its last state, so it passes a tombstone instead of a pod.
In a program this panic ends the process.`, handler.deleted, handler.panicked)
		}
		want(t, &known, "web was deleted while the watch was cut off", "default/db")
	})
}

func want(t *testing.T, known *Known, when string, keys ...string) {
	t.Helper()
	if got := known.Keys(); !slices.Equal(got, keys) {
		t.Fatalf(`%s: the known keys are %v, want %v.
The informer reports a delete only once. If the handler ignores it, the key stays forever.`, when, got, keys)
	}
}

// recovering records a panic in OnDelete, which would otherwise end the test's process.
type recovering struct {
	cache.ResourceEventHandler
	deleted, panicked any
}

func (h *recovering) OnDelete(obj any) {
	defer func() {
		if panicked := recover(); panicked != nil {
			h.deleted, h.panicked = obj, panicked
		}
	}()
	h.ResourceEventHandler.OnDelete(obj)
}
