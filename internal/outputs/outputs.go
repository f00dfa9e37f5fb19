// Package outputs finds the outputs and diffs that the READMEs show, holds them to
// what a run prints today, and writes them anew.
//
// Each block has a mark before it, a comment that does not render. It says what
// printed the block and what may differ in another run. Nothing else may:
//
//	<!-- output: go run ./03-handlers --namespace default; may differ: updates -->
//
// A test prints what a page shows of it by Shown:
//
//	<!-- test: TestResyncMakesNoRequest -->
package outputs

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/informers/internal/logmatch"
)

// A Block is what stands between the fences below a mark.
type Block struct {
	File    string   // the Markdown file, relative to the root of the repository
	Kind    string   // "output" on a cluster, "stderr" against a stub, "diff", "test" by a test
	Command string   // what prints it; of a diff the two files, of a test its name
	Differ  []string // what may differ: names of rules
	Text    string   // its lines, without the fence's indentation, each with its end

	mark string // the line of the mark
}

// A rule says how a run may differ from what is shown.
type rule struct {
	vary          map[string]string // where this is shown, a run may print that
	float, within *regexp.Regexp    // these lines move, among those lines
	repeat        bool              // and come any number of times, but at least once
}

func same(expr string) map[string]string { return map[string]string{expr: expr} }

var rules = map[string]rule{
	// Every write to the cluster has another one.
	"resourceVersions": {vary: map[string]string{`resourceVersion \d+`: `resourceVersion \d+`, `\d+ → \d+`: `\d+ → \d+`}},
	// What the cluster is called, its nodes, its users, and a namespace of the demo's own.
	"names": {vary: map[string]string{
		`context [^ ,]+`: `context [^ ,]+`, `node [a-z][^ ,]*`: `node [a-z][^ ,]*`, `User \\"[^"]+\\"`: `User \\"[^"]+\\"`,
		`demo-[a-z0-9]+`: `demo-[a-z0-9]+`, `--image \S+`: `--image \S+`,
	}},
	"ports":   {vary: same(`127\.0\.0\.1:\d+`)},
	"version": {vary: same(`Kubernetes v\d\S+`)},
	// klog's: when, and the process.
	"time": {vary: same(`E\d{4} [\d:.]+ +\d+ `)},
	// The machine's.
	"module cache": {vary: same(`reflector="[^"]*/client-go@`)},
	// What is true of a pod when it is added: a watch may begin with any of its versions.
	"facts of an Add": {vary: map[string]string{`(?:initial|new), .*`: `(?:initial|new), phase \w+, node [^ ,]+(?:, \w+)*`}},
	// Kubernetes does not guarantee how many writes a pod gets, and what each one changes. There is one
	// Update or more at this place (see steps).
	"Updates": {},
	// The store may be filled before it is looked at the first time (see steps).
	"counts on the way": {},
	// The controller looks at a pod when it likes, and says each time how long it has to live (see steps).
	"looks": {},
	// The Update of one's own write comes from another goroutine.
	"place of the Update": {float: regexp.MustCompile(`^handleUpdate`), within: regexp.MustCompile(`^(handleUpdate|cache is synced)`)},
	// Something periodic prints whenever its time comes.
	"runs": {float: regexp.MustCompile(`^run$`), within: regexp.MustCompile(`^(run|cache is synced)$`), repeat: true},
	// Filling the store and calling handlers are two goroutines.
	"place of the store's sync": {float: regexp.MustCompile(`^store is synced$`), within: regexp.MustCompile(`^\w+ is synced$`)},
	// kubectl answers while the program prints; since 1.34 with the namespace.
	"kubectl's answers": {
		vary:  map[string]string{`" deleted.*`: `" deleted( from [^ ]+ namespace)?`},
		float: regexp.MustCompile(`^pod[/ ]`), within: regexp.MustCompile(`^(\$ kubectl|pod[/ ])`),
	},
}

var (
	fence   = regexp.MustCompile("(?m)^( *)(?:(<!-- (output|stderr|diff|test): (.*?)(?:; may differ: (.*?))? -->)\n *)?```(text|diff)\n((?s:.*?))^ *```$")
	update  = regexp.MustCompile(`^(handleUpdate is called for Pod \(key: \S+\))(: \d+ → \d+.*)?$`)
	looked  = regexp.MustCompile(`^(\S+ is to be deleted in )\S+$`)
	counted = regexp.MustCompile(`^(right after start|then): (\d+ pods in the store)$`)
)

// Blocks returns the blocks of the Markdown files in root and the folders in it. A
// block of text or diff without a mark, a mark without a block, or a word in it that
// no rule explains, is an error.
func Blocks(root string) (blocks []Block, err error) {
	top, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		return nil, err
	}
	chapters, err := filepath.Glob(filepath.Join(root, "*", "*.md"))
	if err != nil {
		return nil, err
	}
	for _, path := range append(top, chapters...) {
		file, err := filepath.Rel(root, path)
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		marks := 0
		for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
			b := Block{File: file, Kind: m[3], Command: m[4], Text: strings.ReplaceAll("\n"+m[7], "\n"+m[1], "\n")[1:], mark: m[2]}
			if b.mark == "" {
				return nil, fmt.Errorf("%s: no mark says what printed the block that begins with %q", file, lines(b.Text)[0])
			}
			marks++
			if m[5] != "" {
				b.Differ = strings.Split(m[5], ", ")
			}
			for _, word := range b.Differ {
				if _, ok := rules[word]; !ok {
					return nil, fmt.Errorf("%s: no rule says how %q may differ, in %s", file, word, b.mark)
				}
			}
			blocks = append(blocks, b)
		}
		if all := len(regexp.MustCompile(`<!-- *(output|stderr|diff|test)\b`).FindAll(text, -1)); all != marks {
			return nil, fmt.Errorf("%s: %d marks, and %d blocks directly below one", file, all, marks)
		}
	}
	return blocks, nil
}

