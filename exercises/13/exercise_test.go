package exercise

import (
	"slices"
	"testing"
	"testing/synctest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
)

func TestWidgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{resource: "WidgetList"})
		widgets := client.Resource(resource).Namespace("default")
		create := func(name string) {
			if _, err := widgets.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "example.com/v1", "kind": "Widget", "metadata": map[string]any{"name": name, "namespace": "default"},
			}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		requests := func(verb string) (n int) {
			for _, action := range client.Actions() {
				if action.GetVerb() == verb {
					n++
				}
			}
			return n
		}

		create("one")
		w := NewWidgets(client)
		if err := w.Installed(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(t, w, "widget one exists and the definition was installed", "one")
		create("two")
		synctest.Wait()
		want(t, w, "widget two was created", "one", "two")

		// The API server deletes the widgets of a definition that is removed. Removed can come first:
		// a definition and its widgets are two watches.
		w.Removed()
		synctest.Wait()
		for _, name := range []string{"one", "two"} {
			if err := widgets.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		before := requests("list")

		create("three")
		synctest.Wait()
		if got, err := w.Names(); slices.Contains(got, "three") {
			t.Fatalf(`the definition was removed, but Names returned %v and the error: %v.
The informer still runs. An API server that does not serve the resource any longer answers 404,
and the informer asks again and again.`, got, err)
		}
		if err := w.Installed(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got, err := w.Names()
		if requests("list") == before {
			t.Fatalf(`the definition was removed and installed again, and there is the widget three, but Names returned %v and the error: %v.
The API server got no request after that. A factory has one informer for each resource and returns
it each time. This one was stopped by Removed, and an informer runs only once: it counts as synced,
and its store stays as it was.`, got, err)
		}
		want(t, w, "the definition was installed again, and there is the widget three", "three")
		create("four")
		synctest.Wait()
		want(t, w, "widget four was created", "four", "three")
	})
}

func want(t *testing.T, w *Widgets, when string, names ...string) {
	t.Helper()
	if got, err := w.Names(); err != nil || !slices.Equal(got, names) {
		t.Fatalf("%s, but Names returned %v and the error: %v.", when, got, err)
	}
}
