package main

import (
	"context"
	"io"
	"math"
	"net/http"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"example.com/informers/internal/clusters"
)

// A scaleCost is the cost of one pass over all pods, in the program that has the informer.
type scaleCost struct {
	What     string  `json:"what"`
	Pods     int     `json:"pods"`
	Calls    int     `json:"handler_calls"`
	Requests int     `json:"requests"`
	MB       float64 `json:"MB_to_decode"`
	CPU      float64 `json:"CPU_ms"`
	Ratio    float64 `json:"CPU_of_a_resync"`
}

// A scaleStore is what a synced store adds to the heap.
type scaleStore struct {
	What  string  `json:"store_of"`
	MB    float64 `json:"heap_MB"`
	Ratio float64 `json:"of_whole_pods"`
}

// A scaleInformer has a handler that counts its calls.
type scaleInformer struct {
	calls  atomic.Int64
	rounds chan struct{} // gets a value after the handler was called for each pod
	stop   func()
}

func (in *scaleInformer) round(ctx context.Context) error {
	select {
	case <-in.rounds:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// scale measures a resync and a relist of 10,000 pods, and the memory of stores of them.
func scale(ctx context.Context, cluster *clusters.Cluster) (any, error) {
	const pods, rounds = 10_000, 20
	writer, err := cluster.Client()
	if err != nil {
		return nil, err
	}
	if err := syncedPods(ctx, writer, "scale", pods); err != nil {
		return nil, err
	}
	config, err := cluster.Config()
	if err != nil {
		return nil, err
	}
	wire := &meter{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { wire.next = next; return wire })
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}

	// start starts an informer, and waits for the first round of its handler.
	start := func(resync time.Duration, options ...informers.SharedInformerOption) (*scaleInformer, error) {
		options = append(options, informers.WithNamespace("scale"))
		factory := informers.NewSharedInformerFactoryWithOptions(client, resync, options...)
		in := &scaleInformer{rounds: make(chan struct{}, 100)} // more than the number of rounds
		called := func() {
			if in.calls.Add(1)%pods == 0 {
				in.rounds <- struct{}{}
			}
		}
		if _, err := factory.Core().V1().Pods().TypedInformer().AddTypedEventHandler(
			corev1informers.PodHandlerFuncs{
				AddFunc:    func(*corev1.Pod) { called() },
				UpdateFunc: func(_, _ *corev1.Pod) { called() },
			}); err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancel(ctx)
		in.stop = func() { cancel(); wire.cut(false); factory.Shutdown() }
		factory.StartWithContext(ctx)
		return in, in.round(ctx)
	}
	// measure triggers rounds, waits for them, and returns the cost of one.
	measure := func(what string, resync time.Duration, begin func()) (scaleCost, error) {
		in, err := start(resync)
		if err != nil {
			return scaleCost{}, err
		}
		defer in.stop()
		in.calls.Store(0)
		wire.reset()
		from := cpu()
		for range rounds {
			begin()
			if err := in.round(ctx); err != nil {
				return scaleCost{}, err
			}
		}
		return scaleCost{
			What: what, Pods: pods, Calls: int(in.calls.Load()) / rounds,
			Requests: int(wire.requests.Load()) / rounds,
			MB:       round(float64(wire.bytes.Load()) / rounds / 1e6),
			CPU:      round(float64((cpu() - from).Microseconds()) / rounds / 1e3),
		}, nil
	}
	relist, err := measure("a relist", 0, func() { wire.cut(true) })
	if err != nil {
		return nil, err
	}
	// The period is longer than a round takes, so that rounds do not overlap.
	again, err := measure("a resync", 2*time.Second, func() {})
	if err != nil {
		return nil, err
	}
	var costs []scaleCost
	for _, c := range []scaleCost{again, relist} {
		c.Ratio = round(c.CPU / again.CPU)
		costs = append(costs, c)
	}

	var stores []scaleStore
	weigh := func(what string, start func() (stop func(), err error)) error {
		before := heap()
		stop, err := start()
		if err != nil {
			return err
		}
		s := scaleStore{What: what, MB: round((heap() - before) / 1e6), Ratio: 1}
		stop()
		if len(stores) > 0 {
			s.Ratio = round(s.MB / stores[0].MB)
		}
		stores = append(stores, s)
		return nil
	}
	whole := func(options ...informers.SharedInformerOption) (stop func(), err error) {
		in, err := start(0, options...)
		if err != nil {
			return nil, err
		}
		return in.stop, nil
	}
	if err := weigh("whole pods", func() (func(), error) { return whole() }); err != nil {
		return nil, err
	}
	if err := weigh("pods without managedFields, by a transform", func() (func(), error) {
		return whole(informers.WithTransform(withoutManagedFields))
	}); err != nil {
		return nil, err
	}
	if err := weigh("only the metadata, by a metadata informer", func() (func(), error) {
		client, err := metadata.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancel(ctx)
		factory := metadatainformer.NewFilteredSharedInformerFactory(client, 0, "scale", nil)
		informer := factory.ForResource(corev1.SchemeGroupVersion.WithResource("pods")).Informer()
		factory.Start(ctx.Done()) //nolint:forbidigo // this factory has no StartWithContext
		if !cache.WaitFor(ctx, "", informer.HasSyncedChecker()) {
			cancel()
			return nil, context.Cause(ctx)
		}
		return func() { cancel(); wire.cut(false); factory.Shutdown() }, nil
	}); err != nil {
		return nil, err
	}
	return struct {
		Costs  []scaleCost  `json:"costs"`
		Stores []scaleStore `json:"stores"`
	}{costs, stores}, nil
}

func withoutManagedFields(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if ok {
		pod.ManagedFields = nil
	}
	return object, nil
}

func round(x float64) float64 { return math.Round(x*100) / 100 }

// cpu returns the processor time that the program has used.
func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// heap returns the number of bytes in use.
func heap() float64 {
	runtime.GC()
	runtime.GC() // a second time, for memory that finalizers freed
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

// A meter is a wiretap that counts.
type meter struct {
	wiretap
	requests, bytes atomic.Int64
}

func (m *meter) reset() {
	m.requests.Store(0)
	m.bytes.Store(0)
}

func (m *meter) RoundTrip(request *http.Request) (*http.Response, error) {
	m.Lock()
	if m.lane == nil {
		m.lane, m.now = &lane{}, func() float64 { return 0 }
	}
	m.Unlock()
	m.requests.Add(1)
	response, err := m.wiretap.RoundTrip(request)
	if err == nil {
		response.Body = &metered{response.Body, m}
	}
	return response, err
}

type metered struct {
	io.ReadCloser
	meter *meter
}

func (b *metered) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.meter.bytes.Add(int64(n))
	return n, err
}
