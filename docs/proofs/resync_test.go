package proofs

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// recordInDetail adds a handler whose calls are kept as the pages show them.
func (s *scene) recordInDetail(t *testing.T) {
	t.Helper()
	line := func(format string, args ...any) {
		call := fmt.Sprintf("%3.0f s  %s", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
		s.calls = append(s.calls, call)
	}
	s.handle(t, corev1informers.PodDetailedHandlerFuncs{
		AddFunc: func(pod *corev1.Pod, isInInitialList bool) {
			line("Add %s: %s, in the initial list: %t", pod.Name, pod.ResourceVersion, isInInitialList)
		},
		UpdateFunc: func(old, pod *corev1.Pod) {
			line("Update %s: %s → %s, same pointer: %t",
				pod.Name, old.ResourceVersion, pod.ResourceVersion, old == pod)
		},
	})
}

// shown compares the page with the calls.
func (s *scene) shown(t *testing.T) {
	t.Helper()
	synctest.Wait()
	shown(t, strings.Join(s.calls, "\n")+"\n")
}

func TestResyncHandsOutTheSameVersion(t *testing.T) {
	play(t, serve(pod("web", 1)), func(t *testing.T, s *scene) {
		s.recordInDetail(t)
		s.start(t)
		s.pass(45 * time.Second)
		s.put(pod("web", 2))
		s.pass(20 * time.Second)
		s.shown(t)
	}, resync(30*time.Second))
}

func TestInitialAddsAreMarked(t *testing.T) {
	play(t, serve(pod("web", 1)), func(t *testing.T, s *scene) {
		s.recordInDetail(t)
		s.start(t)
		s.put(pod("nginx", 2))
		s.shown(t)
	})
}

func TestRelistUpdatesWithoutAChange(t *testing.T) {
	play(t, serve(pod("web", 1)), func(t *testing.T, s *scene) {
		s.recordInDetail(t)
		s.start(t)
		s.pass(time.Hour)
		equal(t, "calls in an hour without a resync", len(s.calls), 1)
		s.relist()
		for i, call := range s.calls {
			_, s.calls[i], _ = strings.Cut(call, "s  ") // the back-off of a relist is random
		}
		s.shown(t)
	})
}

// Three writes are one Update, and a delete and a create under the same name, too.
func TestRelistShowsOnlyTheLastState(t *testing.T) {
	for _, uid := range []types.UID{"old", "new"} {
		before, after := pod("web", 1), pod("web", 5)
		before.UID, after.UID = "old", uid
		play(t, serve(before), func(t *testing.T, s *scene) {
			s.record(t)
			s.start(t)
			s.replace(after) // another pod came and went
			s.relist()
			equal(t, "calls", s.calls, "[Add web 1 Update web 1 to 5]")
		})
	}
}

func TestResyncMakesNoRequest(t *testing.T) {
	transformed := 0
	count := transform(func(*corev1.Pod) error { transformed++; return nil })
	play(t, serve(pod("web", 1)), func(t *testing.T, s *scene) {
		s.record(t)
		s.start(t)
		initial := transformed
		s.pass(10*time.Minute + time.Second)
		equal(t, "calls: an Add and twenty resyncs", len(s.calls), 21)
		equal(t, "requests", s.verbs(), "[watch]")
		equal(t, "transformed since", transformed-initial, 0)
	}, count, resync(30*time.Second))
}

// A times keeps when each handler was called with an Update. Each handler has its goroutine.
type times struct {
	sync.Mutex
	names []string
	at    map[string][]string
}

// handle adds a handler with a name.
func (n *times) handle(t *testing.T, s *scene, name string, options ...cache.HandlerOptions) {
	t.Helper()
	n.names = append(n.names, name)
	s.handle(t, corev1informers.PodHandlerFuncs{UpdateFunc: func(_, _ *corev1.Pod) {
		n.Lock()
		defer n.Unlock()
		if n.at == nil {
			n.at = map[string][]string{}
		}
		n.at[name] = append(n.at[name], fmt.Sprint(int(time.Since(s.began).Seconds())))
	}}, options...)
}

// take returns how often each handler was called since the last time.
func (n *times) take() map[string]int {
	n.Lock()
	defer n.Unlock()
	counts := map[string]int{}
	for name, at := range n.at {
		counts[name] = len(at)
	}
	n.at = nil
	return counts
}

func (n *times) String() string {
	n.Lock()
	defer n.Unlock()
	var b strings.Builder
	for _, name := range n.names {
		at := strings.Join(n.at[name], ", ")
		if at == "" {
			at = "never"
		}
		fmt.Fprintf(&b, "%-18s  %s\n", name, at)
	}
	return b.String()
}

// A handler is due only when the informer checks: at the shortest period of all handlers that
// were there before the start.
func TestPeriodsAreRoundedUpToTheLook(t *testing.T) {
	play(t, serve(pod("web", 1)), func(t *testing.T, s *scene) {
		var n times
		n.handle(t, s, "30 s")
		n.handle(t, s, "45 s", every(45*time.Second))
		n.handle(t, s, "never", every(0))
		s.start(t)
		s.pass(10 * time.Second)
		n.handle(t, s, "10 s, at 10 s", every(10*time.Second))
		s.pass(231 * time.Second)
		shown(t, n.String())
	}, resync(30*time.Second))
}

func TestShortestPeriodBeforeTheStartWins(t *testing.T) {
	play(t, serve(pod("web", 1)), func(t *testing.T, s *scene) {
		var n times
		n.handle(t, s, "30 s")
		n.handle(t, s, "45 s", every(45*time.Second))
		n.handle(t, s, "15 s", every(15*time.Second))
		s.start(t)
		s.pass(121 * time.Second)
		shown(t, n.String())
	}, resync(30*time.Second))
}

func TestPeriodsThatDoNotHold(t *testing.T) {
	for _, test := range []struct {
		name             string
		factory, handler time.Duration
		resyncs          int // in a minute
	}{
		{"a handler needs one of the factory", 0, 30 * time.Second, 0},
		{"less than a second is a second", time.Hour, time.Millisecond, 60},
	} {
		play(t, serve(pod("web", 1)), func(t *testing.T, s *scene) {
			var n times
			n.handle(t, s, test.name, every(test.handler))
			s.start(t)
			s.pass(time.Minute + time.Millisecond)
			equal(t, test.name, n.take()[test.name], test.resyncs)
		}, resync(test.factory))
	}
}

// An Update of a pod that a relist finds unchanged takes the way of a resync: to the handlers
// that were due at the last check. A changed one goes to all.
func TestRelistSkipsHandlersThatAreNotDue(t *testing.T) {
	for version, want := range map[int]int{1: 0, 2: 1} {
		play(t, serve(pod("web", 1)), func(t *testing.T, s *scene) {
			var n times
			n.handle(t, s, "30 s")
			n.handle(t, s, "45 s", every(45*time.Second))
			s.start(t)
			s.pass(95 * time.Second)
			n.take()
			s.replace(pod("web", version))
			s.expire()
			s.pass(10 * time.Second)
			counts := n.take()
			equal(t, "30 s, due at the last check", counts["30 s"], 1)
			equal(t, fmt.Sprint("45 s, not due, version ", version), counts["45 s"], want)
		}, resync(30*time.Second))
	}
}

func TestRelistStartsTheLooksAnew(t *testing.T) {
	play(t, serve(pod("web", 1)), func(t *testing.T, s *scene) {
		var n times
		n.handle(t, s, "30 s")
		s.start(t)
		s.pass(50 * time.Second)
		s.expire()
		s.pass(29 * time.Second)
		equal(t, "calls until 79 s: a resync and the relist", n.take()["30 s"], 2)
		s.pass(4 * time.Second)
		equal(t, "calls until 83 s", n.take()["30 s"], 1)
	}, resync(30*time.Second))
}

// What the store has is handed out, wrong or right.
func TestResyncRepairsNothing(t *testing.T) {
	play(t, serve(pod("web", 1)), func(t *testing.T, s *scene) {
		s.record(t)
		s.start(t)
		s.replace() // gone from the server, and no event says so
		s.pass(91 * time.Second)
		equal(t, "an Add, and three resyncs of a pod that is gone", len(s.calls), 4)
		s.relist()
		equal(t, "after a relist", s.calls[len(s.calls)-1], "Delete web tombstone=true")
	}, resync(30*time.Second))
}

// Handlers are called for each object of the store, in a burst.
func TestResyncIsABurst(t *testing.T) {
	var pods []*corev1.Pod
	for i := range 1000 {
		pods = append(pods, pod(fmt.Sprint("web-", i), 1))
	}
	play(t, serve(pods...), func(t *testing.T, s *scene) {
		s.recordInDetail(t)
		s.start(t)
		s.pass(time.Minute + time.Second)
		updates := slices.DeleteFunc(s.calls, func(call string) bool {
			return !strings.HasPrefix(call, " 60 s  Update")
		})
		equal(t, "calls at 60 s", len(updates), 1000)
	}, resync(time.Minute))
}
