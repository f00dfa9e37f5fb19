// Package breakages tests the e2e suite: chapters are broken on purpose, and
// each time the suite has to fail, by an assertion that names the fault.
package breakages

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.com/informers/internal/chapters"
	"example.com/informers/internal/provider"
)

const root = "../.."

// Each edit is what stands in main.go and what to put there. test has to fail with
// a message that contains want.
var breakages = []struct {
	name, chapter, test, want string
	edits                     []string
}{
	{
		"the list is of another namespace", "01-clientset", "TestClientset", "expected NS/web is Pending on node <none>",
		[]string{"Pods(*namespace)", `Pods("kube-node-lease")`},
	},
	{
		"reading is a request", "02-factory", "TestFactory", "want one watch",
		[]string{"		if now := ", "		_, _ = client.CoreV1().Pods(*namespace).List(context.Background(), metav1.ListOptions{})\n		if now := "},
	},
	{
		"handler not registered", "03-handlers", "TestHandlers", "no Add of NS/web",
		[]string{
			"AddFunc: handleAdd, UpdateFunc: handleUpdate, DeleteFunc: handleDelete,", "",
			"	if err != nil {\n		return fmt.Errorf(\"add", "	_, _, _ = handleAdd, handleUpdate, handleDelete\n	if err != nil {\n		return fmt.Errorf(\"add",
		},
	},
	{
		"Updates dropped", "03-handlers", "TestHandlers", "expected Update of NS/nginx",
		[]string{"UpdateFunc: handleUpdate,", "UpdateFunc: func(_, _ *corev1.Pod) {},", "	handleUpdate := func", "	_ = func"},
	},
	{
		"some Updates dropped", "03-handlers", "TestHandlers", "writes by the record",
		[]string{"func(old, pod *corev1.Pod) {", "func(old, pod *corev1.Pod) {\n		if old.Spec.NodeName != pod.Spec.NodeName {\n			return\n		}"},
	},
	{
		"Add printed twice", "03-handlers", "TestHandlers", "expected Add of NS/nginx",
		[]string{"AddFunc: handleAdd,", "AddFunc: func(pod *corev1.Pod) { handleAdd(pod); handleAdd(pod) },"},
	},
	{
		"context ignored", "03-handlers", "TestHandlers", "had not ended after",
		[]string{"run(ctx, client, os.Stdout)", "run(context.WithoutCancel(ctx), client, os.Stdout)"},
	},
	{
		"key wrong", "04-sync", "TestSync", "expected Update of NS/nginx or Delete of NS/nginx",
		[]string{"pod.GetKey()", "pod.GetName()"},
	},
	{
		"sync not awaited", "04-sync", "TestSyncFails", "want a last line like ^cache is not synced: list pods: Get",
		[]string{"if factory.WaitForCacheSyncWithContext(syncCtx).Err != nil {", "if false {"},
	},
	{
		"handler sync not awaited", "04-sync", "TestSyncOfMany", "does not fit",
		[]string{`if !cache.WaitFor(syncCtx, "", handler.HasSyncedChecker()) {`, "if false {"},
	},
	{
		"a failure has exit code 0", "04-sync", "TestSyncFails", "exit code 0, want 1",
		[]string{"		os.Exit(1)\n", ""},
	},
	{
		"resync 0", "05-resync", "TestResync", "no second resync",
		[]string{"WithOptions(client, *resync,", "WithOptions(client, 0,"},
	},
	{
		"resync too early", "05-resync", "TestResync", "resync 1 came after 2.",
		[]string{"WithOptions(client, *resync,", "WithOptions(client, *resync*5/8,"},
	},
	{
		"an initial Add called new", "05-resync", "TestResync", "expected",
		[]string{"if isInInitialList {", "if !isInInitialList {"},
	},
	{
		"evidence of the pod before", "05-resync", "TestResync", "by the record",
		[]string{"return slices.Contains(facts(old), fact) }", "return slices.Contains(facts(old), fact) || strings.HasPrefix(fact, `phase `) }"},
	},
	{
		"delete handler silent on tombstones", "05-resync", "TestFaults/restart", "expected Delete of NS/deleted",
		[]string{"handleDelete := func(pod corev1informers.DeletedPod) {", "handleDelete := func(pod corev1informers.DeletedPod) {\n		if pod.FinalStateUnknown != nil {\n			return\n		}"},
	},
	{
		"relist called resync", "05-resync", "TestFaults/restart", "expected",
		[]string{`"relist, resourceVersion "`, `"resync, resourceVersion "`},
	},
	{
		"index of another field", "06-lister", "TestLister", "does not fit",
		[]string{"return []string{pod.Spec.NodeName}, nil", "return []string{pod.Name}, nil"},
	},
	{
		"Done forgotten", "07-workqueue", "TestWorkqueue/restart", "the API server does not say that late is gone",
		[]string{"	defer c.queue.Done(key) // otherwise the queue never hands out this key again\n", ""},
	},
	{
		"not looked at again", "07-workqueue", "TestWorkqueue/restart", "the API server does not say that late is gone",
		[]string{"			c.queue.AddAfter(key, requeueAfter)\n", ""},
	},
	{
		"initial and new pods not enqueued", "07-workqueue", "TestWorkqueue/restart", "no a look at late",
		[]string{"AddFunc:    func(pod *corev1.Pod) { queue.Add(cache.MetaObjectToName(pod)) },\n", ""},
	},
	{
		"a bad annotation retried", "07-workqueue", "TestWorkqueue/life", "NS/bad: bad",
		[]string{"ttlAnnotation, text)\n		return 0, nil", "ttlAnnotation, text)\n		return 0, errors.New(\"bad\")"},
	},
	{
		"no second chance", "07-workqueue", "TestFaults/apart/ttl", "the API server does not say that over is gone",
		[]string{"		c.queue.AddRateLimited(key) // each failure in a row doubles the wait\n", ""},
	},
	{
		"an informer outlives its resource", "09-dynamic", "TestDynamic/maps", "an informer that has stopped asks on",
		[]string{"		if err := i.stop(); err != nil {", "		if err := error(nil); err != nil {"},
	},
	{"no grace period", "08-testing", "TestTesting/life", "was deleted without a grace period", noGrace},
	{
		"a silent wire delivers", "10-faults", "TestWireFaults/faults/silent,_WatchList_on", "does not fit: expected Delete of NS/deleted: tombstone=true",
		[]string{`if !w.faulty() || *fault != "silent" &&`, `if !w.faulty() || true ||`},
	},
	{
		"watch errors are not printed", "10-faults", "TestWireFaults/faults/503,_WatchList_on", "expected the watch error handler",
		[]string{`w.printf("watch error handler is called: watch pods: %v", err)`, "_ = err"},
	},
	{
		"the transform is not applied", "11-scale", "TestScale", "KiB with whole pods, want less than half",
		[]string{"informer.SetTransform(trim)", "error(nil)", "\n// trim makes", "\nvar _ = trim\n\n// trim makes"},
	},
	{
		"the selectors are not sent", "11-scale", "TestScale", "want the answer",
		[]string{"options.LabelSelector, options.FieldSelector = *selector, *field", "_, _ = *selector, *field"},
	},
}

