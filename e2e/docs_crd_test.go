package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"
)

const widgetCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.GROUP}
spec:
  group: GROUP
  scope: Cluster
  names: {kind: Widget, plural: widgets}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
`

// TestCRD proves what docs/questions.md says about an informer whose CRD is deleted and
// installed again.
func TestCRD(t *testing.T) {
	t.Parallel()
	if cluster.Which == "current" {
		t.Skip("current: everyone on the cluster would see the CRD")
	}
	config, err := cluster.Config()
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	group := "informers-" + rand.String(5) + ".example.com"
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(widgetCRD, "GROUP", group)), &crd.Object); err != nil {
		t.Fatal(err)
	}
	crds := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	resource := schema.GroupVersionResource{Group: group, Version: "v1", Resource: "widgets"}
	t.Cleanup(func() { _ = crds.Delete(context.Background(), crd.GetName(), metav1.DeleteOptions{}) })
	// The API server serves the resource a moment after the CRD is created.
	install := func() {
		eventually(t, "create the CRD", func(ctx context.Context) error {
			_, err := crds.Create(ctx, crd, metav1.CreateOptions{})
			return err
		})
	}
	create := func(name string) {
		widget := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": group + "/v1", "kind": "Widget", "metadata": map[string]any{"name": name},
		}}
		eventually(t, "create "+name, func(ctx context.Context) error {
			_, err := client.Resource(resource).Create(ctx, widget, metav1.CreateOptions{})
			return err
		})
	}

	install()
	create("one")
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	t.Cleanup(factory.Shutdown)
	informer := cache.NewTypedSharedIndexInformer[*unstructured.Unstructured](factory.ForResource(resource).Informer())
	calls, told := make(chan string, 100), make(chan error, 1)
	if err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		select {
		case told <- err:
		default: // the test has read an error before
		}
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := informer.AddTypedEventHandler(cache.TypedResourceEventHandlerFuncs[*unstructured.Unstructured]{
		AddFunc: func(widget *unstructured.Unstructured) { calls <- "Add " + widget.GetName() },
		DeleteFunc: func(widget cache.DeletedObject[*unstructured.Unstructured]) {
			calls <- "Delete " + widget.GetName()
		},
	}); err != nil {
		t.Fatal(err)
	}
	factory.Start(t.Context().Done())
	await(t, calls, "Add one")
	create("two")
	await(t, calls, "Add two")

	if err := crds.Delete(t.Context(), crd.GetName(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, calls, "Delete one", "Delete two")
	select {
	case err := <-told:
		if !apierrors.IsNotFound(err) {
			t.Errorf("the watch error handler was told %v, want not found", err)
		}
	case <-time.After(timeout):
		t.Error("the watch error handler was told nothing")
	}
	if objects := informer.GetStore().ListKeys(); len(objects) != 0 || !informer.HasSynced() {
		t.Errorf("%q in the store, HasSynced is %t, want none and true", objects, informer.HasSynced())
	}

	install()
	create("three")
	await(t, calls, "Add three")
}

// eventually tries act until it succeeds.
func eventually(t *testing.T, name string, act func(context.Context) error) {
	t.Helper()
	var last error
	if err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, timeout, true, func(ctx context.Context) (bool, error) {
		last = act(ctx)
		return last == nil, nil
	}); err != nil {
		t.Fatalf("%s: %v: %v", name, err, last)
	}
}

// await reads these calls, in whichever order they come.
func await(t *testing.T, calls <-chan string, want ...string) {
	t.Helper()
	missing := map[string]bool{}
	for _, call := range want {
		missing[call] = true
	}
	deadline := time.After(2 * timeout) // longer than the longest back-off
	for len(missing) > 0 {
		select {
		case call := <-calls:
			if !missing[call] {
				t.Fatalf("got %s, want %q", call, want)
			}
			delete(missing, call)
		case <-deadline:
			t.Fatalf("did not get %v", missing)
		}
	}
}
