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

// TestProductionBugs makes the changes that 12's README suggests under "Break it": its tests find them.
func TestProductionBugs(t *testing.T) {
	for _, bug := range []struct {
		name, want string
		edits      []string
	}{
		{
			"this machine's clock", `after 9 s of 10 s: done is ["acquire" "delete web"]`,
			[]string{"over.Sub(c.clock.Now())", "over.Sub(time.Now())"},
		},
		{
			"the Lease is kept", `at the end: done is ["acquire" "delete slow"]`,
			[]string{"ReleaseOnCancel: true, ", ""},
		},
		{
			"who leads is not asked", `at the end: done is ["acquire" "delete web" "delete next"]`,
			[]string{" || !c.leads()", ""},
		},
	} {
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			flag := chapters.Overlay(t, root, t.TempDir(), "12-production", bug.edits...)
			cmd := exec.CommandContext(t.Context(), "go", "test", flag, "-timeout", "1m", "./12-production")
			cmd.Dir = root
			if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), bug.want) {
				t.Errorf("%v, want %s:\n%s", err, bug.want, out)
			}
		})
	}
}
