package engine

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"example.com/informers/playground/apiserver"
	"example.com/informers/playground/faults"
)

// A run is an engine and what it has reported.
type run struct {
	*Engine
	server *apiserver.Server
	line   faults.Line
	mu     sync.Mutex
	events []Event
}

func (r *run) emit(event Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event)
}

// seen returns the events of a stage, as "kind key old version".
func (r *run) seen(stages ...Stage) (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if slices.Contains(stages, e.Stage) {
			all = append(all, strings.Join(strings.Fields(strings.Join([]string{e.Handler, e.Kind, e.Key, e.Old, e.Version}, " ")), " "))
		}
	}
	return all
}

// story runs an engine on a server in memory, in virtual time.
func story(t *testing.T, settings Settings, act func(t *testing.T, r *run)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &run{server: apiserver.New(apiserver.Options{})}
		create(t, r.server, "web")
		config := config(r.server)
		config.Wrap(r.line.Wrap)
		var err error
		if r.Engine, err = Start(t.Context(), config, settings, r.emit); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Wait)
		synctest.Wait()
		act(t, r)
	})
}

func config(server *apiserver.Server) *rest.Config {
	return &rest.Config{Host: "http://playground", Transport: server, QPS: -1}
}

func ask(t *testing.T, server *apiserver.Server, verb, name, body string) {
	t.Helper()
	client, err := NewClient(config(server))
	if err != nil {
		t.Fatal(err)
	}
	request := client.Verb(verb).Namespace("default").Resource("pods").Name(name).Body([]byte(body))
	switch verb {
	case "POST":
		request = client.Post().Namespace("default").Resource("pods").Body([]byte(body))
	case "PATCH":
		request = client.Patch(types.MergePatchType).Namespace("default").Resource("pods").Name(name).Body([]byte(body))
	}
	if err := request.Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
}

// create makes a pod that nobody else writes to.
func create(t *testing.T, server *apiserver.Server, name string) {
	t.Helper()
	pod := corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
	pod.Spec = corev1.PodSpec{SchedulerName: "none", Containers: []corev1.Container{{Name: "nginx", Image: "nginx:1.22"}}}
	body, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, server, "POST", "", string(body))
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestStages(t *testing.T) {
	story(t, Settings{WatchList: true, Resync: 30 * time.Second, Handlers: []HandlerSettings{{Name: "a"}}}, func(t *testing.T, r *run) {
		ask(t, r.server, "PATCH", "web", `{"metadata":{"labels":{"color":"red"}}}`)
		synctest.Wait()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		ask(t, r.server, "DELETE", "web", "")
		synctest.Wait()
		same(t, "requests and frames", r.seen(Request), "WATCH", "status", "ADDED default/web 101", "BOOKMARK 101",
			"MODIFIED default/web 102", "MODIFIED default/web 103", "DELETED default/web 104")
		same(t, "handler", r.seen(Handler), "a Add initial default/web 101", "a Update default/web 101 102",
			"a Update resync default/web 102 102", "a Update default/web 102 103", "a Delete default/web 104")
	})
}

// TestWaysAWatchEnds: what each fault leads to.
func TestWaysAWatchEnds(t *testing.T) {
	tests := []struct {
		name  string
		fault func(l *faults.Line)
		want  []string // of the handler
		told  string   // what the watch error handler gets, or ""
	}{
		{"ended", func(l *faults.Line) { l.EndWatches(false) }, []string{"Add default/new 102"}, ""},
		{"reset", func(l *faults.Line) { l.EndWatches(true) }, []string{"Update relist default/web 101 101", "Add default/new 102"}, ""},
		{"refused", func(l *faults.Line) { l.Break(faults.Fault{Refuse: true}); l.EndWatches(false) }, []string{"Add default/new 102"}, ""},
		{"403", func(l *faults.Line) { l.Break(faults.Fault{Code: 403}); l.EndWatches(false) }, []string{"Update relist default/web 101 101", "Add default/new 102"}, "pods is forbidden"},
		{"503", func(l *faults.Line) { l.Break(faults.Fault{Code: 503}); l.EndWatches(false) }, []string{"Update relist default/web 101 101", "Add default/new 102"}, "the server is currently unable to handle the request"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			story(t, Settings{WatchList: true, Handlers: []HandlerSettings{{Name: "a"}}}, func(t *testing.T, r *run) {
				time.Sleep(2 * time.Second) // a watch that ends in its first second is a special error
				test.fault(&r.line)
				synctest.Wait()
				time.Sleep(10 * time.Second)
				r.line.Break(faults.Fault{})
				create(t, r.server, "new")
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				var want []string
				for _, call := range append([]string{"Add initial default/web 101"}, test.want...) {
					want = append(want, "a "+call)
				}
				got := r.seen(Handler)
				slices.Sort(got[1:])
				slices.Sort(want[1:])
				same(t, "handler", got, want...)
				told := ""
				for _, e := range r.events {
					if e.Stage == Failure {
						told = e.Text
					}
				}
				if test.told == "" && told != "" || !strings.Contains(told, test.told) {
					t.Errorf("the watch error handler got %q, want %q", told, test.told)
				}
			})
		})
	}
}

