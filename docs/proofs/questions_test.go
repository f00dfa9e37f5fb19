package proofs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// The server sends kind and apiVersion. The typed client and its informer drop them, and the dynamic
// ones keep them. The fake clientset decodes nothing: it returns what the test put in.
func TestTypedObjectsHaveNoKind(t *testing.T) {
	play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
		client := kubernetes.NewForConfigOrDie(s.config())
		pod, err := client.CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		object, err := dynamic.NewForConfigOrDie(s.config()).
			Resource(podResource).Namespace("default").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		kind, err := kindOf(pod)
		if err != nil {
			t.Fatal(err)
		}
		shown(t, fmt.Sprintf(
			"typed:   kind %q, apiVersion %q\ndynamic: kind %q, apiVersion %q\nkindOf:  kind %q, apiVersion %q\n",
			pod.Kind, pod.APIVersion, object.GetKind(), object.GetAPIVersion(), kind.Kind, kind.GroupVersion(),
		))

		s.start(t)
		equal(t, "typed informer", s.get(t, "web").TypeMeta, metav1.TypeMeta{})
		factory := dynamicFactory(s.config())
		store := factory.ForResource(podResource).Informer().GetStore()
		start(t, factory)
		equal(t, "dynamic informer", store.List()[0].(*unstructured.Unstructured).GetKind(), "Pod")

		pod.Kind = "Pod"
		pod, err = fake.NewClientset(pod).CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{})
		equal(t, "error", err, nil)
		equal(t, "fake clientset", pod.Kind, "Pod")
	})
}

// kindOf looks up the Go type in the scheme of the typed clientset.
func kindOf(obj runtime.Object) (schema.GroupVersionKind, error) {
	kinds, _, err := scheme.Scheme.ObjectKinds(obj)
	if err != nil {
		return schema.GroupVersionKind{}, err
	}
	return kinds[0], nil
}

// Loops with a period of ten seconds, for a run that is shorter and one that is longer.
func TestPeriodsOfLoops(t *testing.T) {
	const period = 10 * time.Second
	loops := []struct {
		name string
		loop func(context.Context, func(context.Context), time.Duration)
	}{
		{"UntilWithContext", wait.UntilWithContext},
		{"NonSlidingUntilWithContext", wait.NonSlidingUntilWithContext},
	}
	var out strings.Builder
	for _, takes := range []time.Duration{4 * time.Second, 14 * time.Second} {
		for _, l := range loops {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 59*time.Second)
				defer cancel()
				var starts []string
				l.loop(ctx, func(context.Context) {
					starts = append(starts, fmt.Sprint(time.Since(begin).Seconds()))
					time.Sleep(takes)
				}, period)
				fmt.Fprintf(&out, "run takes %2.0f s, %-26s  starts at %s\n",
					takes.Seconds(), l.name, strings.Join(starts, ", "))
			})
		}
	}
	shown(t, out.String())
}

func TestJitterOnlyLengthens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		seen := map[time.Duration]bool{}
		last := time.Time{}
		wait.JitterUntilWithContext(ctx, func(context.Context) {
			if pause := time.Since(last); !last.IsZero() {
				seen[pause] = true
				if pause < 10*time.Second || pause > 15*time.Second {
					t.Errorf("a pause of %s", pause)
				}
			}
			time.Sleep(4 * time.Second)
			last = time.Now()
		}, 10*time.Second, 0.5, true)
		if len(seen) < 2 {
			t.Errorf("always %v", seen)
		}
	})
}

