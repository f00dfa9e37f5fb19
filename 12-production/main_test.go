package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// What 12 has in common with 08 is tested there, and what needs an API server in e2e. A listener
// would stop the time in a bubble, so there is none.
func TestMain(m *testing.M) {
	*address = ""
	os.Exit(m.Run())
}

func pod(name, ttl string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: name, UID: types.UID("uid of " + name), ResourceVersion: "1",
		CreationTimestamp: metav1.Now(), Annotations: map[string]string{ttlAnnotation: ttl},
	}}
}

// A replica is run on a fake clientset, in a bubble.
type replica struct {
	log   bytes.Buffer
	stop  func()
	ended chan error
}

func start(t *testing.T, c *cluster) *replica {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &replica{stop: cancel, ended: make(chan error, 1)}
	c.namespace = "default"
	go func() {
		r.ended <- run(ctx, c, slog.New(slog.NewTextHandler(&r.log, nil)))
		close(r.ended)
	}()
	synctest.Wait()
	return r
}

// after lets time pass, with everything that happens in it.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// drain lets the informers' goroutines end: they do so by themselves, after a back-off.
func drain(replicas ...*replica) {
	for _, r := range replicas {
		r.stop()
		for range r.ended { // run's error was read, or is not of interest
		}
	}
	time.Sleep(time.Minute)
}

// A server is a fake clientset for the work, and one for the election: a fake answers one request at
// a time.
type server struct {
	pods, leases *fake.Clientset
	mu           sync.Mutex
	did          []string // deletes that are done, and changes of the Lease's holder
	asked        int      // reads of pods
	holder       string
}

func serve(pods ...runtime.Object) *server {
	s := &server{pods: fake.NewClientset(pods...), leases: fake.NewClientset()}
	s.pods.PrependReactor("*", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if a, ok := action.(clienttesting.DeleteAction); ok {
			s.did = append(s.did, "delete "+a.GetName())
		} else {
			s.asked++
		}
		return false, nil, nil
	})
	s.leases.PrependReactor("*", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if a, ok := action.(clienttesting.UpdateAction); ok { // a CreateAction is one, too
			holder := *a.GetObject().(*coordinationv1.Lease).Spec.HolderIdentity
			if holder == "" {
				s.did = append(s.did, "release")
			} else if holder != s.holder {
				s.did = append(s.did, "acquire")
			}
			s.holder = holder
		}
		return false, nil, nil
	})
	return s
}

func (s *server) cluster() *cluster { return &cluster{client: s.pods, election: s.leases} }

func (s *server) state() (did []string, asked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.did), s.asked
}

// expect holds what was done so far to want.
func (s *server) expect(t *testing.T, when string, want ...string) {
	t.Helper()
	if did, _ := s.state(); !slices.Equal(did, want) {
		t.Errorf("%s: done is %q, want %q", when, did, want)
	}
}

// TestHandOver: at ^C, a delete is in progress. It is finished, then the Lease is released, and then
// the other replica acts. That one has its cache already.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(pod("slow", "10s"), pod("next", "20s"))
		s.pods.PrependReactor("delete", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
			if action.(clienttesting.DeleteAction).GetName() == "slow" {
				time.Sleep(5 * time.Second)
			}
			return false, nil, nil
		})
		first, second := start(t, s.cluster()), start(t, s.cluster())
		_, asked := s.state()
		after(11 * time.Second)
		s.expect(t, "in the middle of the delete", "acquire")
		if log := second.log.String(); !strings.Contains(log, "cache is synced") || strings.Contains(log, "to be deleted") {
			t.Errorf("the replica that waits is to be synced, and to do nothing else:\n%s", log)
		}
		first.stop()
		if err := <-first.ended; err != nil {
			t.Error(err)
		}
		after(10 * time.Second)
		s.expect(t, "at the end", "acquire", "delete slow", "release", "acquire", "delete next")
		if _, now := s.state(); now != asked {
			t.Errorf("the second replica made %d requests for pods to take over, want none", now-asked)
		}
		drain(first, second)
	})
}

