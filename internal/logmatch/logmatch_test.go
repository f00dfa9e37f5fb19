package logmatch_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "example.com/informers/internal/logmatch"
)

var (
	a, b, c = Exactly("a"), Exactly("b"), Exactly("c")
	letter  = Like("a letter", "[a-z]")
)

func steps(steps ...Step) Sequence { return Sequence{Steps: steps} }

// timed makes a log of lines that appear a second apart.
func timed(lines []string) (log []Line) {
	for i, line := range lines {
		log = append(log, Line{At: time.Unix(int64(i), 0), Text: line})
	}
	return log
}

// reason is the first line of an error.
func reason(err error) string {
	first, _, _ := strings.Cut(fmt.Sprint(err), "\n")
	return first
}

// TestRegexp compares sequences with regular expressions, on all short logs of a, b and c.
func TestRegexp(t *testing.T) {
	logs := []string{""}
	for i := 0; len(logs[i]) < 8; i++ {
		logs = append(logs, logs[i]+"a", logs[i]+"b", logs[i]+"c")
	}
	// The longer ones complete these.
	short := slices.DeleteFunc(slices.Clone(logs), func(log string) bool { return len(log) > 4 })
	for expr, sequence := range map[string]Sequence{
		`^$`:                            steps(),
		`^ab$`:                          steps(a, b),
		`^[ab]c$`:                       steps(Like("either", "a|b"), c),
		`^ab+c$`:                        steps(a, b.OneOrMore(), c),
		`^ab*$`:                         steps(a, b.AnyNumber()),
		`^b*.b*c$`:                      steps(b.AnyNumber(), letter, b.AnyNumber(), c),
		`^a*b*c$`:                       steps(a.AnyNumber(), b.AnyNumber(), c),
		`^.*b.*$`:                       steps(letter.AnyNumber(), b, letter.AnyNumber()),
		`^.+b.+c$`:                      steps(letter.OneOrMore(), b, letter.OneOrMore(), c),
		`^(ab|ba)c$`:                    steps(AnyOrder(a, b), c),
		`^(a.|.a)$`:                     steps(AnyOrder(letter, a)),
		`^(c(ab|ba)|(ab|ba)c|acb|bca)$`: steps(AnyOrder(c, AnyOrder(a, b))),
		`^(ab+|b+ab*)c$`:                steps(AnyOrder(a, b.OneOrMore()), c),
		`^b*ab*c$`:                      steps(AnyOrder(a, b.AnyNumber()), c),
		`^(a+b|b+a)[ab]*c$`:             steps(AnyOrder(a, b).OneOrMore(), c),
		`^(ab|ba)[ab]*c$`:               steps(AnyOrder(a, b), AnyOrder(a, b).AnyNumber(), c),
		`^b*ab*cb*$`:                    {Pass: []Step{b}, Steps: []Step{a, c}},
	} {
		match := regexp.MustCompile(expr).MatchString
		fit := slices.DeleteFunc(slices.Clone(logs), func(log string) bool { return !match(log) })
		for _, log := range short {
			want := "the log ends before "
			if match(log) {
				want = "<nil>"
			}
			for i := len(log); i > 0; i-- {
				if !slices.ContainsFunc(fit, func(fit string) bool { return strings.HasPrefix(fit, log[:i]) }) {
					want = fmt.Sprintf("line %d does not fit: ", i)
				}
			}
			if err := sequence.Match(timed(strings.Split(log, ""))); !strings.HasPrefix(reason(err), want) {
				t.Fatalf("%s and %q: want %q, got %v", expr, log, want, err)
			}
		}
	}
}

// program is a Source that prints a line whenever somebody asks whether it has ended.
type program struct {
	lines   []string
	printed int
	exits   bool
}

func (p *program) Log() []Line { return timed(p.lines[:p.printed]) }

func (p *program) Ended() bool {
	p.printed = min(p.printed+1, len(p.lines))
	return p.exits && p.printed == len(p.lines)
}

func (p *program) Changed() <-chan struct{} {
	changed := make(chan struct{})
	if p.exits || p.printed < len(p.lines) {
		close(changed)
	}
	return changed
}

