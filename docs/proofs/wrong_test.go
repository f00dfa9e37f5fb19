package proofs

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/features"
	featurestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
)

// A handler that waits for its own registration waits forever.
func TestWaitInsideAHandlerHangs(t *testing.T) {
	playWith(t, fake.NewClientset(pod("web", 1)), func(t *testing.T, s *scene) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var registration cache.ResourceEventHandlerRegistration
		registration = s.handle(t, corev1informers.PodHandlerFuncs{AddFunc: func(*corev1.Pod) {
			cache.WaitFor(ctx, "", registration.HasSyncedChecker()) // wrong: it waits for itself
		}})
		s.startWith(ctx, t)
		s.pass(59 * time.Minute)
		equal(t, "synced after 59 minutes", registration.HasSynced(), false)
	})
}

// Handlers belong to the factory of which they were requested.
func TestTwoFactoriesShareNothing(t *testing.T) {
	client := fake.NewClientset(pod("web", 1))
	playWith(t, client, func(t *testing.T, s *scene) {
		s.record(t)
		handler := s.handle(t, lines(func(string) {}))
		other := informers.NewSharedInformerFactory(client, 0)
		other.Core().V1().Pods().Lister() // so that the other has something to start
		other.StartWithContext(t.Context())
		t.Cleanup(other.Shutdown)
		equal(t, "the other factory", other.WaitForCacheSyncWithContext(t.Context()).AsError(), nil)
		s.pass(time.Hour)
		equal(t, "calls", len(s.calls), 0)
		equal(t, "synced", handler.HasSynced(), false)
	})
}

// Shutdown waits for informers to end, and asks none to.
func TestShutdownBeforeCancelHangs(t *testing.T) {
	var out strings.Builder
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		factory := informers.NewSharedInformerFactory(fake.NewClientset(), 0)
		factory.Core().V1().Pods().Lister()
		factory.StartWithContext(ctx)
		done := make(chan struct{})

		// wrong: nobody has told the informers to end
		go func() {
			factory.Shutdown()
			close(done)
		}()

		select {
		case <-done:
			t.Error("Shutdown returned before the context was cancelled")
		case <-time.After(time.Hour):
			fmt.Fprintf(&out, "%s: Shutdown is still waiting\n", time.Since(begin))
		}

		// right: first the context, then Shutdown
		cancel()
		<-done

		fmt.Fprintf(&out, "%s: the context is cancelled, Shutdown returns\n", time.Since(begin))
	})
	shown(t, out.String())
}

// So each write looks like a resync if you compare: see TestFakeUpdateMissesAHandlerThatIsNotDue.
func TestFakeWritesHaveNoResourceVersion(t *testing.T) {
	pods := fake.NewClientset().CoreV1().Pods("default")
	web, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}},
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "created", web.ResourceVersion, "")
	web.Labels = map[string]string{"changed": "yes"}
	web, err = pods.Update(t.Context(), web, metav1.UpdateOptions{})
	equal(t, "error", err, nil)
	equal(t, "updated", web.ResourceVersion, "")
}

// If you change a pod of the store, its next change looks like no change, and the mutation detector
// panics. It is read when a program starts: each case runs in a separate process.
func TestMutationDetectorPanics(t *testing.T) {
	const detector = "KUBE_CACHE_MUTATION_DETECTOR"
	const child = "CHANGE_THE_STORE"
	if os.Getenv(child) == "" {
		for _, value := range []string{"true", "false"} {
			t.Setenv(detector, value)
			out, code := alone(t, child, "yes")
			equal(t, "with "+value+": it fails", code != 0, value == "true")
			equal(t, "with "+value+": it says why", strings.Contains(out, "ALTERED!"), value == "true")
			if value == "false" && code != 0 {
				t.Error(out)
			}
		}
		return
	}
	play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
		changed := 0
		s.handle(t, corev1informers.PodHandlerFuncs{UpdateFunc: func(old, pod *corev1.Pod) {
			if old.Labels["tier"] != pod.Labels["tier"] {
				changed++
			}
		}})
		s.start(t)
		s.get(t, "web").Labels = map[string]string{"tier": "front"} // wrong: this is the store's own
		s.pass(time.Minute)
		now := pod("web", 101)
		now.Labels = map[string]string{"tier": "front"} // someone wrote that label
		s.put(now)
		s.pass(time.Minute)
		equal(t, "changes that the handler saw", changed, 0)
	})
}

// How informers start and end.

func TestInformerAskedForAfterStartDoesNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		factory := informers.NewSharedInformerFactory(fake.NewClientset(pod("web", 1)), 0)
		t.Cleanup(factory.Shutdown) // t.Context() has ended then
		factory.StartWithContext(t.Context())
		store := factory.Core().V1().Pods().Informer().GetStore() // too late
		equal(t, "factory's wait", factory.WaitForCacheSyncWithContext(t.Context()).Err, nil)
		for _, want := range []int{0, 1} {
			time.Sleep(time.Minute)
			synctest.Wait()
			equal(t, "pods in the store", len(store.ListKeys()), want)
			factory.StartWithContext(t.Context()) // a second Start runs what the first did not know
		}
	})
}

func TestLastWithNamespaceWins(t *testing.T) {
	client := fake.NewClientset()
	playWith(t, client, func(t *testing.T, s *scene) {
		s.start(t)
		for _, action := range client.Actions() {
			equal(t, action.GetVerb(), action.GetNamespace(), "two")
		}
	}, informers.WithNamespace("one"), informers.WithNamespace("two"))
}

func TestTweakHoldsForTheWholeFactory(t *testing.T) {
	client := fake.NewClientset()
	tweak := informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = "app=web" })
	playWith(t, client, func(t *testing.T, s *scene) {
		s.factory.Core().V1().ConfigMaps().Informer()
		s.start(t)
		listed := map[string]string{}
		for _, action := range client.Actions() {
			if list, ok := action.(clienttesting.ListAction); ok {
				listed[action.GetResource().Resource] = list.GetListRestrictions().Labels.String()
			}
		}
		equal(t, "lists", listed, "map[configmaps:app=web pods:app=web]")
	}, tweak)
}

func TestSecondStartLeavesTheStoreFrozen(t *testing.T) {
	for name, start := range map[string]func(*scene, context.Context){
		"factory":  func(s *scene, ctx context.Context) { s.factory.StartWithContext(ctx) },
		"informer": func(s *scene, ctx context.Context) { go s.pods.RunWithContext(ctx) },
	} {
		for order, shared := range map[string]bool{
			"stopped and started again": false, "two users, the first ends": true,
		} {
			t.Run(name+", "+order, func(t *testing.T) {
				play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
					first, end := context.WithCancel(t.Context())
					start(s, first)
					synctest.Wait()
					if shared {
						start(s, t.Context())
						synctest.Wait()
					}
					end()
					synctest.Wait()
					if !shared {
						start(s, t.Context())
					}
					s.put(pod("new", 101))
					requests := len(s.seen())

					synced := cache.WaitFor(t.Context(), "", s.pods.HasSyncedChecker())
					result := s.factory.WaitForCacheSyncWithContext(t.Context())
					equal(t, "the wait is over", synced && result.Err == nil, true)
					s.pass(time.Hour)
					equal(t, "HasSynced", s.pods.HasSynced(), true)
					equal(t, "keys in the store", s.keys(), "[default/web]")
					equal(t, "requests since", len(s.seen())-requests, 0)
					equal(t, "IsStopped", s.pods.IsStopped(), true)
					equal(t, "the factory keeps it", s.factory.Core().V1().Pods().Informer().IsStopped(), true)
					_, err := s.pods.AddTypedEventHandler(lines(func(string) {}))
					equal(t, "a handler is refused", err != nil, true)
				})
			})
		}
	}
}

// A handler that waits is released before Shutdown waits for it: the last cleanup runs first.
func TestHandlerIsReleasedBeforeShutdown(t *testing.T) {
	playWith(t, fake.NewClientset(pod("web", 1)), func(t *testing.T, s *scene) {
		release, returned := make(chan struct{}), false
		s.handle(t, lines(func(string) {
			<-release
			time.Sleep(time.Minute)
			returned = true
		}))
		t.Cleanup(func() { equal(t, "the handler has returned", returned, true) })
		s.start(t)
		t.Cleanup(func() { close(release) })
		equal(t, "the handler has returned", returned, false)
	})
}

