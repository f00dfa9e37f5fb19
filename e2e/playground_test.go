package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"example.com/informers/playground/apiserver"
	"example.com/informers/playground/control"
	"example.com/informers/playground/engine"
)

// differs is what the playground's API server leaves out, on purpose.
var differs = map[string]string{
	"managedFields": "who owns which field",
	"volumes":       "the service account's token: nothing runs that could use it",
	"volumeMounts":  "the same",
}

// TestStoriesOnACluster plays the playground's stories on the cluster, and compares what handlers and worker are told
// with what the browser showed. What is left out, because Kubernetes does not guarantee it: times, how many Updates
// a pod gets, and whether a lister already has its own program's write.
func TestStoriesOnACluster(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../playground/control/testdata/*.json")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d stories, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var story control.Story
			if err := json.Unmarshal(text, &story); err != nil {
				t.Fatal(err)
			}
			ns, config := apart(t, "story-"+name)
			playStory(t, story, control.Server{Config: config, Namespace: ns, Watched: ns})
		})
	}
}

func playStory(t *testing.T, story control.Story, server control.Server) {
	t.Helper()
	var mu sync.Mutex
	var events []engine.Event
	p := control.New(t.Context(), server, func(event engine.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, event)
	})
	t.Cleanup(func() {
		p.Wait()
		if err := p.Clear(context.WithoutCancel(t.Context())); err != nil { // finalizers keep a namespace
			t.Error(err)
		}
	})
	begin := time.Now()
	at := func(ms float64) <-chan time.Time {
		return time.After(time.Until(begin.Add(time.Duration(ms * float64(time.Millisecond)))))
	}
	for _, c := range story.Script {
		<-at(c.Time)
		if c.Do == "start" {
			awaitPods(t, server.Namespace)
			begin = time.Now().Add(-time.Duration(c.Time * float64(time.Millisecond)))
		}
		if err := p.Do(c.Command); err != nil {
			t.Errorf("%s %s: %v", c.Do, c.Name, err)
		}
	}
	<-at(story.Until)
	var told map[string][]string
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, timeout, true, func(context.Context) (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		told = control.Told(events)
		return maps.EqualFunc(told, story.Told, fits), nil
	})
	if err != nil {
		t.Errorf("what the cluster told differs from what the browser told (-browser +cluster):\n%s", cmp.Diff(story.Told, told))
	}
}

// fits compares what a handler was told with what it was told in the browser. A kubelet may write to a pod at any time,
// so there may be more Updates, and what is the same version in the browser after a relist may be a later one here.
func fits(told, want []string) bool {
	i := 0
	for _, kind := range told {
		switch {
		case i < len(want) && (kind == want[i] || kind == "Update" && want[i] == "Update relist"):
			i++
		case kind == "Update", i > 0 && kind == want[i-1]: // one more, and what was before it
		default:
			return false
		}
	}
	return i == len(want)
}

// awaitPods waits until the scheduler and the kubelet have written what they write at a start, so that the
// informer does not see it.
func awaitPods(t *testing.T, ns string) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, timeout, true, func(ctx context.Context) (bool, error) {
		pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		return !slices.ContainsFunc(pods.Items, func(pod corev1.Pod) bool {
			return pod.Spec.SchedulerName == corev1.DefaultSchedulerName && !conditions(&pod)[corev1.PodReady]
		}), nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestServerConforms sends the same requests to the cluster and to the playground's API server, and compares
// answers and frames. Versions, UIDs and times are masked, in the order in which they appear.
func TestServerConforms(t *testing.T) {
	t.Parallel()
	ns, config := apart(t, "conforms")
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	real := &asker{base: config.Host, transport: transport, ns: ns, count: map[string]int{}}
	ours := &asker{base: "http://playground", transport: apiserver.New(apiserver.Options{Namespaces: []string{ns}}), ns: ns, count: map[string]int{}}
	for _, a := range []*asker{real, ours} {
		conversation(t, a)
	}
	for i := range min(len(real.said), len(ours.said)) {
		if diff := cmp.Diff(real.said[i], ours.said[i]); diff != "" {
			about, _, _ := strings.Cut(real.said[i], "\n")
			t.Errorf("%s\nthe playground differs from the cluster (-cluster +playground):\n%s", about, diff)
		}
	}
	if len(real.said) != len(ours.said) {
		t.Errorf("%d answers of the cluster, and %d of the playground", len(real.said), len(ours.said))
	}
	t.Logf("%d answers and frames compared", len(real.said))
}

// conversation is what both are asked.
func conversation(t *testing.T, a *asker) {
	const (
		merge     = string(`application/merge-patch+json`)
		strategic = string(`application/strategic-merge-patch+json`)
		jsonPatch = string(`application/json-patch+json`)
		watchList = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
	)
	pod := func(name, more string) string {
		return `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"` + name + `"` + more + `},` +
			`"spec":{"schedulerName":"none","containers":[{"name":"nginx","image":"nginx:1.22"}]}}`
	}
	// Reads and creates.
	a.ask(t, "GET", "pods", "", "")
	all := a.watch(t, "pods?"+watchList)
	all.until(t, "BOOKMARK", "")
	a.ask(t, "POST", "pods", "", pod("web", ""))
	a.ask(t, "POST", "pods", "", pod("web", ""))
	a.ask(t, "POST", "pods", "", pod("Web", ""))
	a.ask(t, "POST", "pods", "", `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"empty"},"spec":{"containers":[]}}`)
	a.ask(t, "POST", "pods", "", `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"other","namespace":"other"},"spec":{}}`)
	a.ask(t, "GET", "pods/web", "", "")
	a.ask(t, "GET", "pods/none", "", "")
	red := a.watch(t, "pods?watch=true&labelSelector=color%3Dred")
	// Patches and updates.
	a.ask(t, "PATCH", "pods/web", merge, `{"metadata":{"labels":{"color":"red"}}}`)
	a.ask(t, "PATCH", "pods/web", merge, `{"metadata":{"labels":{"color":"red"}}}`) // nothing is written
	a.ask(t, "PATCH", "pods/web", strategic, `{"metadata":{"annotations":{"a":"1"}}}`)
	a.ask(t, "PATCH", "pods/web", jsonPatch, `[{"op":"replace","path":"/metadata/labels/color","value":"blue"}]`)
	a.ask(t, "PATCH", "pods/web", merge, `{"metadata":{"resourceVersion":"1","labels":{"color":"green"}}}`)
	a.ask(t, "PATCH", "pods/web", merge, `{"spec":{"containers":[{"name":"nginx","image":"nginx:1.23"}]}}`)
	a.ask(t, "PATCH", "pods/web", merge, `{"spec":{"restartPolicy":"Never"}}`)
	a.ask(t, "PATCH", "pods/web", merge, `{"status":{"message":"dropped"}}`)
	a.ask(t, "PATCH", "pods/web/status", merge, `{"status":{"message":"kept"},"metadata":{"labels":{"color":"red"}}}`)
	a.ask(t, "PATCH", "pods/none", merge, `{}`)
	red.until(t, "DELETED", "web")
	red.until(t, "ADDED", "web")
	// Selectors, pages and versions.
	a.ask(t, "POST", "pods", "", pod("db", `,"labels":{"color":"red"},"finalizers":["example.com/keep"]`))
	a.ask(t, "GET", "pods?labelSelector=color%3Dred", "", "")
	a.ask(t, "GET", "pods?fieldSelector=metadata.name%3Ddb", "", "")
	a.ask(t, "GET", "pods?fieldSelector=spec.color%3Dred", "", "")
	a.ask(t, "GET", "pods?labelSelector=color%3D%3D%3D", "", "")
	page := a.ask(t, "GET", "pods?limit=1", "", "")
	a.ask(t, "GET", "pods?limit=1&continue="+page["metadata"].(map[string]any)["continue"].(string), "", "")
	a.ask(t, "GET", "pods?continue=nonsense", "", "")
	a.ask(t, "GET", "pods?resourceVersion=nonsense", "", "")
	a.ask(t, "GET", "pods?sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "", "")
	a.ask(t, "GET", "pods?watch=true&sendInitialEvents=true", "", "")
	a.ask(t, "GET", "pods?watch=true&resourceVersion=nonsense", "", "")
	a.ask(t, "GET", "pods?watch=true&resourceVersionMatch=NotOlderThan", "", "")
	// Deletes.
	a.ask(t, "DELETE", "pods/db", "", `{"preconditions":{"uid":"none"}}`)
	a.ask(t, "DELETE", "pods/db", "", `{"preconditions":{"resourceVersion":"1"}}`)
	a.ask(t, "DELETE", "pods/db?dryRun=All", "", "")
	a.ask(t, "DELETE", "pods/db", "", "")
	a.ask(t, "PATCH", "pods/db", merge, `{"metadata":{"finalizers":null}}`)
	a.ask(t, "POST", "pods/web/binding", "", `{"kind":"Binding","apiVersion":"v1","metadata":{"name":"web"},"target":{"kind":"Node","name":"nowhere"}}`)
	a.ask(t, "POST", "pods/web/binding", "", `{"kind":"Binding","apiVersion":"v1","metadata":{"name":"web"},"target":{"kind":"Node","name":"nowhere"}}`)
	// The second GET waits until the API server's watch cache has the node. A delete is tried first with what is
	// there, and for a pod without a node it would set a grace period of 0, also for the second try.
	bound := a.ask(t, "GET", "pods/web", "", "")
	a.ask(t, "GET", "pods/web?resourceVersion="+bound["metadata"].(map[string]any)["resourceVersion"].(string), "", "")
	a.ask(t, "DELETE", "pods/web", "", "")
	a.ask(t, "DELETE", "pods/web", "", `{"gracePeriodSeconds":5}`)
	a.ask(t, "DELETE", "pods/web", "", `{"gracePeriodSeconds":0}`)
	a.ask(t, "DELETE", "pods/web", "", "")
	all.until(t, "DELETED", "web")
	again := a.watch(t, "pods?"+watchList)
	again.until(t, "BOOKMARK", "")
}

// An asker asks an API server, and keeps what it says.
type asker struct {
	base, ns  string
	transport http.RoundTripper
	said      []string
	masks     []string       // pairs for a strings.Replacer
	count     map[string]int // of versions, UIDs and tokens so far
}

func (a *asker) do(t *testing.T, ctx context.Context, method, path, contentType, body string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, a.base+"/api/v1/namespaces/"+a.ns+"/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "application/json")
	if contentType == "" {
		contentType = "application/json"
	}
	r.Header.Set("Content-Type", contentType)
	response, err := a.transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

func (a *asker) ask(t *testing.T, method, path, contentType, body string) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	response := a.do(t, ctx, method, path, contentType, body)
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.note(t, fmt.Sprint(method, " ", path, " ", body), fmt.Sprint(response.StatusCode), data)
}

// A stream is an open watch.
type stream struct {
	*asker
	path  string
	lines *bufio.Reader
}

func (a *asker) watch(t *testing.T, path string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	response := a.do(t, ctx, "GET", path, "", "")
	t.Cleanup(func() { _ = response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		t.Fatalf("watch %s: %s", path, response.Status)
	}
	return &stream{a, path, bufio.NewReader(response.Body)}
}

// until notes events up to one of this type and pod, without the bookmarks that may come at any time.
func (s *stream) until(t *testing.T, kind, name string) {
	t.Helper()
	for {
		line, err := s.lines.ReadBytes('\n')
		if err != nil {
			t.Fatalf("%s: %v before %s %s, after\n%s", s.path, err, kind, name, strings.Join(s.said, "\n"))
		}
		if bytes.HasPrefix(line, []byte(`{"type":"BOOKMARK"`)) && !bytes.Contains(line, []byte(metav1.InitialEventsAnnotationKey)) {
			continue
		}
		event := s.note(t, s.path, "frame", line)
		meta := event["object"].(map[string]any)["metadata"].(map[string]any)
		if got, _ := meta["name"].(string); event["type"] == kind && got == name {
			return
		}
	}
}

// note keeps an answer: with stand-ins for what is another in each run, and without what is in differs.
func (a *asker) note(t *testing.T, about, what string, data []byte) (object map[string]any) {
	t.Helper()
	var kept any
	if err := errors.Join(json.Unmarshal(data, &object), json.Unmarshal(data, &kept)); err != nil {
		t.Fatalf("%s: %v: %s", about, err, data)
	}
	a.mask(kept)
	text, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	said := strings.ReplaceAll(a.replace(about)+": "+what+"\n"+string(text), a.ns, "NS")
	a.said = append(a.said, regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:]+Z`).ReplaceAllString(said, "TIME"))
	return object
}

// mask removes what the playground leaves out, and notes a stand-in for each version, UID and token.
func (a *asker) mask(value any) {
	switch v := value.(type) {
	case map[string]any:
		for name := range differs {
			delete(v, name)
		}
		if message, ok := v["message"].(string); ok { // of a spec that may not change, ends with a diff
			message, _, _ = strings.Cut(message, "\n@@ ")
			v["message"] = a.replace(message)
		}
		if meta, ok := v["metadata"].(map[string]any); ok && meta["name"] == nil {
			delete(meta, "resourceVersion") // of a list or a bookmark: other writes count, too
		}
		for _, name := range []string{"resourceVersion", "uid", "continue"} {
			if text, ok := v[name].(string); ok && text != "" {
				if !slices.Contains(a.masks, text) {
					a.count[name]++
					a.masks = append(a.masks, text, fmt.Sprintf("<%s %d>", name, a.count[name]))
				}
				v[name] = a.replace(text)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			a.mask(v[name])
		}
	case []any:
		for _, child := range v {
			a.mask(child)
		}
	}
}

func (a *asker) replace(text string) string { return strings.NewReplacer(a.masks...).Replace(text) }
