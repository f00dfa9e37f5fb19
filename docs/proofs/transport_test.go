package proofs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	clientfeatures "k8s.io/client-go/features"
	clientfeaturestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"example.com/informers/internal/outputs"
)

// A transportServer is an API server for one resource. Real clients reach it through
// their transport, in memory, so that it works in a bubble of virtual time. It stores
// JSON, and so also what a client cannot decode.
type transportServer struct {
	kind schema.GroupVersionKind

	mu        sync.Mutex
	installed bool
	objects   map[string]*unstructured.Unstructured
	events    []transportEvent
	changed   chan struct{} // closed at the next change
	requests  []string
}

// A transportEvent changed the resourceVersion to its index in the server's events, plus 1.
type transportEvent struct {
	eventType watch.EventType
	object    *unstructured.Unstructured
}

func newTransportServer(kind schema.GroupVersionKind) *transportServer {
	return &transportServer{
		kind: kind, installed: true, changed: make(chan struct{}),
		objects: map[string]*unstructured.Unstructured{},
	}
}

func (s *transportServer) config() *rest.Config {
	return &rest.Config{Host: "http://in.memory", Transport: s}
}

// write stores an object and sends its event.
func (s *transportServer) write(name string, fields map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &unstructured.Unstructured{Object: maps.Clone(fields)}
	u.SetGroupVersionKind(s.kind)
	u.SetNamespace("default")
	u.SetName(name)
	eventType := watch.Added
	if s.objects[name] != nil {
		eventType = watch.Modified
	}
	s.objects[name] = u
	s.send(eventType, u)
}

func (s *transportServer) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send(watch.Deleted, s.objects[name].DeepCopy())
	delete(s.objects, name)
}

// uninstall does what the API server does when a CRD is deleted: each object is deleted,
// watches end, and every request after that gets 404.
func (s *transportServer) uninstall() {
	for name := range maps.Clone(s.objects) {
		s.remove(name)
	}
	s.install(false)
}

func (s *transportServer) install(installed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.installed = installed
	s.wake()
}

func (s *transportServer) send(eventType watch.EventType, u *unstructured.Unstructured) {
	u.SetResourceVersion(strconv.Itoa(len(s.events) + 1))
	s.events = append(s.events, transportEvent{eventType, u})
	s.wake()
}

func (s *transportServer) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// RoundTrip answers a list or a watch, of any namespace, and accepts each delete.
func (s *transportServer) RoundTrip(r *http.Request) (*http.Response, error) {
	query := r.URL.Query()
	verb := "list"
	switch {
	case r.Method == http.MethodDelete:
		verb = "delete"
	case query.Get("watch") != "":
		verb = "watch"
	}
	s.mu.Lock()
	s.requests = append(s.requests, verb)
	installed := s.installed
	s.mu.Unlock()

	if !installed {
		return transportReply(r, http.StatusNotFound, "text/plain",
			io.NopCloser(strings.NewReader("404 page not found\n"))), nil
	}
	if verb == "delete" {
		return transportReply(r, http.StatusOK, "application/json", io.NopCloser(bytes.NewReader(
			transportJSON(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Success"})))), nil
	}
	metadataOnly := strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")
	if verb == "list" {
		return transportReply(r, http.StatusOK, "application/json",
			io.NopCloser(bytes.NewReader(s.list(metadataOnly)))), nil
	}
	ctx, cancel := context.WithCancel(r.Context())
	reader, writer := io.Pipe()
	context.AfterFunc(ctx, func() { writer.CloseWithError(ctx.Err()) })
	go func() {
		defer cancel()
		writer.CloseWithError(s.stream(ctx, writer, query, metadataOnly))
	}()
	return transportReply(r, http.StatusOK, "application/json", transportBody{reader, cancel}), nil
}

// A transportBody stops the server's side when the client closes it.
type transportBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b transportBody) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}

func transportReply(r *http.Request, code int, contentType string, body io.ReadCloser) *http.Response {
	return &http.Response{
		StatusCode: code, Header: http.Header{"Content-Type": {contentType}}, Body: body, Request: r,
	}
}

func (s *transportServer) list(metadataOnly bool) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := []any{}
	for _, name := range slices.Sorted(maps.Keys(s.objects)) {
		items = append(items, transportObject(s.objects[name], metadataOnly))
	}
	kind, version := s.kind.Kind+"List", s.kind.GroupVersion().String()
	if metadataOnly {
		kind, version = "PartialObjectMetadataList", metav1.SchemeGroupVersion.String()
	}
	return transportJSON(map[string]any{
		"kind": kind, "apiVersion": version, "items": items,
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(len(s.events))},
	})
}

