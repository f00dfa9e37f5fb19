// Exercise 09: after 07-workqueue. Run go test ./09 until it passes; hint.md has a hint.

package exercise

import (
	"context"
	"fmt"
	"log"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// A queue holds the names of the pods to reconcile.
type queue = workqueue.TypedRateLimitingInterface[cache.ObjectName]

// Run reconciles each pod that is new or was written to, until ctx is canceled. It retries
// a pod that fails, after a pause that grows with each failure in a row.
func Run(
	ctx context.Context, factory informers.SharedInformerFactory,
	reconcile func(cache.ObjectName) error,
) error {
	q := workqueue.NewTypedRateLimitingQueue(
		workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
	context.AfterFunc(ctx, q.ShutDown)
	_, err := factory.Core().V1().Pods().TypedInformer().AddTypedEventHandler(
		corev1informers.PodHandlerFuncs{
			AddFunc:    func(pod *corev1.Pod) { q.Add(cache.MetaObjectToName(pod)) },
			UpdateFunc: func(_, pod *corev1.Pod) { q.Add(cache.MetaObjectToName(pod)) },
		},
	)
	if err != nil {
		return fmt.Errorf("add handlers: %w", err)
	}

	factory.StartWithContext(ctx)
	for processNextWorkItem(q, reconcile) {
	}
	return nil
}

// processNextWorkItem reconciles one pod. It returns false when the queue has shut down.
func processNextWorkItem(q queue, reconcile func(cache.ObjectName) error) bool {
	name, shutdown := q.Get()
	if shutdown {
		return false
	}
	if err := reconcile(name); err != nil {
		log.Printf("%s: %v", name, err)
		q.AddRateLimited(name)
		return true
	}
	q.Forget(name)
	q.Done(name)
	return true
}
