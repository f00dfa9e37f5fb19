package exercise

import (
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"

	"example.com/informers/exercises/internal/server"
)

func TestOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := server.New(pod("web", "1", corev1.PodRunning), pod("report", "2", corev1.PodSucceeded),
			pod("import", "3", corev1.PodRunning), pod("export", "4", corev1.PodSucceeded))
		outcomes, err := NewOutcomes(t.Context(), api)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		api.Watch.Delete(pod("web", "5", corev1.PodRunning))
		api.Watch.Delete(pod("report", "6", corev1.PodSucceeded))
		synctest.Wait()
		for name, want := range map[string]string{"web": "killed", "report": "succeeded"} {
			if got := outcomes.Ended()[name]; got != want {
				t.Fatalf("the informer saw the delete of %s and its last state, but its outcome is %q, want %q.", name, got, want)
			}
		}

		// While the watch is cut off, import succeeds, and then import and export are deleted.
		api.Relist()
		switch got := outcomes.Ended()["import"]; got {
		case "unknown":
		case "":
			t.Fatal(`import is gone, but it has no outcome.
The informer reports a delete only once. If the handler ignores it, no one says that import is gone.`)
		default:
			t.Fatalf(`import succeeded, and then it was deleted, but its outcome is %q.
The watch was cut off at that time. The informer knows from a relist that import is gone, and
passes a tombstone. The object in it is from the store: import as it was before the watch was
cut off, when it still ran. What became of it since then is not in there.`, got)
		}
		// A pod that has succeeded cannot run again.
		if got := outcomes.Ended()["export"]; got != "succeeded" && got != "unknown" {
			t.Fatalf("export had succeeded before the watch was cut off, but its outcome is %q.", got)
		}
	})
}

func pod(name, resourceVersion string, phase corev1.PodPhase) *corev1.Pod {
	pod := server.Pod(name, resourceVersion)
	pod.Status.Phase = phase
	return pod
}
