package proofs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"example.com/informers/internal/outputs"
)

// shown holds what the page shows to the calls of a story.
func (s *story) shown(t *testing.T) {
	t.Helper()
	synctest.Wait()
	outputs.Shown(t, root, strings.Join(s.calls, "\n")+"\n", *update)
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestResyncHandsOutTheSameVersion(t *testing.T) {
	tell(t, serve(pod("web", "1")), 30*time.Second, func(t *testing.T, s *story) {
		time.Sleep(45 * time.Second)
		s.watch.Modify(pod("web", "2"))
		time.Sleep(20 * time.Second)
		s.shown(t)
	})
}

func TestResyncMakesNoRequest(t *testing.T) {
	tell(t, serve(pod("web", "1")), 30*time.Second, func(t *testing.T, s *story) {
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		equal(t, "calls: an Add and twenty resyncs", len(s.calls), 21)
		equal(t, "requests", s.requests(), []string{"list", "watch"})
	})
}

func TestRelistUpdatesWithoutAChange(t *testing.T) {
	tell(t, serve(pod("web", "1")), 0, func(t *testing.T, s *story) {
		time.Sleep(time.Hour)
		synctest.Wait()
		equal(t, "calls in an hour without a resync", len(s.calls), 1)
		s.expire()
		for i, call := range s.calls {
			s.calls[i] = call[strings.Index(call, "s  ")+3:] // the back-off of a relist is random
		}
		s.shown(t)
	})
}

func TestStoreIsSyncedBeforeItsHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		factory := informers.NewSharedInformerFactory(fake.NewClientset(pod("web", "1")), 0)
		pods := factory.Core().V1().Pods().TypedInformer()
		release := make(chan struct{})
		handler, err := pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
			AddFunc: func(*corev1.Pod) { <-release },
		})
		if err != nil {
			t.Fatal(err)
		}
		factory.StartWithContext(ctx)
		t.Cleanup(factory.Shutdown)

		equal(t, "factory's wait", factory.WaitForCacheSyncWithContext(ctx).Err, nil)
		equal(t, "informer.HasSynced", pods.HasSynced(), true)
		equal(t, "handler.HasSynced, its Add under way", handler.HasSynced(), false)
		close(release)
		equal(t, "cache.WaitFor the handler", cache.WaitFor(ctx, "", handler.HasSyncedChecker()), true)
	})
}

func TestInitialAddsAreMarked(t *testing.T) {
	tell(t, serve(pod("web", "1")), 0, func(t *testing.T, s *story) {
		s.watch.Add(pod("nginx", "2"))
		synctest.Wait()
		s.shown(t)
	})
}

func TestMissedDeleteIsATombstone(t *testing.T) {
	tell(t, serve(pod("web", "1")), 0, func(t *testing.T, s *story) {
		var deleted corev1informers.DeletedPod
		_, err := s.informer.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
			DeleteFunc: func(pod corev1informers.DeletedPod) { deleted = pod },
		})
		if err != nil {
			t.Fatal(err)
		}
		s.pods = nil // changed to version 2, then deleted, and the watch saw neither
		s.expire()
		equal(t, "tombstone", deleted.FinalStateUnknown != nil, true)
		equal(t, "key", deleted.GetKey(), "default/web")
		equal(t, "version of the stale object", deleted.OptionalObj.ResourceVersion, "1")
	})
}

func TestRelistShowsOnlyTheLastState(t *testing.T) {
	tell(t, serve(pod("web", "1")), 0, func(t *testing.T, s *story) {
		s.pods = []*corev1.Pod{pod("web", "5")} // 2: a new label; 3 and 4: another pod came and went
		s.expire()
		equal(t, "calls", len(s.calls), 2)
		if last := s.calls[1]; !strings.HasSuffix(last, "Update web: 1 → 5, same pointer: false") {
			t.Error(last)
		}
	})
}

func TestDeleteAndCreateMayBeOneUpdate(t *testing.T) {
	before, after := pod("web", "1"), pod("web", "5")
	before.UID, after.UID = "old", "new"
	tell(t, serve(before), 0, func(t *testing.T, s *story) {
		s.pods = []*corev1.Pod{after}
		s.expire()
		equal(t, "calls", len(s.calls), 2)
		if last := s.calls[1]; !strings.Contains(last, "Update web: 1 → 5") {
			t.Error(last)
		}
	})
}

// TestMutationDetectorPanics runs itself in a separate process, which panics.
func TestMutationDetectorPanics(t *testing.T) {
	if os.Getenv("CHANGE_THE_STORE") != "" {
		tell(t, serve(pod("web", "1")), 0, func(t *testing.T, s *story) {
			pod, err := s.factory.Core().V1().Pods().Lister().Pods("default").Get("web")
			if err != nil {
				t.Fatal(err)
			}
			pod.Labels = map[string]string{"mine": "yes"} // without pod = pod.DeepCopy()
			time.Sleep(time.Minute)
		})
		return
	}
	for _, detector := range []string{"true", "false"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMutationDetectorPanics$")
		cmd.Env = append(os.Environ(), "CHANGE_THE_STORE=yes", "KUBE_CACHE_MUTATION_DETECTOR="+detector)
		out, err := cmd.CombinedOutput()
		equal(t, "with "+detector+": it fails", err != nil, detector == "true")
		equal(t, "with "+detector+": it says why", strings.Contains(string(out), "ALTERED!"), detector == "true")
	}
}

