package proofs

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"

	"example.com/informers/internal/outputs"
)

// resyncStory has an informer of one pod whose handlers' resyncs are noted, by name.
type resyncStory struct {
	server  *server
	factory informers.SharedInformerFactory
	pods    corev1informers.PodIndexInformer
	begin   time.Time
	names   []string
	sync.Mutex
	at map[string][]string
}

// resyncs tells a story in a bubble. The factory has the period.
func resyncs(t *testing.T, period time.Duration, tell func(*testing.T, *resyncStory)) *resyncStory {
	t.Helper()
	s := &resyncStory{at: map[string][]string{}}
	synctest.Test(t, func(t *testing.T) {
		s.begin = time.Now()
		s.server = serve(pod("web", "1"))
		s.factory = informers.NewSharedInformerFactory(s.server, period)
		s.pods = s.factory.Core().V1().Pods().TypedInformer()
		t.Cleanup(s.factory.Shutdown) // the test's context has ended then
		tell(t, s)
		synctest.Wait()
	})
	return s
}

func (s *resyncStory) handle(t *testing.T, name string, options ...cache.HandlerOptions) {
	t.Helper()
	s.names = append(s.names, name)
	_, err := s.pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
		UpdateFunc: func(_, _ *corev1.Pod) {
			s.Lock()
			defer s.Unlock()
			s.at[name] = append(s.at[name], fmt.Sprint(int(time.Since(s.begin).Seconds())))
		},
	}, options...)
	if err != nil {
		t.Fatal(err)
	}
}

// count is how often the handler was called. A test that goes on has to lock for it.
func (s *resyncStory) count(name string) int {
	s.Lock()
	defer s.Unlock()
	return len(s.at[name])
}

func (s *resyncStory) forget() {
	s.Lock()
	defer s.Unlock()
	s.at = map[string][]string{}
}

func every(seconds int) cache.HandlerOptions {
	period := time.Duration(seconds) * time.Second
	return cache.HandlerOptions{ResyncPeriod: &period}
}

func (s *resyncStory) String() string {
	var b strings.Builder
	for _, name := range s.names {
		at := strings.Join(s.at[name], ", ")
		if at == "" {
			at = "never"
		}
		fmt.Fprintf(&b, "%-18s  %s\n", name, at)
	}
	return b.String()
}

// A handler is asked only when the informer looks: at the shortest period of all handlers that
// were there before the start.
func TestPeriodsAreRoundedUpToTheLook(t *testing.T) {
	s := resyncs(t, 30*time.Second, func(t *testing.T, s *resyncStory) {
		s.handle(t, "30 s")
		s.handle(t, "45 s", every(45))
		s.handle(t, "never", every(0))
		s.factory.StartWithContext(t.Context())
		time.Sleep(10 * time.Second)
		s.handle(t, "10 s, at 10 s", every(10))
		time.Sleep(231 * time.Second)
	})
	outputs.Shown(t, root, s.String(), *update)
}

func TestShortestPeriodBeforeTheStartWins(t *testing.T) {
	s := resyncs(t, 30*time.Second, func(t *testing.T, s *resyncStory) {
		s.handle(t, "30 s")
		s.handle(t, "45 s", every(45))
		s.handle(t, "15 s", every(15))
		s.factory.StartWithContext(t.Context())
		time.Sleep(121 * time.Second)
	})
	outputs.Shown(t, root, s.String(), *update)
}

func TestPeriodOfAHandlerNeedsOneOfTheFactory(t *testing.T) {
	s := resyncs(t, 0, func(t *testing.T, s *resyncStory) {
		s.handle(t, "30 s", every(30))
		s.factory.StartWithContext(t.Context())
		time.Sleep(time.Hour)
	})
	equal(t, "resyncs in an hour", s.count("30 s"), 0)
}

func TestPeriodUnderASecondIsASecond(t *testing.T) {
	period := time.Millisecond
	s := resyncs(t, time.Hour, func(t *testing.T, s *resyncStory) {
		s.handle(t, "1 ms", cache.HandlerOptions{ResyncPeriod: &period})
		s.factory.StartWithContext(t.Context())
		time.Sleep(10*time.Second + time.Millisecond)
	})
	equal(t, "resyncs in ten seconds", s.count("1 ms"), 10)
}

// A write in between does not put a resync off, as it does in no timer of a key.
func TestResyncIsNotPutOffByAWrite(t *testing.T) {
	tell(t, serve(pod("web", "1")), 30*time.Second, func(t *testing.T, s *story) {
		time.Sleep(29 * time.Second)
		s.watch.Modify(pod("web", "2"))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		equal(t, "calls", len(s.calls), 3)
		if !strings.Contains(s.calls[2], "30 s  Update web: 2 → 2, same pointer: true") {
			t.Errorf("%v", s.calls)
		}
	})
}

// An Update of a pod that a relist finds unchanged goes the way of a resync: to the handlers
// that were due at the last look. A changed one goes to all.
func TestRelistSkipsHandlersThatAreNotDue(t *testing.T) {
	for version, want := range map[string]int{"1": 0, "2": 1} {
		s := resyncs(t, 30*time.Second, func(t *testing.T, s *resyncStory) {
			s.handle(t, "30 s")
			s.handle(t, "45 s", every(45))
			s.factory.StartWithContext(t.Context())
			time.Sleep(95 * time.Second)
			synctest.Wait()
			s.forget()
			s.server.pods = []*corev1.Pod{pod("web", version)}
			s.server.watch.Error(&apierrors.NewResourceExpired("too old").ErrStatus)
			time.Sleep(10 * time.Second)
			synctest.Wait()
		})
		equal(t, "30 s, due at the last look", s.count("30 s"), 1)
		equal(t, "45 s, not due, version "+version, s.count("45 s"), want)
	}
}

func TestRelistStartsTheLooksAnew(t *testing.T) {
	resyncs(t, 30*time.Second, func(t *testing.T, s *resyncStory) {
		s.handle(t, "30 s")
		s.factory.StartWithContext(t.Context())
		time.Sleep(50 * time.Second)
		synctest.Wait()
		s.server.watch.Error(&apierrors.NewResourceExpired("too old").ErrStatus)
		time.Sleep(29 * time.Second)
		synctest.Wait()
		equal(t, "calls until 79 s: a resync and the relist", s.count("30 s"), 2)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		equal(t, "calls until 83 s", s.count("30 s"), 3)
	})
}

// What the store has is handed out, wrong or right.
func TestResyncRepairsNothing(t *testing.T) {
	s := serve(pod("web", "1"))
	tell(t, s, 30*time.Second, func(t *testing.T, story *story) {
		s.pods = nil // gone from the server, and no event says so
		time.Sleep(91 * time.Second)
		synctest.Wait()
		equal(t, "resyncs of a pod that is gone", len(story.calls), 4)
		s.expire()
		last := story.calls[len(story.calls)-1]
		if !strings.Contains(last, "Delete web: tombstone: true") {
			t.Errorf("after a relist: %s", last)
		}
	})
}

// Handlers are called for each object of the store, in a burst.
func TestResyncIsABurst(t *testing.T) {
	var pods []*corev1.Pod
	for i := range 1000 {
		pods = append(pods, pod(fmt.Sprint("web-", i), "1"))
	}
	s := serve(pods...)
	tell(t, s, time.Minute, func(t *testing.T, story *story) {
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		resynced := 0
		for _, call := range story.calls {
			if strings.HasPrefix(call, " 60 s  Update") {
				resynced++
			}
		}
		equal(t, "calls at 60 s", resynced, 1000)
	})
}
