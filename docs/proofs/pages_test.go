package proofs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.com/informers/internal/outputs"
)

var (
	link   = regexp.MustCompile(`\[([^\]]*)\]\(([^)\s]+)[^)]*\)`)
	proof  = regexp.MustCompile("^`(Test[a-zA-Z]+)`$")
	header = regexp.MustCompile(`(?m)^## `)
)

// TestLinks: a link into the repository leads to something, and one to a test to that test.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	for _, page := range pages {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			text, target := m[1], m[2]
			if strings.HasPrefix(target, "https://") {
				continue
			}
			path := filepath.Join(filepath.Dir(page), target)
			info, err := os.Stat(path)
			switch m := proof.FindStringSubmatch(text); {
			case err != nil:
				t.Errorf("%s: %s: %v", page, text, err)
			case m != nil && (info.IsDir() || !strings.Contains(read(t, path), "\nfunc "+m[1]+"(t *testing.T)")):
				t.Errorf("%s: %s is not in %s", page, m[1], target)
			}
		}
	}
}

// TestAnswersAreProved: each question links to a test, and each test of this folder
// that is no check of the pages proves something that a page says.
func TestAnswersAreProved(t *testing.T) {
	page := read(t, filepath.Join(root, "docs", "questions.md"))
	answers := header.Split(page, -1)[1:]
	if len(answers) != 22 {
		t.Errorf("%d questions", len(answers))
	}
	for _, answer := range answers {
		proved := false
		for _, m := range link.FindAllStringSubmatch(answer, -1) {
			proved = proved || proof.MatchString(m[1])
		}
		if question, _, _ := strings.Cut(answer, "\n"); !proved {
			t.Errorf("no test proves the answer of %s", question)
		}
	}
	tests := regexp.MustCompile(`(?m)^func (Test\w+)`)
	for _, m := range tests.FindAllStringSubmatch(read(t, "questions_test.go"), -1) {
		if !strings.Contains(page, "[`"+m[1]+"`]") {
			t.Errorf("questions.md does not say what %s proves", m[1])
		}
	}
}

// TestShownOutputsHaveATest: a block that names a test is checked by one of this folder.
func TestShownOutputsHaveATest(t *testing.T) {
	blocks, err := outputs.Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile(`(?s)^.*?\n\}`)
	for _, b := range blocks {
		if b.Kind != "test" {
			continue
		}
		_, body, found := strings.Cut(read(t, "questions_test.go"), "\nfunc "+b.Command+"(")
		if !found || !strings.Contains(shown.FindString(body), ".shown(t)") {
			t.Errorf("%s: no test prints %s", b.File, b.Command)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
