// Exercise 08: after 07-workqueue. Run go test ./08 until it passes; hint.md has a hint.

package exercise

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// Publish keeps a dashboard up to date, until ctx ends: it shows each pod there when it is
// new or was written to. To show a pod takes a while.
func Publish(
	ctx context.Context, factory informers.SharedInformerFactory, show func(*corev1.Pod),
) error {
	pods, lister := factory.Core().V1().Pods(), factory.Core().V1().Pods().Lister()
	// A handler has to be quick: what it has not taken yet waits, write by write. The queue
	// has a key once, and what is shown is what the store has when its turn comes.
	queue := workqueue.NewTyped[cache.ObjectName]()
	context.AfterFunc(ctx, queue.ShutDown)
	_, err := pods.TypedInformer().AddTypedEventHandler(corev1informers.PodHandlerFuncs{
		AddFunc:    func(pod *corev1.Pod) { queue.Add(cache.MetaObjectToName(pod)) },
		UpdateFunc: func(_, pod *corev1.Pod) { queue.Add(cache.MetaObjectToName(pod)) },
	})
	if err != nil {
		return fmt.Errorf("add handlers: %w", err)
	}

	factory.StartWithContext(ctx)
	for name, shutdown := queue.Get(); !shutdown; name, shutdown = queue.Get() {
		if pod, err := lister.Pods(name.Namespace).Get(name.Name); err == nil {
			show(pod)
		}
		queue.Done(name)
	}
	return nil
}
