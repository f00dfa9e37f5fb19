package exercise

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"example.com/informers/exercises/internal/server"
)

func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := server.NewHTTP(
			pod("web", "node-1", corev1.PodRunning),
			pod("db", "node-2", corev1.PodPending), // its image is being pulled
			pod("big", "", corev1.PodPending),
		)
		waiting, err := NewWaiting(t.Context(), &rest.Config{Host: "http://apiserver", Transport: api})
		if err != nil {
			t.Fatal(err)
		}
		want := func(when string, names ...string) {
			t.Helper()
			synctest.Wait()
			got, err := waiting.Names()
			switch {
			case slices.Contains(got, "web"):
				t.Fatalf(`%s, but Names returned %v and the error: %v.
web runs on node-1. A metadata informer receives only the metadata of pods: its objects are of
type PartialObjectMetadata. A conversion to a Pod succeeds, because a missing field is not an
error: Spec and Status stay empty, and an empty nodeName looks like a pod that waits.`, when, got, err)
			case slices.Contains(got, "db"):
				t.Fatalf(`%s, but Names returned %v and the error: %v.
db has a node: it is Pending because its image is being pulled. The phase does not say whether a
pod waits for a node.`, when, got, err)
			case err != nil || !slices.Equal(got, names):
				t.Fatalf("%s, but Names returned %v and the error: %v, want %v.", when, got, err, names)
			}
		}
		want("only big waits for a node", "big")
		for range 100 {
			want("only big waits for a node", "big")
		}
		for _, request := range api.Requests() {
			if !strings.Contains(request, "watch=") {
				t.Fatalf(`Names returned the right pods 101 times, and the API server got %d requests, such as %s.
If Names sends requests, each call of it costs one, or one for each pod. An informer is there to
answer without a request.`, len(api.Requests()), request)
			}
		}

		api.Put(pod("big", "node-1", corev1.PodPending))
		want("big has a node now")
		api.Put(pod("huge", "", corev1.PodPending))
		want("huge was created", "huge")
	})
}

func pod(name, node string, phase corev1.PodPhase) *corev1.Pod {
	pod := server.Pod(name, "100")
	pod.Spec.NodeName = node
	pod.Status.Phase = phase
	return pod
}
