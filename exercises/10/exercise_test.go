package exercise

import (
	"context"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"example.com/informers/exercises/internal/server"
)

func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset(node("a", "north"), node("b", "south"),
			pod("web-1", "web", "a"), pod("web-2", "web", "b"), pod("web-3", "web", "b"), pod("db-1", "db", "a"))
		server.SlowLists(t, api)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // virtual
		defer cancel()
		spread, err := NewSpread(ctx, api, "web")
		if err != nil {
			t.Fatalf(`the API server answers in 100 ms, but NewSpread gave up after a minute: %v.
An informer that is not started never syncs.`, err)
		}
		got, err := spread.Zones()
		synctest.Wait()
		selectors := map[string]string{}
		for _, action := range api.Actions() {
			if list, ok := action.(clienttesting.ListAction); ok {
				selectors[action.GetResource().Resource] = list.GetListRestrictions().Labels.String()
			}
		}

		if selector, ok := selectors["pods"]; ok && selector != "app=web" {
			t.Fatalf(`the API server got a request for pods with the label selector %q, want "app=web".
The store now has the pods of all apps, however many there are. A selector in a lister only
chooses which of them it returns.`, selector)
		}
		if selector := selectors["nodes"]; selector != "" {
			t.Fatalf(`Zones returned %v and the error: %v.
The nodes a and b exist, but the API server got a request for nodes with the label selector %q,
and no node has this label. A list without nodes is not an error, so the store counts as synced.
The options of a factory apply to all its types.`, got, err, selector)
		}
		for _, resource := range []string{"pods", "nodes"} {
			if _, ok := selectors[resource]; !ok {
				t.Fatalf(`Zones returned %v and the error: %v.
The API server got no request for %s: no informer for %[3]s runs.`, got, err, resource)
			}
		}
		if want := map[string]int{"north": 1, "south": 2}; err != nil || !maps.Equal(got, want) {
			t.Fatalf(`Zones returned %v and the error: %v, want %v.
The API server got the right requests for pods and nodes, but it had not answered all of them
when NewSpread returned: a factory waits only for its own informers.`, got, err, want)
		}
	})
}

func node(name, zone string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: name, ResourceVersion: "1", Labels: map[string]string{corev1.LabelTopologyZone: zone},
	}}
}

func pod(name, app, node string) *corev1.Pod {
	pod := server.Pod(name, "1")
	pod.Labels = map[string]string{"app": app}
	pod.Spec.NodeName = node
	return pod
}
