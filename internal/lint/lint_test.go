// Package lint proves that the linters find the problems that they are used for. make
// lint runs this test after the linters have found no problem in the repository.
package lint

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// TestOldCode: golangci-lint finds the old forms that docs/older does not have, or has only next to
// another form that the same linter reports.
func TestOldCode(t *testing.T) {
	check(t, golangciLint(t, ".", "./internal/lint/testdata/old"), [][2]string{
		{"contextcheck", "getWithoutContext"},
		{"errorlint", "non-wrapping format verb"},
		{"forbidigo", "factory.WaitForCacheSync"},
		{"forbidigo", "typed.SetWatchErrorHandler"},
		{"forbidigo", "typed.AddEventHandler"},
		{"forbidigo", "typed.Run"},
	})
}

// TestWrongWorkflow runs actionlint on a workflow with an unknown runner, input and
// property, and with a title through which anyone can inject a command.
func TestWrongWorkflow(t *testing.T) {
	var report []struct{ Kind, Message string }
	run(t, ".", &report, "actionlint", "-format", "{{json .}}", "internal/lint/testdata/workflow.yml")
	var issues []issue
	for _, i := range report {
		issues = append(issues, issue{FromLinter: i.Kind, Text: i.Message})
	}
	check(t, issues, [][2]string{
		{"action", `input "go" is not defined`},
		{"expression", `"github.event.pull_request.title" is potentially untrusted`},
		{"expression", `property "version" is not defined`},
		{"runner-label", `label "ubuntu-newest" is unknown`},
	})
}

// TestOlderCode: for each function of docs/older, compiled with today's client-go, the table of
// docs/older-code.md names the linters that report it, and no others.
func TestOlderCode(t *testing.T) {
	found := map[string][]string{} // linters by function
	for _, i := range golangciLint(t, "docs/older", "--tests=false", ".") {
		source := read(t, i.Pos.Filename) // relative to the configuration
		function := functionAt(source, i.Pos.Line)
		found[function] = append(found[function], i.FromLinter)
	}
	for function, want := range olderTable(t) {
		slices.Sort(want)
		slices.Sort(found[function])
		if got := slices.Compact(found[function]); !slices.Equal(got, want) {
			t.Errorf("%s is found by %q, and the page says by %q", function, got, want)
		}
		delete(found, function)
	}
	for function, linters := range found {
		t.Errorf("the page does not show %s, which is found by %q", function, linters)
	}
}

// TestOneClientGo: what chapter 05 imports has the versions that Kubernetes requires, with which cluster/ compiles it.
// Otherwise a first make demo compiles client-go twice.
func TestOneClientGo(t *testing.T) {
	versions := func(dir string, args ...string) map[string]string {
		t.Helper()
		cmd := exec.Command("go", append([]string{"list"}, args...)...)
		cmd.Dir = filepath.Join(root, dir)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", cmd.Args, err)
		}
		versions := map[string]string{}
		for line := range strings.Lines(string(out)) {
			if fields := strings.Fields(line); len(fields) > 1 { // and maybe a replacement
				versions[fields[0]] = fields[1]
			}
		}
		return versions
	}
	chapter := versions(".", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Version}}{{end}}", "./05-resync")
	cluster := versions("cluster", "-m", "all")
	if chapter["k8s.io/client-go"] == "" {
		t.Error("chapter 05 does not import client-go")
	}
	for module, version := range chapter {
		if version != "" && cluster[module] != version {
			t.Errorf("go.mod has %s %s, cluster/go.mod %s", module, version, cluster[module])
		}
	}
}

type issue struct {
	FromLinter, Text string
	Pos              struct {
		Filename string
		Line     int
	}
}

// golangciLint runs golangci-lint in a folder of the repository.
func golangciLint(t *testing.T, dir string, args ...string) []issue {
	t.Helper()
	var report struct{ Issues []issue }
	tool := []string{"golangci-lint", "run", "--output.json.path=stdout", "--show-stats=false"}
	run(t, dir, &report, append(tool, args...)...)
	return report.Issues
}

// run runs one of our tools and decodes its report, in JSON. The tool has to fail.
func run(t *testing.T, dir string, report any, tool ...string) {
	t.Helper()
	mod, err := filepath.Abs(filepath.Join(root, "internal/tools/go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", slices.Concat([]string{"tool", "-modfile=" + mod}, tool)...)
	cmd.Dir = filepath.Join(root, dir)
	out, err := cmd.Output() // exit code 1: there are issues
	if err := json.Unmarshal(out, report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if err == nil {
		t.Errorf("%s found nothing", tool[0])
	}
}

// check checks that each of the linters reports a text.
func check(t *testing.T, issues []issue, want [][2]string) {
	t.Helper()
	for _, want := range want {
		if !slices.ContainsFunc(issues, func(i issue) bool {
			return i.FromLinter == want[0] && strings.Contains(i.Text, want[1])
		}) {
			t.Errorf("%s did not report %s", want[0], want[1])
		}
	}
}

var (
	section = regexp.MustCompile(`(?m)^### (.*)\n\n<!-- go: docs/older/\S+ (\w+) -->`)
	row     = regexp.MustCompile(`(?m)^\| \[.*?\]\(#([a-z0-9-]+)\) \|[^|]*\|([^|]*)\|$`)
	quoted  = regexp.MustCompile("`(\\w+)`")
)

// olderTable reads which linters the page names for the old function of each section.
func olderTable(t *testing.T) map[string][]string {
	t.Helper()
	page := read(t, "docs/older-code.md")
	functions := map[string]string{} // by the anchor of their section
	for _, m := range section.FindAllStringSubmatch(page, -1) {
		functions[strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")] = m[2]
	}
	table := map[string][]string{}
	for _, m := range row.FindAllStringSubmatch(page, -1) {
		function := functions[m[1]]
		if function == "" {
			t.Errorf("no section #%s that shows a function of docs/older", m[1])
		}
		delete(functions, m[1])
		table[function] = nil
		for _, linter := range quoted.FindAllStringSubmatch(m[2], -1) {
			table[function] = append(table[function], linter[1])
		}
	}
	for anchor := range functions {
		t.Errorf("no row of the table leads to #%s", anchor)
	}
	return table
}

var function = regexp.MustCompile(`^func (\w+)\(`)

// functionAt returns the function in a line. A line of the imports belongs to the first one.
func functionAt(source string, line int) (name string) {
	for i, text := range strings.Split(source, "\n") {
		if name != "" && i >= line {
			break
		}
		if m := function.FindStringSubmatch(text); m != nil {
			name = m[1]
		}
	}
	return name
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
