// Exercise 08: after 07-workqueue. Run go test ./08 until it passes; hint.md has a hint.

package exercise

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
)

// Publish keeps a dashboard up to date until ctx is canceled: it shows each pod that is
// new or was written to. That takes a while for each pod.
func Publish(
	ctx context.Context, factory informers.SharedInformerFactory, show func(*corev1.Pod),
) error {
	pods := factory.Core().V1().Pods()
	_, err := pods.TypedInformer().AddTypedEventHandler(corev1informers.PodHandlerFuncs{
		AddFunc:    show,
		UpdateFunc: func(_, pod *corev1.Pod) { show(pod) },
	})
	if err != nil {
		return fmt.Errorf("add handlers: %w", err)
	}

	factory.StartWithContext(ctx)
	<-ctx.Done()
	return nil
}