func readyPod(name string, resourceVersion int, ready corev1.ConditionStatus) *corev1.Pod {
	pod := pod(name, resourceVersion)
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	return pod
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func becameReady(old, pod *corev1.Pod) bool {
	return isReady(pod) && (old.UID != pod.UID || !isReady(old))
}

// onReady calls handle once for each time that a pod becomes ready, and once for each pod that
// was ready before the program started.
func onReady(handle func(pod *corev1.Pod)) corev1informers.PodHandlerFuncs {
	return corev1informers.PodHandlerFuncs{
		AddFunc: func(pod *corev1.Pod) {
			if isReady(pod) {
				handle(pod)
			}
		},
		UpdateFunc: func(old, pod *corev1.Pod) {
			if isReady(pod) && (!isReady(old) || old.UID != pod.UID) {
				handle(pod)
			}
		},
	}
}

func TestReadyIsATransition(t *testing.T) {
	const yes, no = corev1.ConditionTrue, corev1.ConditionFalse
	play(t, serve(readyPod("web", 1, yes)), func(t *testing.T, s *scene) {
		var out strings.Builder
		say := func(what string, pod *corev1.Pod) {
			fmt.Fprintf(&out, "%2.0f s  %-7s %s is ready\n", time.Since(s.began).Seconds(), what+":", pod.Name)
		}
		updates := 0
		s.handle(t, corev1informers.PodHandlerFuncs{
			AddFunc: func(pod *corev1.Pod) {
				if isReady(pod) {
					say("Add", pod)
				}
			},
			UpdateFunc: func(old, pod *corev1.Pod) {
				updates++
				if becameReady(old, pod) {
					say("Update", pod)
				}
			},
		})
		var once []string
		s.handle(t, onReady(func(pod *corev1.Pod) { once = append(once, pod.Name) }))
		s.start(t)
		s.put(pod("db", 2)) // without conditions yet
		s.pass(10 * time.Second)
		s.put(readyPod("db", 3, yes))
		s.pass(10 * time.Second)
		s.put(readyPod("db", 4, yes)) // another write to a ready pod
		s.pass(time.Minute)           // two resyncs
		s.put(readyPod("db", 5, no))
		s.pass(5 * time.Second)
		s.put(readyPod("db", 6, yes))
		synctest.Wait()
		equal(t, "Updates: four writes, and two pods in two resyncs", updates, 8)
		equal(t, "once", once, "[web db db]")
		shown(t, out.String())

		// A relist shows only the last state: that a pod was not ready in between is lost, and only
		// its UID says that it is another pod.
		now := readyPod("web", 9, yes)
		s.replace(now, readyPod("db", 6, yes))
		s.relist()
		equal(t, "not ready in between, missed", once, "[web db db]")
		now.UID, now.ResourceVersion = "new", "12"
		s.replace(now, readyPod("db", 6, yes))
		s.relist()
		equal(t, "another pod of that name", once, "[web db db web]")
	}, resync(30*time.Second))
}

func TestFilteringHandlerDeletesWhatTheStoreHas(t *testing.T) {
	painted := func(color string, version int) *corev1.Pod {
		pod := pod("web", version)
		pod.Labels = map[string]string{"color": color}
		return pod
	}
	play(t, serve(painted("red", 1)), func(t *testing.T, s *scene) {
		var out strings.Builder
		show := func(what string, pod *corev1.Pod) {
			fmt.Fprintf(&out, "%-6s  resourceVersion %s, color %s\n",
				what, pod.ResourceVersion, pod.Labels["color"])
		}
		s.handle(t, corev1informers.PodFilteringHandler{
			FilterFunc: func(pod *corev1.Pod) bool { return pod.Labels["color"] == "red" },
			Handler: corev1informers.PodHandlerFuncs{
				AddFunc:    func(pod *corev1.Pod) { show("Add", pod) },
				DeleteFunc: func(pod corev1informers.DeletedPod) { show("Delete", pod.OptionalObj) },
			},
		})
		s.start(t)
		s.put(painted("blue", 2))
		synctest.Wait()
		show("store", s.get(t, "web"))
		s.put(painted("red", 3))
		synctest.Wait()
		shown(t, out.String())
	})
}

// stillExists asks the API server whether the pod is there, with labels that no longer match.
func stillExists(
	ctx context.Context, client kubernetes.Interface, deleted corev1informers.DeletedPod,
) (bool, error) {
	pods := client.CoreV1().Pods(deleted.GetNamespace())
	pod, err := pods.Get(ctx, deleted.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil || deleted.OptionalObj == nil {
		return err == nil, err // a tombstone without a copy has only the name
	}
	return pod.UID == deleted.OptionalObj.UID, nil
}

func TestStillExists(t *testing.T) {
	before, replaced := pod("web", 1), pod("web", 5)
	before.UID, replaced.UID = "old", "new"
	copied := corev1informers.DeletedPod{OptionalObj: before}
	byName := corev1informers.DeletedPod{FinalStateUnknown: &cache.DeletedFinalStateUnknown{Key: "default/web"}}
	for _, test := range []struct {
		name    string
		server  []runtime.Object
		deleted corev1informers.DeletedPod
		want    bool
	}{
		{"left the selector", []runtime.Object{before}, copied, true},
		{"deleted", nil, copied, false},
		{"deleted and created again", []runtime.Object{replaced}, copied, false},
		{"a tombstone without a copy", []runtime.Object{before}, byName, true},
	} {
		exists, err := stillExists(t.Context(), fake.NewClientset(test.server...), test.deleted)
		equal(t, test.name, exists, test.want)
		equal(t, test.name+": error", err, nil)
	}
	client := fake.NewClientset()
	client.PrependReactor("get", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, forbidden()
	})
	_, err := stillExists(t.Context(), client, copied)
	equal(t, "forbidden", apierrors.IsForbidden(err), true)
}

// A factory with a period of 30 s. At 30 s the handler with a period of 45 s is not due.
func TestFakeUpdateMissesAHandlerThatIsNotDue(t *testing.T) {
	var out strings.Builder
	for _, test := range []struct {
		at       time.Duration
		versions []string
	}{
		{10 * time.Second, []string{"", ""}},
		{40 * time.Second, []string{"", ""}},
		{40 * time.Second, []string{"1", "2"}},
	} {
		web := pod("web", 0)
		web.ResourceVersion = test.versions[0]
		client := fake.NewClientset(web.DeepCopy())
		playWith(t, client, func(t *testing.T, s *scene) {
			var n times
			n.handle(t, s, "30 s")
			n.handle(t, s, "45 s", every(45*time.Second))
			s.start(t)
			s.pass(test.at)
			n.take() // the resyncs
			web.ResourceVersion, web.Labels = test.versions[1], map[string]string{"tier": "front"}
			_, err := client.CoreV1().Pods("default").Update(t.Context(), web, metav1.UpdateOptions{})
			equal(t, "error", err, nil)
			synctest.Wait()
			counts := n.take()
			fmt.Fprintf(&out, "Update at %s, resourceVersion %-9s  30 s handler: %d call, 45 s handler: %d\n",
				test.at, fmt.Sprintf("%q → %q", test.versions[0], test.versions[1]),
				counts["30 s"], counts["45 s"])
		}, resync(30*time.Second))
	}
	shown(t, out.String())
}

func TestFakeAcceptsAStaleUpdate(t *testing.T) {
	client := fake.NewClientset(pod("web", 2))
	_, err := client.CoreV1().Pods("default").Update(t.Context(), pod("web", 1), metav1.UpdateOptions{})
	equal(t, "error", err, nil)
}

func TestFailedCallIsTriedAgainByTheQueueOnly(t *testing.T) {
	playWith(t, fake.NewClientset(pod("web", 1)), func(t *testing.T, s *scene) {
		limiter := workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]()
		queue := workqueue.NewTypedRateLimitingQueue(limiter)
		inHandler, inWorker := 0, 0
		failing := func(calls *int) error { // fails twice
			if *calls++; *calls <= 2 {
				return errors.New("no answer")
			}
			return nil
		}
		s.handle(t, corev1informers.PodHandlerFuncs{AddFunc: func(pod *corev1.Pod) {
			_ = failing(&inHandler) // wrong: nothing can be done with the error here
			queue.Add(cache.MetaObjectToName(pod))
		}})
		var worker sync.WaitGroup
		worker.Go(func() {
			for key, shutdown := queue.Get(); !shutdown; key, shutdown = queue.Get() {
				if err := failing(&inWorker); err != nil {
					queue.AddRateLimited(key)
				} else {
					queue.Forget(key)
				}
				queue.Done(key)
			}
		})
		s.start(t)
		s.pass(time.Hour)
		equal(t, "calls from the handler", inHandler, 1)
		equal(t, "calls from the worker", inWorker, 3)
		queue.ShutDown()
		worker.Wait()
	})
}

