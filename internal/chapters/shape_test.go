package chapters

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/informers/internal/program"
)

var update = flag.Bool("update", false, "write the diffs of the READMEs anew")

// TestShape: a chapter is one main.go of a page or two, its neighbour is a step
// away, and its README has the same parts in the same order, with that step as
// its diff.
func TestShape(t *testing.T) {
	maxLines := map[string]int{"01-clientset": 90, "05-resync": 180}
	sections := []string{"The step", "Run it", "What to notice", "Break it", "In older code", "Next"}
	const maxChanged = 60

	before := ""
	for _, chapter := range program.Chapters {
		t.Run(chapter, func(t *testing.T) {
			main := read(t, chapter, "main.go")
			lines := bytes.Count(main, []byte("\n"))
			t.Logf("%d lines", lines)
			if limit, ok := maxLines[chapter]; ok && lines > limit {
				t.Errorf("main.go has %d lines, want at most %d", lines, limit)
			}
			if bytes.Contains(main, []byte("example.com/informers")) {
				t.Error("main.go imports something of this repository")
			}

			var headings []string
			for _, match := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllSubmatch(read(t, chapter, "README.md"), -1) {
				headings = append(headings, string(match[1]))
			}
			if !slices.Equal(headings, sections) {
				t.Errorf("README.md has the parts %q, want %q", headings, sections)
			}

			if before == "" {
				return
			}
			diff := diff(t, before, chapter)
			changed := len(regexp.MustCompile(`(?m)^[-+]`).FindAll(diff, -1))
			t.Logf("%d lines added and removed", changed)
			if changed > maxChanged {
				t.Errorf("%d lines added and removed since %s, want at most %d", changed, before, maxChanged)
			}
			checkDiff(t, chapter, diff)
		})
		before = chapter
	}
}

// diff returns the hunks that lead from one chapter's main.go to another's.
func diff(t *testing.T, from, to string) []byte {
	t.Helper()
	cmd := exec.Command("git", "diff", "--no-index", "--no-color", "--no-ext-diff", "--unified=1", from+"/main.go", to+"/main.go")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	out, _ := cmd.Output() // exit code 1: they differ
	_, hunks, ok := bytes.Cut(out, []byte("\n@@"))
	if !ok {
		t.Fatalf("git diff from %s to %s printed %q", from, to, out)
	}
	// The numbers in a hunk's head help nobody, and change with every line.
	return regexp.MustCompile(`(?m)^@@.*$`).ReplaceAll(append([]byte("@@"), hunks...), []byte("@@"))
}

func checkDiff(t *testing.T, chapter string, diff []byte) {
	t.Helper()
	readme := read(t, chapter, "README.md")
	block := regexp.MustCompile("(?s)```diff\n.*?```")
	want := append(append([]byte("```diff\n"), diff...), "```"...)
	if *update {
		readme = block.ReplaceAllLiteral(readme, want)
		if err := os.WriteFile(filepath.Join(root, chapter, "README.md"), readme, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := block.Find(readme); !bytes.Equal(got, want) {
		t.Errorf("the diff in README.md is not today's: go test ./internal/chapters -run TestShape -update\n%s", strings.TrimSpace(string(want)))
	}
}

func read(t *testing.T, elem ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{root}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
