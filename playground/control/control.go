// Package control is what the page's buttons do: an API server in memory or a cluster, at most one informer that
// runs, and commands for both. It knows no page and no JavaScript.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"example.com/informers/playground/apiserver"
	"example.com/informers/playground/engine"
	"example.com/informers/playground/faults"
)

// A Command is what the page asks for. Times are in milliseconds.
type Command struct {
	Do       string
	Name     string            `json:",omitzero"` // of a pod, or of a handler
	Count    int               `json:",omitzero"` // how many pods; 0 stands for one
	Labels   map[string]string `json:",omitzero"` // of a pod
	Grace    *int64            `json:",omitzero"` // of a delete
	Hold     bool              `json:",omitzero"` // a created pod gets a finalizer, and no scheduler
	Fault    faults.Fault      `json:",omitzero"`
	Reset    bool              `json:",omitzero"` // how watches end
	Settings Settings          `json:",omitzero"` // of a new informer
	Handler  Handler           `json:",omitzero"`
}

// Settings are those of engine.Settings, with times in milliseconds.
type Settings struct {
	Resync    int                         `json:",omitzero"`
	RunEvery  int                         `json:",omitzero"`
	WatchList bool                        `json:",omitzero"`
	Trim      bool                        `json:",omitzero"`
	Labels    string                      `json:",omitzero"`
	Handlers  []Handler                   `json:",omitzero"`
	Worker    *struct{ Takes, Fails int } `json:",omitzero"`
}

