package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"example.com/informers/internal/readmes"
)

// A wiretap asks the API server as a reflector does, and reads the answer as bytes.
type wiretap struct {
	ns     string
	base   string
	client *http.Client
	out    strings.Builder
	pods   int // versions of a pod; they are told by letters, as they differ from run to run
}

func newWiretap(t *testing.T) *wiretap {
	t.Helper()
	t.Parallel()
	ns, config := apart(t, "wire")
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return &wiretap{
		ns: ns, base: config.Host + "/api/v1/namespaces/" + ns + "/pods",
		client: &http.Client{Transport: transport},
	}
}

// get asks, and notes the request as shown.
func (w *wiretap) get(ctx context.Context, t *testing.T, query, shown string) *bufio.Reader {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base+"?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := w.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		t.Fatal(response.Status)
	}
	fmt.Fprintf(&w.out, "GET pods?%s\n", shown)
	return bufio.NewReader(response.Body)
}

// pod is the next version of a pod.
func (w *wiretap) pod() string {
	w.pods++
	return string(rune('a' + w.pods - 1))
}

// frame reads an event of a watch: a line of JSON. Of the bookmark that ends the initial state
// all is noted, the later ones are left out.
func (w *wiretap) frame(t *testing.T, from *bufio.Reader) string {
	t.Helper()
	line, err := from.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var event struct {
		Type   string
		Object struct{ Metadata metav1.ObjectMeta }
	}
	if err := json.Unmarshal(line, &event); err != nil {
		t.Fatal(err)
	}
	meta := event.Object.Metadata
	_, ends := meta.Annotations[metav1.InitialEventsAnnotationKey]
	if event.Type == "BOOKMARK" && !ends { // may come at any time
		return w.frame(t, from)
	}
	if event.Type == "BOOKMARK" {
		version := []byte(`"` + meta.ResourceVersion + `"`)
		shown := bytes.ReplaceAll(bytes.TrimSpace(line), version, []byte(`"…"`))
		// The page has room for 110 columns.
		shown = bytes.ReplaceAll(shown, []byte(`"annotations"`), []byte("\n    \"annotations\""))
		fmt.Fprintf(&w.out, "%s\n", shown)
	} else {
		fmt.Fprintf(&w.out, "%-8s  %s, version %s\n", event.Type, meta.Name, w.pod())
	}
	return event.Type + " " + meta.Name
}

// writes changes and deletes the pod, and reads both events.
func (w *wiretap) writes(t *testing.T, from *bufio.Reader) {
	t.Helper()
	pods := client.CoreV1().Pods(w.ns)
	if _, err := pods.Patch(t.Context(), "web", types.MergePatchType, []byte(changed), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	w.expect(t, from, "MODIFIED web")
	if err := pods.Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	got := w.frame(t, from)
	for got == "MODIFIED web" { // marked for deletion first
		got = w.frame(t, from)
	}
	if got != "DELETED web" {
		t.Errorf("%s, want DELETED web", got)
	}
}

func (w *wiretap) expect(t *testing.T, from *bufio.Reader, want string) {
	t.Helper()
	if got := w.frame(t, from); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func (w *wiretap) web(t *testing.T) {
	t.Helper()
	if _, err := client.CoreV1().Pods(w.ns).Create(t.Context(), gated("web"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestFramesOfAWatchList(t *testing.T) {
	w := newWiretap(t)
	w.web(t)
	query := "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
	frames := w.get(t.Context(), t, query, query)
	w.expect(t, frames, "ADDED web")
	w.expect(t, frames, "BOOKMARK ")
	w.writes(t, frames)
	readmes.Shown(t, root, w.out.String(), *update)
}

func TestFramesOfAListAndAWatch(t *testing.T) {
	w := newWiretap(t)
	w.web(t)
	body, err := io.ReadAll(w.get(t.Context(), t, "limit=500", "limit=500"))
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Kind     string
		Metadata metav1.ListMeta
		Items    []struct{ Metadata metav1.ObjectMeta }
	}
	if err := json.Unmarshal(body, &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 {
		t.Fatalf("%d items", len(list.Items))
	}
	fmt.Fprintf(&w.out, "%s, with %s, version %s\n", list.Kind, list.Items[0].Metadata.Name, w.pod())
	frames := w.get(t.Context(), t, "watch=true&resourceVersion="+list.Metadata.ResourceVersion,
		"watch=true&resourceVersion=<that of the list>")
	w.writes(t, frames)
	readmes.Shown(t, root, w.out.String(), *update)
}

// counting counts the requests of a client by what they ask.
type counting struct {
	http.RoundTripper
	sync.Mutex
	requests map[string]int
}

func (c *counting) RoundTrip(request *http.Request) (*http.Response, error) {
	c.Lock()
	c.requests[request.Method+" "+request.URL.Path]++
	c.Unlock()
	return c.RoundTripper.RoundTrip(request)
}

// A thousand reads of a lister later there is still one request.
func TestCountRequests(t *testing.T) {
	t.Parallel()
	ns, config := apart(t, "wire")

	// before the clientset is made
	count := &counting{requests: map[string]int{}}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		count.RoundTripper = next
		return count
	})

	counted, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory := informers.NewSharedInformerFactoryWithOptions(counted, 0, informers.WithNamespace(ns))
	lister := factory.Core().V1().Pods().Lister().Pods(ns)
	factory.StartWithContext(ctx)
	if err := factory.WaitForCacheSyncWithContext(ctx).AsError(); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		_, _ = lister.Get("web")
	}
	cancel()
	factory.Shutdown()
	if path := "GET /api/v1/namespaces/" + ns + "/pods"; len(count.requests) != 1 || count.requests[path] != 1 {
		t.Errorf("%v, want one %s", count.requests, path)
	}
}
