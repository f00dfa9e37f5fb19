package exercise

import (
	"maps"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"example.com/informers/exercises/internal/server"
)

func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := server.NewWatchList(pod("web", "1", "100Mi", "28Mi"))
		memory, err := NewMemory(t.Context(), api)
		if err != nil {
			t.Fatal(err)
		}
		api.Watch.Add(pod("db", "2", "200Mi"))
		synctest.Wait()
		got, err := memory.Of()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case got["db"] == "264Mi" && got["web"] == "256Mi":
			t.Fatalf(`web requests 100Mi + 28Mi and db requests 200Mi, each has an overhead of 64Mi, but Of returned %v.
web existed when the informer started: its overhead counts twice. db came later: its overhead
counts once. With WatchList an informer calls the transform twice for each object of the
initial state, the second time with what the first call returned.`, got)
		case got["web"] == "128Mi" || got["db"] == "200Mi":
			t.Fatalf(`web requests 100Mi + 28Mi and db requests 200Mi, each has an overhead of 64Mi, but Of returned %v.
Now there is a pod whose overhead does not count.`, got)
		case !maps.Equal(got, map[string]string{"web": "192Mi", "db": "264Mi"}):
			t.Fatalf("Of returned %v, want web with 192Mi and db with 264Mi.", got)
		}

		// A later write sends the whole pod again.
		api.Watch.Modify(pod("web", "3", "300Mi"))
		synctest.Wait()
		if got, err := memory.Of(); err != nil || got["web"] != "364Mi" {
			t.Fatalf(`web now requests 300Mi, so with its overhead 364Mi, but Of returned %v and the error: %v.
The object of an event is new: the transform has to do its work again.`, got, err)
		}
	})
}

func pod(name, resourceVersion string, memory ...string) *corev1.Pod {
	pod := server.Pod(name, resourceVersion)
	for _, m := range memory {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Image:     "nginx:1.22",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(m)}},
		})
	}
	return pod
}