func TestExpiredWatchIsListedAgain(t *testing.T) {
	tell(t, serve(pod("web", "1")), 0, func(t *testing.T, s *story) {
		s.expire()
		equal(t, "requests", s.requests(), []string{"list", "watch", "list", "watch"})
	})
}

func TestEndedWatchIsNotListedAgain(t *testing.T) {
	tell(t, serve(pod("web", "1")), 0, func(t *testing.T, s *story) {
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		s.watch.Modify(pod("web", "7"))
		synctest.Wait()
		s.watch.Stop()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		equal(t, "requests", s.requests(), []string{"list", "watch", "watch"})
		again := s.Actions()[2].(clienttesting.WatchActionImpl)
		equal(t, "goes on from", again.ListOptions.ResourceVersion, "7")
	})
}

func TestForbiddenIsRetriedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("no RBAC"))
		})
		factory := informers.NewSharedInformerFactory(client, 0)
		pods := factory.Core().V1().Pods().TypedInformer()
		told := 0
		onError := func(_ context.Context, _ *cache.Reflector, err error) {
			if apierrors.IsForbidden(err) {
				told++
			}
		}
		if err := pods.SetWatchErrorHandlerWithContext(onError); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		factory.StartWithContext(ctx)
		err := factory.WaitForCacheSyncWithContext(ctx).Err
		cancel()
		factory.Shutdown()
		equal(t, "the deadline is all that the wait tells", errors.Is(err, context.DeadlineExceeded), true)
		equal(t, "and not the cause", apierrors.IsForbidden(err), false)
		if told < 10 {
			t.Errorf("the watch error handler was told %d times in ten minutes", told)
		}
		if err := pods.SetWatchErrorHandlerWithContext(onError); err == nil {
			t.Error("a started informer takes a watch error handler")
		}
	})
}

func TestInformerAskedForAfterStartDoesNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		factory := informers.NewSharedInformerFactory(fake.NewClientset(pod("web", "1")), 0)
		factory.StartWithContext(ctx)
		t.Cleanup(factory.Shutdown)
		lister := factory.Core().V1().Pods().Lister() // too late
		equal(t, "factory's wait", factory.WaitForCacheSyncWithContext(ctx).Err, nil)
		for _, want := range []int{0, 1} {
			time.Sleep(time.Minute)
			synctest.Wait()
			pods, err := lister.List(labels.Everything())
			equal(t, "pods in the lister", len(pods), want)
			equal(t, "error", err, nil)
			factory.StartWithContext(ctx) // a second Start runs what the first did not know
		}
	})
}

func TestStoppedInformerStaysStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := serve(pod("web", "1"))
		pods := corev1informers.NewTypedPodInformer(client, "", 0, nil)
		ctx, cancel := context.WithCancel(t.Context())
		go pods.RunWithContext(ctx)
		synctest.Wait()
		cancel()
		synctest.Wait()
		equal(t, "is stopped", pods.IsStopped(), true)
		requests := len(client.Actions())

		pods.RunWithContext(t.Context()) // returns at once
		equal(t, "requests after the second Run", len(client.Actions()), requests)
		equal(t, "it still says that it is synced", pods.HasSynced(), true)
	})
}

func TestSlowHandlerDoesNotBlockTheOthers(t *testing.T) {
	tell(t, serve(), 0, func(t *testing.T, s *story) {
		release, slow := make(chan struct{}), 0
		s.add(t, func(string) { <-release; slow++ })
		for i := range 1000 {
			s.watch.Add(pod(fmt.Sprint("web-", i), fmt.Sprint(i)))
		}
		synctest.Wait()
		equal(t, "calls of the slow handler", slow, 0)
		equal(t, "calls of the other", len(s.calls), 1000)
		equal(t, "pods in the store", len(s.informer.GetStore().ListKeys()), 1000)
		close(release)
		synctest.Wait()
		equal(t, "calls of the slow handler, all buffered", slow, 1000)
	})
}

func TestTransformRunsBeforeTheStore(t *testing.T) {
	big := pod("web", "1")
	big.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet"}}
	drop := informers.WithTransform(func(obj any) (any, error) {
		if pod, ok := obj.(*corev1.Pod); ok { // a tombstone has been here already
			pod.ManagedFields = nil
		}
		return obj, nil
	})
	tell(t, serve(big), 0, func(t *testing.T, s *story) {
		pod, err := s.factory.Core().V1().Pods().Lister().Pods("default").Get("web")
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "managedFields in the store", len(pod.ManagedFields), 0)
	}, drop)
}

func TestLastWithNamespaceWins(t *testing.T) {
	tell(t, serve(), 0, func(t *testing.T, s *story) {
		for _, action := range s.Actions() {
			equal(t, action.GetVerb(), action.GetNamespace(), "two")
		}
	}, informers.WithNamespace("one"), informers.WithNamespace("two"))
}