// TestInformerThatOutlivesItsBubble runs each way in a separate process, as most of them panic.
func TestInformerThatOutlivesItsBubble(t *testing.T) {
	const variable = "STOP_AN_INFORMER"
	var out strings.Builder
	for _, way := range []struct {
		name string
		run  func(t *testing.T, s *scene)
	}{
		{"nothing cancels the context", func(_ *testing.T, s *scene) {
			s.factory.StartWithContext(context.Background())
			synctest.Wait()
		}},
		{"t.Fatal before cancel()", func(t *testing.T, s *scene) {
			ctx, cancel := context.WithCancel(context.Background())
			s.factory.StartWithContext(ctx)
			synctest.Wait()
			if len(s.keys()) != 0 {
				t.Fatal("a pod")
			}
			cancel()
		}},
		{"a handler sleeps, no Shutdown", func(t *testing.T, s *scene) {
			s.handle(t, lines(func(string) { time.Sleep(time.Second) }))
			s.factory.StartWithContext(t.Context())
			synctest.Wait()
		}},
		{"defer factory.Shutdown()", func(t *testing.T, s *scene) {
			s.factory.StartWithContext(t.Context())
			defer s.factory.Shutdown()
			synctest.Wait()
		}},
		{"t.Cleanup(factory.Shutdown)", func(t *testing.T, s *scene) {
			factory := s.factory

			// t.Context() is canceled right before the cleanups run, even after t.Fatal.
			factory.StartWithContext(t.Context())
			t.Cleanup(factory.Shutdown)

			synctest.Wait()
		}},
	} {
		switch os.Getenv(variable) {
		case "":
			// The mutation detector's ticker would keep the bubble's clock, and so the process, running.
			t.Setenv("KUBE_CACHE_MUTATION_DETECTOR", "")
			printed, code := alone(t, variable, way.name)
			result := "passes"
			if code != 0 {
				_, result, _ = strings.Cut(printed, "panic: ")
				result, _, _ = strings.Cut(result, " [recovered")
			}
			fmt.Fprintf(&out, "%-30s  %s\n", way.name, result)
		case way.name:
			playWith(t, fake.NewClientset(pod("web", 1)), way.run)
			return
		}
	}
	shown(t, out.String())
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
		printed, _ := alone(t, "SET_THE_GATE", test.set)
		if want := fmt.Sprint("WatchListClient: ", test.enabled); !strings.Contains(printed, want) {
			t.Errorf("%+v: %s", test, printed)
		}
	}
}

// listing turns WatchList off for the informers that are made with this client.
type listing struct{ kubernetes.Interface }

func (listing) IsWatchListSemanticsUnSupported() bool { return true }

func TestWatchListOffForOneClient(t *testing.T) {
	first := func(t *testing.T, wrap func(kubernetes.Interface) kubernetes.Interface) (verb string) {
		t.Helper()
		server := serve()
		playWith(t, wrap(kubernetes.NewForConfigOrDie(server.config())), func(t *testing.T, s *scene) {
			s.start(t)
			verb = server.seen()[0].verb
		})
		return verb
	}
	asIs := func(c kubernetes.Interface) kubernetes.Interface { return c }
	off := func(c kubernetes.Interface) kubernetes.Interface { return listing{c} }
	equal(t, "gate on", first(t, asIs), "watch")
	equal(t, "gate on, off for one client", first(t, off), "list")
	t.Run("gate off in a test", func(t *testing.T) {
		featurestesting.SetFeatureDuringTest(t, features.WatchListClient, false)
		equal(t, "gate off", first(t, asIs), "list")
	})
	equal(t, "gate on again", first(t, asIs), "watch")
}

// generated is the informer of a factory as informer-gen wrote it before client-go 0.35:
// the reflector does not learn whether the client is a fake.
func generated(client kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(generatedListWatch(client), &corev1.Pod{}, resync, cache.Indexers{})
}

func generatedListWatch(client kubernetes.Interface) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.CoreV1().Pods(metav1.NamespaceAll).Watch(ctx, o)
		},
	}
}

// regenerated is the same, as informer-gen writes it since then.
func regenerated(client kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
	lw := cache.ToListWatcherWithWatchListSemantics(generatedListWatch(client), client)
	return cache.NewSharedIndexInformerWithOptions(lw, &corev1.Pod{},
		cache.SharedIndexInformerOptions{ResyncPeriod: resync})
}

// Over a fake, a bare ListWatch waits for a bookmark that the fake does not send.
func TestOldGeneratedInformerOverAFake(t *testing.T) {
	clientset := fake.NewClientset(pod("web", 1))
	wrapped := struct{ kubernetes.Interface }{clientset}
	for _, test := range []struct {
		name      string
		client    kubernetes.Interface
		informer  func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer
		watchList bool
		synced    bool
	}{
		{"generated before 0.35", clientset, generated, true, false},
		{"generated since", clientset, regenerated, true, true},
		{"before, WatchListClient off", clientset, generated, false, true},
		{"since, over a wrapped fake", wrapped, regenerated, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			featurestesting.SetFeatureDuringTest(t, features.WatchListClient, test.watchList)
			synctest.Test(t, func(t *testing.T) {
				factory := informers.NewSharedInformerFactory(test.client, 0)
				pods := cache.NewTypedSharedIndexInformer[*corev1.Pod](
					factory.InformerFor(&corev1.Pod{}, test.informer))
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				factory.StartWithContext(ctx)
				t.Cleanup(factory.Shutdown)
				equal(t, "synced", cache.WaitFor(ctx, "", pods.HasSyncedChecker()), test.synced)
			})
		})
	}
}
