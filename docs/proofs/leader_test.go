package proofs

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/workqueue"
)

// elect runs a candidate for one lease until ctx ends or the lease is lost. The times
// are those of Kubernetes' own components.
func elect(ctx context.Context, client kubernetes.Interface, name string, release bool, lead func(context.Context), stopped func()) {
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