// Each handler that is added is called until it is removed.
func TestRemovedHandlerIsNotCalled(t *testing.T) {
	play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
		s.record(t)
		s.start(t)
		var calls atomic.Int32
		var handlers []cache.ResourceEventHandlerRegistration
		for range 100 { // once a request, say
			handlers = append(handlers, s.handle(t, lines(func(string) { calls.Add(1) })))
		}
		synctest.Wait()
		equal(t, "calls of handlers added late", calls.Load(), 100)
		for _, handler := range handlers {
			equal(t, "error", cache.ShutDownEventHandler(s.pods, handler), nil)
		}
		s.put(pod("web", 101))
		synctest.Wait()
		equal(t, "calls after their removal", calls.Load(), 100)
		equal(t, "calls of the other", len(s.calls), 2)
	})
}

func TestShutDownWaitsForTheCallUnderWay(t *testing.T) {
	playWith(t, fake.NewClientset(pod("web", 1)), func(t *testing.T, s *scene) {
		release, removed := make(chan struct{}), false
		handler := s.handle(t, lines(func(string) { <-release }))
		s.start(t)
		equal(t, "error", s.pods.RemoveEventHandler(handler), nil) // does not wait
		go func() {
			equal(t, "error", cache.ShutDownEventHandler(s.pods, handler), nil)
			removed = true
		}()
		synctest.Wait()
		equal(t, "ended while the handler runs", removed, false)
		close(release)
		synctest.Wait()
		equal(t, "ended after", removed, true)
	})
}

