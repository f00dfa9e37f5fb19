// Package lint proves that the linters find the problems that they are used for. make
// lint runs this test after the linters have found no problem in the repository.
package lint

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestOldCode runs golangci-lint on a sample of 2021-style code.
func TestOldCode(t *testing.T) {
	var report struct {
		Issues []struct{ FromLinter, Text string }
	}
	run(t, &report, "golangci-lint", "run",
		"--output.json.path=stdout", "--show-stats=false", "./internal/lint/testdata/old")
	var got []issue
	for _, i := range report.Issues {
		got = append(got, issue{i.FromLinter, i.Text})
	}
	check(t, got, []issue{
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
	})
}

// TestWrongWorkflow runs actionlint on a workflow with an unknown runner, input and
// property, and with a title through which anyone can inject a command.
func TestWrongWorkflow(t *testing.T) {
	var report []struct{ Kind, Message string }
	run(t, &report, "actionlint", "-format", "{{json .}}", "internal/lint/testdata/workflow.yml")
	var got []issue
	for _, i := range report {
		got = append(got, issue{i.Kind, i.Message})
	}
	check(t, got, []issue{
		{"action", `input "go" is not defined`},
		{"expression", `"github.event.pull_request.title" is potentially untrusted`},
		{"expression", `property "version" is not defined`},
		{"runner-label", `label "ubuntu-newest" is unknown`},
	})
}

// run runs one of our tools and decodes its report, in JSON. The tool has to fail.
func run(t *testing.T, report any, tool ...string) {
	t.Helper()
	cmd := exec.Command("go", slices.Concat([]string{"tool", "-modfile=internal/tools/go.mod"}, tool)...)
	cmd.Dir = "../.."
	out, err := cmd.Output() // exit code 1: there are issues
	if err := json.Unmarshal(out, report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if err == nil {
		t.Errorf("%s found nothing", tool[0])
	}
}

type issue struct{ linter, text string }

func check(t *testing.T, got, want []issue) {
	t.Helper()
	for _, want := range want {
		if !slices.ContainsFunc(got, func(got issue) bool {
			return got.linter == want.linter && strings.Contains(got.text, want.text)
		}) {
			t.Errorf("%s did not report %s", want.linter, want.text)
		}
	}
}
