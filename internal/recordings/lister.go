package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
)

// A listerQuery is one way to find the pods of a node.
type listerQuery struct {
	Query string  `json:"query"`
	Found int     `json:"pods_found"`
	Time  float64 `json:"µs"`
	KB    float64 `json:"kB_allocated"`
	Ratio float64 `json:"time_of_the_index"`
}

// lister finds the pods of one of 100 nodes, among 10,000 pods: with chapter 06's index, with a
// selector in the lister, and with requests. The API server answers the requests from memory.
func (r *recorder) lister(ctx context.Context) (any, error) {
	const pods, nodes, asked = 10_000, 100, "node-7"
	// kwok runs the pods of these nodes, so each pod gets an address and conditions.
	for i := range nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprint("node-", i+1), Labels: map[string]string{"type": "kwok"},
		}}
		if _, err := r.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	if err := r.create(ctx, "lister", pods, func(i int) *corev1.Pod {
		node := fmt.Sprint("node-", i%nodes+1)
		pod := gated(i)
		pod.Labels = map[string]string{"node": node} // a selector in a lister can only use labels
		pod.Spec.SchedulingGates, pod.Spec.NodeName = nil, node
		return pod
	}); err != nil {
		return nil, err
	}

	ctx, cancel := context.WithCancel(ctx)
	factory := informers.NewSharedInformerFactoryWithOptions(r.client, 0, informers.WithNamespace("lister"))
	defer factory.Shutdown()
	defer cancel()
	informer, inStore := factory.Core().V1().Pods().TypedInformer(), factory.Core().V1().Pods().Lister()
	if err := informer.AddTypedIndexers(corev1informers.PodIndexers{
		"node": func(pod *corev1.Pod) ([]string, error) { return []string{pod.Spec.NodeName}, nil },
	}); err != nil {
		return nil, err
	}
	running := make(chan struct{}, 2*pods)
	if _, err := informer.AddTypedEventHandler(corev1informers.PodFilteringHandler{
		FilterFunc: func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodRunning },
		Handler:    corev1informers.PodHandlerFuncs{AddFunc: func(*corev1.Pod) { running <- struct{}{} }},
	}); err != nil {
		return nil, err
	}
	factory.StartWithContext(ctx)
	for range pods {
		if _, err := take(ctx, running); err != nil {
			return nil, err
		}
	}

	byLabel := labels.SelectorFromSet(labels.Set{"node": asked})
	list := func(opts metav1.ListOptions) (int, error) {
		list, err := r.client.CoreV1().Pods("lister").List(ctx, opts)
		if err != nil {
			return 0, err
		}
		return len(list.Items), nil
	}
	var queries []listerQuery
	var raw []string
	for _, q := range []struct {
		query string
		ask   func() (int, error)
	}{
		{"index", func() (int, error) {
			found, err := informer.GetTypedIndexer().ByTypedIndex("node", asked)
			return len(found), err
		}},
		{"`Lister.List` with a label selector", func() (int, error) {
			found, err := inStore.Pods("lister").List(byLabel)
			return len(found), err
		}},
		{"request with a field selector, `spec.nodeName`", func() (int, error) {
			byNode := fields.OneTermEqualSelector("spec.nodeName", asked)
			return list(metav1.ListOptions{FieldSelector: byNode.String()})
		}},
		{"request with a label selector", func() (int, error) {
			return list(metav1.ListOptions{LabelSelector: byLabel.String()})
		}},
	} {
		var found int
		var failed error
		result := testing.Benchmark(func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n, err := q.ask()
				found, failed = n, errors.Join(failed, err)
			}
		})
		if failed != nil {
			return nil, fmt.Errorf("%s: %w", q.query, failed)
		}
		if found != pods/nodes {
			return nil, fmt.Errorf("%s: %d pods, want %d", q.query, found, pods/nodes)
		}
		raw = append(raw, q.query+": "+result.String()+result.MemString())
		queries = append(queries, listerQuery{
			Query: q.query, Found: found, Time: round(float64(result.NsPerOp())/1e3, 100),
			KB: round(float64(result.AllocedBytesPerOp())/1e3, 100),
		})
	}
	for i := range queries {
		queries[i].Ratio = round(queries[i].Time/queries[0].Time, 100)
	}
	return struct {
		Queries []listerQuery `json:"queries"`
		Raw     []string      `json:"raw"`
	}{queries, raw}, nil
}
