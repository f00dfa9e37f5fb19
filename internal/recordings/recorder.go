package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"example.com/informers/internal/podlife"
	"example.com/informers/internal/provider"
)

// A recorder has a cluster that nothing else uses, and a client of it.
type recorder struct {
	cluster *provider.Cluster
	config  *rest.Config
	client  kubernetes.Interface
}

func newRecorder(cluster *provider.Cluster) (*recorder, error) {
	config, err := cluster.Config()
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	return &recorder{cluster, config, client}, err
}

// tapped returns a configuration whose requests a wiretap notes, from now on.
func (r *recorder) tapped() (*rest.Config, *wiretap) {
	tap := &wiretap{begin: time.Now()}
	config := rest.CopyConfig(r.config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { tap.next = next; return tap })
	return config, tap
}

// create creates a namespace with numbered pods.
func (r *recorder) create(ctx context.Context, ns string, pods int, pod func(i int) *corev1.Pod) error {
	if err := podlife.Prepare(ctx, r.client, ns); err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(20)
	for i := range pods {
		g.Go(func() error {
			_, err := r.client.CoreV1().Pods(ns).Create(ctx, pod(i), metav1.CreateOptions{})
			return err
		})
	}
	return g.Wait()
}

// gated returns a pod that never changes, because of a scheduling gate.
func gated(i int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("pod-", i)},
		Spec: corev1.PodSpec{
			SchedulingGates: []corev1.PodSchedulingGate{{Name: "informers.example.com/stay-pending"}},
			Containers:      []corev1.Container{{Name: "nginx", Image: "nginx:1.22"}},
		},
	}
}

// take waits for a value.
func take[T any](ctx context.Context, from <-chan T) (value T, err error) {
	select {
	case value = <-from:
		return value, nil
	case <-ctx.Done():
		return value, context.Cause(ctx)
	}
}

// until waits for a moment.
func until(ctx context.Context, at time.Time) error {
	_, err := take(ctx, time.After(time.Until(at)))
	return err
}

// round rounds to parts of a unit, such as tenths.
func round(x float64, parts float64) float64 { return math.Round(x*parts) / parts }

// A timeline is drawn as a picture: events in lanes over time.
type timeline struct {
	Name  string  `json:"name"`
	Title string  `json:"title"`
	Alt   string  `json:"alt"` // the content of the picture in words
	Unit  string  `json:"unit"`
	End   float64 `json:"end"`
	Lanes []*lane `json:"lanes"`
}

type lane struct {
	Name   string  `json:"name"`
	Events []event `json:"events"`
}

// An event is a point or, with Until, a bar. Its kind determines the color and the shape.
type event struct {
	At    float64 `json:"at"`
	Until float64 `json:"until"`
	Kind  string  `json:"kind"`
	Label string  `json:"label"` // always empty
}

// Dots are a picture of values on a logarithmic axis, in lanes.
type dots struct {
	Name  string    `json:"name"`
	Title string    `json:"title"`
	Alt   string    `json:"alt"` // the content of the picture in words
	Unit  string    `json:"unit"`
	Lanes []dotLane `json:"lanes"`
}

type dotLane struct {
	Name string `json:"name"`
	Dots []dot  `json:"dots"`
}

// A dot is a value. Its kind determines the color and the shape.
type dot struct {
	At   float64 `json:"at"`
	Kind string  `json:"kind"`
}

// add adds dots to a lane, which it makes if there is none of that name.
func (d *dots) add(lane string, more ...dot) {
	lane = strings.ReplaceAll(lane, "`", "")
	i := slices.IndexFunc(d.Lanes, func(l dotLane) bool { return l.Name == lane })
	if i < 0 {
		i = len(d.Lanes)
		d.Lanes = append(d.Lanes, dotLane{Name: lane})
	}
	d.Lanes[i].Dots = append(d.Lanes[i].Dots, more...)
}

// words says what the picture shows.
func (d *dots) words() string {
	var lanes []string
	for _, l := range d.Lanes {
		var values []string
		for _, dot := range l.Dots {
			values = append(values, fmt.Sprintf("%v %s (%s)", dot.At, d.Unit, dot.Kind))
		}
		lanes = append(lanes, l.Name+": "+strings.Join(values, ", "))
	}
	return strings.Join(lanes, "; ") + "."
}
