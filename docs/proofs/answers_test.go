package proofs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/features"
	featurestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"example.com/informers/internal/outputs"
)

// The server sends kind and apiVersion. The typed client drops them, and the dynamic one keeps them.
func TestTypedObjectsHaveNoKind(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind":"Pod","apiVersion":"v1","metadata":{"namespace":"default","name":"web"}}`)
	}))
	t.Cleanup(server.Close)
	config := &rest.Config{Host: server.URL}
	pod, err := kubernetes.NewForConfigOrDie(config).
		CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pods := corev1.SchemeGroupVersion.WithResource("pods")
	object, err := dynamic.NewForConfigOrDie(config).
		Resource(pods).Namespace("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kind, err := kindOf(pod)
	if err != nil {
		t.Fatal(err)
	}
	outputs.Shown(t, root, fmt.Sprintf(
		"typed:   kind %q, apiVersion %q\ndynamic: kind %q, apiVersion %q\nkindOf:  kind %q, apiVersion %q\n",
		pod.Kind, pod.APIVersion, object.GetKind(), object.GetAPIVersion(), kind.Kind, kind.GroupVersion(),
	), *update)
}

// kindOf looks up the Go type in the scheme of the typed clientset.
func kindOf(obj runtime.Object) (schema.GroupVersionKind, error) {
	kinds, _, err := scheme.Scheme.ObjectKinds(obj)
	if err != nil {
		return schema.GroupVersionKind{}, err
	}
	return kinds[0], nil
}

// The fake clientset decodes nothing: it returns what the test put in.
func TestFakeKeepsTheKind(t *testing.T) {
	web := pod("web", "1")
	web.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
	got, err := fake.NewClientset(web).CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "kind", got.Kind, "Pod")
}

// The watch of an informer sends kind and apiVersion with each event.
func TestInformerDropsTheKind(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		const event = `{"type":%q,"object":{"kind":"Pod","apiVersion":"v1","metadata":%s}}` + "\n"
		fmt.Fprintf(w, event, "ADDED", `{"namespace":"default","name":"web","resourceVersion":"1"}`)
		fmt.Fprintf(w, event, "BOOKMARK", `{"resourceVersion":"2","annotations":{"k8s.io/initial-events-end":"true"}}`)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	config := &rest.Config{Host: server.URL}

	factory := informers.NewSharedInformerFactory(kubernetes.NewForConfigOrDie(config), 0)
	lister := factory.Core().V1().Pods().Lister()
	dynamicFactory := dynamicinformer.NewDynamicSharedInformerFactory(dynamic.NewForConfigOrDie(config), 0)
	dynamicPods := dynamicFactory.ForResource(corev1.SchemeGroupVersion.WithResource("pods"))
	store := dynamicPods.Informer().GetStore()
	ctx, cancel := context.WithCancel(t.Context())
	factory.StartWithContext(ctx)
	dynamicFactory.Start(ctx.Done())
	t.Cleanup(func() {
		cancel()
		factory.Shutdown()
		dynamicFactory.Shutdown()
	})
	if err := factory.WaitForCacheSyncWithContext(ctx).Err; err != nil {
		t.Fatal(err)
	}
	if !cache.WaitFor(ctx, "", dynamicPods.Informer().HasSyncedChecker()) {
		t.Fatal(ctx.Err())
	}

	pod, err := lister.Pods("default").Get("web")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "typed", pod.TypeMeta, metav1.TypeMeta{})
	kind, err := kindOf(pod)
	equal(t, "kindOf", kind, "/v1, Kind=Pod")
	equal(t, "error", err, nil)
	for _, obj := range store.List() {
		equal(t, "dynamic", obj.(*unstructured.Unstructured).GetKind(), "Pod")
	}
	equal(t, "dynamic objects", len(store.List()), 1)
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
	outputs.Shown(t, root, out.String(), *update)
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