// TestLostLease: the leader cannot renew its Lease, because the API server does not answer, or answers
// reads only. It ends before another replica may act; without the time-out of newCluster it would not.
func TestLostLease(t *testing.T) {
	for _, test := range []struct {
		name    string
		timeout time.Duration
		silent  func(method string) bool
		inTime  bool
	}{
		{"no answers", requestTimeout, func(string) bool { return true }, true},
		{"no answers to writes", requestTimeout, func(method string) bool { return method != http.MethodGet }, true},
		{"no answers, and no time-out", 0, func(string) bool { return true }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				leases := &leaseServer{}
				config := &rest.Config{Host: "http://example.com", Timeout: test.timeout, Transport: leases}
				s := serve(pod("web", "1h"))
				c := s.cluster()
				c.election = kubernetes.NewForConfigOrDie(config)
				r := start(t, c)
				after(time.Minute)
				leases.silence(test.silent)
				if err := <-r.ended; err == nil || !strings.Contains(err.Error(), "the Lease is lost") {
					t.Errorf("error %v", err)
				}
				took := time.Since(leases.renewed)
				t.Logf("ended %s after the last renewal", took)
				took += test.timeout // the answer to the last renewal may have been late
				if took < leaseDuration != test.inTime {
					t.Errorf("ended %s after the last renewal, others may act after %s", took, leaseDuration)
				}
				drain(r)
			})
		})
	}
}

// TestOtherLeader: the leader was stopped for a while, and another replica has the Lease. It learns that
// from the Lease before its election ends.
func TestOtherLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(pod("web", "1m"), pod("next", "63s"))
		var other atomic.Bool
		s.leases.PrependReactor("update", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			return other.Load(), nil, apierrors.NewConflict(schema.GroupResource{Resource: "leases"}, name, errors.New("another version"))
		})
		s.leases.PrependReactor("get", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			now := metav1.NowMicro()
			return other.Load(), &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{
				HolderIdentity: new("other"), LeaseDurationSeconds: new(int32(15)), RenewTime: &now,
			}}, nil
		})
		r := start(t, s.cluster())
		after(61 * time.Second)
		s.expect(t, "while it leads", "acquire", "delete web")
		other.Store(true)
		after(3 * time.Second)
		select {
		case err := <-r.ended:
			t.Errorf("its election is over already: %v", err)
		default:
		}
		if err := <-r.ended; err == nil || !strings.Contains(err.Error(), "the Lease is lost") {
			t.Errorf("error %v", err)
		}
		s.expect(t, "at the end", "acquire", "delete web")
		drain(r)
	})
}

// TestLateRelease: a leader that was stopped for long may release a Lease that is another's. client-go
// reads the Lease, but asks its own memory who leads (leaderelection.go, tryRelease).
func TestLateRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leases := &leaseServer{}
		s := serve(pod("web", "1h"))
		c := s.cluster()
		c.election = kubernetes.NewForConfigOrDie(&rest.Config{
			Host: "http://example.com", Transport: leases, ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeJSON},
		})
		r := start(t, c)
		after(time.Minute)
		leases.silence(func(string) bool { return true }) // without a time-out that is as if it was stopped
		after(leaseDuration)
		if was := leases.take("other"); was == "" {
			t.Fatal("there is no holder to replace")
		}
		leases.silence(nil)
		if err := <-r.ended; err == nil || !strings.Contains(err.Error(), "the Lease is lost") {
			t.Errorf("error %v", err)
		}
		if now := leases.take("other"); now != `"holderIdentity":""` {
			t.Errorf("in the Lease is %s, but client-go's release emptied it in v0.37.2: README.md says so", now)
		}
		drain(r)
	})
}

// TestInterruptedElection: ^C comes after the API server gave the Lease to the replica, and before the
// answer. The replica does not know that it leads, and does not release the Lease.
func TestInterruptedElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leases := &leaseServer{unanswered: true}
		c := serve(pod("web", "1h")).cluster()
		c.election = kubernetes.NewForConfigOrDie(&rest.Config{
			Host: "http://example.com", Timeout: requestTimeout, Transport: leases, ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeJSON},
		})
		r := start(t, c)
		r.stop()
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
		if holder := leases.take("other"); len(holder) <= len(`"holderIdentity":""`) {
			t.Errorf("in the Lease is %q, but client-go's election leaves it in v0.37.2: README.md says so", holder)
		}
		drain(r)
	})
}

