package proofs

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	clientfeatures "k8s.io/client-go/features"
	clientfeaturestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Own writes

const mutationTTL = time.Minute

// written tells a story of a store that has web at version 1, and a cache of what was
// written since.
func written(t *testing.T, includeAdds bool, act func(t *testing.T, s *story, writes cache.MutationCache)) {
	t.Helper()
	tell(t, serve(pod("web", "1")), 0, func(t *testing.T, s *story) {
		act(t, s, cache.NewIntegerResourceVersionMutationCache(
			klog.Background(), s.informer.GetStore(), nil, mutationTTL, includeAdds))
	})
}

// newest is the version of a pod that the cache of writes returns.
func newest(t *testing.T, writes cache.MutationCache, name string) string {
	t.Helper()
	obj, exists, err := writes.GetByKey("default/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if !exists {
		return "none"
	}
	return obj.(*corev1.Pod).ResourceVersion
}

func TestMutationCacheReturnsTheNewer(t *testing.T) {
	written(t, false, func(t *testing.T, s *story, writes cache.MutationCache) {
		equal(t, "before the write", newest(t, writes, "web"), "1")
		writes.Mutation(pod("web", "5")) // the answer to our Update
		equal(t, "our own write", newest(t, writes, "web"), "5")
		s.watch.Modify(pod("web", "3")) // somebody wrote before us
		synctest.Wait()
		equal(t, "an older event has arrived", newest(t, writes, "web"), "5")
		s.watch.Modify(pod("web", "7"))
		synctest.Wait()
		equal(t, "a newer event has arrived", newest(t, writes, "web"), "7")
	})
}

func TestMutationCacheForgets(t *testing.T) {
	t.Run("after the ttl", func(t *testing.T) {
		written(t, false, func(t *testing.T, _ *story, writes cache.MutationCache) {
			writes.Mutation(pod("web", "5"))
			time.Sleep(mutationTTL + time.Second) // an outage of the watch
			equal(t, "stale again", newest(t, writes, "web"), "1")
		})
	})
	t.Run("after a hundred other writes", func(t *testing.T) {
		written(t, false, func(t *testing.T, _ *story, writes cache.MutationCache) {
			writes.Mutation(pod("web", "5"))
			for i := range 100 {
				writes.Mutation(pod(fmt.Sprint("web-", i), "6"))
			}
			equal(t, "stale again", newest(t, writes, "web"), "1")
		})
	})
}

func TestMutationCacheAndCreates(t *testing.T) {
	for _, test := range []struct {
		includeAdds bool
		want        string
	}{{false, "none"}, {true, "5"}} {
		written(t, test.includeAdds, func(t *testing.T, _ *story, writes cache.MutationCache) {
			writes.Mutation(pod("new", "5")) // the answer to our Create
			equal(t, fmt.Sprintf("includeAdds=%t", test.includeAdds), newest(t, writes, "new"), test.want)
		})
	}
}

func TestMutationCacheReturnsADeletedPod(t *testing.T) {
	written(t, true, func(t *testing.T, s *story, writes cache.MutationCache) {
		writes.Mutation(pod("web", "5"))
		s.watch.Delete(pod("web", "6"))
		synctest.Wait()
		equal(t, "pods in the store", len(s.informer.GetStore().ListKeys()), 0)
		equal(t, "not told of the delete", newest(t, writes, "web"), "5")
		writes.OnDelete(pod("web", "6")) // as a delete handler does
		equal(t, "told", newest(t, writes, "web"), "none")
	})
}

func TestStoreSaysHowFarItHasRead(t *testing.T) {
	tell(t, serve(pod("web", "1")), 0, func(t *testing.T, s *story) {
		store := s.informer.GetTypedIndexer()
		const own = "105"
		hasRead := func() bool {
			order, err := resourceversion.CompareResourceVersion(store.LastStoreSyncResourceVersion(), own)
			if err != nil {
				t.Fatal(err)
			}
			return order >= 0
		}
		equal(t, "after the list", store.LastStoreSyncResourceVersion(), "100")
		equal(t, "it has our own write", hasRead(), false)
		s.watch.Modify(pod("web", own))
		synctest.Wait()
		equal(t, "it has, after its event", hasRead(), true)
		s.watch.Add(pod("other", "106"))
		s.watch.Delete(pod("web", "107"))
		synctest.Wait()
		equal(t, "it has, after a delete by somebody else", hasRead(), true)
	})
}

// Generated informers

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
	return cache.NewSharedIndexInformer(lw, &corev1.Pod{}, resync, cache.Indexers{})
}

func TestOldGeneratedInformerOverAFake(t *testing.T) {
	type informer = func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer
	clientset := fake.NewClientset(pod("web", "1"))
	wrapped := struct{ kubernetes.Interface }{clientset}
	for _, test := range []struct {
		name      string
		client    kubernetes.Interface
		informer  informer
		watchList bool
		synced    bool
	}{
		{"generated before 0.35", clientset, generated, true, false},
		{"generated since", clientset, regenerated, true, true},
		{"before, WatchListClient off", clientset, generated, false, true},
		{"since, over a wrapped fake", wrapped, regenerated, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !test.watchList {
				clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, false)
			}
			synctest.Test(t, func(t *testing.T) {
				factory := informers.NewSharedInformerFactory(test.client, 0)
				factory.InformerFor(&corev1.Pod{}, test.informer)
				factory.StartWithContext(t.Context())
				t.Cleanup(factory.Shutdown)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				err := factory.WaitForCacheSyncWithContext(ctx).Err
				equal(t, "synced", err == nil, test.synced)
			})
		})
	}
}

