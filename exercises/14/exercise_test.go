package exercise

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/klog/v2"
)

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset()
		a := start(t, api, "a")
		a.waitForCall(t, "a has started, and no other replica runs")
		b := start(t, api, "b")
		time.Sleep(5 * time.Minute) // virtual, like all times here
		synctest.Wait()
		if began, _ := b.last(); !began.IsZero() {
			t.Fatal("a holds the Lease and renews it, but b acts too.")
		}

		// For a the API server is gone; b still reaches it. A call of a starts now.
		a.waitForCall(t, "a holds the Lease")
		a.cut.Store(true)
		cut := time.Now()
		b.waitForCall(t, "a holds the Lease, but for five minutes it could not renew it")
		took := time.Now()
		_, underWay := a.last()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if began, _ := a.last(); began.After(took) {
			a.waitForCall(t, "a acted after it had lost the Lease")
		}
		began, _ := a.last()
		a.cut.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		later, _ := a.last()
		switch after := took.Sub(cut); {
		case after > 30*time.Second:
			t.Fatalf(`a could not reach the API server, and b acted only %s later.
Longer times only postpone the moment when b takes over. If a has crashed, no replica acts until
then. If a is cut off, longer times do not stop its work.`, after.Round(time.Second))
		case later.After(began):
			t.Fatalf(`a could not reach the API server for more than 15 s, and b has the Lease now, but a still acts.
client-go gave up after 10 s, before others may take the Lease: it canceled the context that
OnStartedLeading got, called OnStoppedLeading, and Run of the elector returned. The work of a did
not notice: its context ends only when the program does.`)
		case began.After(took):
			t.Fatalf(`a could not reach the API server, and b has the Lease now, but a acted until it reached the server again.
IsLeader says who held the Lease when this replica last read it. A replica that is cut off
cannot read it, so a still believed that it was the leader.`)
		case underWay:
			t.Fatalf(`a could not reach the API server, and b has the Lease now. a starts no other call,
but when b started, a call of a was still under way. Its context ends only when the program does:
the call needs one that ends when the Lease is lost.`)
		}

		b.kill()
		synctest.Wait()
		a.waitForCall(t, `a lost the Lease a while ago, and can reach the API server again. b has crashed since then
(Run of an elector returns when the Lease is lost, and does not compete again)`)
	})
}

// A replica runs the program. When Run returns, the process ends and another one starts.
type replica struct {
	cut  atomic.Bool // it does not reach the API server
	kill context.CancelFunc

	mu     sync.Mutex
	began  time.Time // the last call
	acting int
}

func start(t *testing.T, api *fake.Clientset, name string) *replica {
	r := &replica{}
	client, toServer := &fake.Clientset{}, clienttesting.ObjectReaction(api.Tracker())
	client.AddReactor("*", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if r.cut.Load() {
			return true, nil, errors.New("no route to host")
		}
		return toServer(action)
	})
	// client-go logs each attempt; the zero Logger drops that.
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), klog.Logger{}))
	r.kill = cancel
	go func() {
		for n := 1; ctx.Err() == nil; n++ {
			process, exit := context.WithCancel(ctx)
			err := Run(process, client, fmt.Sprintf("%s-%d", name, n), r.act)
			exit()
			if err != nil {
				t.Errorf("Run of %s returned the error: %v", name, err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	return r
}

// act takes a minute, longer than the Lease is valid.
func (r *replica) act(ctx context.Context) {
	r.count(1)
	defer r.count(-1)
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
	}
}

func (r *replica) count(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.acting += n; n > 0 {
		r.began = time.Now()
	}
}

func (r *replica) last() (began time.Time, underWay bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.began, r.acting > 0
}

func (r *replica) waitForCall(t *testing.T, when string) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < 5*time.Minute; time.Sleep(100 * time.Millisecond) {
		synctest.Wait()
		if began, _ := r.last(); !began.Before(begin) {
			return
		}
	}
	t.Fatalf("%s, but no replica acts.", when)
}
