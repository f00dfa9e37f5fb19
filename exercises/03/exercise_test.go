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
		if _, err := pods.AddEventHandler(handler); err != nil { //nolint:forbidigo // as the library does
			t.Fatal(err)
		}
		t.Cleanup(factory.Shutdown) // t.Context has ended by then
		factory.StartWithContext(t.Context())
		synctest.Wait()

		api.Watch.Delete(server.Pod("nginx", "4"))
		synctest.Wait()
		want(t, &known, "nginx was deleted", "default/db", "default/web")

		// web is deleted while the informer is cut off; it finds out when it lists again.
		api.Relist(server.Pod("db", "1"))
		if handler.panicked != nil {
			t.Fatalf(`the delete of default/web came with an object of type %T, and the handler panicked:
%v
The watch was cut off while web was deleted. A relist found it gone: the informer knows that it
was deleted and its key, but not its last state, and hands over a tombstone instead of a pod.
In a program this panic ends the process.`, handler.deleted, handler.panicked)
		}
		want(t, &known, "web was deleted while the watch was cut off", "default/db")
	})
}

func want(t *testing.T, known *Known, when string, keys ...string) {
	t.Helper()
	if got := known.Keys(); !slices.Equal(got, keys) {
		t.Fatalf(`%s: the known keys are %v, want %v.
A delete that is not handled is never told again: the key stays for ever.`, when, got, keys)
	}
}

// recovering keeps the panic of a delete, which would end the test's process.
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