// Check returns an error that shows both unless printed is what the block shows, up to what may differ.
func (b Block) Check(printed string) error {
	if b.Kind == "diff" {
		if printed != b.Text {
			return fmt.Errorf("%s: %s has changed: make outputs\n%s", b.File, b.Command, printed)
		}
		return nil
	}
	shown, run := lines(b.Text), lines(printed)
	for _, word := range b.Differ {
		r := rules[word]
		if r.float == nil {
			continue
		}
		// Lines that move are held to their own order, and then left out.
		moving, moved := only(shown, r.within), only(run, r.within)
		if r.repeat {
			moving, moved = slices.Compact(moving), slices.Compact(moved)
		}
		if err := b.match(moving, moved); err != nil {
			return err
		}
		shown, run = slices.DeleteFunc(shown, r.float.MatchString), slices.DeleteFunc(run, r.float.MatchString)
	}
	return b.match(shown, run)
}

func (b Block) match(shown, run []string) error {
	log := make([]logmatch.Line, len(run))
	for i, line := range run {
		log[i].Text = line
	}
	if err := (logmatch.Sequence{Steps: b.steps(shown)}).Match(log); err != nil {
		return fmt.Errorf("%s: %s does not print what is shown (make outputs writes it anew): %w", b.File, b.Command, err)
	}
	return nil
}

// steps are what a run may print in place of the lines shown.
func (b Block) steps(shown []string) (steps []logmatch.Step) {
	before := ""
	for _, line := range shown {
		this := ""
		if m := update.FindStringSubmatch(line); m != nil && slices.Contains(b.Differ, "Updates") {
			this = m[1]
			if this != before { // else it is one more in a row
				expr := b.expr(m[1])
				if m[2] != "" {
					expr += `: \d+ → \d+(, (phase \w+|node [^ ,]+|\w+))*`
				}
				steps = append(steps, logmatch.Like(m[1], expr).OneOrMore())
			}
		} else if m := looked.FindStringSubmatch(line); m != nil && slices.Contains(b.Differ, "looks") {
			this = m[1]
			if this != before {
				steps = append(steps, logmatch.Like(line, b.expr(m[1])+`\S+`).OneOrMore())
			}
		} else if m := counted.FindStringSubmatch(line); m != nil && slices.Contains(b.Differ, "counts on the way") {
			if m[1] == "then" { // the count in the end
				steps = append(steps, logmatch.Like(line, `(right after start|then): `+m[2]))
			} else {
				steps = append(steps, logmatch.Like(line, `(right after start|then): \d+ pods in the store`).AnyNumber())
			}
		} else {
			steps = append(steps, logmatch.Like(line, b.expr(line)))
		}
		before = this
	}
	return steps
}

// expr is a regular expression of a line: literally what is shown, but for what varies.
func (b Block) expr(line string) string {
	type place struct {
		from, to int
		expr     string
	}
	var places []place
	for _, word := range b.Differ {
		for shown, expr := range rules[word].vary {
			for _, at := range regexp.MustCompile(shown).FindAllStringIndex(line, -1) {
				places = append(places, place{at[0], at[1], expr})
			}
		}
	}
	// Where two rules apply, the one that begins first, and then the longer one.
	slices.SortFunc(places, func(a, b place) int { return cmp.Or(a.from-b.from, b.to-a.to) })
	expr, end := "", 0
	for _, p := range places {
		if p.from >= end {
			expr += regexp.QuoteMeta(line[end:p.from]) + p.expr
			end = p.to
		}
	}
	return expr + regexp.QuoteMeta(line[end:])
}

// Shown holds the block that names the test to what the test printed. With write the
// page gets it. root is the repository, seen from the test.
func Shown(t testing.TB, root, printed string, write bool) {
	t.Helper()
	t.Logf("printed:\n%s", printed)
	blocks, err := Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(blocks, func(b Block) bool { return b.Kind == "test" && b.Command == t.Name() })
	switch {
	case i < 0:
		t.Fatalf("no page shows %s", t.Name())
	case write:
		err = blocks[i].Write(root, printed)
	default:
		err = blocks[i].Check(printed)
	}
	if err != nil {
		t.Error(err)
	}
}

// Write puts printed into the block's file, in the same place.
func (b Block) Write(root, printed string) error {
	path := filepath.Join(root, b.File)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	found := false
	text = fence.ReplaceAllFunc(text, func(old []byte) []byte {
		m := fence.FindSubmatch(old)
		if string(m[2]) != b.mark {
			return old
		}
		found = true
		indent := string(m[1])
		body := regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(strings.TrimSuffix(printed, "\n"), indent+"$1")
		return fmt.Appendf(nil, "%s%s\n%s```%s\n%s\n%s```", indent, b.mark, indent, m[6], body, indent)
	})
	if !found {
		return fmt.Errorf("%s: no mark %s", b.File, b.mark)
	}
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func lines(text string) []string { return strings.Split(strings.TrimSuffix(text, "\n"), "\n") }

func only(lines []string, expr *regexp.Regexp) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return !expr.MatchString(line) })
}
