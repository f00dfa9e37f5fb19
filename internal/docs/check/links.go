package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/yuin/goldmark/ast"
)

// links reports the page's links into the repository that lead nowhere.
func (r *repository) links(p *page) {
	p.walk(func(n ast.Node) {
		link, ok := n.(*ast.Link)
		if !ok || external(string(link.Destination)) {
			return
		}
		target, anchor, _ := strings.Cut(string(link.Destination), "#")
		path := p.name
		if target != "" {
			path = filepath.Join(filepath.Dir(p.name), target)
		}
		if _, err := os.Stat(filepath.Join(r.root, path)); err != nil {
			r.problem(p, p.line(n), "%s is not there", target)
			return
		}
		if anchor == "" {
			return
		}
		i := slices.IndexFunc(r.pages, func(p *page) bool { return p.name == path })
		if i < 0 || !r.pages[i].anchors[anchor] {
			r.problem(p, p.line(n), "%s has no heading #%s", path, anchor)
		}
	})
}

func external(destination string) bool {
	return strings.HasPrefix(destination, "https://") || strings.HasPrefix(destination, "http://")
}

// limit returns how many columns a line of a block may have. At 1280 px, GitHub cuts off what
// is wider. client-go's own log, on stderr, has the lines that it has, and a diff those of the
// chapters, which internal/promises checks.
func limit(kind, language string) (columns int, ok bool) {
	switch {
	case kind == "output" || kind == "test":
		return 111, true
	case language == "text" || language == "diff":
		return 0, false
	}
	return 100, true
}

func columns(line string) int {
	return utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    "))
}

// blocks reports code that nothing checks, and code that is too wide to be read.
func (r *repository) blocks(p *page) {
	p.walk(func(n ast.Node) {
		block, ok := n.(*ast.FencedCodeBlock)
		if !ok {
			return
		}
		kind, rest := p.mark(block)
		language := string(block.Language(p.source))
		for i := range block.Lines().Len() {
			line := block.Lines().At(i)
			text := strings.TrimRight(string(line.Value(p.source)), "\n")
			if most, ok := limit(kind, language); ok && columns(text) > most {
				r.problem(p, p.lineAt(line.Start), "%d columns, at most %d", columns(text), most)
			}
			command, _, _ := strings.Cut(text, " #")
			if language == "sh" && p.name != "CONTRIBUTING.md" && !p.followed(line.Start, command) && !r.runs(command) {
				r.problem(p, p.lineAt(line.Start), "nobody runs %s", command)
			}
		}
		switch {
		case language == "go" && kind != "go":
			r.problem(p, p.line(n), "a Go snippet needs a mark: <!-- go: FILE NAME -->")
		case language == "text" && !slices.Contains([]string{"output", "stderr", "test"}, kind):
			r.problem(p, p.line(n), "a block needs a mark that says what printed it")
		case kind == "test":
			name, _, _ := strings.Cut(rest, ";")
			if !r.tests[name].shows {
				r.problem(p, p.line(n), "no test prints %s", name)
			}
		case !slices.Contains([]string{"go", "text", "sh", "diff", "mermaid", "yaml"}, language):
			r.problem(p, p.line(n), "a block of %q", language)
		}
	})
}

var chapter = regexp.MustCompile(`^(\d\d-[^/]+)/README\.md$`)

// followed says whether TestOutputs of e2e types a command: it follows a chapter's README up to its output.
func (p *page) followed(at int, command string) bool {
	m := chapter.FindStringSubmatch(p.name)
	return m != nil && at < bytes.Index(p.source, []byte("<!-- output: ")) &&
		(strings.HasPrefix(command, "kubectl ") || strings.HasSuffix(command, "| kubectl apply -f -") || strings.HasPrefix(command, "go run ./"+m[1]))
}

var goTest = regexp.MustCompile(`^go test (?:-v |-count=1 -timeout 40m -tags cluster )?\./(docs/proofs|e2e|internal/lint|\d\d-[a-z]+)(?: (?:-v )?-run '?([\w|]+)'?)?$`)

// runs says whether a command of a page is run on each commit.
func (r *repository) runs(command string) bool {
	command = strings.Join(strings.Fields(command), " ")
	if command == "" {
		return true
	}
	if m := goTest.FindStringSubmatch(command); m != nil {
		for name := range r.tests {
			in := strings.HasPrefix(r.tests[name].file, m[1]+"/")
			if in && (m[2] == "" || regexp.MustCompile(m[2]).MatchString(name)) {
				return true
			}
		}
		return false
	}
	out, err := exec.Command("git", "-C", r.root, "grep", "-lF", "--untracked", "-e", command, "--",
		".ci", ".github", "Makefile", "*_test.go").Output()
	return err == nil && len(out) > 0
}
