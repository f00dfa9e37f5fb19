package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A repository with a page, what the page talks of, and a test that prints.
func repo(t *testing.T, page string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"docs/page.md": page,
		"Makefile":     "all:\n\tmake something\n",
		"x/x.go": `package x

// F does it.
func F() int {
	// one step
	a := 1

	return a
}
`,
		"x/x_test.go": `package x

import "testing"

func TestIt(t *testing.T) { show() }

func TestSilent(t *testing.T) {}

func show() { readmes.Shown() }
`,
		"internal/docs/go.mod": "module m\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("git", "-C", root, "init", "-q").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return root
}

const gomark = "https://github.com/yuin/goldmark/blob/v1.8.7/markdown.go"

func TestProblems(t *testing.T) {
	for name, tt := range map[string]struct{ page, want string }{
		"nothing wrong": {"# A page\n\nIt is 5 m long. [`TestIt`](../x/x_test.go)\n", ""},
		"link":          {"[there](there.md)", "there.md is not there"},
		"anchor":        {"# A page\n\n[there](#b-page)", "no heading #b-page"},
		"third heading": {"# A\n\n# A\n\n# A\n\n[there](#a-2)", ""},
		"test elsewhere": {
			"It is 5 m long. [`TestIt`](page.md)", "TestIt is not in docs/page.md",
		},
		"number without a proof": {"It is 5 m long.", "nothing proves: It is 5 m long."},
		"number of a version":    {"Since v0.36 and Kubernetes 1.37, in 2026.", ""},
		"number in code":         {"It is `5`.", ""},
		"item":                   {"- It is 5 m long.", "nothing proves: It is 5 m long."},
		"fact":                   {"| a | b |\n|---|---|\n| c<br>d | e |", "nothing proves: c d: e"},
		"row that leads on":      {"# A\n\n| a | b |\n|---|---|\n| c | [d](#a) |", ""},
		"recording that is not":  {"It is 5 m long. <!-- proof: data/x.json -->", "no proof data/x.json"},
		"proof in a comment":     {"It is 5 m long. <!-- proof: TestIt -->", ""},
		"block without a mark":   {"```text\na\n```", "a mark that says what printed it"},
		"block of a silent test": {"<!-- test: TestSilent -->\n```text\na\n```", "no test prints TestSilent"},
		"block of a test":        {"<!-- test: TestIt -->\n```text\na\n```", ""},
		"snippet without a mark": {"```go\na\n```", "a Go snippet needs a mark"},
		"snippet that is stale": {
			"<!-- go: x/x.go F -->\n```go\nfunc F() {}\n```", "docs/page.md is stale",
		},
		"snippet of a step": {"<!-- go: x/x.go \"// one step\" -->\n```go\n// one step\na := 1\n```", ""},
		"snippet of nothing": {
			"<!-- go: x/x.go G -->\n```go\nfunc G() {}\n```", "x/x.go declares no G",
		},
		"language": {"```java\na\n```", `a block of "java"`},
		"width":    {"```yaml\n" + strings.Repeat("a", 101) + "\n```", "docs/page.md:2: 101 columns, at most 100"},
		"width with tabs": {
			"```yaml\n\t" + strings.Repeat("a", 97) + "\n```", "docs/page.md:2: 101 columns, at most 100",
		},
		"width of runes": {"```yaml\n" + strings.Repeat("→", 100) + "\n```", ""},
		"width of a test's output": {
			"<!-- test: TestIt -->\n```text\na\n" + strings.Repeat("a", 112) + "\n```",
			"docs/page.md:4: 112 columns, at most 111",
		},
		"width of a program's output": {
			"<!-- output: x -->\n```text\n" + strings.Repeat("a", 112) + "\n```",
			"docs/page.md:3: 112 columns, at most 111",
		},
		"width that is allowed": {"<!-- output: x -->\n```text\n" + strings.Repeat("a", 111) + "\n```", ""},
		"width of client-go's log": {
			"<!-- stderr: x -->\n```text\n" + strings.Repeat("a", 300) + "\n```", "",
		},
		"command": {"```sh\nmake nothing\n```", "nobody runs make nothing"},
		"command that runs": {
			"```sh\nmake something # and more\n```", "",
		},
		"branch": {
			"[x](https://github.com/yuin/goldmark/blob/master/markdown.go)", `"master" is no version`,
		},
		"line without its text": {"[x](" + gomark + "#L1)", "needs text of that line"},
		"line that moved": {
			"[x](" + gomark + `#L1 "func Convert(")`, "docs/page.md is stale",
		},
		"text that is not there": {"[x](" + gomark + `#L1 "func Concert(")`, `no line has "func Concert("`},
		"file that is not there": {
			"[x](https://github.com/yuin/goldmark/blob/v1.8.7/nothing.go)", "there is no such file",
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := repo(t, tt.page)
			problems := ""
			if err := run(root, true); err != nil {
				problems = err.Error()
			}
			var lines []string
			for _, line := range strings.Split(problems, "\n") {
				if line != "" {
					lines = append(lines, line)
				}
			}
			switch {
			case tt.want == "" && len(lines) > 0:
				t.Errorf("%q, want no problem", lines)
			case tt.want != "" && !strings.Contains(strings.Join(lines, "\n"), tt.want):
				t.Errorf("%q, want %s", lines, tt.want)
			}
		})
	}
}

func TestWritesLinesAndSnippets(t *testing.T) {
	root := repo(t, "[x]("+gomark+"#L1 \"func Convert(\")\n\n"+
		"<!-- go: x/x.go F -->\n```go\n```\n\nIt is 5 m long. <!-- proof: TestIt -->\n")
	for range 2 { // the second time nothing changes
		if err := run(root, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(root, true); err != nil {
		t.Error(err)
	}
	want := "// F does it.\nfunc F() int {\n\t// one step\n\ta := 1\n\n\treturn a\n}\n```"
	text, err := os.ReadFile(filepath.Join(root, "docs/page.md"))
	if err != nil || !strings.Contains(string(text), want) {
		t.Errorf("the page has no %q:\n%s", want, text)
	}
}
