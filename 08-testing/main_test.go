package main

import (
	"bytes"
	"context"
	"errors"
	"log"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// Level 1: a table, for what needs neither a cache nor a clock.

func TestExpiry(t *testing.T) {
	created := metav1.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	ttl := func(text string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Annotations: map[string]string{ttlAnnotation: text}}
	}
	going := ttl("soon")
	going.DeletionTimestamp = &created
	tests := []struct {
		name    string
		meta    metav1.ObjectMeta
		after   time.Duration // the creation
		ok, bad bool
	}{
		{"none", metav1.ObjectMeta{}, 0, false, false},
		{"another", metav1.ObjectMeta{Annotations: map[string]string{"ttl": "90s"}}, 0, false, false},
		{"90s", ttl("90s"), 90 * time.Second, true, false},
		{"1h30m", ttl("1h30m"), 90 * time.Minute, true, false},
		{"0s", ttl("0s"), 0, true, false},
		{"negative", ttl("-1s"), 0, false, true},
		{"no unit", ttl("90"), 0, false, true},
		{"empty", ttl(""), 0, false, true},
		{"on its way out", going, 0, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.meta.CreationTimestamp = created
			over, ok, err := expiry(&corev1.Pod{ObjectMeta: test.meta})
			if ok != test.ok || (err != nil) != test.bad || ok && !over.Equal(created.Add(test.after)) {
				t.Errorf("%s, %t, %v", over, ok, err)
			}
		})
	}
}

// Level 2: the whole program on a fake clientset, in virtual time. The fake stores what it
// is given: the only UIDs, resourceVersions, and creation times are those that we set. It
// ignores preconditions, and removes a deleted pod immediately.

func pod(name, ttl string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: name, UID: types.UID("uid of " + name), ResourceVersion: "1", CreationTimestamp: metav1.Now(),
	}}
	if ttl != "" {
		pod.Annotations = map[string]string{ttlAnnotation: ttl}
	}
	return pod
}

// A story is the controller running on a fake clientset, in a bubble where time moves only
// when all goroutines wait; synctest.Wait returns when they do. A reactor answers requests
// instead of the fake's map; add it before the step that makes the program send them.
type story struct {
	*testing.T
	*fake.Clientset
	out  bytes.Buffer
	stop func()
}

func tell(t *testing.T, pods []*corev1.Pod, act func(s *story)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &story{T: t, Clientset: fake.NewClientset()}
		for _, pod := range pods {
			pod.CreationTimestamp = metav1.Now() // the bubble's
			if err := s.Tracker().Add(pod); err != nil {
				t.Fatal(err)
			}
		}
		s.start()
		defer func() { s.stop() }() // also after a Fatal, which would otherwise leave the bubble to its goroutines
		act(s)
	})
}

func (s *story) start() {
	ctx, cancel := context.WithCancel(s.Context())
	ended := make(chan error, 1) // run returns even if the test has failed and does not ask
	go func() {
		ended <- run(ctx, s.Clientset, &s.out)
		close(ended)
	}()
	s.stop = func() {
		s.Helper()
		cancel()
		if err := <-ended; err != nil {
			s.Error(err)
		}
		time.Sleep(time.Minute) // the informer's goroutines end by themselves, after a back-off
	}
	synctest.Wait()
}