func TestTweakHoldsForTheWholeFactory(t *testing.T) {
	client := serve()
	tweak := informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = "app=web" })
	tell(t, client, 0, func(t *testing.T, s *story) {
		s.factory.Core().V1().ConfigMaps().Informer()
		s.factory.StartWithContext(s)
		synctest.Wait()
		var listed []string
		for _, action := range s.Actions() {
			if list, ok := action.(clienttesting.ListAction); ok {
				listed = append(listed, action.GetResource().Resource+" "+list.GetListRestrictions().Labels.String())
			}
		}
		equal(t, "lists", listed, []string{"pods app=web", "configmaps app=web"})
	}, tweak)
}

func TestIndexIsReadByValue(t *testing.T) {
	here, there := pod("here", "1"), pod("there", "2")
	here.Spec.NodeName, there.Spec.NodeName = "node-1", "node-2"
	tell(t, serve(here, there), 0, func(t *testing.T, s *story) {
		err := s.informer.AddTypedIndexers(corev1informers.PodIndexers{
			"node": func(pod *corev1.Pod) ([]string, error) { return []string{pod.Spec.NodeName}, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		pods, err := s.informer.GetTypedIndexer().ByTypedIndex("node", "node-1")
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "pods on node-1", len(pods), 1)
		equal(t, "its name", pods[0].Name, "here")
	})
}

// The reactor acts between the list and the watch, where a real watch would begin at
// the version of the list.
func TestFakeClientForgetsADeleteBeforeTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(pod("gone", ""))
		pods := corev1.SchemeGroupVersion.WithResource("pods")
		client.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
			return false, nil, errors.Join(
				client.Tracker().Add(pod("new", "")),
				client.Tracker().Delete(pods, "default", "gone"),
			)
		})
		factory := informers.NewSharedInformerFactory(client, 0)
		store := factory.Core().V1().Pods().TypedInformer().GetStore()
		ctx := t.Context()
		factory.StartWithContext(ctx)
		t.Cleanup(factory.Shutdown)
		synctest.Wait()
		keys := store.ListKeys()
		slices.Sort(keys)
		equal(t, "keys in the store", keys, []string{"default/gone", "default/new"})
	})
}

func TestBareListWatchOverAFakeIsNeverSynced(t *testing.T) {
	client := fake.NewClientset(pod("web", "1"))
	bare := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return client.CoreV1().Pods("").List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.CoreV1().Pods("").Watch(ctx, o)
		},
	}
	for _, test := range []struct {
		name   string
		lw     cache.ListerWatcher
		synced bool
	}{
		{"bare", bare, false},
		{"with the client's semantics", cache.ToListWatcherWithWatchListSemantics(bare, client), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				informer := cache.NewSharedIndexInformerWithOptions(test.lw, &corev1.Pod{}, cache.SharedIndexInformerOptions{})
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				go informer.RunWithContext(ctx)
				equal(t, "synced", cache.WaitFor(ctx, "", informer.HasSyncedChecker()), test.synced)
				cancel()
				synctest.Wait()
			})
		})
	}
}

func TestWatchAsksForFiveToTenMinutes(t *testing.T) {
	tell(t, serve(), 0, func(t *testing.T, s *story) {
		for range 10 {
			s.expire()
		}
		seen := map[int64]bool{}
		for _, action := range s.Actions() {
			if w, ok := action.(clienttesting.WatchActionImpl); ok {
				seconds := *w.ListOptions.TimeoutSeconds
				seen[seconds] = true
				if seconds < 300 || seconds > 600 {
					t.Errorf("timeoutSeconds=%d", seconds)
				}
			}
		}
		if len(seen) < 2 {
			t.Errorf("always %v", seen)
		}
	})
}

func TestRemovedHandlerIsNotCalled(t *testing.T) {
	tell(t, serve(pod("web", "1")), 0, func(t *testing.T, s *story) {
		calls := 0
		handler := s.add(t, func(string) { calls++ })
		synctest.Wait()
		equal(t, "calls of a handler added late", calls, 1)
		if err := cache.ShutDownEventHandler(s.informer, handler); err != nil {
			t.Fatal(err)
		}
		s.watch.Modify(pod("web", "2"))
		synctest.Wait()
		equal(t, "calls after its removal", calls, 1)
		equal(t, "calls of the other", len(s.calls), 2)
	})
}

func TestShutDownWaitsForTheCallUnderWay(t *testing.T) {
	tell(t, serve(pod("web", "1")), 0, func(t *testing.T, s *story) {
		release, removed := make(chan struct{}), false
		handler := s.add(t, func(string) { <-release })
		synctest.Wait()
		if err := s.informer.RemoveEventHandler(handler); err != nil { // does not wait
			t.Fatal(err)
		}
		go func() {
			if err := cache.ShutDownEventHandler(s.informer, handler); err != nil {
				t.Error(err)
			}
			removed = true
		}()
		synctest.Wait()
		equal(t, "ended while the handler runs", removed, false)
		close(release)
		synctest.Wait()
		equal(t, "ended after", removed, true)
	})
}
