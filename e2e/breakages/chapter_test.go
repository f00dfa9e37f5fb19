package breakages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/informers/internal/chapters"
)

// TestAddedChapter: a chapter is a folder, a row on the front page, and a link from the chapter
// before. The checks of all chapters then hold for it, too.
func TestAddedChapter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := exec.CommandContext(t.Context(), "git", "checkout-index", "--all", "--prefix", dir+"/")
	files.Dir = root
	if out, err := files.CombinedOutput(); err != nil {
		t.Fatalf("git checkout-index: %v\n%s", err, out)
	}
	// edit writes a file, which may be new, with what is in another one and pairs of old and new texts.
	edit := func(to, from string, pairs ...string) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, from))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(string(data), pairs[i]) {
				t.Fatalf("%s does not have %q", from, pairs[i])
			}
		}
		to = filepath.Join(dir, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(strings.NewReplacer(pairs...).Replace(string(data))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	checks := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"test", "-count=1", "-v"}, args...)...)
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	says := func(out string, want ...string) {
		t.Helper()
		for _, text := range want {
			if !strings.Contains(out, text) {
				t.Fatalf("the checks do not say %q:\n%s", text, out)
			}
		}
	}

	all, err := chapters.Names(root)
	if err != nil {
		t.Fatal(err)
	}
	last := all[len(all)-1]

	// The folder alone, with a README that does not have all parts.
	edit("99-nodes/main.go", "06-lister/main.go", "// 06-lister reads pods", "// 99-nodes reads pods by their node")
	edit("99-nodes/README.md", "06-lister/README.md", "[04-sync](../04-sync", "[06-lister](../06-lister", "04-sync/main.go", "06-lister/main.go",
		"06-lister", "99-nodes", "## Break it\n", "", "pods in the lister: 1\n", "")
	says(checks("./internal/promises", "-run", "TestShape", "-args", "--update"),
		"the table in README.md does not have 99-nodes",
		"README.md does not lead to 99-nodes under Next",
		`want ["Run it" "What to notice" "The step" "Break it"`)

	edit("README.md", "README.md", "\nThe [exercises]", "| [99-nodes](99-nodes) | pods by node |\n\nThe [exercises]")
	edit(last+"/README.md", last+"/README.md", "## Next\n", "## Next\n\n[99-nodes](../99-nodes).\n")
	edit("99-nodes/README.md", "99-nodes/README.md", "## In older code\n", "## Break it\n\n## In older code\n")
	says(checks("./internal/promises", "-run", "/99-nodes|TestBlocks"),
		"--- PASS: TestShape/99-nodes", "--- PASS: TestBadKubeconfig/99-nodes", "--- PASS: TestBadServer/99-nodes",
		"--- PASS: TestSignals/99-nodes", "--- PASS: TestVerbose/99-nodes", "--- PASS: TestBlocks", "\nok ")

	outputs := []string{"./e2e", "-run", "TestOutputs/99-nodes"}
	says(checks(outputs...), "99-nodes/README.md: go run ./99-nodes --namespace default --annotate web does not print the output", "\nFAIL")
	edit("99-nodes/README.md", "99-nodes/README.md", "pods on node", "pods in the lister: 1\npods on node")
	says(checks(outputs...), "--- PASS: TestOutputs/99-nodes", "\nok ")
}
