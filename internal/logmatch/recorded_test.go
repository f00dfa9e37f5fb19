package logmatch_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "example.com/informers/internal/logmatch"
)

// The recordings are outputs of 05-resync --resync 4s --run-every 2s on kind and on the
// local control plane. The pod web existed before; nginx and other were created, became
// ready and were deleted while it ran.
func recordings(t testing.TB) map[string][]Line {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.log")
	if err != nil || len(paths) != 4 {
		t.Fatalf("%d recordings, want 4: %v", len(paths), err)
	}
	logs := map[string][]Line{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		logs[filepath.Base(path)] = timed(strings.Split(strings.TrimSpace(string(data)), "\n"))
	}
	return logs
}

// timed gives each line a time, 100 ms apart.
func timed(lines []string) (log []Line) {
	for i, line := range lines {
		log = append(log, Line{At: start.Add(time.Duration(i) * 100 * time.Millisecond), Text: line})
	}
	return log
}

func texts(log []Line) (lines []string) {
	for _, line := range log {
		lines = append(lines, line.Text)
	}
	return lines
}

// A rule is what the lines of one pod, and those without a pod, must be.
type rule struct {
	pod string
	Sequence
}

// lines are those that the rule is about.
func (r rule) lines(log []Line) []Line {
	return slices.DeleteFunc(slices.Clone(log), func(line Line) bool {
		m := keys.FindStringSubmatch(line.Text)
		return m != nil && m[1] != r.pod
	})
}

// story is what a recording must have, as the suite asserts it: one rule for the
// program itself, one for web, and one for nginx for each guaranteed Update.
var story = func() []rule {
	var (
		store, handler, cache, run = Exactly("store is synced"), Exactly("handler is synced"), Exactly("cache is synced"), Exactly("run")

		add = func(pod, origin string) Step {
			return Like("Add, "+origin, `handleAdd is called for Pod \(key: default/`+pod+`\): `+origin+`, phase \w+, node \S+(, \w+)*`)
		}
		updates = func(pod string) Step {
			return Like("Updates", `handleUpdate is called for Pod \(key: default/`+pod+`\): (\d+ → \d+(, .*)?|resync, resourceVersion \d+)`).AnyNumber()
		}
	)
	rules := []rule{
		{"", Sequence{Steps: []Step{store, handler, cache, run.OneOrMore()}}},
		{"default/web", Sequence{Pass: []Step{run}, Steps: []Step{
			AnyOrder(store, add("web", "initial")), handler, cache, updates("web"),
		}}},
	}
	for name, fact := range map[string]string{"with a node": `node \S+`, "Ready": "Ready", "with deletion": "deletion"} {
		rules = append(rules, rule{"default/nginx", Sequence{
			Pass: []Step{store, handler, cache, run},
			Steps: []Step{
				add("nginx", "new"),
				updates("nginx"),
				Like("Update, "+name, `handleUpdate is called for Pod \(key: default/nginx\): \d+ → \d+(, .*)?, `+fact+`(, .*)?`),
				updates("nginx"),
				Exactly("handleDelete is called for Pod (key: default/nginx): tombstone=false"),
			},
		}})
	}
	return rules
}()

// mismatch compares a log with the story.
func mismatch(log []Line) error {
	for _, rule := range story {
		if err := rule.Match(rule.lines(log)); err != nil {
			return err
		}
	}
	return nil
}

func TestRecordings(t *testing.T) {
	for name, log := range recordings(t) {
		t.Run(name, func(t *testing.T) {
			if err := mismatch(log); err != nil {
				t.Error(err)
			}
			for _, rule := range story {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
					defer cancel()
					if err := rule.Await(ctx, play(rule.lines(log), true)); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Hour)
				})
			}
		})
	}
}

// The oracle for the mutations. It does not use the sequences, but states the guarantees
// directly. An Add comes first and a Delete last, each once. The number and order of
// Updates are free, but those that bring a node, Ready and deletion must appear. The
// program's own lines keep their order. Other pods are free.

