// Package lint proves that the linters see what they are there for: make lint
// runs this test after it has found the repository clean.
package lint

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// TestOldCode holds the linters to a sample of 2021-style code.
func TestOldCode(t *testing.T) {
	cmd := exec.Command("go", "tool", "-modfile=internal/tools/go.mod", "golangci-lint", "run",
		"--output.json.path=stdout", "--show-stats=false", "./internal/lint/testdata/old")
	cmd.Dir = "../.."
	out, err := cmd.Output() // exit code 1: there are issues
	var report struct {
		Issues []struct{ FromLinter, Text string }
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if err == nil {
		t.Error("golangci-lint found nothing")
	}

	for _, want := range []struct{ linter, text string }{
		{"contextcheck", "getWithoutContext"},
		{"errcheck", "informer.SetWatchErrorHandler"},
		{"errcheck", "informer.AddEventHandler"},
		{"errorlint", "type assertion on error"},
		{"errorlint", "non-wrapping format verb"},
		{"forbidigo", "clientcmd.BuildConfigFromFlags"},
		{"forbidigo", "client.Discovery().ServerVersion"},
		{"forbidigo", "informer.SetWatchErrorHandler"},
		{"forbidigo", "informer.AddEventHandler"},
		{"forbidigo", "factory.Start"},
		{"forbidigo", "factory.WaitForCacheSync"},
		{"forbidigo", "cache.WaitForCacheSync"},
		{"forbidigo", "informer.Run"},
		{"forbidigo", "typed.SetWatchErrorHandler"},
		{"forbidigo", "typed.AddEventHandler"},
		{"forbidigo", "typed.Run"},
		{"staticcheck", "NewFilteredSharedInformerFactory is deprecated"},
		{"staticcheck", "wait.PollImmediate is deprecated"},
	} {
		found := false
		for _, issue := range report.Issues {
			found = found || issue.FromLinter == want.linter && strings.Contains(issue.Text, want.text)
		}
		if !found {
			t.Errorf("%s did not report %s", want.linter, want.text)
		}
	}
}