func readyPod(name, resourceVersion string, ready corev1.ConditionStatus) *corev1.Pod {
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

func TestReadyIsATransition(t *testing.T) {
	tell(t, serve(readyPod("web", "1", corev1.ConditionTrue)), 30*time.Second, func(t *testing.T, s *story) {
		var out strings.Builder
		updates := 0
		handlers := corev1informers.PodHandlerFuncs{
			AddFunc: func(pod *corev1.Pod) {
				if isReady(pod) {
					fmt.Fprintf(&out, "%2.0f s  Add:    %s is ready\n", time.Since(s.begin).Seconds(), pod.Name)
				}
			},
			UpdateFunc: func(old, pod *corev1.Pod) {
				updates++
				if becameReady(old, pod) {
					fmt.Fprintf(&out, "%2.0f s  Update: %s is ready\n", time.Since(s.begin).Seconds(), pod.Name)
				}
			},
		}
		if _, err := s.informer.AddTypedEventHandler(handlers); err != nil {
			t.Fatal(err)
		}
		s.watch.Add(readyPod("db", "2", corev1.ConditionFalse))
		time.Sleep(10 * time.Second)
		s.watch.Modify(readyPod("db", "3", corev1.ConditionTrue))
		time.Sleep(10 * time.Second)
		labeled := readyPod("db", "4", corev1.ConditionTrue) // another write to a ready pod
		labeled.Labels = map[string]string{"tier": "back"}
		s.watch.Modify(labeled)
		time.Sleep(time.Minute) // two resyncs
		s.watch.Modify(readyPod("db", "5", corev1.ConditionFalse))
		time.Sleep(5 * time.Second)
		s.watch.Modify(readyPod("db", "6", corev1.ConditionTrue))
		synctest.Wait()
		equal(t, "Updates: four writes, and two pods in two resyncs", updates, 8)
		outputs.Shown(t, root, out.String(), *update)
	})
}

func TestBecameReady(t *testing.T) {
	replaced := readyPod("web", "5", corev1.ConditionTrue)
	replaced.UID = "another"
	ready, unready := readyPod("web", "2", corev1.ConditionTrue), readyPod("web", "1", corev1.ConditionFalse)
	for _, test := range []struct {
		name     string
		old, pod *corev1.Pod
		want     bool
	}{
		{"no condition yet", pod("web", "1"), ready, true},
		{"not ready", unready, ready, true},
		{"ready before", ready, ready, false},
		{"no longer ready", ready, unready, false},
		{"another pod of that name", ready, replaced, true},
	} {
		equal(t, test.name, becameReady(test.old, test.pod), test.want)
	}
}

func painted(color, resourceVersion string) *corev1.Pod {
	pod := pod("web", resourceVersion)
	pod.Labels = map[string]string{"color": color}
	return pod
}

func TestFilteringHandlerDeletesWhatTheStoreHas(t *testing.T) {
	tell(t, serve(painted("red", "1")), 0, func(t *testing.T, s *story) {
		var out strings.Builder
		show := func(what string, pod *corev1.Pod) {
			fmt.Fprintf(&out, "%-6s  resourceVersion %s, color %s\n", what, pod.ResourceVersion, pod.Labels["color"])
		}
		_, err := s.informer.AddTypedEventHandler(corev1informers.PodFilteringHandler{
			FilterFunc: func(pod *corev1.Pod) bool { return pod.Labels["color"] == "red" },
			Handler: corev1informers.PodHandlerFuncs{
				AddFunc:    func(pod *corev1.Pod) { show("Add", pod) },
				DeleteFunc: func(pod corev1informers.DeletedPod) { show("Delete", pod.OptionalObj) },
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.watch.Modify(painted("blue", "2"))
		synctest.Wait()
		stored, err := s.factory.Core().V1().Pods().Lister().Pods("default").Get("web")
		if err != nil {
			t.Fatal(err)
		}
		show("store", stored)
		s.watch.Modify(painted("red", "3"))
		synctest.Wait()
		outputs.Shown(t, root, out.String(), *update)
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
	before, replaced := pod("web", "1"), pod("web", "5")
	before.UID, replaced.UID = "old", "new"
	for _, test := range []struct {
		name   string
		server []runtime.Object
		want   bool
	}{
		{"left the selector", []runtime.Object{before}, true},
		{"deleted", nil, false},
		{"deleted and created again", []runtime.Object{replaced}, false},
	} {
		exists, err := stillExists(t.Context(), fake.NewClientset(test.server...),
			corev1informers.DeletedPod{OptionalObj: before})
		equal(t, test.name, exists, test.want)
		equal(t, test.name+": error", err, nil)
	}
	client := fake.NewClientset()
	client.PrependReactor("get", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, stagesForbidden()
	})
	byName := corev1informers.DeletedPod{FinalStateUnknown: &cache.DeletedFinalStateUnknown{Key: "default/web"}}
	exists, err := stillExists(t.Context(), fake.NewClientset(before), byName)
	equal(t, "by name", exists, true)
	equal(t, "by name: error", err, nil)
	_, err = stillExists(t.Context(), client, corev1informers.DeletedPod{OptionalObj: before})
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
		synctest.Test(t, func(t *testing.T) {
			client := fake.NewClientset(pod("web", test.versions[0]))
			factory := informers.NewSharedInformerFactory(client, 30*time.Second)
			var lock sync.Mutex // each handler has its goroutine
			updates := map[string]int{}
			handle := func(name string, options ...cache.HandlerOptions) {
				_, err := factory.Core().V1().Pods().TypedInformer().AddTypedEventHandler(
					corev1informers.PodHandlerFuncs{UpdateFunc: func(old, pod *corev1.Pod) {
						lock.Lock()
						defer lock.Unlock()
						if old != pod { // not a resync
							updates[name]++
						}
					}}, options...)
				if err != nil {
					t.Fatal(err)
				}
			}
			handle("30 s")
			handle("45 s", every(45))
			factory.StartWithContext(t.Context())
			t.Cleanup(factory.Shutdown)
			time.Sleep(test.at)
			synctest.Wait()
			changed := pod("web", test.versions[1])
			changed.Labels = map[string]string{"tier": "front"}
			if _, err := client.CoreV1().Pods("default").Update(t.Context(), changed, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			lock.Lock()
			defer lock.Unlock()
			fmt.Fprintf(&out, "Update at %s, resourceVersion %-9s  30 s handler: %d call, 45 s handler: %d\n",
				test.at, fmt.Sprintf("%q → %q", test.versions[0], test.versions[1]), updates["30 s"], updates["45 s"])
		})
	}
	outputs.Shown(t, root, out.String(), *update)
}

// What the fake clientset lacks, a transform can drop on a real cluster.
func TestTransformMustKeepTheResourceVersion(t *testing.T) {
	for _, test := range []struct {
		drops bool
		calls int
	}{
		{false, 1},
		{true, 0},
	} {
		transform := informers.WithTransform(func(obj any) (any, error) {
			if pod, ok := obj.(*corev1.Pod); ok && test.drops {
				pod.ResourceVersion = ""
			}
			return obj, nil
		})
		tell(t, serve(pod("web", "1")), 30*time.Second, func(t *testing.T, s *story) {
			calls := 0
			handler := corev1informers.PodHandlerFuncs{UpdateFunc: func(_, _ *corev1.Pod) { calls++ }}
			if _, err := s.informer.AddTypedEventHandler(handler, every(45)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(40 * time.Second)
			s.watch.Modify(pod("web", "2"))
			synctest.Wait()
			equal(t, fmt.Sprintf("calls, drops %t", test.drops), calls, test.calls)
		}, transform)
	}
}

func TestFakeAcceptsAStaleUpdate(t *testing.T) {
	client := fake.NewClientset(pod("web", "2"))
	_, err := client.CoreV1().Pods("default").Update(t.Context(), pod("web", "1"), metav1.UpdateOptions{})
	equal(t, "error", err, nil)
}

func TestFailedCallIsTriedAgainByTheQueueOnly(t *testing.T) {
	tell(t, serve(pod("web", "1")), 0, func(t *testing.T, s *story) {
		queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
		inHandler, inWorker := 0, 0
		failing := func(calls *int) error { // fails twice
			if *calls++; *calls <= 2 {
				return errors.New("no answer")
			}
			return nil
		}
		_, err := s.informer.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
			AddFunc: func(pod *corev1.Pod) {
				_ = failing(&inHandler) // wrong: nothing can be done with the error here
				queue.Add(cache.MetaObjectToName(pod))
			},
		})
		if err != nil {
			t.Fatal(err)
		}
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
		time.Sleep(time.Hour)
		synctest.Wait()
		equal(t, "calls from the handler", inHandler, 1)
		equal(t, "calls from the worker", inWorker, 3)
		queue.ShutDown()
		worker.Wait()
	})
}

func TestInformerEndsWithItsTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		factory := informers.NewSharedInformerFactory(fake.NewClientset(pod("web", "1")), 0)
		store := factory.Core().V1().Pods().TypedInformer().GetStore()

		// t.Context() is canceled right before the cleanups run, even after t.Fatal.
		factory.StartWithContext(t.Context())
		t.Cleanup(factory.Shutdown)

		synctest.Wait()
		equal(t, "pods in the store", len(store.ListKeys()), 1)
	})
}

// A handler that waits is released before Shutdown waits for it: the last cleanup runs first.
func TestHandlerIsReleasedBeforeShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		factory := informers.NewSharedInformerFactory(fake.NewClientset(pod("web", "1")), 0)
		release, returned := make(chan struct{}), false
		_, err := factory.Core().V1().Pods().TypedInformer().AddTypedEventHandler(
			corev1informers.PodHandlerFuncs{AddFunc: func(*corev1.Pod) {
				<-release
				returned = true
			}})
		if err != nil {
			t.Fatal(err)
		}
		factory.StartWithContext(t.Context())
		t.Cleanup(func() { equal(t, "the handler has returned", returned, true) })
		t.Cleanup(factory.Shutdown)
		t.Cleanup(func() { close(release) })
		synctest.Wait()
		equal(t, "the handler has returned", returned, false)
	})
}

