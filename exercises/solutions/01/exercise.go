// Exercise 01: after 05-resync. Run go test ./01 until it passes; hint.md has a hint.

package exercise

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// A Counter counts the writes to each pod, for a report on the busiest ones.
type Counter struct {
	mu     sync.Mutex
	writes map[cache.ObjectName]int
}

// NewCounter counts each write to an existing pod once, from now on.
func NewCounter(pods corev1informers.PodIndexInformer) (*Counter, error) {
	c := &Counter{writes: map[cache.ObjectName]int{}}
	_, err := pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
		UpdateFunc: c.update,
		DeleteFunc: c.forget,
	})
	if err != nil {
		return nil, fmt.Errorf("add handlers: %w", err)
	}
	return c, nil
}

// Writes returns the number of writes to a pod.
func (c *Counter) Writes(name cache.ObjectName) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes[name]
}

// An Update is not always a write: a resync passes the pods in the store, and a relist
// passes the pods that it finds again. Only a write changes a pod's resourceVersion.
func (c *Counter) update(old, pod *corev1.Pod) {
	if old.ResourceVersion == pod.ResourceVersion {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes[cache.MetaObjectToName(pod)]++
}

func (c *Counter) forget(pod corev1informers.DeletedPod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.writes, pod.GetObjectName())
}
