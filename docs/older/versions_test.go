//go:build !v0.22

// What is the same with each version that package older is compiled with runs once, with today's.

package older

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const today = "v0.37.2"

// TestToday: the same code compiles with today's client-go and with that of its time, and the same
// goes wrong.
func TestToday(t *testing.T) {
	const list = "list -m -f {{.Version}} k8s.io/client-go"
	for command, want := range map[string]string{
		list: today, "-C ../.. " + list: today, "run ./with v0.22.17 " + list: "v0.22.17",
	} {
		if got, err := run(command); err != nil || got != want+"\n" {
			t.Errorf("go %s: %s, want %s (%v)", command, got, want, err)
		}
	}
	if out, err := run("run ./with v0.22.17 test ."); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestNoContext: the code before client-go v0.18 compiles with its client-go, and not with today's.
func TestNoContext(t *testing.T) {
	if out, err := run("run ./with v0.17.17 test ./nocontext"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	out, err := run("vet -tags v0.17 ./nocontext")
	if err == nil || !strings.Contains(out, "not enough arguments") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestGoFix: the go command itself brings two of the old forms up to date.
func TestGoFix(t *testing.T) {
	out, _ := run("fix -diff .") // fails if there is something to fix
	for _, line := range []string{"+\t\tDeleteFunc: func(obj any) {", "+\tdata, err := os.ReadFile("} {
		if !strings.Contains(out, "\n"+line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
}

// run runs a command of go, and returns what it prints.
func run(command string) (string, error) {
	out, err := exec.Command("go", strings.Fields(command)...).CombinedOutput()
	return string(out), err
}

// TestSince: each of today's forms is in the version that the page names, and not in the one
// before it.
func TestSince(t *testing.T) {
	for _, form := range []struct{ module, before, since, file, text string }{
		{"client-go", "", "v0.17.17", "tools/clientcmd/client_config.go", "ClientConfigLoadingRules"},
		{"client-go", "", "v0.17.17", "informers/factory.go", "func NewSharedInformerFactoryWithOptions("},
		{"apimachinery", "", "v0.17.17", "pkg/util/wait/wait.go", "func UntilWithContext("},
		{"client-go", "v0.17.17", "v0.18.19", "kubernetes/typed/core/v1/pod.go", "List(ctx context.Context"},
		{"client-go", "v0.25.9", "v0.26.9", "informers/factory.go", "Shutdown()"},
		{"client-go", "v0.25.9", "v0.26.9", sharedInformer, "(ResourceEventHandlerRegistration, error)"},
		{"apimachinery", "v0.26.9", "v0.27.3", "pkg/util/wait/poll.go", "func PollUntilContextTimeout("},
		{"client-go", "v0.30.14", "v0.31.14", "tools/cache/controller.go", "func NewInformerWithOptions("},
		{"client-go", "v0.30.14", "v0.31.14", "util/workqueue/rate_limiting_queue.go", "func NewTypedRateLimitingQueue["},
		{"client-go", "v0.30.14", "v0.31.14", clientset, "func NewClientset("},
		{"apimachinery", "v0.30.14", "v0.31.14", "pkg/util/runtime/runtime.go", "func HandleErrorWithContext("},
		{"client-go", "v0.32.13", "v0.33.13", sharedInformer, "RunWithContext("},
		{"client-go", "v0.32.13", "v0.33.13", sharedInformer, "SetWatchErrorHandlerWithContext("},
		{"client-go", "v0.35.10", "v0.36.6", "informers/factory.go", "StartWithContext("},
		{"client-go", "v0.35.10", "v0.36.6", sharedInformer, "HasSyncedChecker()"},
		{"client-go", "v0.36.6", today, sharedInformer, "AddTypedEventHandler("},
		{"client-go", "v0.36.6", today, "discovery/discovery_client.go", "ServerVersionWithContext("},
	} {
		has(t, form.module, form.since, form.file, form.text, true)
		if form.before != "" { // else it is there since this version, or an older one
			has(t, form.module, form.before, form.file, form.text, false)
		}
	}
}

const (
	sharedInformer = "tools/cache/shared_informer.go"
	clientset      = "kubernetes/fake/clientset_generated.go"
)

// TestCommentSaidThatAResyncLists: where the most common mistake comes from.
func TestCommentSaidThatAResyncLists(t *testing.T) {
	for version, want := range map[string]bool{"v0.17.17": true, "v0.22.17": false, today: false} {
		has(t, "client-go", version, "tools/cache/reflector.go", "lists will be executed after every\n// resyncPeriod", want)
	}
}

// TestFakeWasDeprecatedForAWhile: the only note was in capitals, which no linter reads.
func TestFakeWasDeprecatedForAWhile(t *testing.T) {
	for version, want := range map[string]bool{
		"v0.30.14": false, "v0.31.14": true, "v0.33.13": true, "v0.35.10": false, today: false,
	} {
		has(t, "client-go", version, clientset, "DEPRECATED: NewClientset", want)
	}
}

var moduleDirs = map[string]string{} // where the source of a module lies

// has reports an error unless a file of a module has the text, or does not have it.
func has(t *testing.T, module, version, file, text string, want bool) {
	t.Helper()
	module = "k8s.io/" + module + "@" + version
	if moduleDirs[module] == "" {
		out, err := exec.Command("go", "mod", "download", "-json", module).Output()
		var info struct{ Dir string }
		if err := errors.Join(err, json.Unmarshal(out, &info)); err != nil {
			t.Fatal(module, err)
		}
		moduleDirs[module] = info.Dir
	}
	source, err := os.ReadFile(filepath.Join(moduleDirs[module], file))
	if err != nil && !errors.Is(err, os.ErrNotExist) { // a file may be new, too
		t.Fatal(err)
	}
	if got := strings.Contains(string(source), text); got != want {
		t.Errorf("%s of %s has %q: %t, want %t", file, module, text, got, want)
	}
}
