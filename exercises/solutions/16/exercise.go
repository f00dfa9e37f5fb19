// Exercise 16: after 11-scale. Run go test ./16 until it passes; hint.md has a hint.

package exercise

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
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
	factory := metadatainformer.NewFilteredSharedInformerFactory(client, 0, metav1.NamespaceAll, func(options *metav1.ListOptions) {
		// Metadata has no spec, so nothing here can read the node. The API server has the spec: it
		// sends only pods without a node, and a Delete when one gets a node.
		options.FieldSelector = "spec.nodeName="
	})
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
		names = append(names, object.(metav1.Object).GetName())
	}
	slices.Sort(names)
	return names, nil
}
