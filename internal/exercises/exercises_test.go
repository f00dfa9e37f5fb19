// Package exercises proves that each exercise fails as given, for the reason that its
// test says, that its solution mends it, and that what only looks right does not.
package exercises

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/informers/internal/outputs"
)

const root, dir = "../..", "../../exercises"

var update = flag.Bool("update", false, "write the output in exercises/README.md anew")

// A fix is an attempt, as pairs: what stands there once, and what to put in its place.
type fix struct {
	name  string
	of    string // "solution", or "" for what is given
	says  string // how the test refuses it, or "" if it is right
	edits []string
}

var exercises = []struct {
	name  string
	says  string // why it fails as given
	fixes []fix
}{
	{"01", "written once, but 4 writes were counted. The factory's resync period is 30 s", []fix{
		{name: "compare pointers", says: "nobody wrote to default/web, but 1 writes were counted after a relist", edits: []string{
			"update(_, pod *corev1.Pod) {\n", "update(old, pod *corev1.Pod) {\n\tif old == pod {\n\t\treturn\n\t}\n",
		}},
		{name: "compare generations", says: "no write was counted. What was written is its status", edits: []string{
			"update(_, pod *corev1.Pod) {\n", "update(old, pod *corev1.Pod) {\n\tif old.Generation == pod.Generation {\n\t\treturn\n\t}\n",
		}},
	}},
	{"02", "there are 3 pods, but Inventory returned the results of 0: map[]. The store had all 3", []fix{
		{name: "wait for the informer", says: "there are 3 pods, but Inventory returned the results of", edits: []string{
			"\tmu.Lock()\n\tdefer mu.Unlock()\n\treturn",
			"\tcache.WaitFor(ctx, \"\", factory.Core().V1().Pods().TypedInformer().HasSyncedChecker())\n\tmu.Lock()\n\tdefer mu.Unlock()\n\treturn",
		}},
		{name: "sleep", says: "scanned after 3 s, but Inventory returned after 10s", edits: []string{
			"\tmu.Lock()\n\tdefer mu.Unlock()\n\treturn", "\ttime.Sleep(10 * time.Second)\n\tmu.Lock()\n\tdefer mu.Unlock()\n\treturn",
			"\t\"sync\"\n", "\t\"sync\"\n\t\"time\"\n",
		}},
	}},
	{"03", "came with an object of type cache.DeletedFinalStateUnknown, and the handler panicked", []fix{
		{name: "ignore the tombstone", says: "A delete that is not handled is never told again", edits: []string{
			"pod := obj.(*corev1.Pod)\n\t\t\tknown.set(pod.Namespace+\"/\"+pod.Name, false)",
			"if pod, ok := obj.(*corev1.Pod); ok {\n\t\t\t\tknown.set(pod.Namespace+\"/\"+pod.Name, false)\n\t\t\t}",
		}},
		{name: "let client-go make the key", edits: []string{
			"pod := obj.(*corev1.Pod)\n\t\t\tknown.set(pod.Namespace+\"/\"+pod.Name, false)",
			"if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil {\n\t\t\t\tknown.set(key, false)\n\t\t\t}",
		}},
	}},
	{"04", "one pod, default/web with uid-3, but running are [uid-1 uid-3]", []fix{
		{name: "ignore the other pod", says: "default/web with uid-3, but running are [uid-1].", edits: []string{
			"func(_, pod *corev1.Pod) {\n\t\t\tm.set(pod)", "func(old, pod *corev1.Pod) {\n\t\t\tif old.UID == pod.UID {\n\t\t\t\tm.set(pod)\n\t\t\t}",
		}},
	}},
	{"05", "another reader of the store sees pods with the label cluster=north", []fix{
		{name: "copy the slice", says: "another reader of the store sees pods with the label", edits: []string{
			"\tfor _, pod := range pods {", "\tpods = slices.Clone(pods)\n\tfor _, pod := range pods {",
		}},
		{name: "copy the struct", says: "a map is a reference", edits: []string{
			"\tfor _, pod := range pods {\n", "\tfor i, pod := range pods {\n\t\tcopied := *pod\n\t\tpod = &copied\n\t\tpods[i] = pod\n",
		}},
	}},
	{"06", "and Annotate failed: annotate default/web: Operation cannot be fulfilled", []fix{
		{name: "send no resourceVersion", says: "An Update writes the whole object", edits: []string{
			"pod = pod.DeepCopy()\n", "pod = pod.DeepCopy()\n\tpod.ResourceVersion = \"\"\n",
		}},
		{name: "read from the server, once", says: "Between your read and your write", edits: []string{
			"pod = pod.DeepCopy()\n", "pod, err = pods.Get(ctx, name.Name, metav1.GetOptions{})\n\tif err != nil {\n\t\treturn err\n\t}\n",
		}},
		{name: "read from the store again", of: "solution", says: "The store of an informer is always a little behind", edits: []string{
			"pod, err := pods.Get(ctx, name.Name, metav1.GetOptions{})", "pod, err := lister.Pods(name.Namespace).Get(name.Name)",
			"metav1.SetMetaDataAnnotation", "pod = pod.DeepCopy()\n\t\tmetav1.SetMetaDataAnnotation",
		}},
		{name: "ask the server each time", of: "solution", says: "The pod has this annotation already", edits: []string{
			"\tif pod.Annotations[key] == value {\n\t\treturn nil\n\t}\n", "", "pod, err := lister.", "_, err := lister.",
		}},
		{name: "patch", edits: []string{
			"pod = pod.DeepCopy()\n\tmetav1.SetMetaDataAnnotation(&pod.ObjectMeta, key, value)\n",
			"patch := fmt.Appendf(nil, `{\"metadata\": {\"annotations\": {%q: %q}}}`, key, value)\n",
			"pods.Update(ctx, pod, metav1.UpdateOptions{})", "pods.Patch(ctx, name.Name, types.MergePatchType, patch, metav1.PatchOptions{})",
			"\t\"k8s.io/client-go/kubernetes\"\n", "\t\"k8s.io/apimachinery/pkg/types\"\n\t\"k8s.io/client-go/kubernetes\"\n",
		}},
	}},
	{"07", "The API server was asked for services, and never for pods", []fix{
		{name: "ask before the wait", says: "The API server was asked for services, and never for pods", edits: []string{
			"\tif err := factory.Wait", "\tfactory.Core().V1().Pods().Lister()\n\tif err := factory.Wait",
		}},
		{name: "wait for what does not run", says: "An informer that nobody starts is never synced", edits: []string{
			"\treturn d, nil\n",
			"\tif !cache.WaitFor(ctx, \"\", factory.Core().V1().Pods().Informer().HasSyncedChecker()) {\n\t\treturn nil, context.Cause(ctx)\n\t}\n\treturn d, nil\n",
			"/core/v1\"\n", "/core/v1\"\n\t\"k8s.io/client-go/tools/cache\"\n",
		}},
		{name: "start again, do not wait", says: "was asked for pods and had not answered yet", edits: []string{
			"\treturn d, nil\n", "\tfactory.Core().V1().Pods().Lister()\n\tfactory.StartWithContext(ctx)\n\treturn d, nil\n",
		}},
		{name: "start and wait again", edits: []string{
			"\treturn d, nil\n", "\tfactory.Core().V1().Pods().Lister()\n\tfactory.StartWithContext(ctx)\n\treturn d, factory.WaitForCacheSyncWithContext(ctx).Err\n",
		}},
	}},
	{"08", "2.5 s after the last write default/web has the resourceVersion 101, and the dashboard shows 12", []fix{
		{name: "a goroutine for each", says: "They overtake each other", edits: []string{"{ show(pod) }", "{ go show(pod) }"}},
		{name: "drop what is too much", says: "The last write was dropped", edits: []string{
			"\t_, err := pods", `	next := make(chan *corev1.Pod)
	go func() {
		for {
			select {
			case pod := <-next:
				show(pod)
			case <-ctx.Done():
				return
			}
		}
	}()
	_, err := pods`,
			"{ show(pod) }", "{\n\t\t\tselect {\n\t\t\tcase next <- pod:\n\t\t\tdefault:\n\t\t\t}\n\t\t}",
		}},
		{name: "a queue of pods", of: "solution", says: "the dashboard shows 12", edits: []string{
			"[cache.ObjectName]()", "[*corev1.Pod]()", "\t\"k8s.io/client-go/tools/cache\"\n", "",
			"AddFunc:    func(pod *corev1.Pod) { queue.Add(cache.MetaObjectToName(pod)) }", "AddFunc: func(pod *corev1.Pod) { queue.Add(pod) }",
			"UpdateFunc: func(_, pod *corev1.Pod) { queue.Add(cache.MetaObjectToName(pod)) }", "UpdateFunc: func(_, pod *corev1.Pod) { queue.Add(pod) }",
			"if pod, err := lister.Pods(name.Namespace).Get(name.Name); err == nil {\n\t\t\tshow(pod)\n\t\t}", "show(name)",
			"pods, lister := factory.Core().V1().Pods(), factory.Core().V1().Pods().Lister()", "pods := factory.Core().V1().Pods()",
		}},
	}},
	{"09", "reconcile failed for default/web (calls: 1) and was not called again", []fix{
		{name: "add at once", says: "(calls: 1) and was not called again", edits: []string{"q.AddRateLimited(", "q.Add("}},
		{name: "add after the work, at once", of: "solution", says: "A server in trouble gets no rest", edits: []string{"q.AddRateLimited(", "q.Add("}},
		{name: "do not add", of: "solution", says: "was called again only when somebody wrote to the pod", edits: []string{"\t\tq.AddRateLimited(name)\n", ""}},
		{name: "try in a loop", says: "A server in trouble gets no rest", edits: []string{
			"\t\tq.AddRateLimited(name)\n\t\treturn true\n", "", "if err := reconcile(name); err != nil {", "for err := reconcile(name); err != nil; err = reconcile(name) {",
		}},
		{name: "never forget", of: "solution", says: "the pause went on to grow", edits: []string{"\tq.Forget(name)\n", ""}},
	}},
	{"10", `was asked for nodes with the label selector "app=web"`, []fix{
		{name: "select in the lister", says: "Pods of all apps are in the store now", edits: []string{
			"\t\t\toptions.LabelSelector = \"app=\" + app\n", "", "labels.Everything()", "labels.Set{\"app\": \"web\"}.AsSelector()",
		}},
		{name: "start only one", of: "solution", says: "was never asked for nodes", edits: []string{"{factory, selected}", "{selected}"}},
		{name: "wait for only one", of: "solution", says: "the wait of a factory is for its own informers", edits: []string{
			"{factory, selected}", "{selected}", "\treturn s, nil\n", "\tfactory.StartWithContext(ctx)\n\treturn s, nil\n",
		}},
	}},
}

