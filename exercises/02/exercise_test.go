package exercise

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"

	"example.com/informers/exercises/internal/server"
)

func TestInventory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := server.New(server.Pod("db", "1"), server.Pod("web", "2"), server.Pod("web-2", "3"))
		factory := informers.NewSharedInformerFactory(api, 0)
		t.Cleanup(factory.Shutdown) // t.Context is canceled before a Cleanup runs
		begin := time.Now()
		found, err := Inventory(t.Context(), factory, func(pod *corev1.Pod) string {
			time.Sleep(time.Second) // virtual
			return "clean"
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != 3 {
			t.Fatalf(`there are 3 pods, but Inventory returned the results of %d: %v.
The store had all 3 when the wait ended. A handler runs in a separate goroutine, after the store
is filled: "the cache is synced" does not mean that your handler has seen the pods.`,
				len(found), found)
		}
		if took := time.Since(begin); took > 3500*time.Millisecond {
			t.Fatalf(`the last pod was scanned after 3 s, but Inventory returned after %s.
How long a handler takes depends on the pods. A sleep is too long here, and too short in a larger
cluster. Wait for the handler instead.`, took)
		}
	})
}
