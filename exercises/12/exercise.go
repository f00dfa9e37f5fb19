// Exercise 12: after 10-faults. Run go test ./12 until it passes; hint.md has a hint.

package exercise

import (
	"context"
	"fmt"
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
)

// Outcomes says of each pod that is gone how it ended: succeeded, failed, or killed, which
// is to say deleted while it ran. If that cannot be known, it says unknown.
type Outcomes struct {
	mu    sync.Mutex
	ended map[string]string
}

// NewOutcomes returns outcomes whose informer has started.
func NewOutcomes(ctx context.Context, client kubernetes.Interface) (*Outcomes, error) {
	o := &Outcomes{ended: map[string]string{}}
	factory := informers.NewSharedInformerFactory(client, 0)
	if _, err := factory.Core().V1().Pods().TypedInformer().AddTypedEventHandler(corev1informers.PodHandlerFuncs{
		DeleteFunc: o.gone,
	}); err != nil {
		return nil, fmt.Errorf("add handlers: %w", err)
	}
	factory.StartWithContext(ctx)
	return o, nil
}

func (o *Outcomes) gone(pod corev1informers.DeletedPod) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case pod.OptionalObj == nil:
		o.ended[pod.GetName()] = "unknown"
	case pod.OptionalObj.Status.Phase == corev1.PodSucceeded:
		o.ended[pod.GetName()] = "succeeded"
	case pod.OptionalObj.Status.Phase == corev1.PodFailed:
		o.ended[pod.GetName()] = "failed"
	default:
		o.ended[pod.GetName()] = "killed"
	}
}

// Ended returns the outcome of each pod that is gone.
func (o *Outcomes) Ended() map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.ended)
}
