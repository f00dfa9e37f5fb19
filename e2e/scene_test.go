package e2e

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/e2e-framework/pkg/envconf"
	"sigs.k8s.io/e2e-framework/pkg/features"

	"example.com/informers/internal/chapters"
	"example.com/informers/internal/logmatch"
)

// A scene is a namespace, a chapter that watches it, and what the API server says happens there.
type scene struct {
	client     kubernetes.Interface
	kubeconfig string
	namespace  string
	chapter    *chapters.Program
	record     *record
}

// step makes a step of a feature from what does not need the framework's context.
func step(f func(t *testing.T)) features.Func {
	return func(ctx context.Context, t *testing.T, _ *envconf.Config) context.Context {
		f(t)
		return ctx
	}
}

// setup opens the scene in the namespace of the test.
func (s *scene) setup(f func(t *testing.T)) features.Func {
	return func(ctx context.Context, t *testing.T, cfg *envconf.Config) context.Context {
		s.client, s.namespace = client, cfg.Namespace()
		s.as(t, "", "")
		s.record = watchPods(t, s.client, s.namespace)
		f(t)
		return ctx
	}
}

// start runs a chapter as its README does.
func (s *scene) start(t *testing.T, chapter string, args ...string) *chapters.Program {
	t.Helper()
	args = append([]string{"--namespace", s.namespace}, args...)
	return chapters.Start(t, filepath.Join(*built, chapter),
		[]string{"KUBECONFIG=" + s.kubeconfig, "KUBE_CACHE_MUTATION_DETECTOR=true"}, args...)
}

func (s *scene) key(name string) string { return s.namespace + "/" + name }

// await holds the chapter's lines so far to steps, and waits for those still to come.
func (s *scene) await(t *testing.T, q logmatch.Sequence) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*timeout)
	defer cancel()
	if err := q.Await(ctx, s.chapter); err != nil {
		t.Fatal(err)
	}
}

// match holds all that the chapter printed to a sequence.
func (s *scene) match(t *testing.T, q logmatch.Sequence) {
	t.Helper()
	if err := q.Match(s.chapter.Log()); err != nil {
		t.Error(err)
	}
}

// interrupt types ^C. Chapters end then by themselves, at once and with exit code 0.
func (s *scene) interrupt(t *testing.T) {
	t.Helper()
	s.chapter.Signal(t, syscall.SIGINT, 5*time.Second)
	if code := s.chapter.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after ^C, want 0; stderr:\n%s", code, &s.chapter.Stderr)
	}
}

// story logs what the chapter printed, for go test -v.
func (s *scene) story(t *testing.T) {
	t.Helper()
	command := append([]string{filepath.Base(s.chapter.Path)}, s.chapter.Args[1:]...)
	t.Logf("$ %s\n%sstderr:\n%s", strings.Join(command, " "), &s.chapter.Stdout, &s.chapter.Stderr)
}

// create makes a pod as kubectl run does.
func (s *scene) create(t *testing.T, name string) {
	t.Helper()
	s.createPod(t, plain(name))
}

func plain(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"run": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: name, Image: cluster.Nginx}}},
	}
}

// createGated makes pods that nobody writes to again.
func (s *scene) createGated(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		s.createPod(t, gated(name))
	}
}

// gated is a pod that a scheduling gate keeps from the scheduler, hence from the kubelet.
func gated(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			SchedulingGates: []corev1.PodSchedulingGate{{Name: "informers.example.com/stay-pending"}},
			Containers:      []corev1.Container{{Name: "nginx", Image: cluster.Nginx}},
		},
	}
}

