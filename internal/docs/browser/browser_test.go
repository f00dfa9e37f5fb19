package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// repository creates a folder with these files. It does not use the network.
func repository(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestProblemsAreFound(t *testing.T) {
	root := repository(t, map[string]string{
		"docs/diagram.md": "```mermaid\nflowchart LR\n  a ->\n```\n",
		"docs/small.md":   "```mermaid\nflowchart LR\n  one --> two --> three --> four --> five --> six --> seven\n```\n",
		"docs/alt.md":     "![](good.svg)\n",
		"docs/missing.md": "![a picture](missing.svg)\n",
		"docs/tiny.md":    "![a picture](tiny.svg)\n",
		"docs/cut.md":     "![a picture](cut.svg)\n",
		"docs/node.md":    "```mermaid\n%%{init: {\"sequence\": {\"width\": 60, \"wrap\": false}, \"themeCSS\": \".actor {letter-spacing: 9px}\"}}%%\nsequenceDiagram\n  participant A as participant\n  A->>A: x\n```\n",
		"docs/wide.md":    "<div style=\"width: 1500px\">a long line</div>\n",
		"docs/good.svg":   `<svg xmlns="http://www.w3.org/2000/svg" width="300" height="20"><text x="1" y="15" font-size="13">good</text></svg>`,
		"docs/tiny.svg":   `<svg xmlns="http://www.w3.org/2000/svg" width="716" height="20" viewBox="0 0 716 20"><text x="1" y="15" font-size="13">half as large on a phone</text></svg>`,
		"docs/cut.svg":    `<svg xmlns="http://www.w3.org/2000/svg" width="300" height="20"><text x="290" y="15" font-size="13">too long</text></svg>`,
	})
	got, err := run(t.Context(), root, ".", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"docs/alt.md: the picture good.svg has no alt",
		`docs/cut.md: docs/cut.svg: the text "too long" is cut off at the edge`,
		"docs/diagram.md: the mermaid block \"flowchart LR a ->\" does not render: Parse error on line 2:",
		"docs/missing.md: the picture docs/missing.svg does not load",
		`docs/node.md: a diagram: the text "participant" overflows its node`,
		`docs/small.md: a diagram: the text "one" is `,
		`docs/tiny.md: docs/tiny.svg: the text "half as large on a phone" is 6.5 px, less than 11 (390 px light, 390 px dark)`,
		`docs/wide.md: the page is wider than the window: <div> "a long line"`,
	}
	for _, line := range want {
		if !slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, line) }) {
			t.Errorf("not found: %s", line)
		}
	}
	for _, line := range got {
		page, _, _ := strings.Cut(line, ":")
		if !slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(line, w) }) && page != "docs/small.md" && page != "docs/node.md" {
			t.Errorf("found without need: %s", line)
		}
		if strings.Contains(line, "\n") {
			t.Errorf("more than one line: %q", line)
		}
	}
}

func TestGoodPagesHaveNoProblem(t *testing.T) {
	cells := strings.Repeat("| a table scrolls inside itself ", 12) + "|\n"
	root := repository(t, map[string]string{
		"README.md":          "```mermaid\nflowchart TB\n  server[API server] -->|list, watch| reflector --> queue\n  queue --> store[(store)]\n  queue --> handlers\n```\n",
		"docs/table.md":      cells + strings.Repeat("| --- ", 12) + "|\n" + cells + "\n```text\n" + strings.Repeat("so does a block ", 30) + "\n```\n",
		"docs/badge.md":      "![a badge](https://example.invalid/badge.svg)\n",
		"01-plain/README.md": "no picture, so nobody looks at it\n",
	})
	if err := os.CopyFS(filepath.Join(root, "docs"), os.DirFS("../draw/testdata/docs")); err != nil {
		t.Fatal(err)
	}
	shots := t.TempDir()
	problems, err := run(t.Context(), root, ".", shots, nil)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v\n%s", err, strings.Join(problems, "\n"))
	}
	found, err := filepath.Glob(filepath.Join(shots, "*.png"))
	if err != nil || len(found) != 4*4 {
		t.Errorf("%d screenshots, want 16: %v %v", len(found), found, err)
	}
	if _, err := run(t.Context(), root, ".", "", []string{"docs/none.md"}); err == nil {
		t.Error("a page that is not there is no error")
	}
}
