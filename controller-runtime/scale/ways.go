package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
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
			result := testing.Benchmark(func(b *testing.B) {
				for b.Loop() {
					_, _ = question.ask()
				}
			})
			fmt.Printf("%-18s%8d\n", question.name+", found", len(found))
			fmt.Printf("%-18s%8d ns\n", question.name, result.NsPerOp())
		}
		return len(store.ListKeys()), nil
	}, nil
}

// fromCache has objects in a cache of controller-runtime. A manager starts an informer when a
// controller or a client first needs it; GetInformer does that here, and waits for its store.
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
		return func() (int, error) {
			return len(informer.(toolscache.SharedIndexInformer).GetStore().ListKeys()), nil
		}, nil
	}
}
