package proofs

import (
	"context"
	"errors"
	"fmt"
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
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
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
		loop func(context.Context, func(context.Context))
	}{
		{"UntilWithContext", func(ctx context.Context, run func(context.Context)) {
			wait.UntilWithContext(ctx, run, period)
		}},
		{"NonSlidingUntilWithContext", func(ctx context.Context, run func(context.Context)) {
			wait.NonSlidingUntilWithContext(ctx, run, period)
		}},
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
				})
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
		s.put(readyPod("db", 2, no))
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

func TestBecameReady(t *testing.T) {
	replaced := readyPod("web", 5, corev1.ConditionTrue)
	replaced.UID = "another"
	ready, unready := readyPod("web", 2, corev1.ConditionTrue), readyPod("web", 1, corev1.ConditionFalse)
	for _, test := range []struct {
		name     string
		old, pod *corev1.Pod
		want     bool
	}{
		{"no condition yet", pod("web", 1), ready, true},
		{"not ready", unready, ready, true},
		{"ready before", ready, ready, false},
		{"no longer ready", ready, unready, false},
		{"another pod of that name", ready, replaced, true},
	} {
		equal(t, test.name, becameReady(test.old, test.pod), test.want)
	}
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
			fmt.Fprintf(&out, "%-6s  resourceVersion %s, color %s\n", what, pod.ResourceVersion, pod.Labels["color"])
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
				test.at, fmt.Sprintf("%q → %q", test.versions[0], test.versions[1]), counts["30 s"], counts["45 s"])
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
		queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
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
		{"an older event has arrived", false, func(s *scene, _ cache.MutationCache) { s.put(pod("web", 103)) }, "web", "105"},
		{"a newer event has arrived", false, func(s *scene, _ cache.MutationCache) { s.put(pod("web", 107)) }, "web", "107"},
		{"stale again after the ttl", false, func(s *scene, _ cache.MutationCache) { s.pass(ttl + time.Second) }, "web", "90"},
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
