// Exercise 04: after 05-resync. Run go test ./04 until it passes; hint.md has a hint.

package exercise

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// A Meter holds the running pods, for a bill that names each one by its UID.
type Meter struct {
	mu      sync.Mutex
	running map[types.UID]cache.ObjectName
}

// NewMeter holds the UIDs of exactly the pods that run, as far as the informer knows.
func NewMeter(pods corev1informers.PodIndexInformer) (*Meter, error) {
	m := &Meter{running: map[types.UID]cache.ObjectName{}}
	_, err := pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
		AddFunc: m.set,
		UpdateFunc: func(_, pod *corev1.Pod) {
			m.set(pod)
		},
		DeleteFunc: func(pod corev1informers.DeletedPod) {
			m.remove(pod.GetObjectName())
		},
	})
	if err != nil {
		return nil, fmt.Errorf("add handlers: %w", err)
	}
	return m, nil
}

// Running returns the UIDs of the running pods, sorted.
func (m *Meter) Running() []types.UID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.running))
}

func (m *Meter) set(pod *corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if pod.Status.Phase == corev1.PodRunning {
		m.running[pod.UID] = cache.MetaObjectToName(pod)
	} else {
		delete(m.running, pod.UID)
	}
}

func (m *Meter) remove(name cache.ObjectName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.running, func(_ types.UID, n cache.ObjectName) bool { return n == name })
}
