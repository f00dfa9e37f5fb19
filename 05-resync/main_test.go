package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pod has a resourceVersion, which the fake clientset does not set: without one
// every write would look like a resync.
func pod(name, resourceVersion, node string, conditions ...corev1.PodConditionType) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, ResourceVersion: resourceVersion},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Phase: corev1.PodPending},
	}
	for _, condition := range conditions {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue})
		if condition == corev1.PodReady {
			pod.Status.Phase = corev1.PodRunning
		}
	}
	return pod
}

// story runs the chapter and acts, in virtual time, and returns what it printed,
// each line with the seconds since the start.
func story(t *testing.T, client *fake.Clientset, act func(ctx context.Context)) []string {
	t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	var lines []string
	var err error
	go func() {
		err = run(ctx, client, writer(func(line string) {
			lines = append(lines, fmt.Sprintf("%2.0f %s", time.Since(begin).Seconds(), strings.TrimSpace(line)))
		}))
	}()
	synctest.Wait()
	act(ctx)
	synctest.Wait()
	cancel()
	synctest.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

type writer func(line string)

func (w writer) Write(line []byte) (int, error) { w(string(line)); return len(line), nil }

func compare(t *testing.T, got []string, want string) {
	t.Helper()
	if got := strings.Join(got, "\n"); got != want {
		t.Errorf("printed:\n%s\nwant:\n%s", got, want)
	}
}

// The 30 s story: what was there, what comes and goes, and the resync of what stays.
func TestResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(pod("web", "1", "node-1", corev1.PodReady))
		lines := story(t, client, func(ctx context.Context) {
			pods := client.CoreV1().Pods("default")
			do := func(_ any, err error) {
				if err != nil {
					t.Error(err)
				}
				time.Sleep(time.Second)
			}
			time.Sleep(5 * time.Second)
			do(pods.Create(ctx, pod("nginx", "2", ""), metav1.CreateOptions{}))
			do(pods.Update(ctx, pod("nginx", "3", "node-1", corev1.PodScheduled), metav1.UpdateOptions{}))
			do(pods.Update(ctx, pod("nginx", "4", "node-1", corev1.PodScheduled, corev1.PodReady), metav1.UpdateOptions{}))
			time.Sleep(25 * time.Second)
			deleted := pod("nginx", "5", "node-1", corev1.PodScheduled, corev1.PodReady)
			deleted.DeletionTimestamp = &metav1.Time{Time: time.Now()}
			do(pods.Update(ctx, deleted, metav1.UpdateOptions{}))
			do(nil, pods.Delete(ctx, "nginx", metav1.DeleteOptions{}))
			time.Sleep(24 * time.Second)
		})
		// Nothing says whether the store is synced before or after the first Add.
		i := slices.Index(lines, " 0 store is synced")
		lines = slices.Delete(lines, i, i+1)
		// Nor what comes first at 30 s, run or resync, nor the order of the pods.
		i = slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "30 ") })
		slices.Sort(lines[i : i+3])
		compare(t, lines, ` 0 handleAdd is called for Pod (key: default/web): initial, phase Running, node node-1, Ready
 0 handler is synced
 0 cache is synced
 0 run
 5 handleAdd is called for Pod (key: default/nginx): new, phase Pending, node <none>
 6 handleUpdate is called for Pod (key: default/nginx): 2 → 3, node node-1
 7 handleUpdate is called for Pod (key: default/nginx): 3 → 4, phase Running, Ready
10 run
20 run
30 handleUpdate is called for Pod (key: default/nginx): resync, resourceVersion 4
30 handleUpdate is called for Pod (key: default/web): resync, resourceVersion 1
30 run
33 handleUpdate is called for Pod (key: default/nginx): 4 → 5, deletion
34 handleDelete is called for Pod (key: default/nginx): tombstone=false
40 run
50 run`)
	})
}

// After an expired watch the reflector lists again: what did not change is a
// relist, and what was deleted meanwhile a tombstone.
func TestRelist(t *testing.T) {
	for _, period := range []time.Duration{0, *resync} { // with and without resync
		t.Run(period.String(), func(t *testing.T) {
			setResync(t, period)
			relist(t)
		})
	}
}

func relist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(pod("web", "1", "node-1"), pod("db", "2", "node-1"), pod("nginx", "3", "node-1"))
		blind := watch.NewFake() // shows nothing of what happens
		watches := 0
		client.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
			watches++
			return watches == 1, blind, nil
		})
		lines := story(t, client, func(ctx context.Context) {
			pods := client.CoreV1().Pods("default")
			if err := pods.Delete(ctx, "nginx", metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
			if _, err := pods.Update(ctx, pod("db", "4", "node-1", corev1.PodReady), metav1.UpdateOptions{}); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			status := apierrors.NewResourceExpired("too old resource version").Status()
			blind.Error(&status)
			time.Sleep(4 * time.Second)
		})
		i := slices.Index(lines, " 0 run")
		got := lines[i+1:]
		for i := range got { // the back-off before the relist is random
			got[i] = got[i][3:]
		}
		slices.Sort(got)
		compare(t, got, `handleDelete is called for Pod (key: default/nginx): tombstone=true
handleUpdate is called for Pod (key: default/db): 2 → 4, phase Running, Ready
handleUpdate is called for Pod (key: default/web): relist, resourceVersion 1`)
	})
}

// With a period of 0 nothing is ever resynced, with one of 1 s every second.
func TestPeriods(t *testing.T) {
	for period, want := range map[time.Duration]int{0: 0, time.Second: 299} {
		t.Run(period.String(), func(t *testing.T) {
			setResync(t, period)
			synctest.Test(t, func(t *testing.T) {
				lines := story(t, fake.NewClientset(pod("web", "1", "")), func(context.Context) { time.Sleep(299*time.Second + time.Millisecond) })
				resyncs := 0
				for _, line := range lines {
					if strings.HasSuffix(line, "(key: default/web): resync, resourceVersion 1") {
						resyncs++
					}
				}
				if resyncs != want {
					t.Errorf("%d resyncs in 5 minutes, want %d", resyncs, want)
				}
			})
		})
	}
}

func setResync(t *testing.T, period time.Duration) {
	before := *resync
	*resync = period
	t.Cleanup(func() { *resync = before })
}

func TestFlags(t *testing.T) {
	defer func(r, e time.Duration) { *resync, *runEvery = r, e }(*resync, *runEvery)
	for _, test := range []struct{ resync, runEvery time.Duration }{{-1, 1}, {1, 0}, {1, -1}} {
		*resync, *runEvery = test.resync, test.runEvery
		if err := run(t.Context(), fake.NewClientset(), &bytes.Buffer{}); err == nil {
			t.Errorf("--resync %s --run-every %s is no error", test.resync, test.runEvery)
		}
	}
}