// kinds are the kinds of lines; the first one that fits counts.
var kinds = []struct {
	name string
	line *regexp.Regexp
}{
	{"store is synced", regexp.MustCompile(`^store is synced$`)},
	{"handler is synced", regexp.MustCompile(`^handler is synced$`)},
	{"cache is synced", regexp.MustCompile(`^cache is synced$`)},
	{"run", regexp.MustCompile(`^run$`)},
	{"web Add", regexp.MustCompile(`^handleAdd .*/web\): initial`)},
	{"web resync", regexp.MustCompile(`^handleUpdate .*/web\): resync`)},
	{"nginx Add", regexp.MustCompile(`^handleAdd .*/nginx\): new`)},
	{"nginx node", regexp.MustCompile(`^handleUpdate .*/nginx\): \d.* node `)},
	{"nginx Ready", regexp.MustCompile(`^handleUpdate .*/nginx\): \d.* Ready`)},
	{"nginx deletion", regexp.MustCompile(`^handleUpdate .*/nginx\): \d.* deletion`)},
	{"nginx write", regexp.MustCompile(`^handleUpdate .*/nginx\): \d`)},
	{"nginx resync", regexp.MustCompile(`^handleUpdate .*/nginx\): resync`)},
	{"nginx Delete", regexp.MustCompile(`^handleDelete .*/nginx\)`)},
	{"other", regexp.MustCompile(`^handle.*/other\)`)},
}

func kindOf(t *testing.T, line string) string {
	for _, kind := range kinds {
		if kind.line.MatchString(line) {
			return kind.name
		}
	}
	t.Fatalf("a recording has a line of an unknown kind: %s", line)
	return ""
}

// verdicts: drop the line, double it, rename its pod, its first word, or its origin (new,
// initial, resync, tombstone). "-" means that the change is not possible.
const verdicts = `
                    drop    double  key     word    origin
store is synced     reject  reject  -       reject  -
handler is synced   reject  reject  -       reject  -
cache is synced     reject  reject  -       reject  -
run                 accept  accept  -       reject  -
web Add             reject  reject  reject  reject  reject
web resync          accept  accept  accept  reject  reject
nginx Add           reject  reject  reject  reject  reject
nginx node          reject  accept  reject  reject  -
nginx Ready         reject  accept  reject  reject  -
nginx deletion      reject  accept  reject  reject  -
nginx write         accept  accept  accept  reject  -
nginx resync        accept  accept  accept  reject  reject
nginx Delete        reject  reject  reject  reject  reject
other               accept  accept  accept  accept  accept`

// ordered are the kinds (path.Match) that must not be swapped with the line after them.
// All others may be.
var ordered = [][2]string{
	{"store is synced", "handler is synced"},
	{"handler is synced", "cache is synced"},
	{"cache is synced", "run"},
	{"web Add", "handler is synced"},
	{"web Add", "web resync"},
	{"nginx Add", "nginx *"},
	{"nginx *", "nginx Delete"},
}

var keys = regexp.MustCompile(`\(key: (\S+)\)`)

// operators turn one line into other lines; they return nil if that is not possible.
var operators = map[string]func(line string) []string{
	"drop":   func(string) []string { return []string{} },
	"double": func(line string) []string { return []string{line, line} },
	"key": func(line string) []string {
		return renamed(line, keys.ReplaceAllString(line, "(key: default/another)"))
	},
	"word": func(line string) []string {
		return renamed(line, regexp.MustCompile(`^\w+`).ReplaceAllString(line, "${0}d"))
	},
	"origin": func(line string) []string {
		return renamed(line, strings.NewReplacer(": new", ": initial", ": initial", ": new",
			": resync", ": relist", "=false", "=true").Replace(line))
	},
}

func renamed(line, to string) []string {
	if to == line {
		return nil
	}
	return []string{to}
}