// stream writes the events of a watch until the client closes it, or the CRD is deleted.
func (s *transportServer) stream(ctx context.Context, w io.Writer, query url.Values, metadataOnly bool) error {
	next, _ := strconv.Atoi(query.Get("resourceVersion"))
	var events []transportEvent
	s.mu.Lock()
	if query.Get("sendInitialEvents") == "true" {
		for _, name := range slices.Sorted(maps.Keys(s.objects)) {
			events = append(events, transportEvent{watch.Added, s.objects[name]})
		}
		end := &unstructured.Unstructured{}
		end.SetGroupVersionKind(s.kind)
		end.SetResourceVersion(strconv.Itoa(len(s.events)))
		end.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
		events = append(events, transportEvent{watch.Bookmark, end})
		next = len(s.events)
	}
	s.mu.Unlock()
	for {
		s.mu.Lock()
		events = append(events, s.events[next:]...)
		next = len(s.events)
		installed, changed := s.installed, s.changed
		s.mu.Unlock()
		for _, event := range events {
			if _, err := w.Write(transportJSON(map[string]any{
				"type": event.eventType, "object": transportObject(event.object, metadataOnly),
			})); err != nil {
				return err
			}
		}
		events = nil
		if !installed {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func transportObject(u *unstructured.Unstructured, metadataOnly bool) map[string]any {
	if !metadataOnly {
		return u.Object
	}
	return map[string]any{
		"kind": "PartialObjectMetadata", "apiVersion": metav1.SchemeGroupVersion.String(),
		"metadata": u.Object["metadata"],
	}
}

func transportJSON(content map[string]any) []byte {
	text, err := json.Marshal(content)
	if err != nil {
		panic(err) // the test's own objects
	}
	return append(text, '\n')
}

var transportPods = corev1.SchemeGroupVersion.WithKind("Pod")

// cpu are the fields of a pod that requests it.
func cpu(request string) map[string]any {
	return map[string]any{"spec": map[string]any{"containers": []any{map[string]any{
		"name": "web", "resources": map[string]any{"requests": map[string]any{"cpu": request}},
	}}}}
}

// transportPodsInformer is an informer of pods over a real client, and the watch errors
// that its handler was told.
func transportPodsInformer(t *testing.T, s *transportServer) (corev1informers.PodIndexInformer, *[]error) {
	t.Helper()
	client, err := kubernetes.NewForConfig(s.config())
	if err != nil {
		t.Fatal(err)
	}
	pods := corev1informers.NewTypedPodInformer(client, metav1.NamespaceAll, 0, nil)
	return pods, transportTold(t, pods)
}

func transportTold(t *testing.T, informer cache.SharedInformer) *[]error {
	t.Helper()
	told := new([]error)
	if err := informer.SetWatchErrorHandlerWithContext(
		func(_ context.Context, _ *cache.Reflector, err error) { *told = append(*told, err) },
	); err != nil {
		t.Fatal(err)
	}
	return told
}

// transportRun runs the informer until the test ends.
func transportRun(ctx context.Context, t *testing.T, informer cache.SharedInformer) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		informer.RunWithContext(ctx)
	}()
	t.Cleanup(func() { <-done }) // the test's context has ended then
}

func TestOneBadObjectPreventsTheSync(t *testing.T) {
	for _, test := range []struct {
		watchList bool
		recover   func(*transportServer)
		stored    int
	}{
		{true, func(s *transportServer) { s.remove("bad") }, 1},
		{true, func(s *transportServer) { s.write("bad", cpu("500m")) }, 2},
		{false, func(s *transportServer) { s.remove("bad") }, 1},
		{false, func(s *transportServer) { s.write("bad", cpu("500m")) }, 2},
	} {
		t.Run(fmt.Sprintf("WatchList=%t, then %d pods", test.watchList, test.stored), func(t *testing.T) {
			clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, test.watchList)
			synctest.Test(t, func(t *testing.T) {
				s := newTransportServer(transportPods)
				s.write("good", cpu("500m"))
				s.write("bad", cpu("half a core"))
				pods, told := transportPodsInformer(t, s)
				transportRun(t.Context(), t, pods)
				time.Sleep(time.Hour)
				synctest.Wait()
				equal(t, "synced after an hour", pods.HasSynced(), false)
				equal(t, "pods in the store", len(pods.GetStore().ListKeys()), 0)
				if len(*told) < 60 {
					t.Errorf("told %d times in an hour", len(*told))
				}
				test.recover(s)
				time.Sleep(time.Minute)
				synctest.Wait()
				equal(t, "synced once it is gone", pods.HasSynced(), true)
				equal(t, "pods then", len(pods.GetStore().ListKeys()), test.stored)
			})
		})
	}
}

