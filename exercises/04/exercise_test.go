package exercise

import (
	"slices"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"

	"example.com/informers/exercises/internal/server"
)

func TestMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := server.New(running("web", "1", "uid-1"), running("db", "2", "uid-2"))
		factory := informers.NewSharedInformerFactory(api, 0)
		meter, err := NewMeter(factory.Core().V1().Pods().TypedInformer())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(factory.Shutdown) // t.Context is canceled before a Cleanup runs
		factory.StartWithContext(t.Context())
		synctest.Wait()

		api.Watch.Delete(running("db", "3", "uid-2"))
		synctest.Wait()
		if got := meter.Running(); !slices.Equal(got, []types.UID{"uid-1"}) {
			t.Fatalf("after db was deleted only web with uid-1 is left, but Running returns %v", got)
		}

		// While the watch is cut off, web is deleted and created again.
		api.Relist(running("web", "5", "uid-3"))
		if got := meter.Running(); !slices.Equal(got, []types.UID{"uid-3"}) {
			t.Fatalf(`the API server has one pod, web with uid-3, but Running returns %v.
While the watch was cut off, web with uid-1 was deleted and another web with uid-3 was created.
A relist shows only the current pods. For the informer the object with the key default/web has
changed, so you get a single Update. DeleteFunc was not called for uid-1.`, got)
		}
	})
}

func running(name, resourceVersion string, uid types.UID) *corev1.Pod {
	pod := server.Pod(name, resourceVersion)
	pod.UID, pod.Status.Phase = uid, corev1.PodRunning
	return pod
}
