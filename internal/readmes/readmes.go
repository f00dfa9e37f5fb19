// Package readmes finds the outputs and diffs that the READMEs show, compares them
// with the output of a run today, and rewrites them.
//
// A mark precedes each block: a comment that is not rendered. It says what printed the
// block and what may differ in another run. Nothing else may differ:
//
//	<!-- output: go run ./03-handlers --namespace default; may differ: updates -->
//
// A test calls Shown with the output that a page shows:
//
//	<!-- test: TestResyncMakesNoRequest -->
package readmes

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

// A Block is the text between the fences below a mark.
type Block struct {
	File    string   // the Markdown file, relative to the root of the repository
	Kind    string   // "output" on a cluster, "stderr" against a stub, "diff", "test" by a test
	Command string   // what prints it; for a diff the two files, for a test its name
	Differ  []string // what may differ: names of rules
	Text    string   // its lines, each with its line ending, without the fence's indentation

	mark string // the line of the mark
}

// A rule says how the output of a run may differ from the block.
type rule struct {
	vary          map[string]string // where a block has a match of the key, a run may print a match of the value
	float, within *regexp.Regexp    // lines that match float may move among those that match within
	repeat        bool              // and may occur any number of times, but at least once
	more          *regexp.Regexp    // lines that a run may have and the block does not show
}

func same(expr string) map[string]string { return map[string]string{expr: expr} }

var rules = map[string]rule{
	// Every write to the cluster gets a new one.
	"resourceVersions": {vary: map[string]string{
		`resourceVersion \d+`: `resourceVersion \d+`, `resourceVersion=\d+`: `resourceVersion=\d+`, `\d+ → \d+`: `\d+ → \d+`,
	}},
	// A kubelet may write to a running pod at any time.
	"Updates of web": {more: regexp.MustCompile(`^handleUpdate is called for Pod \(key: \S+/web\)(: \d+ → \d+)?$`)},
	"later Updates":  {more: regexp.MustCompile(`^ *\d+\.\ds handleUpdate is called for Pod \(key: \S+\): \d+ → \d+$`)},
	// ^C may come during a request for the Lease.
	"a renewal at ^C": {more: regexp.MustCompile(`^time=\S+ level=\w+ msg="[\w ]* lease( lock)?" .*context canceled"`)},
	// When something happened, and how long it took.
	"seconds": {vary: same(` *\d+\.\ds`)},
	// What an informer costs. The memory in use may become less, for other reasons.
	"costs": {vary: same(` +-?\d+ (?:ms|KiB|µs)`)},
	// The names of the cluster, its nodes, its users, and the demo's namespace.
	"names": {vary: map[string]string{
		`context [^ ,]+`: `context [^ ,]+`, `node [a-z][^ ,]*`: `node [a-z][^ ,]*`, `User \\"[^"]+\\"`: `User \\"[^"]+\\"`,
		`demo-[a-z0-9]+`: `demo-[a-z0-9]+`, `--image \S+`: `--image \S+`, `identity=\S+`: `identity=\S+`,
	}},
	"ports":   {vary: same(`127\.0\.0\.1:\d+`)},
	"version": {vary: same(`Kubernetes v\d\S+`)},
	// klog prints the time and the process, slog the time.
	"time": {vary: map[string]string{`E\d{4} [\d:.]+ +\d+ `: `E\d{4} [\d:.]+ +\d+ `, `^time=\S+`: `time=\S+`}},
	// It depends on the machine.
	"module cache": {vary: same(`reflector="[^"]*/client-go@`)},
	// The facts about a pod when it is added: a watch may start with any of its versions.
	"facts of an Add": {vary: map[string]string{`(?:initial|new), .*`: `(?:initial|new), phase \w+, node [^ ,]+(?:, \w+)*`}},
	// Kubernetes does not guarantee how many writes a pod gets, or what each one changes. There is at
	// least one Update at this place (see steps).
	"Updates": {},
	// The store may be filled before the program reads it for the first time (see steps).
	"counts on the way": {},
	// The number of times that the controller checks a pod varies. Each time it prints how long the pod
	// has to live (see steps).
	"looks": {},
	// Another goroutine prints the Update for the program's own write.
	"place of the Update": {float: regexp.MustCompile(`^handleUpdate`), within: regexp.MustCompile(`^(handleUpdate|cache is synced)`)},
	// A periodic function prints independently of the handlers.
	"runs": {float: regexp.MustCompile(`^run$`), within: regexp.MustCompile(`^(run|cache is synced)$`), repeat: true},
	// One goroutine fills the store, another calls the handlers.
	"place of the store's sync": {float: regexp.MustCompile(`^store is synced$`), within: regexp.MustCompile(`^\w+ is synced$`)},
	// client-go says who leads from another goroutine, after the program has asked for the Lease.
	"place of the leader": {
		float: regexp.MustCompile(`^time=\S+ level=INFO msg=leader `), within: regexp.MustCompile(`msg=leader |msg="Attempting to acquire `),
	},
	// kubectl prints its answer alongside the program; since 1.34 with the namespace.
	"kubectl's answers": {
		vary:  map[string]string{`" deleted.*`: `" deleted( from [^ ]+ namespace)?`},
		float: regexp.MustCompile(`^pod[/ ]`), within: regexp.MustCompile(`^(\$ kubectl|pod[/ ])`),
	},
}