// TestInformerThatOutlivesItsBubble runs each way in a separate process, as most of them panic.
func TestInformerThatOutlivesItsBubble(t *testing.T) {
	type way struct {
		name string
		run  func(t *testing.T, factory informers.SharedInformerFactory)
	}
	ways := []way{
		{"nothing cancels the context", func(_ *testing.T, factory informers.SharedInformerFactory) {
			factory.StartWithContext(context.Background())
			synctest.Wait()
		}},
		{"t.Fatal before cancel()", func(t *testing.T, factory informers.SharedInformerFactory) {
			ctx, cancel := context.WithCancel(context.Background())
			factory.StartWithContext(ctx)
			synctest.Wait()
			if len(factory.Core().V1().Pods().TypedInformer().GetStore().ListKeys()) != 0 {
				t.Fatal("a pod")
			}
			cancel()
		}},
		{"a handler sleeps, no Shutdown", func(t *testing.T, factory informers.SharedInformerFactory) {
			if _, err := factory.Core().V1().Pods().TypedInformer().AddTypedEventHandler(
				corev1informers.PodHandlerFuncs{AddFunc: func(*corev1.Pod) { time.Sleep(time.Second) }},
			); err != nil {
				t.Error(err)
			}
			factory.StartWithContext(t.Context())
			synctest.Wait()
		}},
		{"defer factory.Shutdown()", func(t *testing.T, factory informers.SharedInformerFactory) {
			factory.StartWithContext(t.Context())
			defer factory.Shutdown()
			synctest.Wait()
		}},
		{"t.Cleanup(factory.Shutdown)", func(t *testing.T, factory informers.SharedInformerFactory) {
			factory.StartWithContext(t.Context())
			t.Cleanup(factory.Shutdown)
			synctest.Wait()
		}},
	}
	if name := os.Getenv("STOP_AN_INFORMER"); name != "" {
		i := slices.IndexFunc(ways, func(w way) bool { return w.name == name })
		synctest.Test(t, func(t *testing.T) {
			factory := informers.NewSharedInformerFactory(fake.NewClientset(pod("web", "1")), 0)
			factory.Core().V1().Pods().Informer()
			ways[i].run(t, factory)
		})
		return
	}
	// The mutation detector's ticker would keep the bubble's clock, and so the process, running.
	t.Setenv("KUBE_CACHE_MUTATION_DETECTOR", "")
	var out strings.Builder
	for _, w := range ways {
		printed, code := stagesAlone(t, "STOP_AN_INFORMER", w.name)
		result := "passes"
		if code != 0 {
			_, result, _ = strings.Cut(printed, "panic: ")
			result, _, _ = strings.Cut(result, " [recovered")
		}
		fmt.Fprintf(&out, "%-30s  %s\n", w.name, result)
	}
	outputs.Shown(t, root, out.String(), *update)
}

