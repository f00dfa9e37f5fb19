package exercise

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"example.com/informers/exercises/internal/server"
)

func TestDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset(service("web"), pod("web-1", "web"), pod("web-2", "web"), pod("db-1", "db"))
		listed := false
		api.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			listed = true
			time.Sleep(100 * time.Millisecond) // virtual: servers take a while
			return false, nil, nil
		})

		directory, err := NewDirectory(t.Context(), api)
		if err != nil {
			t.Fatal(err)
		}
		got, err := directory.Pods("default", "web")
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if slices.Equal(got, []string{"web-1", "web-2"}) {
			return
		}
		if !listed {
			t.Fatalf(`the service web has the pods web-1 and web-2, but the directory finds %v.
The API server was asked for services, and never for pods: no informer of pods runs, so its
store is empty for ever. A factory starts and awaits the informers that it knows of, and
neither that nor a read of an empty store is an error.`, got)
		}
		t.Fatalf(`the service web has the pods web-1 and web-2, but the directory finds %v.
The API server was asked for pods and had not answered yet. Until then the store is empty, and
a lister that reads it returns no error.`, got)
	})
}

func service(app string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: app},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": app}},
	}
}

func pod(name, app string) *corev1.Pod {
	pod := server.Pod(name, "1")
	pod.Labels = map[string]string{"app": app}
	return pod
}
