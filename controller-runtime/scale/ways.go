package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	clientgo "k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// selected is one pod in ten.
var selected = labels.SelectorFromSet(labels.Set{"app": "app-1"})

// informers has whole pods of all namespaces, and a resync: one factory for each informer, with
// some handlers. Nothing in rest.Config says how pods are encoded.
func informers(informers, handlers int) way {
	return func(ctx context.Context, config *rest.Config) (func() (int, error), error) {
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		var stores []toolscache.TypedIndexer[*corev1.Pod]
		var synced []toolscache.DoneChecker
		for range informers {
			factory := clientgo.NewSharedInformerFactory(client, 30*time.Second)
			pods := factory.Core().V1().Pods().TypedInformer()
			for range handlers {
				handler, err := pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{AddFunc: func(*corev1.Pod) {}})
				if err != nil {
					return nil, fmt.Errorf("add handler: %w", err)
				}
				synced = append(synced, handler.HasSyncedChecker())
			}
			stores = append(stores, pods.GetTypedIndexer())
			factory.StartWithContext(ctx)
		}
		if !toolscache.WaitFor(ctx, "", synced...) {
			return nil, context.Cause(ctx)
		}
		return func() (int, error) {
			n := 0
			for _, store := range stores {
				n += len(store.ListKeys())
			}
			return n, nil
		}, nil
	}
}

// asJSON requests what the typed clients requested until they preferred protobuf.
func asJSON(next way) way {
	return func(ctx context.Context, config *rest.Config) (func() (int, error), error) {
		config.AcceptContentTypes = "application/json"
		return next(ctx, config)
	}
}

// A located is what a store has to keep of a pod, to answer which pods run on which node. The store
// and the reflector need its metadata.
type located struct {
	metav1.ObjectMeta
	node string
}

// locate is a transform that replaces a pod with another type. Only for an informer without typed
// handlers or a lister: these expect pods. Each name is kept once.
func locate(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil // located already
	}
	once := func(s string) string { return unique.Make(s).Value() }
	return &located{metav1.ObjectMeta{
		Name: pod.Name, Namespace: once(pod.Namespace), UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}, once(pod.Spec.NodeName)}, nil
}

// nodes has an index of located pods.
func nodes(ctx context.Context, config *rest.Config) (func() (int, error), error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	informer := clientgo.NewSharedInformerFactory(client, 0).Core().V1().Pods().Informer()
	byNode := func(object any) ([]string, error) { return []string{object.(*located).node}, nil }
	if err := errors.Join(informer.SetTransform(locate), informer.AddIndexers(toolscache.Indexers{"node": byNode})); err != nil {
		return nil, err
	}
	go informer.RunWithContext(ctx)
	if !toolscache.WaitFor(ctx, "", informer.HasSyncedChecker()) {
		return nil, context.Cause(ctx)
	}
	return func() (int, error) {
		n := 0
		for _, node := range informer.GetIndexer().ListIndexFuncValues("node") {
			keys, err := informer.GetIndexer().IndexKeys("node", node)
			if err != nil {
				return 0, err
			}
			n += len(keys)
		}
		return n, nil
	}, nil
}

// index compares two ways to find pods in a store: an index, and a look at each pod.
func index(ctx context.Context, config *rest.Config) (func() (int, error), error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	factory := clientgo.NewSharedInformerFactory(client, 0)
	informer, lister := factory.Core().V1().Pods().TypedInformer(), factory.Core().V1().Pods().Lister()
	if err := informer.AddTypedIndexers(corev1informers.PodIndexers{
		"node": func(pod *corev1.Pod) ([]string, error) { return []string{pod.Spec.NodeName}, nil },
		"app":  func(pod *corev1.Pod) ([]string, error) { return []string{pod.Labels["app"]}, nil },
	}); err != nil {
		return nil, fmt.Errorf("add indexes: %w", err)
	}
	factory.StartWithContext(ctx)
	if !toolscache.WaitFor(ctx, "", informer.HasSyncedChecker()) {
		return nil, context.Cause(ctx)
	}
	return func() (int, error) {
		store := informer.GetTypedIndexer()
		for _, question := range []struct {
			name string
			ask  func() ([]*corev1.Pod, error)
		}{
			{"node, index", func() ([]*corev1.Pod, error) { return store.ByTypedIndex("node", "node-1") }},
			{"node, scan", func() (found []*corev1.Pod, err error) {
				all, err := lister.List(labels.Everything())
				for _, pod := range all {
					if pod.Spec.NodeName == "node-1" {
						found = append(found, pod)
					}
				}
				return found, err
			}},
			{"label, index", func() ([]*corev1.Pod, error) { return store.ByTypedIndex("app", "app-1") }},
			{"label, scan", func() ([]*corev1.Pod, error) { return lister.List(selected) }},
		} {
			found, err := question.ask()
			if err != nil {
				return 0, fmt.Errorf("%s: %w", question.name, err)
			}
			fastest := int64(math.MaxInt64)
			for range 3 {
				fastest = min(fastest, testing.Benchmark(func(b *testing.B) {
					for b.Loop() {
						_, _ = question.ask()
					}
				}).NsPerOp())
			}
			fmt.Printf("%-18s%8d\n", question.name+", found", len(found))
			fmt.Printf("%-18s%8d ns\n", question.name, fastest)
		}
		return len(store.ListKeys()), nil
	}, nil
}

// fromCache has objects in a cache of controller-runtime. A manager starts an informer when a
// controller or a client first needs it; GetInformer does that here.
func fromCache(object client.Object, options cache.Options) way {
	return func(ctx context.Context, config *rest.Config) (func() (int, error), error) {
		c, err := cache.New(config, options)
		if err != nil {
			return nil, err
		}
		ctx, fail := context.WithCancelCause(ctx)
		go func() { fail(c.Start(ctx)) }()
		informer, err := c.GetInformer(ctx, object)
		if err != nil {
			return nil, errors.Join(err, context.Cause(ctx))
		}
		if !c.WaitForCacheSync(ctx) {
			return nil, context.Cause(ctx)
		}
		return func() (int, error) {
			return len(informer.(toolscache.SharedIndexInformer).GetStore().ListKeys()), nil
		}, nil
	}
}
