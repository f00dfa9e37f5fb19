// Package control is what the page's buttons do: one API server in memory, at most one informer that runs,
// and commands for both. It knows no page and no JavaScript.
package control

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"example.com/informers/playground/apiserver"
	"example.com/informers/playground/engine"
)

// A Command is what the page asks for. Times are in milliseconds.
type Command struct {
	Do       string
	Name     string            // of a pod, or of a handler
	Count    int               // how many pods; 0 stands for one
	Labels   map[string]string // of a pod
	Grace    *int64            // of a delete
	Hold     bool              // a created pod gets a finalizer, and no scheduler
	Fault    apiserver.Fault
	Reset    bool     // how watches end
	Settings Settings // of a new informer
	Handler  Handler
}

// Settings are those of engine.Settings, with times in milliseconds.
type Settings struct {
	Resync, RunEvery int
	WatchList, Trim  bool
	Labels           string
	Handlers         []Handler
	Worker           *struct{ Takes, Fails int }
}

// Handler is engine.HandlerSettings, with times in milliseconds.
type Handler struct {
	Name   string
	Resync *int
	Slow   int
	Mutate bool
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func (h Handler) settings() engine.HandlerSettings {
	s := engine.HandlerSettings{Name: h.Name, Slow: ms(h.Slow), Mutate: h.Mutate}
	if h.Resync != nil {
		period := ms(*h.Resync)
		s.Resync = &period
	}
	return s
}

// A Playground is a server, and at most one informer that runs.
type Playground struct {
	ctx    context.Context
	began  time.Time
	emit   func(engine.Event)
	server *apiserver.Server

	mu      sync.Mutex
	seq     int
	engine  *engine.Engine
	running context.Context // of the informer
	stop    context.CancelFunc
}

// New returns a playground without pods and without an informer. It ends with ctx. emit gets what happens,
// one event at a time.
func New(ctx context.Context, emit func(engine.Event)) *Playground {
	p := &Playground{ctx: ctx, began: time.Now(), emit: emit}
	p.server = apiserver.New(apiserver.Options{Lag: ms(2), Wrote: func(kind watch.EventType, pod *corev1.Pod) {
		p.See(engine.Event{
			Stage: engine.Server, Kind: string(kind), Key: pod.Namespace + "/" + pod.Name, Version: pod.ResourceVersion, Pod: pod,
		})
	}})
	go p.server.RunPods(ctx)
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
	pods := p.pods()
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
			if err := pods.Post().Namespace(metav1.NamespaceDefault).Resource("pods").Body(newPod(name, c)).Do(ctx).Error(); err != nil {
				return err
			}
		}
	case "label":
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": c.Labels}})
		if err != nil {
			return err
		}
		return pods.Patch(types.MergePatchType).Namespace(metav1.NamespaceDefault).Resource("pods").Name(c.Name).Body(patch).Do(ctx).Error()
	case "release":
		return pods.Patch(types.MergePatchType).Namespace(metav1.NamespaceDefault).Resource("pods").Name(c.Name).
			Body([]byte(`{"metadata":{"finalizers":null}}`)).Do(ctx).Error()
	case "delete":
		return pods.Delete().Namespace(metav1.NamespaceDefault).Resource("pods").Name(c.Name).
			Body(&metav1.DeleteOptions{GracePeriodSeconds: c.Grace}).Do(ctx).Error()
	case "break":
		p.server.Break(c.Fault)
	case "end":
		p.server.EndWatches(c.Reset)
	case "expire":
		p.server.Expire()
	case "own": // a write, and a read of the cache at once, as in chapter 06
		if err := pods.Post().Namespace(metav1.NamespaceDefault).Resource("pods").Body(newPod(c.Name, c)).Do(ctx).Error(); err != nil {
			return err
		}
		p.read(c.Name)
	case "handler", "remove":
		p.mu.Lock()
		e, running := p.engine, p.running
		p.mu.Unlock()
		switch {
		case e == nil:
			return fmt.Errorf("no informer was started")
		case c.Do == "remove":
			return e.RemoveHandler(c.Name)
		}
		return e.AddHandler(running, c.Handler.settings())
	default:
		return fmt.Errorf("%q is not a command", c.Do)
	}
	return nil
}

// read reports what the cache says about a pod.
func (p *Playground) read(name string) {
	key := metav1.NamespaceDefault + "/" + name
	event := engine.Event{Stage: engine.Store, Kind: "Get", Key: key, Text: "not found"}
	if version, ok := p.Store()[key]; ok {
		event.Version, event.Text = version, "found"
	}
	p.See(event)
}

// pods is a client of the same server for the page's own writes.
func (p *Playground) pods() *rest.RESTClient {
	client, err := engine.NewClient(&rest.Config{Host: "http://playground", Transport: p.server.Unhurt(), QPS: -1})
	if err != nil {
		panic(err) // the configuration is right
	}
	return client
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
	}
	for _, h := range s.Handlers {
		set.Handlers = append(set.Handlers, h.settings())
	}
	if s.Worker != nil {
		set.Worker = &engine.WorkerSettings{Takes: ms(s.Worker.Takes), Fails: s.Worker.Fails}
	}
	config := &rest.Config{Host: "http://playground", Transport: p.server, QPS: -1}
	e, err := engine.Start(ctx, config, set, p.See)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.engine = e
	p.mu.Unlock()
	return nil
}
