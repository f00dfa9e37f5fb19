package exercise

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"example.com/informers/exercises/internal/server"
)

func TestDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset(service("web"), pod("web-1", "web"), pod("web-2", "web"), pod("db-1", "db"))
		server.SlowLists(t, api)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // virtual
		defer cancel()
		directory, err := NewDirectory(ctx, api)
		if err != nil {
			t.Fatalf(`the API server answers in 100 ms, but NewDirectory gave up after a minute: %v.
The server got the requests %v. An informer that is not started never syncs.`, err, requests(api))
		}
		got, err := directory.Pods("default", "web")
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if slices.Equal(got, []string{"web-1", "web-2"}) {
			return
		}
		if !slices.Contains(requests(api), "list pods") {
			t.Fatalf(`the service web has the pods web-1 and web-2, but the directory finds %v.
The API server got requests for services, but none for pods: no informer for pods runs, so its
store stays empty. A factory starts, and waits for, only the informers that it knows: those whose
Informer or Lister was called before. A missing informer is not an error, and neither is a read
of an empty store.`, got)
		}
		t.Fatalf(`the service web has the pods web-1 and web-2, but the directory finds %v.
The API server got a request for pods, but it had not answered yet. Until then the store is
empty, and a lister that reads it returns no error.`, got)
	})
}

func requests(api *fake.Clientset) (all []string) {
	for _, action := range api.Actions() {
		all = append(all, action.GetVerb()+" "+action.GetResource().Resource)
	}
	return all
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
