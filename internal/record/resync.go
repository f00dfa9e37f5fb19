package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"example.com/informers/internal/clusters"
)

// resync records four minutes of an informer with handlers of different periods, one watch
// that ends, and one that expires.
func resync(ctx context.Context, cluster *clusters.Cluster) (_ any, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	writer, err := cluster.Client()
	if err != nil {
		return nil, err
	}
	if err := syncedPods(ctx, writer, "resync", 1); err != nil {
		return nil, err
	}
	config, err := cluster.Config()
	if err != nil {
		return nil, err
	}
	requests := &lane{Name: "requests"}
	line := timeline{Name: "resync", Title: "Four minutes of an informer with one pod", Unit: "s", End: 240}
	begin := time.Now()
	now := func() float64 { return math.Round(time.Since(begin).Seconds()*10) / 10 }
	wire := &wiretap{lane: requests, now: now}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { wire.next = next; return wire })
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 30*time.Second, informers.WithNamespace("resync"))
	pods := factory.Core().V1().Pods().TypedInformer()
	handle := func(name string, period time.Duration) (cache.ResourceEventHandlerRegistration, error) {
		handler := &lane{Name: name}
		line.Lanes = append(line.Lanes, handler)
		called := func(kind string) {
			wire.Lock()
			defer wire.Unlock()
			handler.Events = append(handler.Events, event{At: now(), Kind: kind})
		}
		return pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
			AddFunc: func(*corev1.Pod) { called("Add") },
			UpdateFunc: func(old, pod *corev1.Pod) {
				switch {
				case old == pod:
					called("Update: resync")
				case old.ResourceVersion == pod.ResourceVersion:
					called("Update: relist")
				default:
					called("Update: write")
				}
			},
		}, cache.HandlerOptions{ResyncPeriod: &period})
	}
	if _, err := handle("handler, 30 s", 30*time.Second); err != nil {
		return nil, err
	}
	if _, err := handle("handler, 45 s", 45*time.Second); err != nil {
		return nil, err
	}
	factory.StartWithContext(ctx)
	for _, step := range []struct {
		at time.Duration
		do func() error
	}{
		{70 * time.Second, func() error { _, err := handle("handler, 10 s, added late", 10*time.Second); return err }},
		{100 * time.Second, func() error {
			_, err := writer.CoreV1().Pods("resync").Patch(ctx, "pod-0", types.MergePatchType,
				[]byte(`{"metadata":{"labels":{"changed":"yes"}}}`), metav1.PatchOptions{})
			return err
		}},
		{130 * time.Second, func() error { wire.cut(false); return nil }},
		{165 * time.Second, func() error { wire.cut(true); return nil }},
		{240 * time.Second, func() error { return nil }},
	} {
		if err := until(ctx, begin.Add(step.at)); err != nil {
			return nil, err
		}
		if err := step.do(); err != nil {
			return nil, err
		}
	}
	wire.cut(false)
	cancel()
	factory.Shutdown()

	line.Lanes = append(line.Lanes, requests)
	var said []string
	for _, l := range line.Lanes {
		var events []string
		for _, e := range l.Events {
			if e.Until > 0 {
				events = append(events, fmt.Sprintf("%s from %g to %g s", e.Kind, e.At, e.Until))
			} else {
				events = append(events, fmt.Sprintf("%s at %g s", e.Kind, e.At))
			}
		}
		said = append(said, l.Name+": "+strings.Join(events, ", "))
	}
	line.Alt = strings.Join(said, ". ") + "."
	return struct {
		Timelines []timeline `json:"timelines"`
	}{[]timeline{line}}, nil
}

func until(ctx context.Context, at time.Time) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(time.Until(at)):
		return nil
	}
}

// A wiretap is a transport that records requests, ends watches, and can refuse to resume one.
type wiretap struct {
	sync.Mutex
	next    http.RoundTripper
	lane    *lane
	now     func() float64
	open    []*ending
	expired bool
}

// cut ends the watch, as a server does after some time. If the watch is to be expired, the
// request that resumes it is answered with 410.
func (w *wiretap) cut(expired bool) {
	w.Lock()
	defer w.Unlock()
	w.expired = expired
	for _, body := range w.open {
		body.cut.Store(true)
		_ = body.Close()
	}
	w.open = nil
	for i := range w.lane.Events {
		if e := &w.lane.Events[i]; e.Until == 0 && strings.HasPrefix(e.Kind, "WATCH") && e.Kind != gone {
			e.Until = w.now()
		}
	}
}

const gone = "WATCH, answered with 410"

func (w *wiretap) RoundTrip(request *http.Request) (*http.Response, error) {
	query := request.URL.Query()
	kind := "LIST"
	switch {
	case query.Get("watch") != "true":
	case query.Get("sendInitialEvents") == "true":
		kind = "WATCH with the initial state"
	default:
		kind = "WATCH that resumes"
	}
	w.Lock()
	defer w.Unlock()
	if w.expired && kind == "WATCH that resumes" {
		w.expired = false
		w.lane.Events = append(w.lane.Events, event{At: w.now(), Kind: gone})
		return &http.Response{
			StatusCode: http.StatusGone, Request: request, ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(strings.NewReader(`{"kind":"Status","apiVersion":"v1","status":"Failure",` +
				`"reason":"Expired","code":410,"message":"too old resource version"}`)),
		}, nil
	}
	response, err := w.next.RoundTrip(request)
	w.lane.Events = append(w.lane.Events, event{At: w.now(), Kind: kind})
	if err == nil && kind != "LIST" {
		body := &ending{ReadCloser: response.Body}
		w.open = append(w.open, body)
		response.Body = body
	}
	return response, err
}

// An ending is a stream that ends as if the server had ended it.
type ending struct {
	io.ReadCloser
	cut atomic.Bool
}

func (e *ending) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	if err != nil && e.cut.Load() {
		err = io.EOF
	}
	return n, err
}