// transportStory runs a story with WatchList and with LIST. Both print the same, and the
// page shows it.
func transportStory(t *testing.T, act func(t *testing.T, say func(format string, args ...any))) {
	t.Helper()
	var printed []string
	for _, watchList := range []bool{true, false} {
		t.Run(fmt.Sprintf("WatchList=%t", watchList), func(t *testing.T) {
			clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, watchList)
			synctest.Test(t, func(t *testing.T) {
				var out strings.Builder
				act(t, func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) })
				printed = append(printed, out.String())
			})
		})
	}
	if len(printed) == 2 {
		equal(t, "with LIST", printed[1], printed[0])
		outputs.Shown(t, root, printed[0], *update)
	}
}

func TestOneBadObjectStopsTheInformer(t *testing.T) {
	transportStory(t, func(t *testing.T, say func(format string, args ...any)) {
		config := ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(0))
		logger := ktesting.NewLogger(t, config)
		logged := logger.GetSink().(ktesting.Underlier).GetBuffer()
		s := newTransportServer(transportPods)
		pods, told := transportPodsInformer(t, s)
		if _, err := pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
			AddFunc: func(pod *corev1.Pod) { say("Add %s: %s", pod.Name, pod.ResourceVersion) },
			UpdateFunc: func(old, pod *corev1.Pod) {
				say("Update %s: %s → %s", pod.Name, old.ResourceVersion, pod.ResourceVersion)
			},
			DeleteFunc: func(pod corev1informers.DeletedPod) { say("Delete %s", pod.GetName()) },
		}); err != nil {
			t.Fatal(err)
		}
		s.write("web", cpu("500m"))
		transportRun(klog.NewContext(t.Context(), logger), t, pods)
		synctest.Wait()

		say(`* another pod requests cpu "half a core"`)
		s.write("bad", cpu("half a core"))
		synctest.Wait()
		for _, entry := range logged.Data() {
			say("log: %s", entry.Message)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		say("told: %s", strings.Replace((*told)[0].Error(), ": ", ":\n      ", 1)) // the page is narrow

		say("* web changes, and an hour passes")
		before := len(*told)
		s.write("web", cpu("600m"))
		time.Sleep(time.Hour)
		synctest.Wait()
		if again := len(*told) - before; again < 60 {
			t.Errorf("told %d times in that hour", again)
		}
		stored, err := corev1listers.NewPodLister(pods.GetIndexer()).Pods("default").Get("web")
		if err != nil {
			t.Fatal(err)
		}
		say("web in the store: %s, HasSynced: %t", stored.ResourceVersion, pods.HasSynced())

		say("* the other pod is deleted, and a minute passes")
		s.remove("bad")
		time.Sleep(time.Minute)
		synctest.Wait()
	})
}

// A list of the dynamic client has every object, and each is converted alone.
func TestConvertingOneByOneFindsTheBadObject(t *testing.T) {
	s := newTransportServer(transportPods)
	s.write("good", cpu("500m"))
	s.write("bad", cpu("half a core"))
	client, err := dynamic.NewForConfig(s.config())
	if err != nil {
		t.Fatal(err)
	}
	list, err := client.Resource(corev1.SchemeGroupVersion.WithResource("pods")).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var bad []string
	for _, item := range list.Items {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, &corev1.Pod{}); err != nil {
			bad = append(bad, item.GetName())
		}
	}
	equal(t, "what does not fit the type", bad, "[bad]")
}

func TestUntypedInformersTakeTheBadObject(t *testing.T) {
	resource := corev1.SchemeGroupVersion.WithResource("pods")
	for _, test := range []struct {
		name     string
		informer func(*rest.Config) (informers.GenericInformer, error)
	}{
		{"dynamic", func(config *rest.Config) (informers.GenericInformer, error) {
			client, err := dynamic.NewForConfig(config)
			return dynamicinformer.NewDynamicSharedInformerFactory(client, 0).ForResource(resource), err
		}},
		{"metadata", func(config *rest.Config) (informers.GenericInformer, error) {
			client, err := metadata.NewForConfig(config)
			return metadatainformer.NewSharedInformerFactory(client, 0).ForResource(resource), err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTransportServer(transportPods)
				s.write("good", cpu("500m"))
				s.write("bad", cpu("half a core"))
				generic, err := test.informer(s.config())
				if err != nil {
					t.Fatal(err)
				}
				told := transportTold(t, generic.Informer())
				transportRun(t.Context(), t, generic.Informer())
				synctest.Wait()
				equal(t, "synced", generic.Informer().HasSynced(), true)
				equal(t, "objects", len(generic.Informer().GetStore().ListKeys()), 2)
				equal(t, "told", len(*told), 0)
			})
		})
	}
}

