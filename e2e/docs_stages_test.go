package e2e

import (
	"context"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// docsStages is the test's own namespace.
func docsStages(t *testing.T) (ctx context.Context, ns string) {
	t.Helper()
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	ns, err := newNamespace(ctx, t, client, "docs-stages")
	if err != nil {
		t.Fatal(err)
	}
	return ctx, ns
}

func docsStagesGated(ctx context.Context, t *testing.T, ns, name string) *corev1.Pod {
	t.Helper()
	pod := gated(name)
	pod.Labels = map[string]string{"color": "red"}
	pod, err := client.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// docsStagesWatch opens a watch that ends with the test.
func docsStagesWatch(
	ctx context.Context, t *testing.T, ns string, options metav1.ListOptions,
) watch.Interface {
	t.Helper()
	w, err := client.CoreV1().Pods(ns).Watch(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

// docsStagesNext is the next event. Bookmarks come at any time, so only that which ends the
// initial state counts.
func docsStagesNext(ctx context.Context, t *testing.T, w watch.Interface) watch.Event {
	t.Helper()
	for {
		select {
		case event, ok := <-w.ResultChan():
			if !ok {
				t.Fatal("the watch has ended")
			}
			pod, _ := event.Object.(*corev1.Pod)
			if event.Type == watch.Bookmark && pod.Annotations[metav1.InitialEventsAnnotationKey] == "" {
				continue
			}
			return event
		case <-ctx.Done():
			t.Fatal("no event")
		}
	}
}

// The state comes first, then the bookmark that ends it, then what happens: in one request.
func TestInitialEventsEndWithABookmark(t *testing.T) {
	ctx, ns := docsStages(t)
	pods := []*corev1.Pod{docsStagesGated(ctx, t, ns, "a"), docsStagesGated(ctx, t, ns, "b")}
	yes := true
	w := docsStagesWatch(ctx, t, ns, metav1.ListOptions{
		SendInitialEvents: &yes, AllowWatchBookmarks: true,
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	var initial []string
	for range pods {
		event := docsStagesNext(ctx, t, w)
		if event.Type != watch.Added {
			t.Fatalf("%s in the initial state", event.Type)
		}
		initial = append(initial, event.Object.(*corev1.Pod).Name)
	}
	if slices.Sort(initial); !slices.Equal(initial, []string{"a", "b"}) {
		t.Errorf("initial state %v", initial)
	}
	end := docsStagesNext(ctx, t, w)
	bookmark := end.Object.(*corev1.Pod)
	ends := bookmark.Annotations[metav1.InitialEventsAnnotationKey]
	if end.Type != watch.Bookmark || ends != "true" {
		t.Errorf("%s %v ends the initial state", end.Type, bookmark.ObjectMeta)
	}
	docsStagesGated(ctx, t, ns, "c")
	next := docsStagesNext(ctx, t, w)
	if next.Type != watch.Added || next.Object.(*corev1.Pod).Name != "c" {
		t.Errorf("%s %v, want c", next.Type, next.Object)
	}
}

// What was written before the resourceVersion does not come, all that was written later does.
func TestWatchBeginsAfterItsResourceVersion(t *testing.T) {
	ctx, ns := docsStages(t)
	docsStagesGated(ctx, t, ns, "before")
	from := docsStagesGated(ctx, t, ns, "from").ResourceVersion
	want := []string{"x", "y", "z"}
	for _, name := range want {
		docsStagesGated(ctx, t, ns, name)
	}
	w := docsStagesWatch(ctx, t, ns, metav1.ListOptions{ResourceVersion: from})
	var got []string
	for range want {
		got = append(got, docsStagesNext(ctx, t, w).Object.(*corev1.Pod).Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// To a watch with a selector, a pod that no longer matches is deleted, and one that matches
// again is new.
func TestLeavingASelectorIsADelete(t *testing.T) {
	ctx, ns := docsStages(t)
	w := docsStagesWatch(ctx, t, ns, metav1.ListOptions{LabelSelector: "color=red"})
	docsStagesGated(ctx, t, ns, "web")
	paint := func(color string) *corev1.Pod {
		patch := []byte(`{"metadata":{"labels":{"color":"` + color + `"}}}`)
		pod, err := client.CoreV1().Pods(ns).Patch(
			ctx, "web", types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return pod
	}
	expect := func(kind watch.EventType, color, resourceVersion string) {
		event := docsStagesNext(ctx, t, w)
		pod := event.Object.(*corev1.Pod)
		if event.Type != kind || pod.Labels["color"] != color ||
			resourceVersion != "" && pod.ResourceVersion != resourceVersion {
			t.Errorf("%s %s %s, want %s %s %s", event.Type, pod.Labels["color"], pod.ResourceVersion,
				kind, color, resourceVersion)
		}
	}
	expect(watch.Added, "red", "")
	blue := paint("blue")
	expect(watch.Deleted, "red", blue.ResourceVersion) // as it was, with the version that left
	red := paint("red")
	expect(watch.Added, "red", red.ResourceVersion)
}