// A store that has web at version 90, and a cache of what was written since.
func TestMutationCache(t *testing.T) {
	const ttl = time.Minute
	for _, test := range []struct {
		name        string
		includeAdds bool
		then        func(s *scene, writes cache.MutationCache)
		pod         string
		want        string
	}{
		{"our own write", false, func(*scene, cache.MutationCache) {}, "web", "105"},
		{"an older event has arrived", false, func(s *scene, _ cache.MutationCache) {
			s.put(pod("web", 103))
		}, "web", "105"},
		{"a newer event has arrived", false, func(s *scene, _ cache.MutationCache) {
			s.put(pod("web", 107))
		}, "web", "107"},
		{"stale again after the ttl", false, func(s *scene, _ cache.MutationCache) {
			s.pass(ttl + time.Second)
		}, "web", "90"},
		{"stale again after a hundred other writes", false, func(_ *scene, writes cache.MutationCache) {
			for i := range 100 {
				writes.Mutation(pod(fmt.Sprint("web-", i), 106))
			}
		}, "web", "90"},
		{"created", false, func(*scene, cache.MutationCache) {}, "new", "none"},
		{"created, includeAdds", true, func(*scene, cache.MutationCache) {}, "new", "105"},
		{"deleted", true, func(s *scene, _ cache.MutationCache) { s.remove(pod("web", 106)) }, "web", "105"},
		{"deleted, OnDelete", true, func(s *scene, writes cache.MutationCache) {
			s.remove(pod("web", 106))
			writes.OnDelete(pod("web", 106)) // as a delete handler does
		}, "web", "none"},
	} {
		play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
			s.start(t)
			writes := cache.NewIntegerResourceVersionMutationCache(
				klog.Background(), s.pods.GetStore(), nil, ttl, test.includeAdds)
			writes.Mutation(pod(test.pod, 105)) // the answer to our write
			test.then(s, writes)
			synctest.Wait()
			got := "none"
			obj, exists, err := writes.GetByKey("default/" + test.pod)
			if exists {
				got = obj.(*corev1.Pod).ResourceVersion
			}
			equal(t, test.name, got, test.want)
			equal(t, test.name+": error", err, nil)
		})
	}
}

func TestStoreSaysHowFarItHasRead(t *testing.T) {
	play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
		s.start(t)
		store := s.pods.GetTypedIndexer()
		hasRead := func(own string) bool {
			order, err := resourceversion.CompareResourceVersion(store.LastStoreSyncResourceVersion(), own)
			equal(t, "error", err, nil)
			return order >= 0
		}
		equal(t, "after the list", store.LastStoreSyncResourceVersion(), "100")
		equal(t, "it has our own write", hasRead("105"), false)
		s.put(pod("web", 105))
		synctest.Wait()
		equal(t, "it has, after its event", hasRead("105"), true)
		s.put(pod("other", 106))
		s.remove(pod("web", 107))
		synctest.Wait()
		equal(t, "it has, after a delete by someone else", hasRead("105"), true)
	})
}

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
			type widget = *unstructured.Unstructured
			_, err = informer.AddTypedEventHandler(cache.TypedResourceEventHandlerFuncs[widget]{
				AddFunc: func(widget widget) { say("Add %s", widget.GetName()) },
				DeleteFunc: func(widget cache.DeletedObject[widget]) {
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
			stored := len(informer.GetStore().ListKeys())
			say("objects in the store: %d, HasSynced: %t", stored, informer.HasSynced())

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

// elect runs a candidate for one lease until ctx ends or the lease is lost. The times
// are those of Kubernetes' own components.
func elect(
	ctx context.Context, client kubernetes.Interface, name string, release bool,
	lead func(context.Context), stopped func(),
) {
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: "default", Name: "controller"},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: name},
		},
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
		ReleaseOnCancel: release,
		Callbacks:       leaderelection.LeaderCallbacks{OnStartedLeading: lead, OnStoppedLeading: stopped},
	})
}

