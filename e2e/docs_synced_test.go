package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"

	"example.com/informers/internal/readmes"
)

// A lagging scene is an informer whose watch can be held back: what lags by milliseconds in real
// life lags here for as long as a test wants.
type lagging struct {
	client  kubernetes.Interface
	ns      string
	lister  corev1listers.PodNamespaceLister
	store   cache.Store
	hold    func()
	release func()
	out     strings.Builder
}

// newLagging starts the informer in a separate namespace, with a synced store.
func newLagging(t *testing.T) *lagging {
	t.Helper()
	t.Parallel()
	ns, config := apart(t, "own-writes")
	gate := &sync.Mutex{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &holding{next, gate} })
	watching, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(watching, 0, informers.WithNamespace(ns))
	pods := factory.Core().V1().Pods()
	s := &lagging{client: client, ns: ns, store: pods.Informer().GetStore(), lister: pods.Lister().Pods(ns)}
	held := false
	s.hold = func() { gate.Lock(); held = true }
	s.release = func() {
		if held {
			gate.Unlock()
		}
		held = false
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		s.release()
		cancel()
		factory.Shutdown()
	})
	factory.StartWithContext(ctx)
	if err := factory.WaitForCacheSyncWithContext(ctx).AsError(); err != nil {
		t.Fatal(err)
	}
	return s
}

// holding lets through what a watch answers only while nobody holds its gate.
type holding struct {
	http.RoundTripper
	gate *sync.Mutex
}

func (h *holding) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := h.RoundTripper.RoundTrip(request)
	if err == nil && request.URL.Query().Get("watch") == "true" {
		response.Body = &heldBody{response.Body, h.gate}
	}
	return response, err
}

type heldBody struct {
	io.ReadCloser
	gate *sync.Mutex
}

func (b *heldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.gate.Lock()
	defer b.gate.Unlock()
	return n, err
}

func (s *lagging) printf(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

func (s *lagging) create(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	pod, err := s.client.CoreV1().Pods(s.ns).Create(t.Context(), gated(name), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// hasRead says whether the store has seen a write of its resource, and so all writes before it.
func hasRead(store cache.Store, written string) bool {
	read := store.LastStoreSyncResourceVersion()
	order, err := resourceversion.CompareResourceVersion(read, written)
	return err == nil && order >= 0
}

// A reconcile that finds the store too old returns, and is called again.
func (s *lagging) awaitRead(t *testing.T, written string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := wait.PollUntilContextCancel(ctx, 10*time.Millisecond, true, func(context.Context) (bool, error) {
		return hasRead(s.store, written), nil
	}); err != nil {
		t.Fatal("the store has not read the write: ", err)
	}
}

func TestListerLagsBehindOwnWrite(t *testing.T) {
	s := newLagging(t)
	s.hold()

	// wrong: read from the lister what was written a moment ago
	pod := s.create(t, "web")
	_, err := s.lister.Get("web")

	s.printf("the API call returned %s", pod.Name)
	s.printf("lister: %v", err)
	if !apierrors.IsNotFound(err) {
		t.Errorf("lister: %v, want not found", err)
	}
	s.release()
	s.awaitRead(t, pod.ResourceVersion)
	cached, err := s.lister.Get("web")
	if err != nil {
		t.Fatal(err)
	}
	s.printf("later, lister: %s", cached.Name)
	readmes.Shown(t, root, s.out.String(), *update)
}

func TestWaitForOwnWrite(t *testing.T) {
	s := newLagging(t)
	s.hold()

	// right: remember what was written, and ask the store whether it has come that far
	pod := s.create(t, "web")
	ready := hasRead(s.store, pod.ResourceVersion)

	s.printf("store has read the write: %t", ready)
	if ready {
		t.Error("a store whose watch is held back has read the write")
	}
	s.release()
	s.awaitRead(t, pod.ResourceVersion)
	cached, err := s.lister.Get("web")
	s.printf("store has read the write: true, lister: error %v", err)
	if err != nil || cached.UID != pod.UID {
		t.Errorf("the store is at %s: %v", s.store.LastStoreSyncResourceVersion(), err)
	}

	// A delete moves the store on, too: what it has read is not the versions of what it holds.
	before := s.store.LastStoreSyncResourceVersion()
	if err := s.client.CoreV1().Pods(s.ns).Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	last := s.create(t, "last")
	s.awaitRead(t, last.ResourceVersion)
	if _, err := s.lister.Get("web"); !apierrors.IsNotFound(err) {
		t.Errorf("the store has read a write after the delete, and the lister says: %v", err)
	}
	if !hasRead(s.store, before) {
		t.Error("the store went back")
	}
	readmes.Shown(t, root, s.out.String(), *update)
}

func TestStaleCacheConflicts(t *testing.T) {
	s := newLagging(t)
	pod := s.create(t, "web")
	s.awaitRead(t, pod.ResourceVersion)
	s.hold()
	ctx, pods := t.Context(), s.client.CoreV1().Pods(s.ns)
	patch := []byte(changed)
	if _, err := pods.Patch(ctx, "web", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}

	// wrong: retry with what the cache has
	label := func(get func() (*corev1.Pod, error)) error {
		return retry.RetryOnConflict(retry.DefaultRetry, func() error {
			pod, err := get()
			if err != nil {
				return err
			}
			pod = pod.DeepCopy()
			metav1.SetMetaDataLabel(&pod.ObjectMeta, "tier", "front")
			_, err = pods.Update(ctx, pod, metav1.UpdateOptions{})
			return err
		})
	}
	stale := label(func() (*corev1.Pod, error) { return s.lister.Get("web") })

	// right: retry with what the server has
	fresh := label(func() (*corev1.Pod, error) { return pods.Get(ctx, "web", metav1.GetOptions{}) })

	s.printf("from the lister: conflict %t, after %d tries", apierrors.IsConflict(stale), retry.DefaultRetry.Steps)
	s.printf("from the server: error %v", fresh)
	if !apierrors.IsConflict(stale) {
		t.Errorf("an update of a stale copy: %v, want a conflict", stale)
	}
	if fresh != nil {
		t.Error(fresh)
	}

	// right: return the conflict; the key comes back when the cache has moved on
	s.release()
	reconcile := func() error {
		cached, err := s.lister.Get("web")
		if err != nil {
			return err
		}
		pod := cached.DeepCopy()
		metav1.SetMetaDataLabel(&pod.ObjectMeta, "tier", "back")
		_, err = pods.Update(ctx, pod, metav1.UpdateOptions{})
		return err
	}
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, timeout, true, func(context.Context) (bool, error) {
		err := reconcile()
		if apierrors.IsConflict(err) {
			return false, nil // a controller: queue.AddRateLimited(key)
		}
		return true, err
	})
	s.printf("reconciled again, from the lister: error %v", err)
	if err != nil {
		t.Error(err)
	}
	readmes.Shown(t, root, s.out.String(), *update)
}
