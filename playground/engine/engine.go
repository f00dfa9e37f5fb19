// Package engine runs a shared informer of client-go, unmodified, and reports what can be seen of it from
// outside, as a stream of events. It sees through public API only: the transport (requests and frames), the
// transform (an object enters the queue), an index function (the store changes), handlers, registrations,
// the watch error handler, and a work queue.
package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// An Event is one thing that was seen. Empty fields do not apply.
type Event struct {
	Seq     int         `json:"seq"` // from 1, without gaps
	At      float64     `json:"at"`  // milliseconds since the engine started
	Stage   Stage       `json:"stage"`
	Kind    string      `json:"kind"`              // what happened, in the words of client-go: "ADDED", "Update", "resync", …
	Key     string      `json:"key,omitempty"`     // of a pod: namespace/name
	Version string      `json:"version,omitempty"` // resourceVersion
	Old     string      `json:"old,omitempty"`     // resourceVersion before
	Handler string      `json:"handler,omitempty"`
	Request int         `json:"request,omitempty"` // which request brought it, from 1
	Bytes   int         `json:"bytes,omitempty"`
	Text    string      `json:"text,omitempty"`
	Pod     *corev1.Pod `json:"pod,omitempty"`
}

// A Stage is where something was seen, in the order in which an event travels.
type Stage string

const (
	Server  Stage = "server"  // a write, as the API server in memory reports it
	Request Stage = "request" // between the reflector and the API server
	Queue   Stage = "queue"   // an object enters the informer's queue
	Store   Stage = "store"   // the store and its indexes change
	Handler Stage = "handler" // a handler is called, or returns
	Work    Stage = "work"    // the work queue and its worker
	Synced  Stage = "synced"  // the store, or a handler's registration, has the initial state
	Log     Stage = "log"     // a line that chapter 05 prints
	Failure Stage = "error"   // what the watch error handler gets
)

// Settings are what a new informer starts with.
type Settings struct {
	Resync    time.Duration // of the factory; 0 for none
	RunEvery  time.Duration // chapter 05's run; 0 for none
	WatchList bool          // as the feature gate WatchListClient
	Labels    string        // a label selector
	Namespace string        // "" for all
	Trim      bool          // a transform removes managedFields and annotations
	Handlers  []HandlerSettings
	Worker    *WorkerSettings // nil for none
}

// HandlerSettings are those of one handler.
type HandlerSettings struct {
	Name   string
	Resync *time.Duration // its own period; nil for the informer's
	Slow   time.Duration  // how long each call takes
	Mutate bool           // it changes the cached object, which no handler may
	Panic  bool           // it panics at its first call
}

// An Engine is a running informer.
type Engine struct {
	emit     func(Event)
	began    time.Time
	informer cache.TypedSharedIndexInformer[*corev1.Pod]
	ended    chan struct{}

	mu            sync.Mutex
	seq           int
	registrations map[string]cache.ResourceEventHandlerRegistration
	worker        *worker
}

