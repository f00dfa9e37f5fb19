// Exercise 16: after 11-scale. Run go test ./16 until it passes; hint.md has a hint.

package exercise

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Waiting knows the pods that wait for a node.
type Waiting struct {
	pods cache.GenericLister
}

// NewWaiting returns a Waiting that is ready for use. There are many pods, and each is large, so
// it uses a metadata informer.
func NewWaiting(ctx context.Context, config *rest.Config) (*Waiting, error) {
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	factory := metadatainformer.NewSharedInformerFactory(client, 0)
	pods := factory.ForResource(corev1.SchemeGroupVersion.WithResource("pods"))
	w := &Waiting{pods: pods.Lister()}
	factory.Start(ctx.Done())
	if !cache.WaitFor(ctx, "", pods.Informer().HasSyncedChecker()) {
		return nil, fmt.Errorf("wait for the cache: %w", context.Cause(ctx))
	}
	return w, nil
}

// Names returns the names of the pods that wait for a node, sorted.
func (w *Waiting) Names() ([]string, error) {
	objects, err := w.pods.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	names := []string{}
	for _, object := range objects {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
		if err != nil {
			return nil, fmt.Errorf("convert to a map: %w", err)
		}
		var pod corev1.Pod
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, &pod); err != nil {
			return nil, fmt.Errorf("convert to a pod: %w", err)
		}
		if pod.Spec.NodeName == "" {
			names = append(names, pod.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}
