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

// A scaleCost is what one pass over all pods costs the program with the informer.
type scaleCost struct {
	What     string  `json:"what"`
	Pods     int     `json:"pods"`
	Calls    int     `json:"handler_calls"`
	Requests int     `json:"requests"`
	MB       float64 `json:"MB_to_decode"`
	CPU      int     `json:"CPU_ms"`
	Ratio    float64 `json:"CPU_of_a_resync"`
}

// A scaleStore is what a synced store adds to the heap.
type scaleStore struct {
	What  string  `json:"store_of"`
	MB    float64 `json:"heap_MB"`
	Ratio float64 `json:"of_whole_pods"`
}

// scale measures resync and relist of 10,000 pods, and what stores of them take.
func scale(ctx context.Context, cluster *clusters.Cluster) (any, error) {
	const pods, rounds = 10_000, 5
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

	// pass measures one round of work, which is over when handlers were called for each pod.
	var calls atomic.Int64
	pass := func(what string, rounds int, begin func() error) (scaleCost, error) {
		calls.Store(0)
		wire.reset()
		from := cpu()
		for i := range rounds {
			if begin != nil {
				if err := begin(); err != nil {
					return scaleCost{}, err
				}
			}
			for calls.Load() < int64(pods*(i+1)) {
				if err := until(ctx, time.Now().Add(time.Millisecond)); err != nil {
					return scaleCost{}, err
				}
			}
		}
		n := float64(rounds)
		return scaleCost{
			What: what, Pods: pods, Calls: int(calls.Load()) / rounds,
			Requests: int(wire.requests.Load()) / rounds,
			MB:       round(float64(wire.bytes.Load()) / n / 1e6),
			CPU:      int(float64((cpu() - from).Milliseconds()) / n),
		}, nil
	}
	start := func(resync time.Duration, option ...informers.SharedInformerOption) (stop func(), err error) {
		ctx, cancel := context.WithCancel(ctx)
		option = append(option, informers.WithNamespace("scale"))
		factory := informers.NewSharedInformerFactoryWithOptions(client, resync, option...)
		handler, err := factory.Core().V1().Pods().TypedInformer().AddTypedEventHandler(
			corev1informers.PodHandlerFuncs{
				AddFunc:    func(*corev1.Pod) { calls.Add(1) },
				UpdateFunc: func(_, _ *corev1.Pod) { calls.Add(1) },
			})
		if err == nil {
			factory.StartWithContext(ctx)
			if !cache.WaitFor(ctx, "", handler.HasSyncedChecker()) {
				err = context.Cause(ctx)
			}
		}
		return func() { cancel(); wire.cut(false); factory.Shutdown() }, err
	}

	var costs []scaleCost
	stop, err := start(0)
	if err != nil {
		return nil, err
	}
	relist, err := pass("a relist", rounds, func() error { wire.cut(true); return nil })
	if err != nil {
		return nil, err
	}
	stop()
	// Longer than a pass takes, so that passes do not overlap.
	if stop, err = start(2 * time.Second); err != nil {
		return nil, err
	}
	again, err := pass("a resync", rounds, nil)
	if err != nil {
		return nil, err
	}
	stop()
	for _, c := range []scaleCost{again, relist} {
		c.Ratio = round(float64(c.CPU) / math.Max(1, float64(again.CPU)))
		costs = append(costs, c)
	}

	var stores []scaleStore
	measure := func(what string, start func() (func(), error)) error {
		before := heap()
		stop, err := start()
		if err != nil {
			return err
		}
		s := scaleStore{What: what, MB: round((heap() - before) / 1e6)}
		stop()
		if len(stores) == 0 {
			s.Ratio = 1
		} else {
			s.Ratio = round(s.MB / stores[0].MB)
		}
		stores = append(stores, s)
		return nil
	}
	if err := measure("whole pods", func() (func(), error) { return start(0) }); err != nil {
		return nil, err
	}
	if err := measure("pods without managedFields, by a transform", func() (func(), error) {
		return start(0, informers.WithTransform(withoutManagedFields))
	}); err != nil {
		return nil, err
	}
	if err := measure("only the metadata, by a metadata informer", func() (func(), error) {
		client, err := metadata.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancel(ctx)
		factory := metadatainformer.NewFilteredSharedInformerFactory(client, 0, "scale", nil)
		informer := factory.ForResource(corev1.SchemeGroupVersion.WithResource("pods")).Informer()
		factory.Start(ctx.Done()) //nolint:forbidigo // this factory has no other
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

// cpu is the processor time that the program has taken.
func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// heap is how many bytes are in use.
func heap() float64 {
	runtime.GC()
	runtime.GC() // what finalizers freed
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
