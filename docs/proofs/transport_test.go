package proofs

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

var podResource = corev1.SchemeGroupVersion.WithResource("pods")

// named has the fields that each object needs.
func named(name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetNamespace("default")
	u.SetName(name)
	return u
}

// requesting is a pod that requests cpu. A typed client cannot decode half a core.
func requesting(name, cpu string) *unstructured.Unstructured {
	u := named(name)
	u.Object["spec"] = map[string]any{"containers": []any{map[string]any{
		"name": "web", "resources": map[string]any{"requests": map[string]any{"cpu": cpu}},
	}}}
	return u
}

func goodAndBad() *server {
	s := serve()
	s.put(requesting("good", "500m"), requesting("bad", "half a core"))
	return s
}

func TestOneBadObjectPreventsTheSync(t *testing.T) {
	for _, test := range []struct {
		recover func(*scene)
		stored  int
	}{
		{func(s *scene) { s.remove(named("bad")) }, 1},
		{func(s *scene) { s.put(requesting("bad", "500m")) }, 2},
	} {
		withWatchList(t, func(t *testing.T, _ bool) {
			play(t, goodAndBad(), func(t *testing.T, s *scene) {
				s.start(t)
				s.pass(time.Hour)
				equal(t, "synced after an hour", s.pods.HasSynced(), false)
				equal(t, "pods in the store", len(s.keys()), 0)
				if len(s.told) < 60 {
					t.Errorf("told %d times in an hour", len(s.told))
				}
				test.recover(s)
				s.pass(time.Minute)
				equal(t, "synced once it is gone", s.pods.HasSynced(), true)
				equal(t, "pods then", len(s.keys()), test.stored)
			})
		})
	}
}

// both acts with WatchList and with LIST. Both print the same, and the page shows it.
func both(t *testing.T, act func(t *testing.T, say func(format string, args ...any))) {
	t.Helper()
	printed := map[bool]string{}
	withWatchList(t, func(t *testing.T, on bool) {
		var out strings.Builder
		act(t, func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) })
		printed[on] = out.String()
	})
	equal(t, "with LIST", printed[false], printed[true])
	shown(t, printed[true])
}

func TestOneBadObjectStopsTheInformer(t *testing.T) {
	both(t, func(t *testing.T, say func(format string, args ...any)) {
		play(t, newServer(podKind), func(t *testing.T, s *scene) {
			ctx, logged := logs(t, 0)
			s.handle(t, lines(func(line string) {
				kind, rest, _ := strings.Cut(line, " ")
				name, versions, _ := strings.Cut(rest, " ")
				say("%s %s: %s", kind, name, strings.Replace(versions, " to ", " → ", 1))
			}))
			s.put(requesting("web", "500m"))
			s.startWith(ctx, t)

			say(`* another pod requests cpu "half a core"`)
			s.put(requesting("bad", "half a core"))
			synctest.Wait()
			for _, entry := range logged.Data() {
				say("log: %s", entry.Message)
			}
			s.pass(time.Minute)
			say("told: %s", strings.Replace(s.told[0].Error(), ": ", ":\n      ", 1)) // the page is narrow

			say("* web changes, and an hour passes")
			before := len(s.told)
			s.put(requesting("web", "600m"))
			s.pass(time.Hour)
			if again := len(s.told) - before; again < 60 {
				t.Errorf("told %d times in that hour", again)
			}
			say("web in the store: %s, HasSynced: %t", s.stored("web"), s.pods.HasSynced())

			say("* the other pod is deleted, and a minute passes")
			s.remove(named("bad"))
			s.pass(time.Minute)
		})
	})
}

// A list of the dynamic client has every object, and each is converted alone.
func TestConvertingOneByOneFindsTheBadObject(t *testing.T) {
	client := dynamic.NewForConfigOrDie(goodAndBad().config())
	list, err := client.Resource(podResource).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var bad []string
	for _, item := range list.Items {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, &corev1.Pod{}); err != nil {
			bad = append(bad, item.GetName())
		}
	}
	equal(t, "what does not fit the type", bad, "[bad]")
}

// untyped is what the dynamic and the metadata factory have in common: they have no contexts.
type untyped interface {
	ForResource(schema.GroupVersionResource) informers.GenericInformer
	Start(stop <-chan struct{})
	Shutdown()
}

func dynamicFactory(config *rest.Config) untyped {
	return dynamicinformer.NewDynamicSharedInformerFactory(dynamic.NewForConfigOrDie(config), 0)
}

