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
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes/fake"
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

// The fake clientset sets no resourceVersion, so a write looks like a resync if you compare them.
func TestFakeWritesHaveNoResourceVersion(t *testing.T) {
	client := fake.NewClientset()
	playWith(t, client, func(t *testing.T, s *scene) {
		equals, differs := 0, 0
		s.handle(t, corev1informers.PodHandlerFuncs{UpdateFunc: func(old, pod *corev1.Pod) {
			if old.ResourceVersion == pod.ResourceVersion {
				equals++
			}
			if old.Labels["changed"] != pod.Labels["changed"] {
				differs++
			}
		}})
		s.start(t)
		pods := client.CoreV1().Pods("default")
		web, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}},
			metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		web.Labels = map[string]string{"changed": "yes"}
		if _, err := pods.Update(t.Context(), web, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		equal(t, "writes with equal resourceVersions", equals, 1)
		equal(t, "writes that changed something", differs, 1)
	})
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