// A second start

func TestSecondStartLeavesTheStoreFrozen(t *testing.T) {
	starts := map[string]struct {
		start func(*story, context.Context)
		wait  func(*story, context.Context) bool
	}{
		"factory": {
			func(s *story, ctx context.Context) { s.factory.StartWithContext(ctx) },
			func(s *story, ctx context.Context) bool {
				return s.factory.WaitForCacheSyncWithContext(ctx).Err == nil
			},
		},
		"informer": {
			func(s *story, ctx context.Context) { go s.informer.RunWithContext(ctx) },
			func(s *story, ctx context.Context) bool {
				return cache.WaitFor(ctx, "", s.informer.HasSyncedChecker())
			},
		},
	}
	for name, with := range starts {
		for order, shared := range map[string]bool{"stopped and started again": false, "two users, the first ends": true} {
			t.Run(name+", "+order, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &story{server: serve(pod("web", "1"))}
					s.factory = informers.NewSharedInformerFactory(s, 0)
					s.informer = s.factory.Core().V1().Pods().TypedInformer()
					first, end := context.WithCancel(t.Context())
					second := t.Context()
					with.start(s, first)
					synctest.Wait()
					if shared {
						with.start(s, second)
						synctest.Wait()
					}
					end()
					synctest.Wait()
					if !shared {
						with.start(s, second)
					}
					s.pods = append(s.pods, pod("new", "2"))
					requests := len(s.requests())

					equal(t, "the wait is over", with.wait(s, second), true)
					time.Sleep(time.Hour)
					synctest.Wait()
					equal(t, "HasSynced", s.informer.HasSynced(), true)
					equal(t, "keys in the store", s.informer.GetStore().ListKeys(), "[default/web]")
					equal(t, "requests since", len(s.requests())-requests, 0)
					equal(t, "IsStopped", s.informer.IsStopped(), true)
					_, err := s.informer.AddTypedEventHandler(corev1informers.PodHandlerFuncs{})
					equal(t, "a handler is refused", err != nil, true)
				})
			})
		}
	}
}

// Transforms

func TestTransformThatAppendsRunsTwice(t *testing.T) {
	for _, test := range []struct {
		name      string
		transform func(*corev1.Pod)
		want      string
	}{
		{"appends", func(pod *corev1.Pod) { pod.Labels["team"] += "-blue" }, "initial: red-blue-blue, new: red-blue"},
		{"sets", func(pod *corev1.Pod) { pod.Labels["team"] = "red-blue" }, "initial: red-blue, new: red-blue"},
	} {
		t.Run(test.name, func(t *testing.T) {
			stages(t, func(t *testing.T, s *stagesScene) {
				s.transform(t, func(pod *corev1.Pod) error {
					test.transform(pod)
					return nil
				})
				labeled := func(name string, rv int) *corev1.Pod {
					pod := stagesPod(name, rv)
					pod.Labels = map[string]string{"team": "red"}
					return pod
				}
				s.sync(t, labeled("initial", 90)).Add(labeled("new", 101))
				synctest.Wait()
				team := func(name string) string {
					pod, err := s.lister.Pods("default").Get(name)
					if err != nil {
						t.Fatal(err)
					}
					return pod.Labels["team"]
				}
				equal(t, "labels", "initial: "+team("initial")+", new: "+team("new"), test.want)
			})
		})
	}
}

func TestTransformRunsOnceOnAList(t *testing.T) {
	appends := informers.WithTransform(func(obj any) (any, error) {
		obj.(*corev1.Pod).Labels["team"] += "-blue"
		return obj, nil
	})
	initial := pod("initial", "1")
	initial.Labels = map[string]string{"team": "red"}
	tell(t, serve(initial), 0, func(t *testing.T, s *story) { // a fake: no WatchList
		pod, err := s.factory.Core().V1().Pods().Lister().Pods("default").Get("initial")
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "label", pod.Labels["team"], "red-blue")
	}, appends)
}

func TestTransformAndDeletes(t *testing.T) {
	stages(t, func(t *testing.T, s *stagesScene) {
		var seen []string
		if err := s.pods.SetTransform(func(obj any) (any, error) {
			if pod, ok := obj.(*corev1.Pod); ok {
				seen = append(seen, pod.Name+" "+pod.ResourceVersion)
			} else {
				t.Errorf("a %T", obj)
			}
			return obj, nil
		}); err != nil {
			t.Fatal(err)
		}
		var deleted []string
		s.handle(t, func(line string) {
			if line[0] == 'D' {
				deleted = append(deleted, line)
			}
		})
		w := s.sync(t, stagesPod("kept", 90), stagesPod("missed", 91), stagesPod("deleted", 92))
		seen = nil
		w.Delete(stagesPod("deleted", 101))
		w.Error(stagesGone())
		synctest.Wait()
		equal(t, "of a delete it sees the last state", seen, "[deleted 101]")
		seen = nil
		s.next(t, "watch").initial("200", stagesPod("kept", 90)) // missed was deleted in between
		equal(t, "handlers", deleted, "[Delete deleted tombstone=false Delete missed tombstone=true]")
		equal(t, "of a relist it sees what is there, twice", seen, "[kept 90 kept 90]")
	})
}
