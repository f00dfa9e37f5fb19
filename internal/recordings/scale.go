package main

import (
	"context"
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

const scalePods = 10_000

// A scaleInformer has a handler that counts its calls.
type scaleInformer struct {
	calls  atomic.Int64
	rounds chan struct{} // gets a value after the handler was called for each pod
	stop   func()
}

// scale measures a resync and a relist of 10,000 pods, and the memory of stores of them.
func (r *recorder) scale(ctx context.Context) (any, error) {
	if err := r.create(ctx, "scale", scalePods, gated); err != nil {
		return nil, err
	}
	config, wire := r.tapped()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	// start starts an informer, and waits for the first round of its handler.
	start := func(resync time.Duration, transform cache.TransformFunc) (*scaleInformer, error) {
		factory := informers.NewSharedInformerFactoryWithOptions(client, resync,
			informers.WithNamespace("scale"), informers.WithTransform(transform))
		in := &scaleInformer{rounds: make(chan struct{}, 100)} // more than the number of rounds
		called := func() {
			if in.calls.Add(1)%scalePods == 0 {
				in.rounds <- struct{}{}
			}
		}
		if _, err := factory.Core().V1().Pods().TypedInformer().AddTypedEventHandler(
			corev1informers.PodHandlerFuncs{
				AddFunc:    func(*corev1.Pod) { called() },
				UpdateFunc: func(_, _ *corev1.Pod) { called() },
			}); err != nil {
			return in, err
		}
		ctx, cancel := context.WithCancel(ctx)
		in.stop = func() { cancel(); wire.cut(false); factory.Shutdown() }
		factory.StartWithContext(ctx)
		_, err := take(ctx, in.rounds)
		return in, err
	}
	// measure triggers rounds, waits for them, and returns the cost of one.
	measure := func(what string, resync time.Duration, trigger func()) (scaleCost, error) {
		in, err := start(resync, nil)
		if err != nil {
			return scaleCost{}, err
		}
		defer in.stop()
		const rounds = 20
		calls, cpu := in.calls.Load(), cpuTime()
		requests, bytes := wire.received()
		for range rounds {
			trigger()
			if _, err := take(ctx, in.rounds); err != nil {
				return scaleCost{}, err
			}
		}
		requestsAfter, bytesAfter := wire.received()
		return scaleCost{
			What: what, Pods: scalePods, Calls: int(in.calls.Load()-calls) / rounds,
			Requests: (requestsAfter - requests) / rounds,
			MB:       round(float64(bytesAfter-bytes)/rounds/1e6, 100),
			CPU:      round(float64((cpuTime()-cpu).Microseconds())/rounds/1e3, 100),
		}, nil
	}
	relist, err := measure("a relist", 0, func() { wire.cut(true) })
	if err != nil {
		return nil, err
	}
	// The period is longer than a round takes, so that rounds do not overlap.
	resync, err := measure("a resync", 2*time.Second, func() {})
	if err != nil {
		return nil, err
	}
	relist.Ratio, resync.Ratio = round(relist.CPU/resync.CPU, 100), 1

	whole := func(transform cache.TransformFunc) func() (stop func(), err error) {
		return func() (func(), error) {
			in, err := start(0, transform)
			return in.stop, err
		}
	}
	var stores []scaleStore
	for _, store := range []struct {
		of    string
		start func() (stop func(), err error)
	}{
		{"whole pods", whole(nil)},
		{"pods without managedFields, by a transform", whole(withoutManagedFields)},
		{"only the metadata, by a metadata informer", func() (func(), error) {
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
		}},
	} {
		before := heap()
		stop, err := store.start()
		if err != nil {
			return nil, err
		}
		stores = append(stores, scaleStore{What: store.of, MB: round((heap()-before)/1e6, 100)})
		stop()
	}
	for i := range stores {
		stores[i].Ratio = round(stores[i].MB/stores[0].MB, 100)
	}
	return struct {
		Costs  []scaleCost  `json:"costs"`
		Stores []scaleStore `json:"stores"`
	}{[]scaleCost{resync, relist}, stores}, nil
}

func withoutManagedFields(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if ok {
		pod.ManagedFields = nil
	}
	return object, nil
}

// cpuTime returns the processor time that the program has used.
func cpuTime() time.Duration {
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