// TestGateIsReadOnce runs each case in a separate process, as a process reads its gates once.
func TestGateIsReadOnce(t *testing.T) {
	const gate = "KUBE_FEATURE_WatchListClient"
	set := func(when string) {
		if os.Getenv("SET_THE_GATE") == when {
			if err := os.Setenv(gate, "false"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if os.Getenv("SET_THE_GATE") != "" {
		set("before the first client")
		if _, err := kubernetes.NewForConfig(&rest.Config{}); err != nil {
			t.Fatal(err)
		}
		set("after the first client")
		fmt.Println("WatchListClient:", features.FeatureGates().Enabled(features.WatchListClient))
		return
	}
	for _, test := range []struct {
		environment, set string
		enabled          bool
	}{
		{"true", "nowhere", true},
		{"false", "nowhere", false},
		{"true", "before the first client", false},
		{"true", "after the first client", true},
	} {
		t.Setenv(gate, test.environment)
		printed, _ := stagesAlone(t, "SET_THE_GATE", test.set)
		if want := fmt.Sprint("WatchListClient: ", test.enabled); !strings.Contains(printed, want) {
			t.Errorf("%+v: %s", test, printed)
		}
	}
}

// listing turns WatchList off for the informers that are made with this client.
type listing struct{ kubernetes.Interface }

func (listing) IsWatchListSemanticsUnSupported() bool { return true }

// watching hides that method of the fake clientset, so that the feature gate decides.
type watching struct{ kubernetes.Interface }

func TestWatchListOffForOneClient(t *testing.T) {
	first := func(t *testing.T, wrap func(kubernetes.Interface) kubernetes.Interface) (verb string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			client := fake.NewClientset()
			factory := informers.NewSharedInformerFactory(wrap(client), 0)
			factory.Core().V1().Pods().Informer()
			factory.StartWithContext(t.Context())
			t.Cleanup(factory.Shutdown)
			synctest.Wait()
			verb = client.Actions()[0].GetVerb()
		})
		return verb
	}
	asIs := func(c kubernetes.Interface) kubernetes.Interface { return watching{c} }
	off := func(c kubernetes.Interface) kubernetes.Interface { return listing{watching{c}} }
	equal(t, "gate on", first(t, asIs), "watch")
	equal(t, "gate on, off for one client", first(t, off), "list")
	t.Run("gate off in a test", func(t *testing.T) {
		featurestesting.SetFeatureDuringTest(t, features.WatchListClient, false)
		equal(t, "gate off", first(t, asIs), "list")
	})
	equal(t, "gate on again", first(t, asIs), "watch")
}

// The context ends at the seventh try, whose back-off is 30 to 60 s.
func TestShutdownWaitsForTheBackOff(t *testing.T) {
	for _, test := range []struct {
		gate     bool
		from, to time.Duration
	}{
		{true, 30 * time.Second, time.Minute},
		{false, 0, 0},
	} {
		featurestesting.SetFeatureDuringTest(t, features.WatchListClient, test.gate)
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			client := fake.NewClientset()
			tries := 0
			refuse := func() error {
				if tries++; tries == 7 {
					cancel()
				}
				return stagesRefused()
			}
			client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, refuse()
			})
			client.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
				return true, nil, refuse()
			})
			factory := informers.NewSharedInformerFactory(watching{client}, 0)
			if err := factory.Core().V1().Pods().Informer().SetWatchErrorHandlerWithContext(
				func(context.Context, *cache.Reflector, error) {}); err != nil {
				t.Fatal(err)
			}
			factory.StartWithContext(ctx)
			<-ctx.Done()
			begin := time.Now()
			factory.Shutdown()
			took := time.Since(begin)
			t.Logf("WatchListClient %t: %s", test.gate, took)
			if took < test.from || took > test.to {
				t.Errorf("WatchListClient %t: Shutdown took %s, want %s to %s", test.gate, took, test.from, test.to)
			}
		})
	}
}

