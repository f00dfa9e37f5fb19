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

// Publish keeps a dashboard up to date until ctx is canceled: it shows each pod that is
// new or was written to. That takes a while for each pod.
func Publish(
	ctx context.Context, factory informers.SharedInformerFactory, show func(*corev1.Pod),
) error {
	pods, lister := factory.Core().V1().Pods(), factory.Core().V1().Pods().Lister()
	// A handler has to return quickly: the next event waits until it does. The queue holds a
	// key only once, and when its turn comes the loop shows the pod that the store has then.
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