// TestAwait: it returns as soon as it knows the result.
func TestAwait(t *testing.T) {
	late := errors.New("too late")
	for _, test := range []struct {
		sequence  Sequence
		log       string
		exits     bool
		want      string
		remaining int // lines that were not waited for
	}{
		{steps(a, b), "a b x", true, "<nil>", 1},
		{steps(a, b.OneOrMore()), "a b b", true, "<nil>", 1},
		{steps(a, b.AnyNumber()), "a b", true, "<nil>", 1},
		{steps(a, letter.AnyNumber(), b, c), "a b b x b c x", true, "<nil>", 1},
		{steps(a, b), "a c b", true, "line 2 does not fit: expected b", 1},
		{steps(a, b, c), "a b", true, "the program ended before c", 0},
		{steps(a, b), "a", false, "no b: too late", 0},
		{steps(a), "", false, "no a: too late", 0},
		{steps(a, c.AnyNumber(), b), "a c c", false, "no b: too late", 0},
		{Sequence{Pass: []Step{c}, Steps: []Step{a, b}}, "a c c", false, "no b: too late", 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, late)
			defer cancel()
			p := &program{lines: strings.Fields(test.log), exits: test.exits}
			err := test.sequence.Await(ctx, p)
			if reason(err) != test.want || errors.Is(err, late) != strings.HasSuffix(test.want, late.Error()) {
				t.Errorf("%s: want %s, got %v", test.log, test.want, err)
			}
			if remaining := len(p.lines) - p.printed; remaining != test.remaining {
				t.Errorf("%s: %d lines remaining, want %d", test.log, remaining, test.remaining)
			}
			p.printed = len(p.lines) // lines that it has printed before count too
			if err := test.sequence.Await(ctx, p); reason(err) != test.want {
				t.Errorf("%s, already printed: want %s, got %v", test.log, test.want, err)
			}
		})
	}
}

// TestReason: what may come next, and that a line fits as a whole.
func TestReason(t *testing.T) {
	for _, test := range []struct {
		sequence  Sequence
		log, want string
	}{
		{steps(a), "a a", "line 2 does not fit: expected the end"},
		{steps(a, b.OneOrMore(), c), "a b a", "line 3 does not fit: expected b or c"},
		{steps(a, b.AnyNumber()), "a c", "line 2 does not fit: expected b or the end"},
		{steps(AnyOrder(a, b, c)), "b", "the log ends before a"},
		{steps(Exactly("a|b")), "a", "line 1 does not fit: expected a|b"},
		{steps(Like("either", "a|b")), "ax", "line 1 does not fit: expected either"},
		{steps(Like("either", "a|b")), "xb", "line 1 does not fit: expected either"},
		{steps(a.AnyNumber(), a), "b", "line 1 does not fit: expected a"},
		{Sequence{Pass: []Step{b}, Steps: []Step{a, b}}, "a b", "the log ends before b"},
	} {
		if err := test.sequence.Match(timed(strings.Fields(test.log))); reason(err) != test.want {
			t.Errorf("%s: want %s, got %v", test.log, test.want, err)
		}
	}
}

// TestLike: this would compile between parentheses.
func TestLike(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Like("two expressions", "a)|(b")
}

