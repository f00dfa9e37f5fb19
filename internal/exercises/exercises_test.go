// Package exercises proves that each exercise fails as given, for the reason that its
// test reports, that its solution fixes it, and that a fix that only looks right fails.
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

	"example.com/informers/internal/readmes"
)

const root, dir = "../..", "../../exercises"

var update = flag.Bool("update", false, "rewrite the output in exercises/README.md")

// A fix is an attempt to fix an exercise.
type fix struct {
	name  string
	of    string   // what it edits: "solution", or "" for the exercise as given
	says  string   // the message with which the test rejects it, or "" if it is right
	edits []string // pairs: text that occurs exactly once, and its replacement
}

var exercises = []struct {
	name  string
	says  string // the message with which it fails as given
	fixes []fix
}{
	{"01", "written once, but 4 writes were counted. The factory's resync period is 30 s", []fix{
		{name: "compare pointers", says: "no one wrote to default/web, but the count of writes is 1 after a relist", edits: []string{
			"update(_, pod *corev1.Pod) {\n", "update(old, pod *corev1.Pod) {\n\tif old == pod {\n\t\treturn\n\t}\n",
		}},
		{name: "compare generations", says: "no write was counted. The write changed its status", edits: []string{
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
		{name: "ignore the tombstone", says: "The informer reports a delete only once", edits: []string{
			"pod := obj.(*corev1.Pod)\n\t\t\tknown.set(pod.Namespace+\"/\"+pod.Name, false)",
			"if pod, ok := obj.(*corev1.Pod); ok {\n\t\t\t\tknown.set(pod.Namespace+\"/\"+pod.Name, false)\n\t\t\t}",
		}},
		{name: "let client-go make the key", edits: []string{
			"pod := obj.(*corev1.Pod)\n\t\t\tknown.set(pod.Namespace+\"/\"+pod.Name, false)",
			"if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil {\n\t\t\t\tknown.set(key, false)\n\t\t\t}",
		}},
	}},
	{"04", "one pod, web with uid-3, but Running returns [uid-1 uid-3]", []fix{
		{name: "ignore the other pod", says: "web with uid-3, but Running returns [uid-1].", edits: []string{
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
		{name: "read from the server, once", says: "Another client can still write between your read and your write", edits: []string{
			"pod = pod.DeepCopy()\n", "pod, err = pods.Get(ctx, name.Name, metav1.GetOptions{})\n\tif err != nil {\n\t\treturn err\n\t}\n",
		}},
		{name: "read from the store again", of: "solution", says: "An informer's store can be behind the API server", edits: []string{
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
	{"07", "The API server got requests for services, but none for pods", []fix{
		{name: "request before the wait", says: "The API server got requests for services, but none for pods", edits: []string{
			"\tif err := factory.Wait", "\tfactory.Core().V1().Pods().Lister()\n\tif err := factory.Wait",
		}},
		{name: "wait for an informer that does not run", says: "An informer that is not started never syncs", edits: []string{
			"\treturn d, nil\n",
			"\tif !cache.WaitFor(ctx, \"\", factory.Core().V1().Pods().Informer().HasSyncedChecker()) {\n\t\treturn nil, context.Cause(ctx)\n\t}\n\treturn d, nil\n",
			"/core/v1\"\n", "/core/v1\"\n\t\"k8s.io/client-go/tools/cache\"\n",
		}},
		{name: "start again, do not wait", says: "got a request for pods, but it had not answered yet", edits: []string{
			"\treturn d, nil\n", "\tfactory.Core().V1().Pods().Lister()\n\tfactory.StartWithContext(ctx)\n\treturn d, nil\n",
		}},
		{name: "start and wait again", edits: []string{
			"\treturn d, nil\n", "\tfactory.Core().V1().Pods().Lister()\n\tfactory.StartWithContext(ctx)\n\treturn d, factory.WaitForCacheSyncWithContext(ctx).Err\n",
		}},
	}},
	{"08", "2.5 s after the last write default/web has the resourceVersion 101, and the dashboard shows 12", []fix{
		{name: "a goroutine for each", says: "They can overtake each other", edits: []string{"{ show(pod) }", "{ go show(pod) }"}},
		{name: "drop what does not fit", says: "The last write was dropped", edits: []string{
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
		{name: "add after the work, at once", of: "solution", says: "That gives a server in trouble no time to recover", edits: []string{"q.AddRateLimited(", "q.Add("}},
		{name: "do not add", of: "solution", says: "was called again only after a write to the pod", edits: []string{"\t\tq.AddRateLimited(name)\n", ""}},
		{name: "try in a loop", says: "That gives a server in trouble no time to recover", edits: []string{
			"\t\tq.AddRateLimited(name)\n\t\treturn true\n", "", "if err := reconcile(name); err != nil {", "for err := reconcile(name); err != nil; err = reconcile(name) {",
		}},
		{name: "never forget", of: "solution", says: "the pause continued to grow", edits: []string{"\tq.Forget(name)\n", ""}},
	}},
	{"10", `got a request for nodes with the label selector "app=web"`, []fix{
		{name: "select in the lister", says: "The store now has the pods of all apps", edits: []string{
			"\t\t\toptions.LabelSelector = \"app=\" + app\n", "", "labels.Everything()", "labels.Set{\"app\": \"web\"}.AsSelector()",
		}},
		{name: "start only one", of: "solution", says: "got no request for nodes", edits: []string{"{factory, selected}", "{selected}"}},
		{name: "wait for only one", of: "solution", says: "a factory waits only for its own informers", edits: []string{
			"{factory, selected}", "{selected}", "\treturn s, nil\n", "\tfactory.StartWithContext(ctx)\n\treturn s, nil\n",
		}},
	}},
	{"11", "but Of returned map[db:264Mi web:256Mi]. web existed when the informer started", []fix{
		{name: "skip what has one container", says: "Now there is a pod whose overhead does not count", edits: []string{
			"\tmemory := overhead", "\tif len(pod.Spec.Containers) == 1 {\n\t\treturn pod, nil\n\t}\n\tmemory := overhead",
		}},
		{name: "no transform", says: "Of returned map[db:200Mi web:100Mi]", edits: []string{", informers.WithTransform(shrink)", ""}},
		{name: "mark what was transformed", edits: []string{
			"\tmemory := overhead", "\tif pod.Annotations[\"shrunk\"] != \"\" {\n\t\treturn pod, nil\n\t}\n\tpod.Annotations = map[string]string{\"shrunk\": \"yes\"}\n\tmemory := overhead",
		}},
	}},
	{"12", `import succeeded, and then it was deleted, but its outcome is "killed"`, []fix{
		{name: "skip the tombstone", says: "no one says that import is gone", edits: []string{
			"\tcase pod.OptionalObj == nil:\n", "\tcase pod.FinalStateUnknown != nil:\n\tcase pod.OptionalObj == nil:\n",
		}},
		{name: "call it a success", says: "the informer saw the delete of web and its last state", edits: []string{`"killed"`, `"succeeded"`}},
		{name: "trust a final state", edits: []string{
			"\tdefault:\n", "\tcase pod.FinalStateUnknown != nil:\n\t\to.ended[pod.GetName()] = \"unknown\"\n\tdefault:\n",
		}},
	}},
	{"13", "there is the widget three, but Names returned [one two]", []fix{
		{name: "shut the factory down", says: "The API server got no request after that", edits: []string{"{ w.cancel() }", "{ w.cancel(); w.factory.Shutdown() }"}},
		{name: "let it run", says: "The informer still runs", edits: []string{"{ w.cancel() }", "{}"}},
		{name: "do not wait", of: "solution", says: "the definition was installed, but Names returned [] and", edits: []string{
			`!cache.WaitFor(ctx, "", informer.Informer().HasSyncedChecker())`, "ctx.Err() != nil",
		}},
	}},
	{"14", "and b has the Lease now, but a still acts", []fix{
		{name: "a longer Lease", says: "longer times do not stop its work", edits: []string{
			"15 * time.Second", "60 * time.Second", "10 * time.Second", "50 * time.Second",
		}},
		{name: "renew more often", says: "and b has the Lease now, but a still acts", edits: []string{"2 * time.Second", "time.Second"}},
		{name: "ask whether it leads", says: "a acted until it reached the server again", edits: []string{
			"elector, err := leader", "var elector *leaderelection.LeaderElector\n\telector, err := leader",
			"wait.UntilWithContext(ctx, act, time.Second) }", `{
				wait.UntilWithContext(ctx, func(ctx context.Context) {
					if elector.IsLeader() {
						act(ctx)
					}
				}, time.Second)
			}}`,
		}},
		{name: "start no more calls", says: "when b started, a call of a was still under way", edits: []string{
			"func(context.Context) { wait.UntilWithContext(ctx, act, time.Second) }",
			"func(lead context.Context) {\n\t\t\t\twait.UntilWithContext(lead, func(context.Context) { act(ctx) }, time.Second)\n\t\t\t}",
		}},
		{name: "compete only once", of: "solution", says: "b has crashed since then", edits: []string{
			"wait.UntilWithContext(ctx, elector.Run, time.Second)", "elector.Run(ctx)\n\t<-ctx.Done()",
		}},
		{name: "exit when the Lease is lost", edits: []string{"wait.UntilWithContext(ctx, elector.Run, time.Second)", "elector.Run(ctx)"}},
	}},
	{"15", "and then GET /total answered 0, want 30 for db and web. The load balancer believes", []fix{
		{name: "ask the informer", says: "The load balancer believes", edits: []string{"!handler.HasSynced()", "!pods.HasSynced()", "handler, err", "_, err"}},
		{name: "wait for an empty queue", says: "Len does not count a key that a worker has", edits: []string{
			"!handler.HasSynced()", "!handler.HasSynced() || queue.Len() > 0",
		}},
		{name: "a try is enough", of: "solution", says: "Until db has a price, its work is not done", edits: []string{
			"\t\t\tqueue.Done(name)\n", "\t\t\tinitial.Finished(name)\n\t\t\tqueue.Done(name)\n",
		}},
		{name: "forget what is gone", of: "solution", says: "GET /readyz did not answer 200 within a minute", edits: []string{
			"prices.Delete(name) // the pod is gone\n\t\t\t\tinitial.Finished(name)", "prices.Delete(name)",
		}},
		{name: "sleep", says: "A fixed time is too long here", edits: []string{
			"\tvar prices", "\tbegin := time.Now()\n\tvar prices", "!handler.HasSynced()", "time.Since(begin) < 10*time.Second",
			"handler, err", "_, err", "\t\"sync\"\n", "\t\"sync\"\n\t\"time\"\n",
		}},
		{name: "compare with the store", says: "this replica was ready, then a pod was created", edits: []string{
			"!handler.HasSynced()", "priced := 0; !handler.HasSynced() || func() bool {\n\t\t\tprices.Range(func(_, _ any) bool { priced++; return true })\n\t\t\treturn priced < len(pods.GetStore().ListKeys())\n\t\t}()",
		}},
		{name: "wait for later pods, too", of: "solution", edits: []string{
			"isInInitialList bool", "_ bool", "\t\t\tif isInInitialList {\n\t\t\t\tinitial.Start(cache.MetaObjectToName(pod))\n\t\t\t}\n", "\t\t\tinitial.Start(cache.MetaObjectToName(pod))\n",
		}},
	}},
	{"16", "web runs on node-1. A metadata informer receives only the metadata of pods", []fix{
		{name: "convert strictly", says: "a missing field is not an error", edits: []string{
			"FromUnstructured(content, &pod)", "FromUnstructuredWithValidation(content, &pod, true)",
		}},
		{name: "skip what has no spec", says: "Names returned [] and the error: <nil>, want [big]", edits: []string{
			"\t\tvar pod", "\t\tif _, ok := content[\"spec\"]; !ok {\n\t\t\tcontinue\n\t\t}\n\t\tvar pod",
		}},
		{name: "get each pod", says: "An informer is there to answer without a request", edits: []string{
			"pods cache.GenericLister\n", "pods cache.GenericLister\n\tclient kubernetes.Interface\n",
			"\tw := &Waiting{pods: pods.Lister()}\n",
			"\twhole, err := kubernetes.NewForConfig(config)\n\tif err != nil {\n\t\treturn nil, err\n\t}\n\tw := &Waiting{pods.Lister(), whole}\n",
			`		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
		if err != nil {
			return nil, fmt.Errorf("convert to a map: %w", err)
		}
		var pod corev1.Pod
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, &pod); err != nil {
			return nil, fmt.Errorf("convert to a pod: %w", err)
		}
`, `
		o := object.(metav1.Object)
		pod, err := w.client.CoreV1().Pods(o.GetNamespace()).Get(context.TODO(), o.GetName(), metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
`,
			"\t\"k8s.io/apimachinery/pkg/runtime\"\n", "\t\"k8s.io/client-go/kubernetes\"\n\tmetav1 \"k8s.io/apimachinery/pkg/apis/meta/v1\"\n",
		}},
		{name: "select by phase", of: "solution", says: "The phase does not say whether a pod waits for a node", edits: []string{
			`"spec.nodeName="`, `"status.phase=Pending"`,
		}},
		{name: "get whole pods, keep the node", edits: []string{
			"metadata.NewForConfig", "kubernetes.NewForConfig",
			"metadatainformer.NewSharedInformerFactory(client, 0)", `informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(func(o any) (any, error) {
		if pod, ok := o.(*corev1.Pod); ok {
			pod.Spec = corev1.PodSpec{NodeName: pod.Spec.NodeName}
		}
		return o, nil
	}))`,
			"pods := factory.ForResource(corev1.SchemeGroupVersion.WithResource(\"pods\"))",
			"pods, err := factory.ForResource(corev1.SchemeGroupVersion.WithResource(\"pods\"))\n\tif err != nil {\n\t\treturn nil, err\n\t}",
			"factory.Start(ctx.Done())", "factory.StartWithContext(ctx)",
			"\t\"k8s.io/client-go/metadata\"\n", "\t\"k8s.io/client-go/kubernetes\"\n",
			"\t\"k8s.io/client-go/metadata/metadatainformer\"\n", "\t\"k8s.io/client-go/informers\"\n",
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
						t.Fatalf("want exactly one occurrence of:\n%s", edit[0])
					}
					source = strings.Replace(source, edit[0], edit[1], 1)
				}
				hold(t, e.name, f.says, overlay(t, e.name, source))
			})
		}
	}
}

// TestComplete: each exercise has all its parts and a row in the table of README.md, and
// the module requires the same client-go as the chapters.
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
		t.Errorf("there are %d exercises, but %d in the table above", len(dirs), len(exercises))
	}
	readme := read(t, "README.md")
	for i, path := range dirs {
		name := filepath.Base(path)
		if i < len(exercises) && exercises[i].name != name {
			t.Errorf("%s is %s in the table above", name, exercises[i].name)
		}
		given, solution := read(t, name, "exercise.go"), read(t, "solutions", name, "exercise.go")
		head := regexp.MustCompile(`^// Exercise ` + name + `: after (\d\d-\w+)\. Run go test \./` + name + ` until it passes; hint\.md has a hint\.\n\npackage exercise\n`)
		m := head.FindStringSubmatch(given)
		if m == nil {
			t.Errorf("%s does not start like the others", name)
			continue
		}
		row := fmt.Sprintf("| [%s](%[1]s/exercise.go) | [%s](../%[2]s) |", name, m[1])
		if strings.Count(readme, row) != 1 {
			t.Errorf("README.md does not have exactly once: %s", row)
		}
		if n := strings.Count(given, "\n"); n > 65 {
			t.Errorf("%s has %d lines, more than 65", name, n)
		}
		if !strings.HasPrefix(read(t, name, "hint.md"), "# Hint: ") {
			t.Errorf("%s/hint.md does not start like the others", name)
		}
		added, removed := diff(t, name)
		if len(added) > 15 || len(removed) > 15 {
			t.Errorf("the solution of %s adds %d lines and removes %d, want at most 15 each", name, len(added), len(removed))
		}
		if !slices.ContainsFunc(added, func(line string) bool { return strings.Contains(line, "// ") }) || !head.MatchString(solution) {
			t.Errorf("the solution of %s has no comment that says why, or it does not start like the others", name)
		}
	}
}

// TestLoop runs the commands of README.md, in a copy of the exercises.
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
	cmd.Env = append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" "+strings.Join(race(t), " "))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	failed, _, _ := strings.Cut(string(out), "FAIL\n")
	readmes.Shown(t, root, regexp.MustCompile(`\(\d+\.\d+s\)`).ReplaceAllString(failed, "(0.00s)"), *update)
}

// hold runs the test of an exercise, with flags for go test. The test has to fail with the
// message says, or pass if says is "".
func hold(t *testing.T, name, says string, flags ...string) {
	t.Helper()
	test := regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(read(t, name, "exercise_test.go"), -1)
	if len(test) != 1 {
		t.Fatalf("%s has %d tests, want one", name, len(test))
	}
	args := append([]string{"test", "-count=1", "-timeout=2m", "-vet=off"}, flags...)
	if says == "" { // a right solution has no data race either
		args = append(args, race(t)...)
	}
	args = append(args, "./"+name)
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	// Messages are wrapped and indented; compare words.
	said := strings.Join(strings.Fields(string(out)), " ")
	switch {
	case says == "" && err != nil:
		t.Errorf("the test fails: %v\n%s", err, out)
	case says != "" && err == nil:
		t.Errorf("the test passes, want a failure with the message: %s", says)
	case regexp.MustCompile(`(?m)^(panic|fatal error): `).Match(out):
		t.Errorf("the test process crashes\n%s", out)
	case says != "" && (!strings.HasPrefix(said, "--- FAIL: "+test[0][1]+" ") || !strings.Contains(said, says)):
		t.Errorf("the test fails, but not with the message: %s\n%s", says, out)
	}
}

// overlay returns the flag that makes go test use source instead of an exercise.
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

// race returns the flag of the race detector if it is available: it needs a C compiler.
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

// diff returns the lines that a solution adds and removes.
func diff(t *testing.T, name string) (added, removed []string) {
	t.Helper()
	cmd := exec.Command("diff", name+"/exercise.go", "solutions/"+name+"/exercise.go")
	cmd.Dir = dir
	out, err := cmd.Output() // exit code 1: they differ
	if len(out) == 0 {
		t.Fatalf("the solution of %s is the same program: %v", name, err)
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