// after lets time pass, with everything that happens in it.
func (s *story) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// alive checks which pods exist.
func (s *story) alive(when, want string) {
	s.Helper()
	pods, err := s.CoreV1().Pods("default").List(s.Context(), metav1.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	var names []string
	for _, pod := range pods.Items {
		names = append(names, pod.Name)
	}
	if got := strings.Join(names, " "); got != want {
		s.Errorf("%s the pods are %q, want %q", when, got, want)
	}
}

// events are the reasons of those recorded on a pod.
func (s *story) events(name string) (reasons []string) {
	s.Helper()
	events, err := s.CoreV1().Events("default").List(s.Context(), metav1.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	for _, e := range events.Items {
		if e.InvolvedObject.Name == name {
			reasons = append(reasons, e.Reason)
		}
	}
	return reasons
}

func (s *story) annotate(name, ttl, resourceVersion string) {
	s.Helper()
	changed, err := s.CoreV1().Pods("default").Get(s.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	changed.ResourceVersion = resourceVersion
	changed.Annotations = map[string]string{ttlAnnotation: ttl}
	if ttl == "" {
		changed.Annotations = nil
	}
	if _, err := s.CoreV1().Pods("default").Update(s.Context(), changed, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
	synctest.Wait()
}

func TestTimeOver(t *testing.T) {
	tell(t, []*corev1.Pod{pod("web", "95s"), pod("stays", "")}, func(s *story) {
		s.after(94 * time.Second)
		s.alive("after 94 s", "stays web")
		s.after(time.Second)
		s.alive("after 95 s", "stays")
		if got := s.events("web"); len(got) != 1 || got[0] != "TimeOver" {
			t.Errorf("Events of web: %q", got)
		}
		want := "default/web is to be deleted in 1m35s\ndefault/web is deleted: its 1m35s are over\n"
		if !strings.HasSuffix(s.out.String(), want) {
			t.Errorf("printed:\n%swant at the end:\n%s", &s.out, want)
		}
	})
}

func TestChangedAndRemoved(t *testing.T) {
	tell(t, []*corev1.Pod{pod("longer", "10s"), pod("shorter", "10s"), pod("never", "10s")}, func(s *story) {
		s.annotate("longer", "20s", "2")
		s.annotate("shorter", "5s", "2")
		s.annotate("never", "", "2")
		s.after(5 * time.Second)
		s.alive("after 5 s", "longer never")
		s.after(5 * time.Second)
		s.alive("after 10 s", "longer never")
		s.after(10 * time.Second)
		s.alive("after 20 s", "never")
	})
}

func TestRestart(t *testing.T) {
	tell(t, []*corev1.Pod{pod("sooner", "10s"), pod("late", "100s")}, func(s *story) {
		s.after(4 * time.Second)
		s.stop() // a minute passes
		s.alive("while nobody looks", "late sooner")
		s.start()
		s.alive("right after the start", "late")
		s.after(36 * time.Second)
		s.alive("after 100 s", "")
	})
}

func TestBadAnnotation(t *testing.T) {
	tell(t, []*corev1.Pod{pod("web", "soon")}, func(s *story) {
		s.after(5 * time.Second)
		if got := s.events("web"); len(got) != 1 || got[0] != "BadTTL" {
			t.Errorf("Events of web: %q", got)
		}
		s.annotate("web", "10s", "2")
		s.after(5 * time.Second)
		s.alive("when it is mended", "")
	})
}

// A delete that fails is logged, and tried again after 5 ms, 10 ms, …, and then every 30 s.
func TestRetries(t *testing.T) {
	for _, test := range []struct {
		name            string
		failures, tries int           // the first tries fail; tries until the time below
		after           time.Duration // the first try
		alive           string
	}{
		{"before the fourth try", 3, 3, 34 * time.Millisecond, "web"},
		{"with the fourth try", 3, 4, 35 * time.Millisecond, ""},
		{"ten tries", 1000, 10, 2555 * time.Millisecond, "web"},
		{"an outage of 40 s", 13, 14, 41 * time.Second, ""},
		{"ten minutes", 1000, 32, 10 * time.Minute, "web"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stderr bytes.Buffer
			log.SetOutput(&stderr)
			defer log.SetOutput(os.Stderr)
			tell(t, []*corev1.Pod{pod("web", "")}, func(s *story) {
				tries := 0
				s.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
					tries++
					return tries <= test.failures, nil, errors.New("no connection")
				})
				s.annotate("web", "0s", "2")
				s.after(test.after)
				s.alive("then", test.alive)
				if tries != test.tries {
					t.Errorf("%d tries after %s, want %d", tries, test.after, test.tries)
				}
			})
			want := min(test.failures, test.tries)
			if got := strings.Count(stderr.String(), "default/web: delete: no connection\n"); got != want {
				t.Errorf("%d failures are logged, want %d:\n%s", got, want, &stderr)
			}
		})
	}
}

// A key that waits stays in the queue's memory, even if its pod is gone: so it waits for an
// hour at most, and the pod is checked again.
func TestLongTTL(t *testing.T) {
	tell(t, []*corev1.Pod{pod("web", "90m")}, func(s *story) {
		s.after(90*time.Minute - time.Second)
		s.alive("a second before", "web")
		s.after(time.Second)
		s.alive("after 90 min", "")
		want := `default/web is to be deleted in 1h30m0s
default/web is to be deleted in 30m0s
default/web is deleted: its 1h30m0s are over
`
		if !strings.HasSuffix(s.out.String(), want) {
			t.Errorf("printed:\n%swant at the end:\n%s", &s.out, want)
		}
	})
}

// A conflict is not a failure: another write was faster, and it enqueues the key.
func TestConflict(t *testing.T) {
	tell(t, []*corev1.Pod{pod("web", "")}, func(s *story) {
		tries := 0
		s.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			tries++
			conflict := apierrors.NewConflict(corev1.Resource("pods"), "web", errors.New("the UID is another one"))
			return tries == 1, nil, conflict
		})
		s.annotate("web", "10s", "2")
		s.after(time.Hour)
		s.alive("an hour after the conflict", "web")
		if tries != 1 {
			t.Errorf("%d tries, want 1", tries)
		}
		s.annotate("web", "1h", "3")
		s.alive("after the write", "")
	})
}

// What is still in the queue when the program stops is left for the next start.
func TestStopLeavesTheRest(t *testing.T) {
	defer func(n int) { *workers = n }(*workers)
	*workers = 1
	tell(t, []*corev1.Pod{pod("one", ""), pod("two", ""), pod("three", "")}, func(s *story) {
		s.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			time.Sleep(time.Second) // as long as a request may take
			return false, nil, nil
		})
		for _, name := range []string{"one", "two", "three"} {
			s.annotate(name, "10s", "2")
		}
		s.after(10500 * time.Millisecond)
		s.stop()
		pods, err := s.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		if err != nil || len(pods.Items) != 2 {
			t.Errorf("%d pods are left, want 2 of 3: error %v", len(pods.Items), err)
		}
	})
}

func TestWorkers(t *testing.T) {
	defer func(n int) { *workers = n }(*workers)
	*workers = 0
	if err := run(t.Context(), fake.NewClientset(), &bytes.Buffer{}); err == nil {
		t.Error("--workers 0 is accepted")
	}
}