// TestMutations applies every operator to every line of every recording.
func TestMutations(t *testing.T) {
	const (
		rejects = 230 // mutations that the matcher has to reject
		accepts = 504 // mutations that it must accept
	)
	rows := strings.Split(strings.TrimSpace(verdicts), "\n")
	columns := strings.Fields(rows[0])
	want := map[string]string{} // by kind and operator
	for _, row := range rows[1:] {
		cells := regexp.MustCompile(`  +`).Split(row, -1)
		for i, verdict := range cells[1:] {
			want[cells[0]+", "+columns[i]] = verdict
		}
	}

	counts := map[string]int{}
	check := func(name, what, want string, lines []string) {
		t.Helper()
		got := "accept"
		err := mismatch(timed(lines))
		if err != nil {
			got = "reject"
		}
		counts[got]++
		counts[fmt.Sprintf("%-40s %s", what, got)]++
		if got != want {
			t.Errorf("%s: %s: %s, want %s\n%v\n%s", name, what, got, want, err, strings.Join(lines, "\n"))
		}
	}
	for name, log := range recordings(t) {
		lines := texts(log)
		for i, line := range lines {
			kind := kindOf(t, line)
			for operator, mutate := range operators {
				what := kind + ", " + operator
				mutated := mutate(line)
				if mutated == nil != (want[what] == "-") {
					// Some lines of "other" have an origin, some do not.
					if kind == "other" && operator == "origin" {
						continue
					}
					t.Fatalf("%s: %q gives %q, want %q", what, line, mutated, want[what])
				}
				if mutated != nil {
					check(name, what, want[what], slices.Replace(slices.Clone(lines), i, i+1, mutated...))
				}
			}

			// Swap it with the next line, and with the next line of the same key.
			same := slices.IndexFunc(lines[i+1:], func(next string) bool { return keys.FindString(next) == keys.FindString(line) })
			for _, j := range slices.Compact([]int{i + 1, i + 1 + same}) {
				if j >= len(lines) || j == i || lines[j] == line {
					continue
				}
				verdict, next := "accept", kindOf(t, lines[j])
				for _, pair := range ordered {
					first, _ := path.Match(pair[0], kind)
					second, _ := path.Match(pair[1], next)
					if first && second {
						verdict = "reject"
					}
				}
				swapped := slices.Clone(lines)
				swapped[i], swapped[j] = swapped[j], swapped[i]
				check(name, fmt.Sprintf("%s, swap with %s", kind, next), verdict, swapped)
			}
		}
	}
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%4d  %s", counts[what], what)
	}
	if counts["reject"] != rejects || counts["accept"] != accepts {
		t.Errorf("%d mutations rejected and %d accepted, want %d and %d", counts["reject"], counts["accept"], rejects, accepts)
	}
}

// TestVariations: what Kubernetes does not guarantee may differ, anywhere.
func TestVariations(t *testing.T) {
	for name, log := range recordings(t) {
		lines := texts(log)
		first := slices.IndexFunc(lines, func(line string) bool { return kindOf(t, line) == "nginx Add" })
		last := slices.IndexFunc(lines, func(line string) bool { return kindOf(t, line) == "nginx Delete" })
		run := slices.Index(lines, "run")
		for _, variation := range []struct {
			line     string
			from, to int // where it may appear
		}{
			{"handleUpdate is called for Pod (key: default/nginx): 7 → 8", first + 1, last},
			{"handleUpdate is called for Pod (key: default/nginx): 7 → 8, phase Failed, Ready, deletion", first + 1, last},
			{"handleUpdate is called for Pod (key: default/nginx): resync, resourceVersion 8", first + 1, last},
			{"handleUpdate is called for Pod (key: default/web): resync, resourceVersion 8", run, len(lines)},
			{"run", run, len(lines)},
			{"handleAdd is called for Pod (key: default/third): new, phase Pending, node <none>", 0, len(lines)},
			{"handleDelete is called for Pod (key: elsewhere/nginx): tombstone=true", 0, len(lines)},
		} {
			for i := range len(lines) + 1 {
				for _, n := range []int{1, 3} {
					varied := slices.Insert(slices.Clone(lines), i, slices.Repeat([]string{variation.line}, n)...)
					err := mismatch(timed(varied))
					if allowed := variation.from <= i && i <= variation.to; allowed != (err == nil) {
						t.Errorf("%s: %q %d times before line %d: accepted %t, want %t\n%v", name, variation.line, n, i+1, err == nil, allowed, err)
					}
				}
			}
		}
	}
}