// TestPicture shows what a learner sees.
func TestPicture(t *testing.T) {
	sequence := Sequence{
		Pass: []Step{Exactly("run")},
		Steps: []Step{
			Like("Update", `handleUpdate.*`).AnyNumber(),
			Like("Update with a node that the scheduler chose", `handleUpdate.*, node \S+`),
			AnyOrder(Like("Delete", `handleDelete.*`), Exactly("deleted")),
			Exactly("bye"),
		},
	}
	log := []string{"run", "handleUpdate: 1 → 2", "handleUpdate: 2 → 3, node x", "deleted", "handleAdd", "run"}
	const read = `
         expected                                     after  printed
      1  (passed over)                               0.000s  run
      2  Update                                      1.000s  handleUpdate: 1 → 2
      3  Update with a node that the scheduler ch    2.000s  handleUpdate: 2 → 3, node x
      4  deleted                                     3.000s  deleted
`
	const missing = `still missing:
         Delete
         bye
`
	for lines, want := range map[int]string{
		6: "line 5 does not fit: expected Delete\n" + read +
			"-->   5  Delete                                      4.000s  handleAdd\n" +
			"      6                                              5.000s  run\n" + missing,
		4: "the log ends before Delete\n" + read + "-->      Delete\n" + missing,
	} {
		if got := fmt.Sprint(sequence.Match(timed(log[:lines]))); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

// story is what a recording must have: one sequence for the program itself, one for the
// pod web, and one for nginx.
func story() []Sequence {
	store, handler, cache := Exactly("store is synced"), Exactly("handler is synced"), Exactly("cache is synced")
	run := Exactly("run")
	pods := func(names string) Step { return Like("other pods", `.*\(key: \S+/(`+names+`)\).*`) }
	event := func(kind, pod, detail string) Step {
		return Like(kind+": "+detail, `handle`+kind+` is called for Pod \(key: default/`+pod+`\): `+detail)
	}
	updates := func(pod string) Step {
		return event("Update", pod, `(\d+ → \d+(, .*)?|resync, resourceVersion \d+)`).AnyNumber()
	}
	return []Sequence{
		{Pass: []Step{pods(".*")}, Steps: []Step{store, handler, cache, run.OneOrMore()}},
		{Pass: []Step{run, pods("nginx|other|another")}, Steps: []Step{
			AnyOrder(store, event("Add", "web", "initial, .*")), handler, cache, updates("web"),
		}},
		{Pass: []Step{store, handler, cache, run, pods("web|other|another")}, Steps: []Step{
			event("Add", "nginx", "new, .*"),
			AnyOrder(
				updates("nginx"),
				event("Update", "nginx", `\d+ → \d+, node \S+.*`),
				event("Update", "nginx", `\d+ → \d+, .*, Ready.*`),
				event("Update", "nginx", `\d+ → \d+, deletion`),
			),
			event("Delete", "nginx", "tombstone=false"),
		}},
	}
}

// guaranteed is an oracle. It does not use the sequences, but writes the log as letters,
// one a line, and holds some of the letters at a time to regular expressions. An Add
// comes first and a Delete last, each once. The number and order of Updates are free, but
// those that bring a node, Ready and the deletion must appear. The program's own lines
// keep their order. Other pods are free.
func guaranteed(lines []string) bool {
	log := strings.Join(lines, "\n")
	for _, kind := range [][2]string{ // the first one that fits counts
		{"s", `store is synced`},
		{"h", `handler is synced`},
		{"c", `cache is synced`},
		{"r", `run`},
		{"w", `handleAdd .*/web\): initial.*`},
		{"u", `handleUpdate .*/web\): resync.*`},
		{"A", `handleAdd .*/nginx\): new.*`},
		{"N", `handleUpdate .*/nginx\): \d.* node .*`},
		{"R", `handleUpdate .*/nginx\): \d.* Ready.*`},
		{"T", `handleUpdate .*/nginx\): \d.* deletion.*`},
		{"U", `handleUpdate .*/nginx\): (\d|resync).*`},
		{"D", `handleDelete .*/nginx\): tombstone=false`},
		{"", `handle.*/(other|another)\).*`},
		{"?", `..+`},
	} {
		log = regexp.MustCompile(`(?m)^(`+kind[1]+`)$`).ReplaceAllString(log, kind[0])
	}
	for only, want := range map[string]string{
		"?": `^$`, "shcr": `^shcr+$`, "swhcu": `^(sw|ws)hcu*$`,
		"ANRTUD": `^A.*D$`, "AD": `^AD$`, "N": `N`, "R": `R`, "T": `T`,
	} {
		letters := regexp.MustCompile(`[^`+only+`]`).ReplaceAllString(log, "")
		if !regexp.MustCompile(want).MatchString(letters) {
			return false
		}
	}
	return true
}

var (
	key    = regexp.MustCompile(`\(key: (\S+)\)`)
	word   = regexp.MustCompile(`^\w+`)
	origin = strings.NewReplacer(": new", ": initial", ": initial", ": new", ": resync", ": relist", "false", "true")
)

// mutations drop each line of a log, double it, change its key, its first word and its
// origin, and swap it with the next line and with the next one of the same key.
func mutations(lines []string) (logs [][]string) {
	for i, line := range lines {
		for _, changed := range [][]string{
			{},
			{line, line},
			{key.ReplaceAllString(line, "(key: default/another)")},
			{word.ReplaceAllString(line, "${0}d")},
			{origin.Replace(line)},
		} {
			if !slices.Equal(changed, []string{line}) {
				logs = append(logs, slices.Replace(slices.Clone(lines), i, i+1, changed...))
			}
		}
		same := func(next string) bool { return key.FindString(next) == key.FindString(line) }
		for _, j := range slices.Compact([]int{i + 1, i + 1 + slices.IndexFunc(lines[i+1:], same)}) {
			if i < j && j < len(lines) && lines[j] != line {
				swapped := slices.Clone(lines)
				swapped[i], swapped[j] = swapped[j], swapped[i]
				logs = append(logs, swapped)
			}
		}
	}
	return logs
}

// TestMutations: the recordings are outputs of 05-resync --resync 4s --run-every 2s on
// kind and on the local control plane. The pod web existed before; nginx and other were
// created, became ready and were deleted while it ran.
func TestMutations(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.log")
	sequences, counts := story(), map[bool]int{} // counts by whether a log is accepted
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		recorded := strings.Split(strings.TrimSpace(string(data)), "\n")
		for _, lines := range append(mutations(recorded), recorded) {
			var err error
			for _, sequence := range sequences {
				err = errors.Join(err, sequence.Match(timed(lines)))
			}
			counts[err == nil]++
			if want := guaranteed(lines); want != (err == nil) {
				t.Errorf("%s: accepted: %t, want %t\n%s\n%v", file, !want, want, strings.Join(lines, "\n"), err)
			}
		}
	}
	if want := map[bool]int{true: 4 + 504, false: 230}; len(files) != 4 || !maps.Equal(counts, want) {
		t.Errorf("%d recordings, logs accepted or not: %v, want 4 and %v", len(files), counts, want)
	}
}
