package main

import (
	"bytes"
	"context"
	"log"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	fakediscovery "k8s.io/client-go/discovery/fake"
	fakedynamic "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/restmapper"
	clienttesting "k8s.io/client-go/testing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeWatcher has a server in memory, with some resources and objects.
func fakeWatcher(objects ...runtime.Object) (*watcher, *bytes.Buffer) {
	all := metav1.Verbs{"create", "get", "list", "watch"}
	served := &fakediscovery.FakeDiscovery{Fake: &clienttesting.Fake{Resources: []*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Name: "pods", SingularName: "pod", Kind: "Pod", ShortNames: []string{"po"}, Namespaced: true, Verbs: all},
			{Name: "pods/status", Kind: "Pod", Namespaced: true, Verbs: metav1.Verbs{"get"}},
			{Name: "nodes", SingularName: "node", Kind: "Node", ShortNames: []string{"no"}, Verbs: all},
			{Name: "events", SingularName: "event", Kind: "Event", Namespaced: true, Verbs: all},
			{Name: "bindings", SingularName: "binding", Kind: "Binding", Namespaced: true, Verbs: metav1.Verbs{"create"}},
		}},
		{GroupVersion: "apps/v1", APIResources: []metav1.APIResource{
			{Name: "deployments", SingularName: "deployment", Kind: "Deployment", ShortNames: []string{"deploy"}, Namespaced: true, Verbs: all},
		}},
		{GroupVersion: "events.k8s.io/v1", APIResources: []metav1.APIResource{
			{Name: "events", SingularName: "event", Kind: "Event", Namespaced: true, Verbs: all},
		}},
		{GroupVersion: "v1.example.com/v2", APIResources: []metav1.APIResource{ // a group that looks like a version
			{Name: "widgets", SingularName: "widget", Kind: "Widget", Namespaced: true, Verbs: all},
		}},
	}}}
	dynamic := fakedynamic.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		{Version: "v1", Resource: "pods"}: "PodList",
		{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}: "CustomResourceDefinitionList",
		{Group: "example.com", Version: "v1", Resource: "widgets"}:                            "WidgetList",
		{Group: "example.com", Version: "v2", Resource: "widgets"}:                            "WidgetList",
	}, objects...)
	var out bytes.Buffer
	return &watcher{
		discovery: served, dynamic: dynamic,
		out: log.New(&out, "", 0), informers: map[string]*informer{},
	}, &out
}

func TestFind(t *testing.T) {
	const none = "no such resource; kubectl api-resources shows those there are"
	w, _ := fakeWatcher()
	groups, err := restmapper.GetAPIGroupResourcesWithContext(t.Context(), w.discovery)
	if err != nil {
		t.Fatal(err)
	}
	mapper := restmapper.NewShortcutExpanderWithContext(restmapper.NewDiscoveryRESTMapperWithContext(groups), w.discovery, nil)
	for name, want := range map[string]string{
		"pods": "pods", "pod": "pods", "Pod": "pods", "po": "pods", "pods.v1.": "pods",
		"no": "nodes", "Node": "nodes",
		"deploy": "deployments.v1.apps", "deployments.apps": "deployments.v1.apps", "Deployment.v1.apps": "deployments.v1.apps",
		"events": "events", "events.events.k8s.io": "events.v1.events.k8s.io", "events.v1.events.k8s.io": "events.v1.events.k8s.io",
		"widgets.v1.example.com": "widgets.v2.v1.example.com", "widgets.v2.v1.example.com": "widgets.v2.v1.example.com",
		"deployments.v2.apps": none, "pods/status": none, "gadgets": none,
		"bindings": "an informer needs list and watch, it has [create]",
	} {
		r, err := w.find(t.Context(), mapper, name)
		got := r.String()
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// definition is a CustomResourceDefinition. Its versions are served, unless they end in "-".
func definition(established string, versions ...string) *unstructured.Unstructured {
	var all []any
	for _, v := range versions {
		name, off := strings.CutSuffix(v, "-")
		all = append(all, map[string]any{"name": name, "served": !off})
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "widgets.example.com"},
		"spec": map[string]any{
			"group": "example.com", "scope": "Namespaced", "versions": all,
			"names": map[string]any{"plural": "widgets", "kind": "Widget"},
		},
		"status": map[string]any{"conditions": []any{
			map[string]any{"type": "NamesAccepted", "status": "True"},
			map[string]any{"type": "Established", "status": established},
		}},
	}}
}

func TestServed(t *testing.T) {
	for _, test := range []struct {
		name string
		crd  *unstructured.Unstructured
		want string
	}{
		{"one version", definition("True", "v1"), "widgets.v1.example.com"},
		{"not yet established", definition("False", "v1"), ""},
		{"nothing known", &unstructured.Unstructured{Object: map[string]any{}}, ""},
		{"the newest stable version", definition("True", "v1", "v2beta1", "v10", "v9"), "widgets.v10.example.com"},
		{"only what is served", definition("True", "v1", "v2-"), "widgets.v1.example.com"},
		{"no version is served", definition("True", "v1-"), ""},
	} {
		if got := served(test.crd).String(); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// A custom resource comes, changes its version, goes, and comes back. Whenever another informer
// is to run, or none, the one before has stopped. The fake does not delete the objects of a
// definition that goes, so no watch says that they are gone.
func TestFollow(t *testing.T) {
	*group = "example.com"
	defer func() { *group = "" }()
	synctest.Test(t, func(t *testing.T) {
		w, out := fakeWatcher()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.run(ctx) }()
		synctest.Wait()

		const name = "widgets.example.com"
		crds := w.dynamic.Resource(schema.GroupVersionResource{
			Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
		create := func(crd *unstructured.Unstructured) error {
			_, err := crds.Create(ctx, crd, metav1.CreateOptions{})
			return err
		}
		update := func(crd *unstructured.Unstructured) error {
			_, err := crds.Update(ctx, crd, metav1.UpdateOptions{})
			return err
		}
		var before *informer
		step := func(want string, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			now := w.informers[name]
			if got := ""; now != nil {
				got = now.resource.Version
				if got != want {
					t.Errorf("an informer for %q runs, want %q", got, want)
				}
			} else if want != "" {
				t.Errorf("no informer runs, want one for %q", want)
			}
			if before != nil && before != now && !before.IsStopped() {
				t.Errorf("the informer for %s has not stopped", before.resource)
			}
			before = now
		}
		step("", create(definition("False", "v1")))
		step("v1", update(definition("True", "v1")))
		step("v1", update(definition("True", "v1", "v2beta1")))
		step("v2", update(definition("True", "v1", "v2")))
		widget := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "example.com/v2", "kind": "Widget", "metadata": map[string]any{"namespace": "default", "name": "one"}}}
		_, err := w.dynamic.Resource(schema.GroupVersionResource{Group: "example.com", Version: "v2", Resource: "widgets"}).
			Namespace("default").Create(ctx, widget, metav1.CreateOptions{})
		step("v2", err)
		step("", crds.Delete(ctx, name, metav1.DeleteOptions{}))
		step("v1", create(definition("True", "v1")))
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		want := `pods: informer starts
cache is synced
widgets.v1.example.com: informer starts
widgets.v1.example.com: informer has stopped
widgets.v2.example.com: informer starts
handleAdd is called for Widget (key: default/one)
handleDelete is called for Widget (key: default/one)
widgets.v2.example.com: informer has stopped
widgets.v1.example.com: informer starts
`
		if out.String() != want {
			t.Errorf("printed:\n%s\nwant:\n%s", out, want)
		}
	})
}