func TestStandbyIsWarm(t *testing.T) {
	for _, test := range []struct {
		name        string
		release     bool
		from, until time.Duration // when the standby leads, after the leader has ended
	}{
		{"the leader releases the lease", true, 0, 5 * time.Second},
		{"the leader dies", false, 13 * time.Second, 24 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			play(t, serve(pod("web", 1), pod("db", 2)), func(t *testing.T, s *scene) {
				client := fake.NewClientset() // for the lease
				leaderCtx, stopLeader := context.WithCancel(t.Context())
				nothing := func() {}
				go elect(leaderCtx, client, "leader", test.release, func(context.Context) {}, nothing)
				synctest.Wait()

				// The standby: its handlers fill the queue, and workers wait for the lease.
				queue := workqueue.NewTypedRateLimitingQueue(
					workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
				defer queue.ShutDown()
				enqueue := func(pod *corev1.Pod) { queue.Add(cache.MetaObjectToName(pod)) }
				s.handle(t, corev1informers.PodHandlerFuncs{
					AddFunc: enqueue, UpdateFunc: func(_, pod *corev1.Pod) { enqueue(pod) },
				})
				s.start(t)
				began := make(chan time.Time, 1)
				reconciled := map[string]string{} // the version that the worker read
				go elect(t.Context(), client, "standby", test.release, func(context.Context) {
					began <- time.Now()
					for {
						key, shutdown := queue.Get()
						if shutdown {
							return
						}
						if pod, err := s.lister.Pods(key.Namespace).Get(key.Name); err == nil {
							reconciled[pod.Name] = pod.ResourceVersion
						}
						queue.Done(key)
					}
				}, nothing)

				for i := range 1000 {
					s.put(pod("web", 3+i))
				}
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				equal(t, "pods in the standby's store", len(s.keys()), 2)
				equal(t, "keys in its queue after a thousand Updates", queue.Len(), 2)
				equal(t, "reconciled by it", len(reconciled), 0)

				ended := time.Now()
				stopLeader()
				if wait := (<-began).Sub(ended); wait < test.from || wait > test.until {
					t.Errorf("leads after %s, want %s to %s", wait, test.from, test.until)
				}
				synctest.Wait()
				equal(t, "reconciled as leader", reconciled, "map[db:2 web:1002]")
			})
		})
	}
}

func TestLostLeaseIsNotRegained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		var down atomic.Bool
		client.PrependReactor("update", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			return down.Load(), nil, errors.New("no connection")
		})
		events := make(chan string, 10)
		returned := make(chan struct{})
		go func() {
			defer close(returned)
			elect(t.Context(), client, "leader", false, func(ctx context.Context) {
				<-ctx.Done()
				events <- "the context is canceled"
				time.Sleep(time.Minute) // a call under way that ignores the context
				events <- "the worker ends"
			}, func() {
				synctest.Wait() // the worker is told first
				events <- "OnStoppedLeading"
			})
		}()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		equal(t, "events in five minutes as leader", len(events), 0)

		down.Store(true)
		began := time.Now()
		<-returned
		if wait := time.Since(began); wait < 10*time.Second || wait > 12*time.Second {
			t.Errorf("lost after %s", wait)
		}
		down.Store(false)
		for _, want := range []string{"the context is canceled", "OnStoppedLeading", "the worker ends"} {
			equal(t, "event", <-events, want)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		equal(t, "events later", len(events), 0)
	})
}

func TestOnStoppedLeadingIsCalledWithoutALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		led, stopped := false, false
		go elect(t.Context(), client, "leader", false, func(context.Context) {}, func() {})
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		go elect(ctx, client, "standby", false, func(context.Context) { led = true }, func() { stopped = true })
		time.Sleep(time.Minute)
		cancel()
		synctest.Wait()
		equal(t, "led", led, false)
		equal(t, "OnStoppedLeading", stopped, true)
	})
}