// namespace is the generated name of a test's namespace.
var namespace = regexp.MustCompile(`\be2e-[a-z0-9-]+`)

func TestBreakages(t *testing.T) {
	dir := t.TempDir()
	suite := filepath.Join(dir, "e2e.test")
	if out, err := exec.Command("go", "test", "-c", "-o", suite, root+"/e2e").CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	c, err := provider.Open(t.Context(), provider.Options{Which: os.Getenv("CLUSTER"), Prefix: "informers-broken", Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, b := range breakages {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			bin := t.TempDir()
			flag := chapters.Overlay(t, root, t.TempDir(), b.chapter, b.edits...)
			if err := chapters.Build(root, bin, []string{b.chapter}, flag); err != nil {
				t.Fatal(err)
			}
			args := []string{"-test.run", "^" + strings.ReplaceAll(b.test, "/", "$/^") + "$", "--bin", bin}
			if !strings.HasPrefix(b.test, "TestFaults") { // there an informer waits up to a minute before it tries again
				args = append(args, "--patience", "30s")
			}
			if b.test == "TestFactory" || strings.HasPrefix(b.test, "TestFaults") || strings.HasPrefix(b.test, "TestDynamic") { // with an audit log, an API server to kill, a CRD
				args = append(args, "--cluster", "local")
			} else {
				args = append(args, "--cluster", "current", "--kubeconfig", c.Kubeconfig)
			}
			cmd := exec.CommandContext(t.Context(), suite, args...)
			cmd.Dir = filepath.Join(root, "e2e")
			cmd.Env = append(os.Environ(), "CLUSTER=", "NGINX_IMAGE="+c.Nginx)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("the suite passed:\n%s", out)
			}
			if !strings.Contains(namespace.ReplaceAllString(string(out), "NS"), b.want) {
				t.Errorf("the suite did not fail with %q:\n%s", b.want, out)
			}
			t.Logf("%s", out)
		})
	}
}
