package promises

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"example.com/informers/internal/chapters"
	"example.com/informers/internal/readmes"
)

var update = flag.Bool("update", false, "write the diffs, and what goes to stderr, in the READMEs anew")

// TestShape: a chapter is one main.go of a page or two, its parent is a step
// away, and its README has the same parts in the same order, with that step as
// its diff.
func TestShape(t *testing.T) {
	sections := []string{"Run it", "What to notice", "The step", "Break it", "In older code", "Next"}
	front := string(read(t, "README.md"))

	for i, chapter := range all {
		t.Run(chapter, func(t *testing.T) {
			main := read(t, chapter, "main.go")
			lines := bytes.Count(main, []byte("\n"))
			t.Logf("%d lines", lines)
			readme, err := chapters.ReadReadme(root, chapter)
			if err != nil {
				t.Fatal(err)
			}
			most, step := 265, 60
			if strings.Contains(readme.Text, "All of this step is lesson.") {
				most, step = 440, 350
			}
			if lines > most {
				t.Errorf("main.go has %d lines, want at most %d", lines, most)
			}
			// GitHub cuts off what is wider, at 1280 px.
			checkWidth(t, chapter+"/main.go", main, 100)
			for _, block := range regexp.MustCompile("(?s)<!-- output: [^\n]*\n```text\n.*?```").FindAll(read(t, chapter, "README.md"), -1) {
				if _, output, _ := bytes.Cut(block, []byte("\n")); !*update { // e2e writes it after this
					checkWidth(t, chapter+"/README.md", output, 111)
				}
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

			if !strings.Contains(front, "| ["+chapter+"]("+chapter+") |") {
				t.Errorf("the table in README.md does not have %s", chapter)
			}
			if _, next, _ := strings.Cut(readme.Text, "\n## Next\n"); i+1 < len(all) && !strings.Contains(next, "(../"+all[i+1]+")") {
				t.Errorf("README.md does not lead to %s under Next", all[i+1])
			}
			if i == 0 {
				return
			}
			before := readme.Parent
			if !slices.Contains(all[:i], before) {
				t.Fatalf("README.md says From [%s], want a chapter before this one", before)
			}
			diff := diff(t, before, chapter)
			changed := len(regexp.MustCompile(`(?m)^[-+]`).FindAll(diff, -1))
			t.Logf("%d lines added and removed", changed)
			if changed > step {
				t.Errorf("%d lines added and removed since %s, want at most %d", changed, before, step)
			}
			checkOutput(t, "diff", diffCommand(before, chapter), string(diff))
		})
	}
}

// checkWidth: no line has more columns than limit, with tabs of four.
func checkWidth(t *testing.T, file string, text []byte, limit int) {
	t.Helper()
	for line := range strings.Lines(string(text)) {
		line = strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "\t", "    ")
		if columns := utf8.RuneCountInString(line); columns > limit {
			t.Errorf("%s has a line of %d columns, want at most %d: %s", file, columns, limit, line)
		}
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

// checkOutput holds a block of a README to what is printed today, or writes it.
func checkOutput(t *testing.T, kind, command, printed string) {
	t.Helper()
	blocks, err := readmes.Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(blocks, func(b readmes.Block) bool { return b.Kind == kind && b.Command == command })
	if i < 0 {
		t.Fatalf("no README has the %s of %s", kind, command)
	}
	if *update {
		writing.Lock()
		defer writing.Unlock()
		err = blocks[i].Write(root, printed)
	} else {
		err = blocks[i].Check(printed)
	}
	if err != nil {
		t.Error(err)
	}
}

// writing: tests run at the same time, and a README has several blocks.
var writing sync.Mutex

// TestBlocks: all diffs and all output on stderr in the READMEs are checked here;
// what is printed on a cluster, the e2e suite checks.
func TestBlocks(t *testing.T) {
	blocks, err := readmes.Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		chapter := strings.Split(b.File, "/")[0]
		ok := b.Kind != "stderr" || slices.Contains([]string{stderr02, stderr03, stderr04, stderr09}, b.Command)
		if b.Kind == "diff" {
			readme, err := chapters.ReadReadme(root, chapter)
			ok = err == nil && b.Command == diffCommand(readme.Parent, chapter)
		}
		if !ok {
			t.Errorf("%s: no test checks the %s of %s", b.File, b.Kind, b.Command)
		}
	}
}

func diffCommand(from, to string) string { return from + "/main.go " + to + "/main.go" }

func read(t *testing.T, elem ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{root}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