func TestWorker(t *testing.T) {
	story(t, Settings{WatchList: true, Worker: &WorkerSettings{Takes: time.Second, Fails: 2}}, func(t *testing.T, r *run) {
		time.Sleep(time.Minute)
		synctest.Wait()
		same(t, "work", r.seen(Work), "Add default/web", "Get default/web", "fails: AddRateLimited, try 1 default/web",
			"Get default/web", "fails: AddRateLimited, try 2 default/web", "Get default/web", "Done default/web")
	})
}

// TestLinesOfChapter05 runs the chapter and the engine on one server, and compares what they print.
func TestLinesOfChapter05(t *testing.T) {
	server := apiserver.New(apiserver.Options{})
	create(t, server, "web")
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go server.RunPods(ctx)
	web := httptest.NewServer(server)
	t.Cleanup(func() { cancel(); web.CloseClientConnections(); web.Close() })
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["c"] = &clientcmdapi.Cluster{Server: web.URL}
	kubeconfig.Contexts["c"] = &clientcmdapi.Context{Cluster: "c"}
	kubeconfig.CurrentContext = "c"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*kubeconfig, path); err != nil {
		t.Fatal(err)
	}

	binary := filepath.Join(t.TempDir(), "05-resync")
	if out, err := exec.Command("go", "build", "-o", binary, "../../05-resync").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	chapter := exec.CommandContext(ctx, binary, "--kubeconfig", path, "--resync", "2s", "--run-every", "1h")
	chapter.Cancel = func() error { return chapter.Process.Signal(os.Interrupt) }
	printed := &run{}
	chapter.Stdout, chapter.Stderr = printed, os.Stderr

	r := &run{}
	if err := chapter.Start(); err != nil {
		t.Fatal(err)
	}
	var err error
	settings := Settings{WatchList: true, Resync: 2 * time.Second, RunEvery: time.Hour, Handlers: []HandlerSettings{{Name: "a"}}}
	if r.Engine, err = Start(ctx, &rest.Config{Host: web.URL, QPS: -1}, settings, r.emit); err != nil {
		t.Fatal(err)
	}
	both := func(text string) {
		t.Helper()
		for _, r := range []*run{printed, r} {
			err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
				return strings.Contains(strings.Join(r.lines(), "\n"), text), nil
			})
			if err != nil {
				t.Fatalf("no %q in\n%s", text, strings.Join(r.lines(), "\n"))
			}
		}
	}
	both("run") // both are synced: an Add that is initial for one would be new for the other
	pod := `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"nginx"},"spec":{"containers":[{"name":"nginx","image":"nginx:1.22"}]}}`
	ask(t, server, "POST", "", pod)
	both(", phase Running, Ready")
	ask(t, server, "DELETE", "nginx", "")
	both(", deletion")
	both("tombstone=false")
	both("(key: default/web): resync, resourceVersion 101")
	cancel()
	_ = chapter.Wait()
	r.Wait()

	// A resync comes at another moment in each program, and so does the line of the goroutine that waits for the store.
	differs := func(line string) bool { return line == "store is synced" || strings.Contains(line, ": resync, ") }
	same(t, "lines", slices.DeleteFunc(r.lines(), differs), slices.DeleteFunc(printed.lines(), differs)...)
}

// lines returns what chapter 05 prints, or would print.
func (r *run) lines() (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Stage == Log {
			all = append(all, e.Text)
		}
	}
	return all
}

// Write makes a run take what a program prints. A program prints whole lines.
func (r *run) Write(data []byte) (int, error) {
	for line := range strings.Lines(string(data)) {
		r.emit(Event{Stage: Log, Text: strings.TrimSuffix(line, "\n")})
	}
	return len(data), nil
}
