package lint

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestOlderCode: for each function of docs/older, compiled with today's client-go, the table
// of docs/older-code.md names the linters that report it, and no others.
func TestOlderCode(t *testing.T) {
	const root = "../.."
	dir := t.TempDir()
	sources, err := filepath.Glob(filepath.Join(root, "docs/older/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		if !strings.HasSuffix(source, "_test.go") {
			copyFile(t, source, filepath.Join(dir, filepath.Base(source)))
		}
	}
	copyFile(t, filepath.Join(root, "docs/older/go.v0.37.mod"), filepath.Join(dir, "go.mod"))
	copyFile(t, filepath.Join(root, "docs/older/go.v0.37.sum"), filepath.Join(dir, "go.sum"))

	found := map[string]map[string]bool{} // function, linter
	for _, i := range olderIssues(t, root, dir) {
		for _, function := range functionsAt(t, filepath.Join(dir, filepath.Base(i.Pos.Filename)), i.Pos.Line) {
			if found[function] == nil {
				found[function] = map[string]bool{}
			}
			found[function][i.FromLinter] = true
		}
	}
	for function, linters := range olderTable(t, filepath.Join(root, "docs/older-code.md")) {
		for _, linter := range linters {
			if !found[function][linter] {
				t.Errorf("%s does not report %s", linter, function)
			}
			delete(found[function], linter)
		}
		for linter := range found[function] {
			t.Errorf("%s reports %s, the page does not say so", linter, function)
		}
		delete(found, function)
	}
	for function := range found {
		t.Errorf("the page does not show %s, which linters report", function)
	}
}

type olderIssue struct {
	FromLinter, Text string
	Pos              struct {
		Filename string
		Line     int
	}
}

// olderIssues returns what golangci-lint finds in dir with this repository's configuration.
func olderIssues(t *testing.T, root, dir string) []olderIssue {
	t.Helper()
	tool := exec.Command("go", "tool", "-modfile=internal/tools/go.mod", "-n", "golangci-lint")
	tool.Dir = root
	linter, err := tool.Output()
	if err != nil {
		t.Fatal(err)
	}
	config, err := filepath.Abs(filepath.Join(root, ".golangci.yml"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(strings.TrimSpace(string(linter)), "run", "--config", config,
		"--output.json.path=stdout", "--show-stats=false", ".")
	cmd.Dir = dir
	out, err := cmd.Output() // exit code 1: there are issues
	var report struct{ Issues []olderIssue }
	if jsonErr := json.Unmarshal(out, &report); jsonErr != nil || len(report.Issues) == 0 {
		t.Fatalf("%v, %v in %s", err, jsonErr, out)
	}
	return report.Issues
}

var (
	olderRow     = regexp.MustCompile(`(?m)^\| \[.*?\]\(#([a-z0-9-]+)\) \|[^|]*\|([^|]*)\|$`)
	olderSection = regexp.MustCompile(`(?m)^### (.*)\n\n(?:.*\n\n)?<!-- go: docs/older/(?:nocontext/)?\w+\.go (\w+) -->`)
	olderLinter  = regexp.MustCompile("`(\\w+)`")
)

// olderTable reads which linters the page names for the old function of each section.
func olderTable(t *testing.T, page string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{} // anchor, function
	for _, m := range olderSection.FindAllStringSubmatch(string(text), -1) {
		sections[strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")] = m[2]
	}
	table := map[string][]string{}
	for _, m := range olderRow.FindAllStringSubmatch(string(text), -1) {
		function := sections[m[1]]
		if function == "" {
			t.Errorf("no section #%s that shows a function of docs/older", m[1])
		}
		delete(sections, m[1])
		table[function] = nil
		for _, linter := range olderLinter.FindAllStringSubmatch(m[2], -1) {
			table[function] = append(table[function], linter[1])
		}
	}
	for anchor := range sections {
		t.Errorf("no row of the table leads to #%s", anchor)
	}
	return table
}

// functionsAt returns the function in a line or, if the line imports a package, the functions that use it.
func functionsAt(t *testing.T, file string, line int) (names []string) {
	t.Helper()
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	imported := ""
	for _, i := range parsed.Imports {
		if files.Position(i.Pos()).Line == line {
			imported = path.Base(strings.Trim(i.Path.Value, `"`))
		}
	}
	for _, decl := range parsed.Decls {
		function, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		here := files.Position(function.Pos()).Line <= line && line <= files.Position(function.End()).Line
		ast.Inspect(function, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			here = here || ok && imported != "" && id.Name == imported
			return true
		})
		if here {
			names = append(names, function.Name.Name)
		}
	}
	return names
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
