package exercise

import (
	"testing"
	"testing/synctest"

	"k8s.io/client-go/informers"

	"example.com/informers/exercises/internal/server"
)

func TestForExport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		labelled, plain := server.Pod("web", "1"), server.Pod("db", "2")
		labelled.Labels = map[string]string{"app": "web"}
		factory := informers.NewSharedInformerFactory(server.New(labelled, plain), 0)
		lister := factory.Core().V1().Pods().Lister()
		t.Cleanup(factory.Shutdown) // t.Context is canceled before a Cleanup runs
		factory.StartWithContext(t.Context())
		synctest.Wait()

		exported, err := ForExport(lister, "default", "north")
		if err != nil {
			t.Fatal(err)
		}
		if len(exported) != 2 || exported[0].Name != "db" || exported[1].Name != "web" {
			t.Fatalf("ForExport returned %d pods, want db and web, in this order", len(exported))
		}
		for _, pod := range exported {
			if pod.Labels["cluster"] != "north" {
				t.Fatalf("ForExport returned %s with the labels %v, want cluster=north too", pod.Name, pod.Labels)
			}
		}

		// Another part of the program uses its own lister, which reads the same store.
		changed := map[string]bool{}
		for _, name := range []string{"web", "db"} {
			pod, err := lister.Pods("default").Get(name)
			if err != nil {
				t.Fatal(err)
			}
			_, changed[name] = pod.Labels["cluster"]
		}
		if changed["web"] && !changed["db"] {
			t.Fatal(`after ForExport another reader of the store sees the pod web with the label cluster=north.
The pod db, which had no labels, is unchanged. An assignment copies a pod's fields, but a map is
a reference: two pods can share the same map of labels.`)
		}
		if changed["web"] || changed["db"] {
			t.Fatal(`after ForExport another reader of the store sees pods with the label cluster=north.
No pod in the cluster has it. A lister returns pointers into the informer's store. All listers
and handlers share these objects, so a change to one of them is visible to all.`)
		}
	})
}