var (
	fence   = regexp.MustCompile("(?m)^( *)(?:(<!-- (output|stderr|diff|test): (.*?)(?:; may differ: (.*?))? -->)\n *)?```(text|diff)\n((?s:.*?))^ *```$")
	update  = regexp.MustCompile(`^(handleUpdate is called for Pod \(key: \S+\))(: \d+ → \d+.*)?$`)
	looked  = regexp.MustCompile(`^(\S+ is to be deleted in |time=\S+ level=INFO msg="is to be deleted" pod=\S+ in=)\S+$`)
	counted = regexp.MustCompile(`^(right after start|then): (\d+ pods in the store)$`)
)

// Blocks returns the blocks of the Markdown files in root and in the folders in it. It
// fails if a block of text or diff has no mark, if a mark has no block, or if a mark
// has a word without a rule.
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

// Check returns an error that shows both texts if printed differs from the block in more than its mark
// allows.
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
		if r.more != nil {
			run = slices.DeleteFunc(run, r.more.MatchString)
		}
		if r.float == nil {
			continue
		}
		// Compare the order of lines that move separately, and then leave them out.
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

// Has reports whether printed has a line that may stand in a run for this line of the block.
func (b Block) Has(line, printed string) bool {
	steps := b.steps([]string{line})
	return slices.ContainsFunc(lines(printed), func(run string) bool {
		return logmatch.Sequence{Steps: steps}.Match([]logmatch.Line{{Text: run}}) == nil
	})
}

func (b Block) match(shown, run []string) error {
	log := make([]logmatch.Line, len(run))
	for i, line := range run {
		log[i].Text = line
	}
	if err := (logmatch.Sequence{Steps: b.steps(shown)}).Match(log); err != nil {
		return fmt.Errorf("%s: %s does not print the output that is shown (make outputs rewrites it): %w", b.File, b.Command, err)
	}
	return nil
}

// steps returns what a run may print instead of the lines shown.
func (b Block) steps(shown []string) (steps []logmatch.Step) {
	before := ""
	for _, line := range shown {
		this := ""
		if m := update.FindStringSubmatch(line); m != nil && slices.Contains(b.Differ, "Updates") {
			this = m[1]
			if this != before { // otherwise it is one more in a row
				expr := b.expr(m[1])
				if m[2] != "" {
					expr += `: \d+ → \d+(, (phase \w+|node [^ ,]+|\w+))*`
				}
				steps = append(steps, logmatch.Like(m[1], expr).OneOrMore())
			}
		} else if m := looked.FindStringSubmatch(line); m != nil && slices.Contains(b.Differ, "looks") {
			this = b.expr(m[1])
			if this != before {
				steps = append(steps, logmatch.Like(line, this+`\S+`).OneOrMore())
			}
		} else if m := counted.FindStringSubmatch(line); m != nil && slices.Contains(b.Differ, "counts on the way") {
			if m[1] == "then" { // the final count
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

// expr returns a regular expression for a line: its literal text, except for the parts that may differ.
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
	// If two matches overlap, use the one that starts first, or the longer of two that start together.
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

// Shown compares the block that names the test with what the test printed. If write is
// true it updates the page instead. root is the repository, relative to the test.
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

// Write replaces the block in its file with printed.
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
