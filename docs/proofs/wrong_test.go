package proofs

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"example.com/informers/internal/outputs"
)

// A handler that waits for its own registration waits forever.
func TestWaitInsideAHandlerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		factory := informers.NewSharedInformerFactory(serve(pod("web", "1")), 0)
		var registration cache.ResourceEventHandlerRegistration
		ready := make(chan struct{})
		registration, err := factory.Core().V1().Pods().TypedInformer().AddTypedEventHandler(
			corev1informers.PodHandlerFuncs{AddFunc: func(*corev1.Pod) {
				<-ready
				cache.WaitFor(ctx, "", registration.HasSyncedChecker()) // wrong: it waits for itself
			}})
		if err != nil {
			t.Fatal(err)
		}
		close(ready)
		factory.StartWithContext(ctx)
		t.Cleanup(factory.Shutdown)
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		equal(t, "synced after 59 minutes", registration.HasSynced(), false)
	})
}

// Handlers belong to the factory of which they were asked.
func TestTwoFactoriesShareNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := serve(pod("web", "1"))
		one := informers.NewSharedInformerFactory(client, 0)
		two := informers.NewSharedInformerFactory(client, 0)
		called := 0
		handler, err := one.Core().V1().Pods().TypedInformer().AddTypedEventHandler(
			corev1informers.PodHandlerFuncs{AddFunc: func(*corev1.Pod) { called++ }})
		if err != nil {
			t.Fatal(err)
		}
		two.Core().V1().Pods().Lister() // so that the other has something to start
		two.StartWithContext(t.Context())
		t.Cleanup(two.Shutdown)
		equal(t, "the other factory", two.WaitForCacheSyncWithContext(t.Context()).AsError(), nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		equal(t, "calls", called, 0)
		equal(t, "synced", handler.HasSynced(), false)
	})
}

// Shutdown waits for informers to end, and asks none to.
func TestShutdownBeforeCancelHangs(t *testing.T) {
	var out strings.Builder
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		factory := informers.NewSharedInformerFactory(serve(pod("web", "1")), 0)
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
	outputs.Shown(t, root, out.String(), *update)
}

// The fake clientset sets no resourceVersion, so a write looks like a resync to who compares.
func TestFakeWritesHaveNoResourceVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		client := fake.NewClientset()
		factory := informers.NewSharedInformerFactory(client, 0)
		equals, differs := 0, 0
		_, err := factory.Core().V1().Pods().TypedInformer().AddTypedEventHandler(
			corev1informers.PodHandlerFuncs{UpdateFunc: func(old, pod *corev1.Pod) {
				if old.ResourceVersion == pod.ResourceVersion {
					equals++
				}
				if old.Labels["changed"] != pod.Labels["changed"] {
					differs++
				}
			}})
		if err != nil {
			t.Fatal(err)
		}
		factory.StartWithContext(ctx)
		t.Cleanup(factory.Shutdown)
		synctest.Wait()
		web, err := client.CoreV1().Pods("default").Create(ctx,
			&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		web.Labels = map[string]string{"changed": "yes"}
		if _, err := client.CoreV1().Pods("default").Update(ctx, web, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		equal(t, "writes with equal resourceVersions", equals, 1)
		equal(t, "writes that changed something", differs, 1)
	})
}

// Each handler that is added is called until it is removed, whoever forgot it.
func TestForgottenHandlersPileUp(t *testing.T) {
	tell(t, serve(), 0, func(t *testing.T, s *story) {
		var called atomic.Int32
		for range 100 { // once a request, say
			_, err := s.informer.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
				AddFunc: func(*corev1.Pod) { called.Add(1) },
			})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		s.watch.Add(pod("web", "1"))
		time.Sleep(time.Second)
		synctest.Wait()
		equal(t, "calls for one pod", called.Load(), 100)
	})
}

// Who changes a pod of the store sees the change as what was there before.
func TestMutationHidesAChange(t *testing.T) {
	const detector = "KUBE_CACHE_MUTATION_DETECTOR" // is read when a program starts
	if os.Getenv(detector) != "0" {
		if out, code := stagesAlone(t, detector, "0"); code != 0 {
			t.Error(out)
		}
		return
	}
	tell(t, serve(pod("web", "1")), 0, func(t *testing.T, s *story) {
		stored, err := s.factory.Core().V1().Pods().Lister().Pods("default").Get("web")
		if err != nil {
			t.Fatal(err)
		}
		stored.Labels = map[string]string{"tier": "front"} // wrong: this is the store's own
		changed := 0
		if _, err := s.informer.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
			UpdateFunc: func(old, pod *corev1.Pod) {
				if old.Labels["tier"] != pod.Labels["tier"] {
					changed++
				}
			},
		}); err != nil {
			t.Fatal(err)
		}
		now := pod("web", "2")
		now.Labels = map[string]string{"tier": "front"} // somebody wrote that label
		s.watch.Modify(now)
		time.Sleep(time.Second)
		synctest.Wait()
		equal(t, "changes that the handler saw", changed, 0)
	})
}
