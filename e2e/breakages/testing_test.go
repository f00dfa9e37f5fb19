package breakages

import (
	"os/exec"
	"strings"
	"testing"

	"example.com/informers/internal/chapters"
)

// bugs are put into the controller of 08, whose README has this table. Each is found by one
// of its levels of tests, with a message that has want, and passes all levels below.
var bugs = []struct {
	name  string
	level int
	want  string
	edits []string
}{
	{
		"a pod on its way out is judged again", 1, "TestExpiry/on_its_way_out",
		[]string{"if !ok || pod.DeletionTimestamp != nil {", "if !ok {"},
	},
	{
		"AddAfter forgotten", 2, `after 95 s the pods are "stays web", want "stays"`,
		[]string{"			c.queue.AddAfter(key, requeueAfter)\n", ""},
	},
	{
		"no preconditions", 3, "the pod with an hour to live was deleted",
		[]string{"		Preconditions: &metav1.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion},\n", ""},
	},
	{"no grace period", 4, "", noGrace}, // found by the e2e suite: see breakages
}

var noGrace = []string{"metav1.DeleteOptions{\n", "metav1.DeleteOptions{\n		GracePeriodSeconds: new(int64),\n"}

func TestBugs(t *testing.T) {
	const chapter = "08-testing"
	levels := [][]string{
		{"vet", "-tags", "cluster"},
		{"test", "-run", "^TestExpiry$"},
		{"test", "-skip", "^TestExpiry$"},
		{"test", "-tags", "cluster", "-run", "^TestAnotherPodOfThatName$", "-v"},
	}
	for _, bug := range bugs {
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			flag := chapters.Overlay(t, root, t.TempDir(), chapter, bug.edits...)
			for level := range min(bug.level+1, len(levels)) {
				args := append([]string{levels[level][0], flag}, levels[level][1:]...)
				cmd := exec.CommandContext(t.Context(), "go", append(args, "./"+chapter)...)
				cmd.Dir = root
				out, err := cmd.CombinedOutput()
				t.Logf("level %d: %v\n%s", level, err, out)
				switch {
				case level < bug.level && err != nil:
					t.Fatalf("level %d finds it, too early", level)
				case level == bug.level && (err == nil || !strings.Contains(string(out), bug.want)):
					t.Fatalf("level %d does not say %q", level, bug.want)
				}
			}
		})
	}
}