// Handler is engine.HandlerSettings, with times in milliseconds.
type Handler struct {
	Name   string
	Resync *int `json:",omitzero"`
	Slow   int  `json:",omitzero"`
	Mutate bool `json:",omitzero"`
	Panic  bool `json:",omitzero"`
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func (h Handler) settings() engine.HandlerSettings {
	s := engine.HandlerSettings{Name: h.Name, Slow: ms(h.Slow), Mutate: h.Mutate, Panic: h.Panic}
	if h.Resync != nil {
		period := ms(*h.Resync)
		s.Resync = &period
	}
	return s
}

// A Server is where the informer and the commands find pods.
type Server struct {
	Config    *rest.Config
	Namespace string // of the pods that commands create
	Watched   string // the informer's namespace, "" for all
	ReadOnly  bool   // commands do not write
}

// A Playground is a server, and at most one informer that runs.
type Playground struct {
	Server
	ctx   context.Context
	began time.Time
	emit  func(engine.Event)
	line  faults.Line // of the informer

	memory bool // the server is in memory

	mu      sync.Mutex
	seq     int
	engine  *engine.Engine
	running context.Context // of the informer
	stop    context.CancelFunc
}

// New returns a playground without an informer. It ends with ctx. emit gets what happens, one event at a time.
func New(ctx context.Context, server Server, emit func(engine.Event)) *Playground {
	return &Playground{Server: server, ctx: ctx, began: time.Now(), emit: emit}
}

// InMemory returns a playground with a new API server, which has no pods.
func InMemory(ctx context.Context, emit func(engine.Event)) *Playground {
	p := New(ctx, Server{Namespace: metav1.NamespaceDefault}, emit)
	server := apiserver.New(apiserver.Options{Lag: ms(2), Wrote: func(kind watch.EventType, pod *corev1.Pod) {
		p.See(engine.Event{
			Stage: engine.Server, Kind: string(kind), Key: pod.Namespace + "/" + pod.Name, Version: pod.ResourceVersion, Pod: pod,
		})
	}})
	p.Config, p.memory = &rest.Config{Host: "http://playground", Transport: server, QPS: -1}, true
	go server.RunPods(ctx)
	return p
}

// See reports an event, with its number and the time.
func (p *Playground) See(event engine.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq++
	event.Seq = p.seq
	event.At = float64(time.Since(p.began).Microseconds()) / 1000
	p.emit(event)
}

// Store returns the keys and resourceVersions that the informer's store has.
func (p *Playground) Store() map[string]string {
	p.mu.Lock()
	e := p.engine
	p.mu.Unlock()
	if e == nil {
		return map[string]string{}
	}
	return e.Store()
}

// Wait returns when the last informer has stopped.
func (p *Playground) Wait() {
	p.mu.Lock()
	e := p.engine
	p.mu.Unlock()
	if e != nil {
		e.Wait()
	}
}

// Do carries a command out. An error is reported as an event, too.
func (p *Playground) Do(c Command) error {
	err := p.do(c)
	if err != nil {
		p.See(engine.Event{Stage: engine.Failure, Kind: c.Do, Text: err.Error()})
	}
	return err
}

func (p *Playground) do(c Command) error {
	ctx := p.ctx
	pods, err := engine.NewClient(p.Config) // the page's own writes meet no fault
	if err != nil {
		return err
	}
	if p.ReadOnly && slices.Contains([]string{"create", "label", "release", "delete", "own"}, c.Do) {
		return errors.New("this page only reads: start the program with --allow-writes")
	}
	switch c.Do {
	case "start":
		return p.start(c.Settings)
	case "stop":
		p.mu.Lock()
		stop := p.stop
		p.mu.Unlock()
		if stop == nil {
			return fmt.Errorf("no informer runs")
		}
		stop()
	case "create":
		for i := range max(c.Count, 1) {
			name := c.Name
			if c.Count > 1 {
				name = fmt.Sprintf("%s-%d", c.Name, i)
			}
			if err := pods.Post().Namespace(p.Namespace).Resource("pods").Body(newPod(name, c)).Do(ctx).Error(); err != nil {
				return err
			}
		}
	case "label":
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": c.Labels}})
		if err != nil {
			return err
		}
		return pods.Patch(types.MergePatchType).Namespace(p.Namespace).Resource("pods").Name(c.Name).Body(patch).Do(ctx).Error()
	case "release":
		return p.release(ctx, pods, c.Name)
	case "delete":
		return pods.Delete().Namespace(p.Namespace).Resource("pods").Name(c.Name).
			Body(&metav1.DeleteOptions{GracePeriodSeconds: c.Grace}).Do(ctx).Error()
	case "break":
		p.line.Break(c.Fault)
	case "end":
		p.line.EndWatches(c.Reset)
	case "expire":
		p.line.Expire()
	case "own": // a write, and a read of the cache at once, as in chapter 06
		if err := pods.Post().Namespace(p.Namespace).Resource("pods").Body(newPod(c.Name, c)).Do(ctx).Error(); err != nil {
			return err
		}
		p.read(c.Name)
	case "handler", "remove", "again":
		p.mu.Lock()
		e, running := p.engine, p.running
		p.mu.Unlock()
		switch {
		case e == nil:
			return fmt.Errorf("no informer was started")
		case c.Do == "remove":
			return e.RemoveHandler(c.Name)
		case c.Do == "again":
			e.RunAgain(p.ctx)
			return nil
		case c.Handler.Panic && !p.memory:
			return errors.New("not on a cluster: a panic would end the program before it has removed its namespace")
		}
		return e.AddHandler(running, c.Handler.settings())
	default:
		return fmt.Errorf("%q is not a command", c.Do)
	}
	return nil
}

// release removes a pod's finalizers.
func (p *Playground) release(ctx context.Context, client *rest.RESTClient, name string) error {
	return client.Patch(types.MergePatchType).Namespace(p.Namespace).Resource("pods").Name(name).
		Body([]byte(`{"metadata":{"finalizers":null}}`)).Do(ctx).Error()
}

// read reports what the cache says about a pod.
func (p *Playground) read(name string) {
	key := p.Namespace + "/" + name
	event := engine.Event{Stage: engine.Store, Kind: "Get", Key: key, Text: "not found"}
	if version, ok := p.Store()[key]; ok {
		event.Version, event.Text = version, "found"
	}
	p.See(event)
}

func newPod(name string, c Command) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: c.Labels}}
	pod.Spec.Containers = []corev1.Container{{Name: "nginx", Image: "nginx:1.22"}}
	if c.Hold {
		pod.Finalizers, pod.Spec.SchedulerName = []string{"informers.example.com/hold"}, "none"
	}
	return pod
}

// start stops the informer that runs, if any, and starts another one.
func (p *Playground) start(s Settings) error {
	p.mu.Lock()
	if p.stop != nil {
		p.stop()
	}
	ctx, stop := context.WithCancel(p.ctx)
	p.running, p.stop = ctx, stop
	p.mu.Unlock()
	set := engine.Settings{
		Resync: ms(s.Resync), RunEvery: ms(s.RunEvery), WatchList: s.WatchList, Labels: s.Labels, Trim: s.Trim,
		Namespace: p.Watched,
	}
	for _, h := range s.Handlers {
		set.Handlers = append(set.Handlers, h.settings())
	}
	if s.Worker != nil {
		set.Worker = &engine.WorkerSettings{Takes: ms(s.Worker.Takes), Fails: s.Worker.Fails}
	}
	config := rest.CopyConfig(p.Config)
	config.Wrap(p.line.Wrap)
	e, err := engine.Start(ctx, config, set, p.See)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.engine = e
	p.mu.Unlock()
	return nil
}