// TestOutage: the end does not wait for the reflector, which sleeps for up to a minute between two
// tries, and does not hear of its context meanwhile.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer func(d time.Duration) { *syncTimeout = d }(*syncTimeout)
		*syncTimeout = time.Hour
		c := serve().cluster()
		c.client = kubernetes.NewForConfigOrDie(&rest.Config{
			Host:      "http://example.com",
			Transport: answers(func(*http.Request) (*http.Response, error) { return nil, syscall.ECONNREFUSED }),
		})
		r := start(t, c)
		after(10 * time.Minute)
		begin := time.Now()
		r.stop()
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("it ended %s after ^C", took)
		}
		drain(r)
	})
}

// A leaseServer has one Lease, and a connection that may go silent.
type leaseServer struct {
	mu      sync.Mutex
	lease   []byte
	renewed time.Time
	silent  func(method string) bool
	ended   chan struct{} // is closed when the silence is over

	unanswered bool // writes are carried out, but the answer does not come
}

func (s *leaseServer) silence(silent func(method string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = silent
	if silent != nil {
		s.ended = make(chan struct{})
	} else {
		close(s.ended)
	}
}

// take gives the Lease to id, and returns what it said about its holder.
func (s *leaseServer) take(id string) (was string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	holder := regexp.MustCompile(`"holderIdentity":"[^"]*"`)
	was = string(holder.Find(s.lease))
	s.lease = holder.ReplaceAll(s.lease, []byte(`"holderIdentity":"`+id+`"`))
	return was
}

func (s *leaseServer) RoundTrip(request *http.Request) (*http.Response, error) {
	s.mu.Lock()
	silent, ended := s.silent != nil && s.silent(request.Method), s.ended
	s.mu.Unlock()
	if silent {
		select {
		case <-ended:
		case <-request.Context().Done():
			return nil, request.Context().Err()
		}
	}
	answer := s.answer(request)
	if s.unanswered && request.Method != http.MethodGet {
		<-request.Context().Done()
		return nil, request.Context().Err()
	}
	return answer, nil
}

func (s *leaseServer) answer(request *http.Request) *http.Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", request.Header.Get("Content-Type")) // what it writes it may read
	switch {
	case request.Method != http.MethodGet:
		s.lease, _ = io.ReadAll(request.Body)
		s.renewed = time.Now()
	case s.lease == nil:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	}
	_, _ = w.Write(s.lease)
	return w.Result()
}

// TestClock: the clock of this machine is an hour ahead of the API server's.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		date := time.Now().Add(-time.Hour)
		web := pod("web", "10s")
		web.CreationTimestamp = metav1.NewTime(date)
		s := serve(web)
		c := s.cluster()
		answer := http.Header{"Date": {date.UTC().Format(http.TimeFormat)}}
		transport := c.clock.wrap(answers(func(*http.Request) (*http.Response, error) {
			return &http.Response{Header: answer}, nil
		}))
		if now := c.clock.Now(); !now.Equal(time.Now()) {
			t.Errorf("before the first answer it is %s, want this machine's %s", now, time.Now())
		}
		if _, err := transport.RoundTrip(nil); err != nil { //nolint:bodyclose // it has no body
			t.Fatal(err)
		}
		r := start(t, c)
		after(9 * time.Second)
		s.expect(t, "after 9 s of 10 s", "acquire")
		after(2 * time.Second)
		s.expect(t, "after 11 s of 10 s", "acquire", "delete web")
		drain(r)
	})
}

type answers func(*http.Request) (*http.Response, error)