// After the sync, a refused watch stops at once with WatchList too.
func TestStopAfterTheSyncIsQuick(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		ctx, cancel := context.WithCancel(t.Context())
		s.start(ctx, t)
		w := s.next(t, "watch").initial("100", pod("web", "1"))
		time.Sleep(time.Minute)
		w.Stop()
		for range 7 {
			s.next(t, "watch").refuse(stagesRefused())
		}
		synctest.Wait()
		equal(t, "stopped", s.pods.IsStopped(), false)
		cancel()
		synctest.Wait() // time stands still
		equal(t, "stopped at once", s.pods.IsStopped(), true)
	})
}

// With the gate off, an informer over a bare ListWatch does not wait for a bookmark.
func TestBareListWatchSyncsWithTheGateOff(t *testing.T) {
	featurestesting.SetFeatureDuringTest(t, features.WatchListClient, false)
	stages(t, func(t *testing.T, s *stagesScene) {
		s.start(t.Context(), t)
		s.next(t, "list").list("100", pod("web", "1"))
		s.next(t, "watch").open()
		synctest.Wait()
		equal(t, "synced", s.pods.HasSynced(), true)
	})
}

// A brokenStream is a watch whose connection fails after a minute, in which something happens
// that it does not show.
type brokenStream struct {
	err    error
	missed func()
}

