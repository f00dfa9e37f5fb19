// Package vale holds the rules that vale checks the English with to samples.
package vale

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestRules: the rules find each sentence of now.md down to its second heading,
// and nothing that better.md has.
func TestRules(t *testing.T) {
	found := findings(t, "testdata/now.md", "testdata/better.md")

	want, missed := true, 0
	for i, line := range readLines(t, "testdata/now.md") {
		if strings.HasPrefix(line, "## ") {
			want = false
		}
		if !strings.HasPrefix(line, "- ") {
			continue
		}
		if !want {
			missed++
		}
		if got := found["testdata/now.md"][i+1] != nil; got != want {
			t.Errorf("now.md:%d is found: %t, want %t: %s", i+1, got, want, line)
		}
	}
	if n := len(found["testdata/now.md"]); missed == 0 || n < 2*missed {
		t.Errorf("%d sentences are found and %d are not, want most and not all", n, missed)
	}

	lines := readLines(t, "testdata/better.md")
	for line, messages := range found["testdata/better.md"] {
		t.Errorf("better.md:%d: %q: %s", line, messages, lines[line-1])
	}
}

// TestComments: in Go, the comments are checked, and what a program prints is not.
func TestComments(t *testing.T) {
	got := slices.Collect(maps.Keys(findings(t, "testdata/comments.go")["testdata/comments.go"]))
	if !slices.Equal(got, []int{1}) {
		t.Errorf("findings in the lines %v, want one in line 1", got)
	}
}

// findings returns vale's messages by file and line.
func findings(t *testing.T, files ...string) map[string]map[int][]string {
	t.Helper()
	args := []string{"tool", "-modfile=../../tools/vale.mod", "vale", "--output=JSON"}
	cmd := exec.Command("go", append(args, files...)...)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	// It exits with 1 when it finds something, with 2 when its configuration is wrong.
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() != 1 {
		t.Fatalf("vale: %v: %s", err, out)
	}
	var alerts map[string][]struct {
		Line    int
		Message string
	}
	if err := json.Unmarshal(out, &alerts); err != nil {
		t.Fatalf("vale printed %q: %v", out, err)
	}
	found := map[string]map[int][]string{}
	for file, all := range alerts {
		found[file] = map[int][]string{}
		for _, a := range all {
			found[file][a.Line] = append(found[file][a.Line], a.Message)
		}
	}
	return found
}

func readLines(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}
