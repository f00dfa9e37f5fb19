package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/e2e-framework/pkg/features"
	"sigs.k8s.io/yaml"

	"example.com/informers/internal/chapters"
	"example.com/informers/internal/logmatch"
)

// TestDynamic: 09 follows a custom resource that comes while it runs, changes its version, goes, and comes back, and
// pods next to it.
func TestDynamic(t *testing.T) {
	t.Parallel()
	if cluster.Which == "current" {
		t.Skip("current: everyone on the cluster would see the CRD")
	}
	for name, how := range map[string]struct{ args, env []string }{
		"maps":              {},
		"metadata":          {args: []string{"--metadata"}},
		"without WatchList": {env: []string{noWatchList}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			widgetsLive(t, how.args, how.env)
		})
	}
}

// A custom is a resource whose CustomResourceDefinition comes and goes.
type custom struct {
	scene
	group   string
	dynamic dynamic.Interface
}

func widgetsLive(t *testing.T, args, env []string) {
	c := &custom{group: "informers-" + rand.String(5) + ".example.com"}
	name := func(version string) string { return "widgets." + version + "." + c.group }
	asked := 0 // requests of the first informer that failed
	testenv.Test(t, features.New("09-dynamic").WithLabel("chapter", "09").
		WithSetup("a pod web, and the chapter", c.setup(func(t *testing.T) {
			config, err := cluster.Config()
			if err != nil {
				t.Fatal(err)
			}
			if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.crds().Delete(context.Background(), "widgets."+c.group, metav1.DeleteOptions{}) })
			c.createGated(t, "web")
			args := append([]string{"--namespace", c.namespace, "--resource", "po", "--group", c.group}, args...)
			env := append([]string{"KUBECONFIG=" + c.kubeconfig, "KUBE_CACHE_MUTATION_DETECTOR=true"}, env...)
			c.chapter = chapters.Start(t, filepath.Join(*built, "09-dynamic"), env, args...)
			c.awaitLine(t, "cache is synced")
		})).
		Assess("the resource comes: widgets are added, updated, deleted, and pods", step(func(t *testing.T) {
			c.install(t, "v1")
			c.awaitLine(t, name("v1")+": informer starts")
			c.widget(t, "v1", "one")
			c.awaitStep(t, c.line("Add", "Widget", "one"), timeout)
			c.widget(t, "v1", "two")
			c.awaitStep(t, c.line("Add", "Widget", "two"), timeout)
			c.createGated(t, "beside")
			if _, err := c.widgets("v1").Patch(t.Context(), "one", types.MergePatchType, []byte(changed), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			c.awaitStep(t, c.line("Update", "Widget", "one"), timeout)
			if err := c.widgets("v1").Delete(t.Context(), "two", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			c.awaitStep(t, c.line("Delete", "Widget", "two"), timeout)
			c.awaitStep(t, c.line("Add", "Pod", "beside"), timeout)
		})).
		Assess("it goes: the informer stops, not only its watch", step(func(t *testing.T) {
			if err := c.crds().Delete(t.Context(), "widgets."+c.group, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			c.awaitLine(t, name("v1")+": informer has stopped")
		})).
		Assess("it comes back in another version", step(func(t *testing.T) {
			c.install(t, "v2")
			c.awaitLine(t, name("v2")+": informer starts")
			asked = strings.Count(c.chapter.Stderr.String(), name("v1")) // a request may have been on its way at the stop
			c.widget(t, "v2", "three")
			c.awaitStep(t, c.line("Add", "Widget", "three"), timeout)
		})).
		Assess("it is served in another version: what is there is added again", step(func(t *testing.T) {
			eventually(t, "serve v3", func(ctx context.Context) error {
				crd, err := c.crds().Get(ctx, "widgets."+c.group, metav1.GetOptions{})
				if err != nil {
					return err
				}
				crd.Object["spec"].(map[string]any)["versions"] = []any{served("v2", false), served("v3", true)}
				_, err = c.crds().Update(ctx, crd, metav1.UpdateOptions{})
				return err
			})
			c.awaitLine(t, name("v3")+": informer starts")
			c.widget(t, "v3", "four")
			c.awaitStep(t, c.line("Add", "Widget", "four"), timeout)
		})).
		Assess("the lines of each informer come between its start and its end", step(func(t *testing.T) {
			pod := logmatch.Like("a line of pods", `(handle\w+ is called for Pod .*|pods: .*|cache is synced)`)
			// When a definition changes, the API server ends its watches: a relist may make Updates.
			relists := []logmatch.Step{c.line("Update", "Widget", "two"), c.line("Update", "Widget", "three"), c.line("Update", "Widget", "four")}
			lives := logmatch.Sequence{Pass: append(relists, pod), Steps: []logmatch.Step{
				logmatch.Exactly(name("v1") + ": informer starts"),
				c.line("Add", "Widget", "one"), c.line("Add", "Widget", "two"),
				c.line("Update", "Widget", "one").OneOrMore(),
				c.line("Delete", "Widget", "two"),
				c.line("Delete", "Widget", "one"), // also if the watch did not bring it in time
				logmatch.Exactly(name("v1") + ": informer has stopped"),
				logmatch.Exactly(name("v2") + ": informer starts"),
				c.line("Add", "Widget", "three"),
				logmatch.Exactly(name("v2") + ": informer has stopped"),
				logmatch.Exactly(name("v3") + ": informer starts"),
				logmatch.AnyOrder(c.line("Add", "Widget", "three"), c.line("Add", "Widget", "four")),
			}}
			c.await(t, lives)
			// The API server needs 2 s for the first widget of a version: longer than the first back-off.
			if strings.Count(c.chapter.Stderr.String(), name("v1")) > asked {
				t.Errorf("an informer that has stopped asks on:\n%s", &c.chapter.Stderr)
			}
			c.interrupt(t)
			c.story(t)
			c.match(t, lives)
			widget := logmatch.Like("a line of widgets", `(handle\w+ is called for Widget .*|widgets\..*)`)
			c.match(t, logmatch.Sequence{Pass: []logmatch.Step{widget}, Steps: []logmatch.Step{
				logmatch.Exactly("pods: informer starts"),
				c.line("Add", "Pod", "web"),
				logmatch.Exactly("cache is synced"),
				c.line("Add", "Pod", "beside"),
			}})
		})).
		Feature())
}

func (c *custom) line(kind, of, name string) logmatch.Step {
	return logmatch.Like(kind+" of "+of+" "+name, fmt.Sprintf(`handle%s is called for %s \(key: %s\)`, kind, of, regexp.QuoteMeta(c.key(name))))
}

func (c *custom) crds() dynamic.ResourceInterface {
	return c.dynamic.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
}

func (c *custom) widgets(version string) dynamic.ResourceInterface {
	return c.dynamic.Resource(schema.GroupVersionResource{Group: c.group, Version: version, Resource: "widgets"}).Namespace(c.namespace)
}

// install creates the CustomResourceDefinition.
func (c *custom) install(t *testing.T, version string) {
	t.Helper()
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(widgetCRD, "GROUP", c.group)), &crd.Object); err != nil {
		t.Fatal(err)
	}
	spec := crd.Object["spec"].(map[string]any)
	spec["scope"], spec["versions"] = "Namespaced", []any{served(version, true)}
	eventually(t, "create the CRD", func(ctx context.Context) error {
		_, err := c.crds().Create(ctx, crd, metav1.CreateOptions{})
		return err
	})
}

// served is a version of a CustomResourceDefinition that is stored if it is served.
func served(version string, served bool) map[string]any {
	return map[string]any{
		"name": version, "served": served, "storage": served,
		"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object"}},
	}
}

// widget creates one, as soon as the API server serves its version.
func (c *custom) widget(t *testing.T, version, name string) {
	t.Helper()
	widget := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": c.group + "/" + version, "kind": "Widget", "metadata": map[string]any{"name": name},
	}}
	eventually(t, "create "+name, func(ctx context.Context) error {
		_, err := c.widgets(version).Create(ctx, widget, metav1.CreateOptions{})
		return err
	})
}