func (s brokenStream) Decode() (watch.EventType, runtime.Object, error) {
	time.Sleep(time.Minute)
	s.missed()
	return "", nil, s.err
}

func (brokenStream) Close() {}

func TestErrorOfTheStreamDecidesWhatFollows(t *testing.T) {
	for _, test := range []struct {
		err     error
		relists bool
	}{
		{io.EOF, false},
		{io.ErrUnexpectedEOF, false},
		{errors.New("http2: server sent GOAWAY and closed the connection"), false},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, false},
		{net.ErrClosed, false},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}, false},
		{errors.New("http2: client connection lost"), true}, // a ping was not answered
		{errors.New("stream error: stream ID 1; INTERNAL_ERROR; received from peer"), true},
		{errors.New("unable to decode watch event"), true},
	} {
		t.Run(test.err.Error(), func(t *testing.T) {
			server := serve(pod("missed", "1"))
			broken := false
			server.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
				if broken {
					return false, nil, nil
				}
				broken = true
				deleted := func() { server.pods = nil }
				return true, watch.NewStreamWatcher(brokenStream{test.err, deleted}, // as rest.Request does
					apierrors.NewClientErrorReporter(http.StatusInternalServerError, "GET", "ClientWatchDecoding")), nil
			})
			want, wantTombstones := []string{"list", "watch", "watch"}, 0
			if test.relists {
				want, wantTombstones = []string{"list", "watch", "list", "watch"}, 1
			}
			synctest.Test(t, func(t *testing.T) {
				factory := informers.NewSharedInformerFactory(server, 0)
				pods := factory.Core().V1().Pods().TypedInformer()
				told, tombstones := 0, 0
				onError := func(context.Context, *cache.Reflector, error) { told++ }
				if err := pods.SetWatchErrorHandlerWithContext(onError); err != nil {
					t.Fatal(err)
				}
				_, err := pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
					DeleteFunc: func(pod corev1informers.DeletedPod) {
						if pod.FinalStateUnknown != nil {
							tombstones++
						}
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				factory.StartWithContext(t.Context())
				t.Cleanup(factory.Shutdown)
				time.Sleep(3 * time.Minute)
				synctest.Wait()
				equal(t, "requests", server.requests(), want)
				equal(t, "tombstones", tombstones, wantTombstones)
				equal(t, "calls of the watch error handler", told, 0)
			})
		})
	}
}
