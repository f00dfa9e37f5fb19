// Exercise 11: after 06-lister. Run go test ./11 until it passes; hint.md has a hint.

package exercise

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corev1listers "k8s.io/client-go/listers/core/v1"
)

// overhead is the memory that each pod takes in addition to what it requests.
var overhead = resource.MustParse("64Mi")

// Memory knows how much memory pods take.
type Memory struct {
	pods corev1listers.PodLister
}

// NewMemory returns a Memory that is ready for use. A pod is large, and only its memory is of
// interest, so a transform drops the rest of the spec.
func NewMemory(ctx context.Context, client kubernetes.Interface) (*Memory, error) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(shrink))
	m := &Memory{pods: factory.Core().V1().Pods().Lister()}
	factory.StartWithContext(ctx)
	if err := factory.WaitForCacheSyncWithContext(ctx).Err; err != nil {
		return nil, fmt.Errorf("wait for the cache: %w", err)
	}
	return m, nil
}

func shrink(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	var memory resource.Quantity
	for _, container := range pod.Spec.Containers {
		memory.Add(*container.Resources.Requests.Memory())
	}
	pod.Spec = corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceMemory: memory},
	}}}}
	return pod, nil
}

// Of returns the memory of each pod, with its overhead.
func (m *Memory) Of() (map[string]string, error) {
	pods, err := m.pods.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	memory := map[string]string{}
	for _, pod := range pods {
		// Not in the transform: that may see an object twice, and what it returned the first time
		// is what it gets the second time. A sum of one is the same sum; an addend is added twice.
		sum := overhead.DeepCopy()
		sum.Add(*pod.Spec.Containers[0].Resources.Requests.Memory())
		memory[pod.Name] = sum.String()
	}
	return memory, nil
}