func metadataFactory(config *rest.Config) untyped {
	return metadatainformer.NewSharedInformerFactory(metadata.NewForConfigOrDie(config), 0)
}

// start runs an untyped factory until the test has ended.
func start(t *testing.T, factory untyped) {
	t.Helper()
	factory.Start(t.Context().Done())
	t.Cleanup(factory.Shutdown)
	synctest.Wait()
}

func TestUntypedInformersTakeTheBadObject(t *testing.T) {
	for name, factory := range map[string]func(*rest.Config) untyped{
		"dynamic": dynamicFactory, "metadata": metadataFactory,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := goodAndBad()
			factory := factory(s.config())
			informer := factory.ForResource(podResource).Informer()
			start(t, factory)
			equal(t, name+": synced", informer.HasSynced(), true)
			equal(t, name+": objects", len(informer.GetStore().ListKeys()), 2)
			equal(t, name+": requests", s.verbs(), "[watch]")
		})
	}
}

func TestCRDDeletedAndInstalledAgain(t *testing.T) {
	widgets := schema.GroupVersion{Group: "example.com", Version: "v1"}
	both(t, func(t *testing.T, say func(format string, args ...any)) {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(widgets.WithKind("Widget"))
			factory := dynamicFactory(s.config())
			informer := cache.NewTypedSharedIndexInformer[*unstructured.Unstructured](
				factory.ForResource(widgets.WithResource("widgets")).Informer())
			var told []error
			err := informer.SetWatchErrorHandlerWithContext(
				func(_ context.Context, _ *cache.Reflector, err error) { told = append(told, err) })
			equal(t, "error", err, nil)
			var deletes []string
			_, err = informer.AddTypedEventHandler(cache.TypedResourceEventHandlerFuncs[*unstructured.Unstructured]{
				AddFunc: func(widget *unstructured.Unstructured) { say("Add %s", widget.GetName()) },
				DeleteFunc: func(widget cache.DeletedObject[*unstructured.Unstructured]) {
					deletes = append(deletes, fmt.Sprintf("Delete %s, tombstone: %t",
						widget.GetName(), widget.FinalStateUnknown != nil))
				},
			})
			equal(t, "error", err, nil)
			s.put(named("one"))
			start(t, factory)
			s.put(named("two"))
			synctest.Wait()

			// As the API server does: each object is deleted, watches end, and requests get 404.
			say("* the CRD is deleted, and an hour passes")
			s.remove(named("one"))
			s.remove(named("two"))
			s.fail(always(apierrors.NewNotFound(schema.GroupResource{}, "")))
			s.end(io.EOF)
			time.Sleep(time.Hour)
			synctest.Wait()
			slices.Sort(deletes) // the order is a map's
			say("%s", strings.Join(deletes, "\n"))
			for _, err := range told {
				equal(t, "404", apierrors.IsNotFound(err), true)
			}
			if len(told) < 60 {
				t.Errorf("told %d times in an hour", len(told))
			}
			say("told: %v", told[len(told)-1])
			say("objects in the store: %d, HasSynced: %t", len(informer.GetStore().ListKeys()), informer.HasSynced())

			say("* the CRD is installed again, an object created, and a minute passes")
			s.fail(nil)
			s.put(named("three"))
			time.Sleep(time.Minute)
			synctest.Wait()
		})
	})
}

func TestThrottlingIsOfListsAndNotOfWatches(t *testing.T) {
	withWatchList(t, func(t *testing.T, on bool) {
		requests, takes := "map[watch:40]", time.Duration(0)
		if !on {
			requests, takes = "map[list:40 watch:40]", 6*time.Second // 10 at once, 30 at 5 a second
		}
		synctest.Test(t, func(t *testing.T) {
			s := serve()
			config := s.config()
			config.QPS = 0 // the default
			client := kubernetes.NewForConfigOrDie(config)
			var synced []cache.DoneChecker
			begin := time.Now()
			for i := range 40 {
				factory := informers.NewSharedInformerFactoryWithOptions(client, 0,
					informers.WithNamespace(fmt.Sprint("namespace-", i)))
				synced = append(synced, factory.Core().V1().Pods().Informer().HasSyncedChecker())
				factory.StartWithContext(t.Context())
				t.Cleanup(factory.Shutdown)
			}
			equal(t, "synced", cache.WaitFor(t.Context(), "", synced...), true)
			equal(t, "takes", time.Since(begin).Round(time.Millisecond), takes)
			synctest.Wait()
			counts := map[string]int{}
			for _, verb := range s.verbs() {
				counts[verb]++
			}
			equal(t, "requests", counts, requests)
		})
	})
}