func TestCRDDeletedAndInstalledAgain(t *testing.T) {
	widgets := schema.GroupVersion{Group: "example.com", Version: "v1"}
	transportStory(t, func(t *testing.T, say func(format string, args ...any)) {
		s := newTransportServer(widgets.WithKind("Widget"))
		client, err := dynamic.NewForConfig(s.config())
		if err != nil {
			t.Fatal(err)
		}
		informer := cache.NewTypedSharedIndexInformer[*unstructured.Unstructured](
			dynamicinformer.NewDynamicSharedInformerFactory(client, 0).
				ForResource(widgets.WithResource("widgets")).Informer())
		told := transportTold(t, informer)
		var deletes []string
		if _, err := informer.AddTypedEventHandler(cache.TypedResourceEventHandlerFuncs[*unstructured.Unstructured]{
			AddFunc: func(widget *unstructured.Unstructured) { say("Add %s", widget.GetName()) },
			DeleteFunc: func(widget cache.DeletedObject[*unstructured.Unstructured]) {
				deletes = append(deletes, fmt.Sprintf("Delete %s, tombstone: %t",
					widget.GetName(), widget.FinalStateUnknown != nil))
			},
		}); err != nil {
			t.Fatal(err)
		}
		s.write("one", nil)
		transportRun(t.Context(), t, informer)
		synctest.Wait()
		s.write("two", nil)
		synctest.Wait()

		say("* the CRD is deleted, and an hour passes")
		s.uninstall()
		time.Sleep(time.Hour)
		synctest.Wait()
		slices.Sort(deletes) // the order is a map's
		say("%s", strings.Join(deletes, "\n"))
		for _, err := range *told {
			equal(t, "404", apierrors.IsNotFound(err), true)
		}
		if len(*told) < 60 {
			t.Errorf("told %d times in an hour", len(*told))
		}
		say("told: %v", (*told)[len(*told)-1])
		say("objects in the store: %d, HasSynced: %t", len(informer.GetStore().ListKeys()), informer.HasSynced())

		say("* the CRD is installed again, an object created, and a minute passes")
		s.install(true)
		s.write("three", nil)
		time.Sleep(time.Minute)
		synctest.Wait()
	})
}

func TestFactoryKeepsAStoppedInformer(t *testing.T) {
	resource := corev1.SchemeGroupVersion.WithResource("pods")
	synctest.Test(t, func(t *testing.T) {
		client, err := dynamic.NewForConfig(newTransportServer(transportPods).config())
		if err != nil {
			t.Fatal(err)
		}
		factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
		stopped := factory.ForResource(resource).Informer()
		ctx, cancel := context.WithCancel(t.Context())
		factory.Start(ctx.Done())
		synctest.Wait()
		cancel()
		synctest.Wait()
		again := factory.ForResource(resource).Informer()
		equal(t, "the same one", again == stopped, true)
		equal(t, "is stopped", again.IsStopped(), true)
		factory.Start(t.Context().Done())
		synctest.Wait()
		equal(t, "is stopped after another Start", again.IsStopped(), true)
	})
}

func TestThrottlingIsOfListsAndNotOfWatches(t *testing.T) {
	for _, test := range []struct {
		watchList bool
		requests  string
		takes     time.Duration
	}{
		{true, "map[watch:40]", 0},
		{false, "map[list:40 watch:40]", 6 * time.Second}, // 10 at once, 30 at 5 a second
	} {
		t.Run(fmt.Sprintf("WatchList=%t", test.watchList), func(t *testing.T) {
			clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, test.watchList)
			synctest.Test(t, func(t *testing.T) {
				s := newTransportServer(transportPods)
				client, err := kubernetes.NewForConfig(s.config())
				if err != nil {
					t.Fatal(err)
				}
				var synced []cache.DoneChecker
				begin := time.Now()
				for i := range 40 {
					pods := corev1informers.NewTypedPodInformer(client, fmt.Sprint("namespace-", i), 0, nil)
					transportRun(t.Context(), t, pods)
					synced = append(synced, pods.HasSyncedChecker())
				}
				equal(t, "synced", cache.WaitFor(t.Context(), "", synced...), true)
				equal(t, "takes", time.Since(begin).Round(time.Millisecond), test.takes)
				synctest.Wait()
				counts := map[string]int{}
				for _, verb := range s.requests {
					counts[verb]++
				}
				equal(t, "requests", counts, test.requests)
			})
		})
	}
}

func TestThrottlingOfWrites(t *testing.T) {
	for _, test := range []struct {
		qps   float32
		takes time.Duration
	}{{0, 6 * time.Second}, {-1, 0}} { // 0 is the default
		synctest.Test(t, func(t *testing.T) {
			config := newTransportServer(transportPods).config()
			config.QPS = test.qps
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			for i := range 40 {
				name := fmt.Sprint("web-", i)
				if err := client.CoreV1().Pods("default").Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			equal(t, fmt.Sprintf("QPS %g takes", test.qps), time.Since(begin).Round(time.Millisecond), test.takes)
		})
	}
}
