package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// resync records four minutes of an informer with handlers of different periods, one watch
// that ends, and one that expires.
func (r *recorder) resync(ctx context.Context) (any, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := r.create(ctx, "resync", 1, gated); err != nil {
		return nil, err
	}
	config, wire := r.tapped()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	line := timeline{Name: "resync", Title: "Four minutes of an informer with one pod", Unit: "s", End: 240}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 30*time.Second,
		informers.WithNamespace("resync"))
	pods := factory.Core().V1().Pods().TypedInformer()
	handle := func(name string, period time.Duration) error {
		handler := &lane{Name: name}
		line.Lanes = append(line.Lanes, handler)
		called := func(kind string) {
			handler.Events = append(handler.Events, event{At: round(wire.now(), 10), Kind: kind})
		}
		_, err := pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
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
		return err
	}
	for _, step := range []struct {
		at time.Duration
		do func() error
	}{
		{0, func() error { return handle("handler, 30 s", 30*time.Second) }},
		{0, func() error { return handle("handler, 45 s", 45*time.Second) }},
		{0, func() error { factory.StartWithContext(ctx); return nil }},
		{70 * time.Second, func() error { return handle("handler, 10 s, added late", 10*time.Second) }},
		{100 * time.Second, func() error { return r.label(ctx, "resync", "pod-0") }},
		{130 * time.Second, func() error { wire.cut(false); return nil }},
		{165 * time.Second, func() error { wire.cut(true); return nil }},
		{240 * time.Second, func() error { wire.cut(false); return nil }},
	} {
		if err := until(ctx, wire.begin.Add(step.at)); err != nil {
			return nil, err
		}
		if err := step.do(); err != nil {
			return nil, err
		}
	}
	cancel()
	factory.Shutdown() // no handler is called after this

	requests := &lane{Name: "requests"}
	line.Lanes = append(line.Lanes, requests)
	for _, request := range wire.requests {
		e := event{At: round(request.at, 10), Kind: request.kind()}
		if strings.HasPrefix(e.Kind, "WATCH ") {
			e.Until = round(request.until, 10)
		}
		requests.Events = append(requests.Events, e)
	}
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

// label changes a pod.
func (r *recorder) label(ctx context.Context, namespace, pod string) error {
	_, err := r.client.CoreV1().Pods(namespace).Patch(ctx, pod, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"changed":"yes"}}}`), metav1.PatchOptions{})
	return err
}