func TestExercises(t *testing.T) {
	for _, e := range exercises {
		given := read(t, e.name, "exercise.go")
		solution := read(t, "solutions", e.name, "exercise.go")
		t.Run(e.name+"/given", func(t *testing.T) {
			t.Parallel()
			hold(t, e.name, e.says)
		})
		t.Run(e.name+"/solution", func(t *testing.T) {
			t.Parallel()
			hold(t, e.name, "", overlay(t, e.name, solution))
		})
		for _, f := range e.fixes {
			t.Run(e.name+"/"+f.name, func(t *testing.T) {
				t.Parallel()
				source := given
				if f.of == "solution" {
					source = solution
				}
				for edit := range slices.Chunk(f.edits, 2) {
					if strings.Count(source, edit[0]) != 1 {
						t.Fatalf("it does not have once:\n%s", edit[0])
					}
					source = strings.Replace(source, edit[0], edit[1], 1)
				}
				hold(t, e.name, f.says, overlay(t, e.name, source))
			})
		}
	}
}

// TestComplete: each exercise has all its parts, and a row in the table of README.md. The
// module has the client-go of the chapters.
func TestComplete(t *testing.T) {
	for _, line := range regexp.MustCompile(`\tk8s\.io/(api|apimachinery|client-go) .*\n`).FindAllString(read(t, "../go.mod"), -1) {
		if !strings.Contains(read(t, "go.mod"), line) {
			t.Errorf("go.mod does not have %s", line)
		}
	}
	dirs, err := filepath.Glob(filepath.Join(dir, "[0-9]*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(dirs) != len(exercises) {
		t.Errorf("%d exercises, and %d in the table above", len(dirs), len(exercises))
	}
	readme := read(t, "README.md")
	for i, path := range dirs {
		name := filepath.Base(path)
		if i < len(exercises) && exercises[i].name != name {
			t.Errorf("%s is %s in the table above", name, exercises[i].name)
		}
		given, solution := read(t, name, "exercise.go"), read(t, "solutions", name, "exercise.go")
		head := regexp.MustCompile(`^// Exercise ` + name + `: after (0\d-\w+)\. Run go test \./` + name + ` until it passes; hint\.md has a hint\.\n\npackage exercise\n`)
		m := head.FindStringSubmatch(given)
		if m == nil {
			t.Errorf("%s does not begin as the others do", name)
			continue
		}
		row := fmt.Sprintf("| [%s](%[1]s/exercise.go) | [%s](../%[2]s) |", name, m[1])
		if strings.Count(readme, row) != 1 {
			t.Errorf("README.md does not have once %s", row)
		}
		if n := strings.Count(given, "\n"); n > 65 {
			t.Errorf("%s has %d lines, more than 65", name, n)
		}
		if !strings.HasPrefix(read(t, name, "hint.md"), "# Hint: ") {
			t.Errorf("%s/hint.md does not begin as the others do", name)
		}
		added, removed := diff(t, name)
		if len(added) > 15 || len(removed) > 15 {
			t.Errorf("the solution of %s adds %d lines and removes %d, want 15 at most", name, len(added), len(removed))
		}
		if !slices.ContainsFunc(added, func(line string) bool { return strings.Contains(line, "// ") }) || !head.MatchString(solution) {
			t.Errorf("the solution of %s has no comment that says why, or another head", name)
		}
	}
}

// TestLoop types in a copy what README.md tells a reader to type.
func TestLoop(t *testing.T) {
	copied := t.TempDir()
	if err := os.CopyFS(filepath.Join(copied, "exercises"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-e", "-c", `
		cd exercises
		go test ./04 && exit 1
		cat 04/hint.md
		diff 04/exercise.go solutions/04/exercise.go && exit 1
		cp solutions/04/exercise.go 04/exercise.go
		go test ./04
	`)
	cmd.Dir = copied
	cmd.Env = append(os.Environ(), "GOFLAGS="+strings.Join(race(t), " "))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	failed, _, _ := strings.Cut(string(out), "FAIL\n")
	outputs.Shown(t, root, regexp.MustCompile(`\(\d+\.\d+s\)`).ReplaceAllString(failed, "(0.00s)"), *update)
}

// hold runs the test of an exercise, with flags of go test. It has to fail and say why, or
// to pass if says is "".
func hold(t *testing.T, name, says string, flags ...string) {
	t.Helper()
	test := regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(read(t, name, "exercise_test.go"), -1)
	if len(test) != 1 {
		t.Fatalf("%s has %d tests, want one", name, len(test))
	}
	args := append([]string{"test", "-count=1", "-timeout=2m", "-vet=off"}, flags...)
	if says == "" { // what is right has no race either
		args = append(args, race(t)...)
	}
	args = append(args, "./"+name)
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	// Messages are wrapped and indented.
	said := strings.Join(strings.Fields(string(out)), " ")
	switch {
	case says == "" && err != nil:
		t.Errorf("it does not pass: %v\n%s", err, out)
	case says != "" && err == nil:
		t.Errorf("it passes, want the message: %s", says)
	case regexp.MustCompile(`(?m)^(panic|fatal error): `).Match(out):
		t.Errorf("it ends the process\n%s", out)
	case says != "" && (!strings.HasPrefix(said, "--- FAIL: "+test[0][1]+" ") || !strings.Contains(said, says)):
		t.Errorf("it fails, but does not say: %s\n%s", says, out)
	}
}

// overlay returns the flag that makes go test see source in place of an exercise.
func overlay(t *testing.T, name, source string) string {
	t.Helper()
	exercise, err := filepath.Abs(filepath.Join(dir, name, "exercise.go"))
	if err != nil {
		t.Fatal(err)
	}
	changed, path := filepath.Join(t.TempDir(), "exercise.go"), filepath.Join(t.TempDir(), "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {exercise: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string][]byte{changed: []byte(source), path: list} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return "-overlay=" + path
}

// race is the flag of the race detector where there is one: it needs a C compiler.
func race(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("go", "env", "CGO_ENABLED").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(out)) != "1" {
		return nil
	}
	return []string{"-race"}
}

// diff are the lines that a solution adds and removes.
func diff(t *testing.T, name string) (added, removed []string) {
	t.Helper()
	cmd := exec.Command("diff", name+"/exercise.go", "solutions/"+name+"/exercise.go")
	cmd.Dir = dir
	out, err := cmd.Output() // exit code 1: they differ
	if len(out) == 0 {
		t.Fatalf("the solution of %s is no other program: %v", name, err)
	}
	for line := range strings.Lines(string(out)) {
		switch line[0] {
		case '>':
			added = append(added, line)
		case '<':
			removed = append(removed, line)
		}
	}
	return added, removed
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{dir}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
