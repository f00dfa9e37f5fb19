//go:build js && wasm

// wasm is the engine and the API server in memory for a browser. The page's worker gives it a clock, calls
// playground(command) with a command in JSON and playgroundStore() for the keys and versions that the cache has,
// and defines seen(event), which gets each event in JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"strings"
	"sync"
	"syscall/js"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"example.com/informers/playground/apiserver"
	"example.com/informers/playground/engine"
)

// A command is what the page asks for. Times are in milliseconds.
type command struct {
	Do       string
	Name     string            // of a pod, or of a handler
	Count    int               // how many pods; 0 stands for one
	Labels   map[string]string // of a pod
	Grace    *int64            // of a delete
	Hold     bool              // a created pod gets a finalizer, and no scheduler
	Fault    apiserver.Fault
	Reset    bool     // how watches end
	Settings settings // of a new informer
	Handler  handler
}

type settings struct {
	Resync, RunEvery int
	WatchList, Trim  bool
	Labels           string
	Handlers         []handler
	Worker           *struct{ Takes, Fails int }
}

type handler struct {
	Name   string
	Resync *int
	Slow   int
	Mutate bool
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func (h handler) settings() engine.HandlerSettings {
	s := engine.HandlerSettings{Name: h.Name, Slow: ms(h.Slow), Mutate: h.Mutate}
	if h.Resync != nil {
		period := ms(*h.Resync)
		s.Resync = &period
	}
	return s
}

// A playground is a server, and at most one informer that runs.
type playground struct {
	began  time.Time
	server *apiserver.Server

	mu     sync.Mutex
	seq    int
	engine *engine.Engine
	ctx    context.Context
	stop   context.CancelFunc
}

func main() {
	p := &playground{began: time.Now()}
	p.server = apiserver.New(apiserver.Options{Lag: ms(2), Wrote: func(kind watch.EventType, pod *corev1.Pod) {
		p.see(engine.Event{
			Stage: engine.Server, Kind: string(kind), Key: pod.Namespace + "/" + pod.Name, Version: pod.ResourceVersion, Pod: pod,
		})
	}})
	// What client-go logs is an event, too: it would go to stderr.
	klog.LogToStderr(false)
	klog.SetOutput(logs{p})
	log.SetOutput(logs{p})
	go p.server.RunPods(context.Background())
	js.Global().Set("playground", js.FuncOf(func(_ js.Value, args []js.Value) any {
		var c command
		if err := json.Unmarshal([]byte(args[0].String()), &c); err != nil {
			return err.Error()
		}
		go func() { // a callback must not wait
			if err := p.do(c); err != nil {
				p.see(engine.Event{Stage: engine.Failure, Kind: c.Do, Text: err.Error()})
			}
		}()
		return nil
	}))
	js.Global().Set("playgroundStore", js.FuncOf(func(js.Value, []js.Value) any {
		p.mu.Lock()
		e := p.engine
		p.mu.Unlock()
		if e == nil {
			return "{}"
		}
		text, err := json.Marshal(e.Store())
		if err != nil {
			panic(err) // a map of strings
		}
		return string(text)
	}))
	select {}
}

type logs struct{ *playground }

func (l logs) Write(data []byte) (int, error) {
	l.see(engine.Event{Stage: engine.Failure, Kind: "client-go logs", Text: strings.TrimSpace(string(data))})
	return len(data), nil
}

// see hands an event to the page.
func (p *playground) see(event engine.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq++
	event.Seq = p.seq
	event.At = float64(time.Since(p.began).Microseconds()) / 1000
	text, err := json.Marshal(event)
	if err != nil {
		panic(err) // all fields can be written
	}
	js.Global().Call("seen", string(text))
}

func (p *playground) do(c command) error {
	ctx := context.Background()
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
		return p.read(c.Name)
	case "handler", "remove":
		p.mu.Lock()
		e, running := p.engine, p.ctx
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
func (p *playground) read(name string) error {
	p.mu.Lock()
	e := p.engine
	p.mu.Unlock()
	if e == nil {
		return fmt.Errorf("no informer was started")
	}
	key := metav1.NamespaceDefault + "/" + name
	event := engine.Event{Stage: engine.Store, Kind: "Get", Key: key, Text: "not found"}
	if version, ok := e.Store()[key]; ok {
		event.Version, event.Text = version, "found"
	}
	p.see(event)
	return nil
}

// pods is a client of the same server for the page's own writes.
func (p *playground) pods() *rest.RESTClient {
	client, err := engine.NewClient(&rest.Config{Host: "http://playground", Transport: p.server.Unhurt(), QPS: -1})
	if err != nil {
		panic(err) // the configuration is right
	}
	return client
}

func newPod(name string, c command) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: c.Labels}}
	pod.Spec.Containers = []corev1.Container{{Name: "nginx", Image: "nginx:1.22"}}
	if c.Hold {
		pod.Finalizers, pod.Spec.SchedulerName = []string{"informers.example.com/hold"}, "none"
	}
	return pod
}

// start stops the informer that runs, if any, and starts another one.
func (p *playground) start(s settings) error {
	p.mu.Lock()
	if p.stop != nil {
		p.stop()
	}
	ctx, stop := context.WithCancel(context.Background())
	p.ctx, p.stop = ctx, stop
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
	e, err := engine.Start(ctx, config, set, p.see)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.engine = e
	p.mu.Unlock()
	return nil
}