// Start starts an informer for pods of config's server. It stops when ctx ends;
// Wait waits for that. emit is called with one event at a time.
func Start(ctx context.Context, config *rest.Config, settings Settings, emit func(Event)) (*Engine, error) {
	e := &Engine{emit: emit, began: time.Now(), ended: make(chan struct{}), registrations: map[string]cache.ResourceEventHandlerRegistration{}}
	config = rest.CopyConfig(config)
	config.Wrap(e.tap)
	client, err := NewClient(config)
	if err != nil {
		return nil, err
	}
	source := cache.NewFilteredListWatchFromClient(client, "pods", settings.Namespace, func(o *metav1.ListOptions) { o.LabelSelector = settings.Labels })
	informer := cache.NewSharedIndexInformerWithOptions(listerWatcher{source, !settings.WatchList}, &corev1.Pod{}, cache.SharedIndexInformerOptions{
		ResyncPeriod: settings.Resync,
		Indexers:     cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc, "seen": e.indexed},
	})
	e.informer = cache.NewTypedSharedIndexInformer[*corev1.Pod](informer)
	err = errors.Join(
		e.informer.SetTransform(func(object any) (any, error) { return e.transform(object, settings.Trim) }),
		e.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			e.see(Event{Stage: Failure, Kind: "error", Text: err.Error()})
			e.log("watch pods: " + err.Error())
		}),
	)
	if err != nil {
		return nil, err
	}
	// Handler 1 is the one that prints: its lines are those of chapter 05.
	for i, h := range settings.Handlers {
		if err := e.addHandler(ctx, h, i == 0); err != nil {
			return nil, err
		}
	}
	if settings.Worker != nil {
		e.worker = e.newWorker(ctx, *settings.Worker)
		if err := e.addHandler(ctx, HandlerSettings{Name: "queue"}, false); err != nil {
			return nil, err
		}
	}
	go func() {
		defer close(e.ended)
		e.informer.RunWithContext(ctx)
		e.see(Event{Stage: Synced, Kind: "stopped"})
	}()
	go e.follow(ctx, settings)
	return e, nil
}

// RunAgain runs the same informer a second time. It does nothing: client-go logs that this is not allowed.
func (e *Engine) RunAgain(ctx context.Context) { e.informer.RunWithContext(ctx) }

// Wait returns when the informer has stopped.
func (e *Engine) Wait() { <-e.ended }

// NewClient is a REST client for pods alone: the clientset would be 30 MB of WebAssembly.
func NewClient(config *rest.Config) (*rest.RESTClient, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	config = rest.CopyConfig(config)
	config.APIPath = "/api"
	config.ContentConfig = rest.ContentConfig{
		GroupVersion: &corev1.SchemeGroupVersion, NegotiatedSerializer: serializer.NewCodecFactory(scheme).WithoutConversion(),
		ContentType: runtime.ContentTypeJSON, // so that frames can be read
	}
	return rest.RESTClientFor(config)
}

// listerWatcher says whether the reflector may open a WatchList (client-go v0.37.2, util/watchlist).
type listerWatcher struct {
	*cache.ListWatch
	lists bool
}

func (lw listerWatcher) IsWatchListSemanticsUnSupported() bool { return lw.lists }

// follow prints what chapter 05 prints when store and handler are synced, and then run.
func (e *Engine) follow(ctx context.Context, settings Settings) {
	if !cache.WaitFor(ctx, "", e.informer.HasSyncedChecker()) {
		return
	}
	e.see(Event{Stage: Synced, Kind: "store"})
	e.log("store is synced")
	e.mu.Lock()
	var first cache.ResourceEventHandlerRegistration
	if len(settings.Handlers) > 0 {
		first = e.registrations[settings.Handlers[0].Name]
	}
	e.mu.Unlock()
	if first == nil || !cache.WaitFor(ctx, "", first.HasSyncedChecker()) {
		return
	}
	e.log("handler is synced")
	e.log("cache is synced")
	if settings.RunEvery > 0 {
		wait.UntilWithContext(ctx, func(context.Context) { e.log("run") }, settings.RunEvery)
	}
}

// AddHandler registers a handler with the running informer.
func (e *Engine) AddHandler(ctx context.Context, settings HandlerSettings) error {
	return e.addHandler(ctx, settings, false)
}

