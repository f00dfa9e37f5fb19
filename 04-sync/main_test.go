package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, ResourceVersion: "1"}}
}

func pods(count int) []runtime.Object {
	pods := make([]runtime.Object, count)
	for i := range pods {
		pods[i] = pod(fmt.Sprintf("pod-%d", i))
	}
	return pods
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		var err error
		go func() { err = run(ctx, fake.NewClientset(pod("web")), &out) }()
		synctest.Wait()
		cancel()
		synctest.Wait()

		if err != nil {
			t.Fatal(err)
		}
		const add = "handleAdd is called for Pod (key: default/web)\n"
		before, after, ok := strings.Cut(out.String(), "handler is synced\n")
		if !ok || before != add+"store is synced\n" && before != "store is synced\n"+add || after != "cache is synced\n" {
			t.Errorf("printed:\n%s", &out)
		}
	})
}

type writer func(line string)

func (w writer) Write(line []byte) (int, error) { w(string(line)); return len(line), nil }

// However slow the handler is, it has been called for every pod before "handler
// is synced". (In real time: a goroutine that waits for a lock of log.Logger
// would stop the clock of synctest.)
func TestHandlerIsSyncedAfterInitialAdds(t *testing.T) {
	const count = 200
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	adds := 0
	err := run(ctx, fake.NewClientset(pods(count)...), writer(func(line string) {
		switch time.Sleep(time.Millisecond); {
		case strings.HasPrefix(line, "handleAdd "):
			adds++
		case line == "handler is synced\n" && adds != count:
			t.Errorf("handler is synced after %d of %d Adds", adds, count)
		case line == "cache is synced\n":
			cancel()
		}
	}))
	if err != nil || adds != count {
		t.Errorf("%d Adds, want %d, error %v", adds, count, err)
	}
}

// The deadline holds for the handlers too, and the error says that it is they.
func TestHandlerIsNotSynced(t *testing.T) {
	defer func(d time.Duration) { *syncTimeout = d }(*syncTimeout)
	*syncTimeout = 2 * time.Second
	err := run(t.Context(), fake.NewClientset(pods(200)...), writer(func(string) { time.Sleep(50 * time.Millisecond) }))
	if want := "cache is not synced: the handlers are still busy with the first pods"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

// At the deadline run gives up with the cause of that moment. Before, it prints the error of
// each try.
func TestStoreIsNotSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stderr bytes.Buffer
		log.SetOutput(&stderr)
		defer log.SetOutput(os.Stderr)

		client, begin := fake.NewClientset(), time.Now()
		tries := 0
		client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			tries++
			cause := errors.New("certificate has expired")
			if time.Since(begin) > 20*time.Second {
				cause = errors.New("connection reset by peer")
			}
			return true, nil, &url.Error{Op: "Get", URL: fmt.Sprint("https://server/?try=", tries), Err: cause}
		})
		err := run(t.Context(), client, io.Discard)
		synctest.Wait() // run cancels the reflector and does not wait for it
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("gave up after %s, want %s", took, time.Minute)
		}
		if err == nil || !strings.HasPrefix(err.Error(), "cache is not synced: list pods: Get ") || !strings.HasSuffix(err.Error(), ": connection reset by peer") {
			t.Errorf("error %v", err)
		}
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		first, last := lines[0], lines[len(lines)-1]
		if tries < 5 || len(lines) != tries-1 || !strings.Contains(first, "watch pods: failed to list *v1.Pod: Get ") ||
			!strings.HasSuffix(first, ": certificate has expired") || !strings.HasSuffix(last, ": connection reset by peer") {
			t.Errorf("%d tries, stderr:\n%s", tries, &stderr)
		}
	})
}

// Whatever an outage is, and however often it comes: it is printed at least once a minute while
// it lasts, and not more often than client-go tries, which is less and less often.
func TestEachOutageIsPrinted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var times []time.Time
		log.SetOutput(writer(func(string) {
			mu.Lock()
			defer mu.Unlock()
			times = append(times, time.Now())
		}))
		defer log.SetOutput(os.Stderr)
		printed := func() []time.Time { // since the last call
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			defer func() { times = nil }()
			return times
		}

		client := fake.NewClientset(pod("web"))
		var forbidden atomic.Bool
		watches := make(chan *watch.FakeWatcher, 1)
		client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return forbidden.Load(), nil, apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("no right to list"))
		})
		client.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
			w := watch.NewFake()
			watches <- w
			return true, w, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		var err error
		go func() { err = run(ctx, client, io.Discard) }()
		synctest.Wait()

		for outage := range 2 {
			time.Sleep(5 * time.Minute)
			if n := len(printed()); n != 0 {
				t.Errorf("%d errors before outage %d", n, outage)
			}
			forbidden.Store(true)
			(<-watches).Error(&apierrors.NewResourceExpired("too old resource version").ErrStatus)
			before := time.Now()
			time.Sleep(10 * time.Minute)
			errors := printed()
			if n := len(errors); n < 10 || n > 60 {
				t.Errorf("outage %d is printed %d times in ten minutes", outage, n)
			}
			for _, at := range errors {
				if gap := at.Sub(before); gap > time.Minute {
					t.Errorf("outage %d is not printed for %s", outage, gap)
				}
				before = at
			}
			forbidden.Store(false)
		}
		cancel()
		synctest.Wait()
		if err != nil {
			t.Error(err)
		}
	})
}
