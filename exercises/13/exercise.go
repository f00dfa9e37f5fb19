// Exercise 13: after 09-dynamic. Run go test ./13 until it passes; hint.md has a hint.

package exercise

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
)

var resource = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}

// Widgets knows the widgets of a cluster. Their CustomResourceDefinition can be installed and
// removed at any time; whoever watches that calls Installed and Removed, one at a time.
type Widgets struct {
	factory dynamicinformer.DynamicSharedInformerFactory
	lister  cache.GenericLister
	cancel  context.CancelFunc
}

// NewWidgets returns a Widgets for a cluster that does not have the definition yet.
func NewWidgets(client dynamic.Interface) *Widgets {
	return &Widgets{factory: dynamicinformer.NewDynamicSharedInformerFactory(client, 0)}
}

// Installed starts the informer and waits until it is synced.
func (w *Widgets) Installed(ctx context.Context) error {
	ctx, w.cancel = context.WithCancel(ctx)
	w.lister = w.factory.ForResource(resource).Lister()
	w.factory.Start(ctx.Done())
	if !w.factory.WaitForCacheSync(ctx.Done())[resource] {
		return fmt.Errorf("wait for the cache: %w", context.Cause(ctx))
	}
	return nil
}

// Removed stops the informer.
func (w *Widgets) Removed() { w.cancel() }

// Names returns the names of all widgets, sorted.
func (w *Widgets) Names() ([]string, error) {
	widgets, err := w.lister.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list widgets: %w", err)
	}
	names := []string{}
	for _, widget := range widgets {
		names = append(names, widget.(metav1.Object).GetName())
	}
	slices.Sort(names)
	return names, nil
}