func (e *Engine) addHandler(ctx context.Context, settings HandlerSettings, prints bool) error {
	name := settings.Name
	call := func(kind string, old, pod *corev1.Pod, key, text string) {
		event := Event{Stage: Handler, Kind: kind, Handler: name, Key: key, Text: text}
		if pod != nil {
			event.Version = pod.ResourceVersion
		}
		if old != nil {
			event.Old = old.ResourceVersion
		}
		e.see(event)
		if settings.Panic {
			panic("handler " + name + " panics")
		}
		if settings.Slow > 0 {
			time.Sleep(settings.Slow)
			e.see(Event{Stage: Handler, Kind: "returns", Handler: name, Key: key})
		}
		if e.worker != nil && name == "queue" {
			e.worker.add(key)
		}
	}
	handler := cache.TypedResourceEventHandlerDetailedFuncs[*corev1.Pod]{
		AddFunc: func(pod *corev1.Pod, isInInitialList bool) {
			key, line := cache.MetaObjectToName(pod).String(), added(pod, isInInitialList)
			if prints {
				e.log("handleAdd is called for Pod (key: " + key + "): " + line)
			}
			if settings.Mutate {
				pod.Labels = map[string]string{"changed-by": name}
			}
			kind := "Add"
			if isInInitialList {
				kind = "Add initial"
			}
			call(kind, nil, pod, key, line)
		},
		UpdateFunc: func(old, pod *corev1.Pod) {
			key, line := cache.MetaObjectToName(pod).String(), change(old, pod)
			if prints {
				e.log("handleUpdate is called for Pod (key: " + key + "): " + line)
			}
			kind := "Update"
			if word, _, ok := strings.Cut(line, ", resourceVersion "); ok {
				kind = "Update " + word // resync or relist
			}
			call(kind, old, pod, key, line)
		},
		DeleteFunc: func(pod cache.DeletedObject[*corev1.Pod]) {
			line := fmt.Sprintf("tombstone=%t", pod.FinalStateUnknown != nil)
			if prints {
				e.log("handleDelete is called for Pod (key: " + pod.GetKey() + "): " + line)
			}
			kind := "Delete"
			if pod.FinalStateUnknown != nil {
				kind = "Delete tombstone"
			}
			call(kind, nil, pod.OptionalObj, pod.GetKey(), line)
		},
	}
	registration, err := e.informer.AddTypedEventHandler(handler, cache.HandlerOptions{ResyncPeriod: settings.Resync})
	if err != nil {
		return fmt.Errorf("add the handler %s: %w", name, err)
	}
	e.mu.Lock()
	e.registrations[name] = registration
	e.mu.Unlock()
	go func() {
		if cache.WaitFor(ctx, "", registration.HasSyncedChecker()) {
			e.see(Event{Stage: Synced, Kind: "handler", Handler: name})
		}
	}()
	return nil
}

// RemoveHandler ends the calls of a handler.
func (e *Engine) RemoveHandler(name string) error {
	e.mu.Lock()
	registration, ok := e.registrations[name]
	delete(e.registrations, name)
	e.mu.Unlock()
	if !ok {
		return fmt.Errorf("there is no handler %s", name)
	}
	return e.informer.RemoveEventHandler(registration)
}

// Store returns the pods that the store has, with their resourceVersions.
func (e *Engine) Store() map[string]string {
	pods := map[string]string{}
	for _, object := range e.informer.GetStore().List() {
		pod := object.(*corev1.Pod)
		pods[cache.MetaObjectToName(pod).String()] = pod.ResourceVersion
	}
	return pods
}

// transform sees each object on its way into the queue. It may see one twice: it must be idempotent.
func (e *Engine) transform(object any, trim bool) (any, error) {
	if pod, ok := object.(*corev1.Pod); ok {
		e.see(Event{Stage: Queue, Kind: "transform", Key: cache.MetaObjectToName(pod).String(), Version: pod.ResourceVersion})
		if trim {
			pod.ManagedFields, pod.Annotations = nil, nil
		}
	}
	return object, nil
}

// indexed is an index function: the store calls it when it changes, for the object before and after.
func (e *Engine) indexed(object any) ([]string, error) {
	if pod, ok := object.(*corev1.Pod); ok {
		e.see(Event{Stage: Store, Kind: "index", Key: cache.MetaObjectToName(pod).String(), Version: pod.ResourceVersion})
	}
	return nil, nil
}

func (e *Engine) log(line string) { e.see(Event{Stage: Log, Kind: "line", Text: line}) }

// see reports an event, with its number and time.
func (e *Engine) see(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seq++
	event.Seq = e.seq
	event.At = float64(time.Since(e.began).Microseconds()) / 1000
	e.emit(event)
}