func (s *scene) createPod(t *testing.T, pod *corev1.Pod) (created *corev1.Pod) {
	t.Helper()
	created, err := s.client.CoreV1().Pods(s.namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s.record != nil { // a LIST is answered from the watch cache, which has the pod when a watch has it
		s.record.await(t, created.Name+" is created", func(e watch.Event) bool {
			pod, ok := e.Object.(*corev1.Pod)
			return ok && pod.UID == created.UID
		})
	}
	return created
}

// changed is a patch that shows only in the resourceVersion.
const changed = `{"metadata":{"labels":{"changed":"yes"}}}`

func (s *scene) change(t *testing.T, name string) {
	t.Helper()
	pods := s.client.CoreV1().Pods(s.namespace)
	if _, err := pods.Patch(t.Context(), name, types.MergePatchType, []byte(changed), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *scene) delete(t *testing.T, name string) {
	t.Helper()
	if err := s.client.CoreV1().Pods(s.namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// nginxLives creates nginx and waits until the API server says that it is ready.
//
// Then it creates the pod "ready". Events come in the order of the writes across all pods, so
// when the chapter has printed that Add, it has printed all that was before: what
// is missing then is missing, and nobody has to wait longer.
func (s *scene) nginxLives(t *testing.T) {
	t.Helper()
	s.create(t, "nginx")
	s.awaitReady(t, "nginx")
	s.createGated(t, "ready")
	s.awaitAdd(t, "ready", 10*time.Second)
}

// nginxDies deletes nginx, waits until it is gone, and creates the pod "gone".
func (s *scene) nginxDies(t *testing.T) {
	t.Helper()
	s.delete(t, "nginx")
	s.awaitGone(t, "nginx")
	s.createGated(t, "gone")
	s.awaitAdd(t, "gone", 10*time.Second)
}

// awaitReady and awaitGone wait for what the API server says of a pod.
func (s *scene) awaitReady(t *testing.T, name string) {
	t.Helper()
	s.record.await(t, name+" is ready", func(e watch.Event) bool {
		pod := e.Object.(*corev1.Pod)
		return pod.Name == name && conditions(pod)[corev1.PodReady]
	})
}

func (s *scene) awaitGone(t *testing.T, name string) {
	t.Helper()
	s.record.await(t, name+" is gone", func(e watch.Event) bool {
		return e.Type == watch.Deleted && e.Object.(*corev1.Pod).Name == name
	})
}

// awaitAdd waits for the Add of a pod, whatever else is printed.
func (s *scene) awaitAdd(t *testing.T, name string, limit time.Duration) {
	t.Helper()
	s.awaitStep(t, added(s.key(name), ".*"), limit)
}

// awaitLine waits for a line, whatever else is printed.
func (s *scene) awaitLine(t *testing.T, text string) {
	t.Helper()
	s.awaitStep(t, logmatch.Exactly(text), timeout)
}

func (s *scene) awaitStep(t *testing.T, step logmatch.Step, limit time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("not within %s", limit))
	defer cancel()
	anything := logmatch.Like("anything", ".*").AnyNumber()
	q := logmatch.Sequence{Steps: []logmatch.Step{anything, step}}
	if err := q.Await(ctx, s.chapter); err != nil {
		t.Fatal(err)
	}
}

// The lines of 03, 04 and 05. detail is a regular expression of what 05 adds.
func added(key, detail string) logmatch.Step   { return handler("Add", key, detail) }
func updated(key, detail string) logmatch.Step { return handler("Update", key, detail) }
func deleted(key, detail string) logmatch.Step { return handler("Delete", key, detail) }

func handler(kind, key, detail string) logmatch.Step {
	name := kind + " of " + key + strings.TrimSuffix(detail, ".*")
	return logmatch.Like(name, `handle`+kind+` is called for Pod \(key: `+regexp.QuoteMeta(key)+`\)`+detail)
}

// A record is what a watch of the API server says of the pods of a namespace: the
// witness against which the chapters' lines are checked.
type record struct {
	mu      sync.Mutex
	events  []watch.Event
	changed chan struct{}
}

// watchPods begins a record of a namespace without pods.
func watchPods(t *testing.T, client kubernetes.Interface, ns string) *record {
	t.Helper()
	list, err := client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	w, err := client.CoreV1().Pods(ns).Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	r := &record{changed: make(chan struct{})}
	go func() {
		for e := range w.ResultChan() {
			if _, ok := e.Object.(*corev1.Pod); !ok {
				return // an error: whoever waits for more will say what is missing
			}
			r.mu.Lock()
			r.events = append(r.events, e)
			close(r.changed)
			r.changed = make(chan struct{})
			r.mu.Unlock()
		}
	}()
	return r
}

// await waits for an event.
func (r *record) await(t *testing.T, what string, ok func(watch.Event) bool) {
	t.Helper()
	limit := time.After(2 * timeout) // the image may have to be pulled
	for i := 0; ; {
		events, changed := r.all()
		for ; i < len(events); i++ {
			if ok(events[i]) {
				return
			}
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("the API server does not say that %s", what)
		}
	}
}

// all are the events so far, and a channel that is closed when there are more.
func (r *record) all() ([]watch.Event, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events[:len(r.events):len(r.events)], r.changed
}

// of are a pod's versions, in order; the last one is that of its delete, if it is gone.
func (r *record) of(name string) (pods []*corev1.Pod) {
	events, _ := r.all()
	for _, e := range events {
		if pod := e.Object.(*corev1.Pod); pod.Name == name {
			pods = append(pods, pod)
		}
	}
	return pods
}

// conditions are those that are true.
func conditions(pod *corev1.Pod) map[corev1.PodConditionType]bool {
	m := map[corev1.PodConditionType]bool{}
	for _, c := range pod.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			m[c.Type] = true
		}
	}
	return m
}

// An event is what a line of 05 says of a pod.
type event struct {
	kind, key string // "Add", "Update" or "Delete"; "namespace/name"
	why       string // "initial", "new", "write", "resync", "relist", "tombstone=true" or "tombstone=false"
	old, now  string // resourceVersions, where the line names them
	facts     string // what is true since a write: ", phase Running, Ready"
}

var eventLine = regexp.MustCompile(`^handle(Add|Update|Delete) is called for Pod \(key: (\S+)\): ` +
	`(?:(\d+) → (\d+)(.*)|(resync|relist), resourceVersion (\d+)|(initial|new), .*|(tombstone=\w+))$`)

func events(log []logmatch.Line) (all []event) {
	for _, line := range log {
		if m := eventLine.FindStringSubmatch(line.Text); m != nil {
			e := event{kind: m[1], key: m[2], why: cmp.Or(m[6], m[8], m[9], "write"), old: m[3], now: cmp.Or(m[4], m[7]), facts: m[5]}
			all = append(all, e)
		}
	}
	return all
}

// agrees holds what 05 says of each pod to what the server says: the same pods are
// alive, each in the version that 05 saw last.
func (s *scene) agrees(t *testing.T) {
	t.Helper()
	s.agreesWith(t, s.chapter.Log())
}

// agreesWith does that with the lines of 05.
func (s *scene) agreesWith(t *testing.T, log []logmatch.Line) {
	t.Helper()
	said := map[string]string{}
	for _, e := range events(log) {
		if e.kind == "Delete" {
			delete(said, e.key)
		} else {
			said[e.key] = e.now // an Add does not say
		}
	}
	pods, err := s.client.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods.Items {
		key := cache.MetaObjectToName(&pod).String()
		version, ok := said[key]
		if !ok {
			t.Errorf("%s is on the server, and not in what 05 printed", key)
		} else if version != "" && version != pod.ResourceVersion {
			t.Errorf("%s has resourceVersion %s on the server, and %s in what 05 printed", key, pod.ResourceVersion, version)
		}
		delete(said, key)
	}
	for key := range said {
		t.Errorf("%s is not on the server, and in what 05 printed", key)
	}
}