func (f answers) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestHealth: ready is synced, and stays so; live is not that.
func TestHealth(t *testing.T) {
	synced, watchdog := false, leaderelection.NewLeaderHealthzAdaptor(leaseDuration)
	handler := health(func() bool { return synced }, watchdog)
	get := func(path string) (int, string) {
		t.Helper()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	for _, test := range []struct {
		synced bool
		path   string
		code   int
	}{
		{false, "/livez", http.StatusOK}, {false, "/readyz", http.StatusServiceUnavailable},
		{true, "/livez", http.StatusOK}, {true, "/readyz", http.StatusOK}, {true, "/healthz", http.StatusNotFound},
	} {
		synced = test.synced
		if code, body := get(test.path); code != test.code {
			t.Errorf("synced %t: %s answers %d %s, want %d", test.synced, test.path, code, body, test.code)
		}
	}

	// Informer, queue, and election have metrics by their name.
	informerName, err := cache.NewInformerName(name)
	if err != nil {
		t.Fatal(err)
	}
	defer informerName.Release()
	s := serve(pod("web", "1h"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	leads := make(chan struct{}, 1)
	c := s.cluster()
	c.namespace, c.metrics = "default", informerName
	go func() { ended <- run(ctx, c, slog.New(slog.NewTextHandler(told(leads), nil))) }()
	<-leads
	_, metrics := get("/metrics")
	for _, want := range []string{
		`informer_queued_items{group="",name="informers-ttl",resource="pods",version="v1"}`,
		`workqueue_adds_total{name="informers-ttl"}`, `leader_election_master_status{name="informers-ttl"} 1`,
		"go_goroutines ", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(metrics, "\n"+want) {
			t.Errorf("no metric %s", want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// told is a log that says when a worker has looked at a pod.
type told chan struct{}

func (c told) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("is to be deleted")) {
		c <- struct{}{}
	}
	return len(line), nil
}

// TestHangingLeader: a leader that neither renews its Lease nor ends is not live.
func TestHangingLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		watchdog := leaderelection.NewLeaderHealthzAdaptor(leaseDuration)
		hangs, release := make(chan struct{}), make(chan struct{})
		client.PrependReactor("update", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			select {
			case <-hangs:
				<-release // no time-out ends it
				return true, nil, errors.New("released")
			default:
				return false, nil, nil
			}
		})
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Client: client.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: "one"},
			},
			LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, Name: name,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) {}, OnStoppedLeading: func() {}},
		})
		if err != nil {
			t.Fatal(err)
		}
		watchdog.SetLeaderElection(elector)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); elector.Run(ctx) }()
		after(time.Minute)
		live := func() int {
			w := httptest.NewRecorder()
			health(func() bool { return true }, watchdog).ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/livez", nil))
			return w.Code
		}
		if code := live(); code != http.StatusOK {
			t.Errorf("a leader that renews: %d", code)
		}
		close(hangs)
		after(leaseDuration)
		if code := live(); code != http.StatusOK {
			t.Errorf("a leader that may still end by itself: %d", code)
		}
		after(leaseDuration + retryPeriod)
		if code := live(); code != http.StatusInternalServerError {
			t.Errorf("a leader that hangs: %d", code)
		}
		cancel()
		close(release)
		<-ended
	})
}

// TestExit: what ends the whole process runs in another one.
func TestExit(t *testing.T) {
	logger := slog.New(slog.NewTextHandler(os.Stdout, nil))
	for _, test := range []struct {
		name, says string
		code       int
		run        func(t *testing.T) error
	}{
		{"a worker panics", `level=ERROR msg="Observed a panic" panic="a bug"`, 2, func(t *testing.T) error {
			s := serve(pod("web", "0s"))
			s.pods.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) { panic("a bug") })
			klog.SetSlogLogger(logger)
			return run(t.Context(), s.cluster(), logger)
		}},
		{"a worker hangs, and the Lease is lost", "not stopped within 20s\n", 1, func(t *testing.T) (err error) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(pod("web", "0s"))
				s.pods.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) { select {} })
				s.leases.PrependReactor("update", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
					return true, nil, errors.New("no answer")
				})
				err = run(t.Context(), s.cluster(), logger)
			})
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if os.Getenv("EXIT") != "" {
				t.Fatal(test.run(t))
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=30s")
			cmd.Env = append(os.Environ(), "EXIT=yes")
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != test.code {
				t.Errorf("%v, want exit code %d", err, test.code)
			}
			if !strings.Contains(string(out), test.says) {
				t.Errorf("nothing says %s:\n%s", test.says, out)
			}
		})
	}
}
