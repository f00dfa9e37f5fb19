package logmatch_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "example.com/informers/internal/logmatch"
)

var (
	a, b, c = Exactly("a"), Exactly("b"), Exactly("c")
	letter  = Like("a letter", "[a-z]")
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// read turns words into a log. "5@a" is the line "a" 5 s after the start; a word without
// a time has the time of the word before it.
func read(words string) (log []Line) {
	at := start
	for _, word := range strings.Fields(words) {
		if seconds, text, found := strings.Cut(word, "@"); found {
			d, err := time.ParseDuration(seconds + "s")
			if err != nil {
				panic(err)
			}
			at, word = start.Add(d), text
		}
		log = append(log, Line{At: at, Text: strings.ReplaceAll(word, "_", " ")})
	}
	return log
}

// TestMatch: if want is empty, the log matches.
func TestMatch(t *testing.T) {
	tests := []struct {
		name     string
		sequence Sequence
		log      string
		want     string
	}{
		{"Exactly", steps(a, b), "a b", ""},
		{"Exactly, wrong", steps(a, b), "a c", "line 2 does not fit: expected b"},
		{"Exactly, missing", steps(a, b, c), "a b", "the log ends before c"},
		{"Exactly, too many", steps(a), "a a", "line 2 does not fit: expected the end"},
		{"Exactly takes no expression", steps(Exactly("a|b")), "a", "line 1 does not fit: expected a|b"},
		{"nothing of nothing", steps(), "", ""},
		{"something of nothing", steps(), "a", "line 1 does not fit: expected the end"},

		{"Like", steps(letter), "x", ""},
		{"Like, as a whole", steps(letter), "xy", "line 1 does not fit: expected a letter"},
		{"Like, an alternative as a whole", steps(Like("either", "a|b")), "ax", "line 1 does not fit: expected either"},

		{"OneOrMore, one", steps(a, b.OneOrMore(), c), "a b c", ""},
		{"OneOrMore, three", steps(a, b.OneOrMore(), c), "a b b b c", ""},
		{"OneOrMore, none", steps(a, b.OneOrMore(), c), "a c", "line 2 does not fit: expected b"},
		{"OneOrMore, wrong after it", steps(a, b.OneOrMore(), c), "a b a", "line 3 does not fit: expected b or c"},

		{"AnyNumber, none", steps(a, b.AnyNumber(), c), "a c", ""},
		{"AnyNumber, three", steps(a, b.AnyNumber(), c), "a b b b c", ""},
		{"AnyNumber, nothing after it", steps(a, b.AnyNumber()), "a", ""},
		{"AnyNumber, wrong", steps(a, b.AnyNumber()), "a c", "line 2 does not fit: expected b or the end"},
		{"AnyNumber, several", steps(a.AnyNumber(), b.AnyNumber(), c), "c", ""},

		// Neither a greedy nor a reluctant interpretation of these works.
		{"both fit, first", steps(letter.AnyNumber(), b, letter.AnyNumber()), "b a c", ""},
		{"both fit, last", steps(letter.AnyNumber(), b, letter.AnyNumber()), "a c b", ""},
		{"both fit, twice", steps(letter.OneOrMore(), b, letter.OneOrMore(), c), "b b b c c", ""},
		{"both fit, missing", steps(letter.AnyNumber(), b, letter.AnyNumber()), "a c a", "the log ends before b"},
		{"both fit, too few", steps(letter.OneOrMore(), b, letter.OneOrMore()), "b a", "the log ends before b"},

		{"AnyOrder, as written", steps(AnyOrder(a, b), c), "a b c", ""},
		{"AnyOrder, reversed", steps(AnyOrder(a, b), c), "b a c", ""},
		{"AnyOrder, twice the same", steps(AnyOrder(a, b), c), "a a c", "line 2 does not fit: expected b"},
		{"AnyOrder, incomplete", steps(AnyOrder(a, b), c), "a c", "line 2 does not fit: expected b"},
		{"AnyOrder, missing", steps(AnyOrder(a, b, c)), "b", "the log ends before a and c"},
		{"AnyOrder, either fits", steps(AnyOrder(letter, a)), "a x", ""},
		{"AnyOrder, either fits, reversed", steps(AnyOrder(letter, a)), "x a", ""},
		{"AnyOrder, neither is left", steps(AnyOrder(letter, a)), "x y", "line 2 does not fit: expected a"},
		{"AnyOrder in AnyOrder", steps(AnyOrder(c, AnyOrder(a, b))), "a c b", ""},
		{"AnyOrder mixes repeated ones", steps(AnyOrder(a, b.OneOrMore()), c), "b a b c", ""},
		{"AnyOrder, repeated one missing", steps(AnyOrder(a, b.OneOrMore()), c), "a c", "line 2 does not fit: expected b"},
		{"AnyOrder, one that need not come", steps(AnyOrder(a, b.AnyNumber()), c), "a c", ""},
		{"AnyOrder as a whole OneOrMore", steps(AnyOrder(a, b).OneOrMore(), c), "a b a a c", ""},
		{"a step is a value", steps(AnyOrder(a, b), AnyOrder(a, b).AnyNumber(), c), "a c", "line 2 does not fit: expected b"},

		{"Pass", Sequence{Pass: []Step{b}, Steps: []Step{a, c}}, "b a b b c b", ""},
		{"Pass, not others", Sequence{Pass: []Step{b}, Steps: []Step{a, c}}, "a x c", "line 2 does not fit: expected c"},
		{"Pass wins over a step", Sequence{Pass: []Step{b}, Steps: []Step{a, b}}, "a b", "the log ends before b"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			check(t, test.sequence.Match(read(test.log)), test.want)
		})
	}
}

func steps(steps ...Step) Sequence { return Sequence{Steps: steps} }

func check(t *testing.T, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		mismatch := (*Mismatch)(nil)
		if !errors.As(err, &mismatch) {
			t.Fatalf("%T is not a *Mismatch: %v", err, err)
		}
		got = mismatch.Reason
	}
	if got != want {
		t.Errorf("got %q, want %q\n%v", got, want, err)
	}
}

func TestPanics(t *testing.T) {
	for name, step := range map[string]func(){
		"no expression":    func() { Like("x", "a(") },
		"two of them":      func() { Like("x", "a)|(b") },
		"too many for one": func() { AnyOrder(slices.Repeat([]Step{a}, 65)...) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			step()
		})
	}
	AnyOrder(slices.Repeat([]Step{a}, 64)...)
}

// program is a Source that prints a log at its times.
type program struct {
	mu      sync.Mutex
	log     []Line
	ended   bool
	changed chan struct{}
}

// play starts a program that prints the log, and exits 1 s after its last line if ends is set.
func play(log []Line, ends bool) *program {
	p := &program{changed: make(chan struct{})}
	go func() {
		begin := time.Now()
		for _, line := range log {
			time.Sleep(time.Until(begin.Add(line.At.Sub(start))))
			p.change(func() { p.log = append(p.log, Line{At: time.Now(), Text: line.Text}) })
		}
		if ends {
			time.Sleep(time.Second)
			p.change(func() { p.ended = true })
		}
	}()
	return p
}

func (p *program) change(what func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *program) Log() []Line {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.log)
}

func (p *program) Ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

func (p *program) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// TestAwait: it returns as soon as it knows the result, not only at the next line.
func TestAwait(t *testing.T) {
	const never = 100 * time.Second // when ctx is canceled
	tests := []struct {
		name     string
		sequence Sequence
		log      string
		ends     bool
		want     string
		took     time.Duration
	}{
		{"complete", steps(a, b), "1@a 4@b 5@x", true, "", 4 * time.Second},
		{"complete at the first of OneOrMore", steps(a, b.OneOrMore()), "1@a 4@b 5@b", true, "", 4 * time.Second},
		{"complete before what may come", steps(a, b.AnyNumber()), "1@a 4@b", true, "", time.Second},
		{"nothing to wait for", steps(a.AnyNumber()), "1@a", true, "", 0},
		{"both fit", steps(a, letter.AnyNumber(), b, c), "1@a 2@b 3@b 4@x 5@b 6@c", true, "", 6 * time.Second},
		{"a line that does not fit", steps(a, b), "1@a 3@c 4@b", true, "line 2 does not fit: expected b", 3 * time.Second},
		{"the program ends", steps(a, b), "1@a", true, "the program ended before b", 2 * time.Second},
		{"the program ends at its last line", steps(a), "1@a", true, "", time.Second},
		{"ctx ends", steps(a, b), "1@a", false, "no b: context deadline exceeded", never},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), never)
				defer cancel()
				begin := time.Now()
				err := test.sequence.Await(ctx, play(read(test.log), test.ends))
				check(t, err, test.want)
				if took := time.Since(begin).Truncate(time.Microsecond); took != test.took {
					t.Errorf("took %s, want %s", took, test.took)
				}
				if test.took == never != errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v has the wrong cause", err)
				}
				time.Sleep(never) // for the program to exit
			})
		})
	}
}

// TestAwaitOld: lines printed before Await count like later ones.
func TestAwaitOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := play(read("1@a 2@b 9@c"), true)
		time.Sleep(time.Minute)
		check(t, steps(a, b).Await(t.Context(), p), "")
		check(t, steps(a, b, c).Await(t.Context(), p), "")
		check(t, steps(a, b, c, b).Await(t.Context(), p), "the program ended before b")
	})
}

// TestMismatch shows what a learner sees.
func TestMismatch(t *testing.T) {
	update := Like("handleUpdate", `handleUpdate is called for Pod \(key: default/nginx\): .*`)
	sequence := Sequence{
		Pass: []Step{Exactly("run"), Like("web", `.*default/web.*`)},
		Steps: []Step{
			Exactly("cache is synced"),
			Like("handleAdd, new", `handleAdd is called for Pod \(key: default/nginx\): new`),
			update.AnyNumber(), Like("handleUpdate with a node that the scheduler chose", `.*, node \S+`), update.AnyNumber(),
			AnyOrder(Like("handleDelete", `handleDelete is called for Pod \(key: default/nginx\)`), Exactly("deleted")),
			Exactly("bye"),
		},
	}
	var log []Line
	for line := range strings.Lines(`0s cache is synced
12ms run
3.04s handleAdd is called for Pod (key: default/nginx): new
3.049s handleUpdate is called for Pod (key: default/nginx): 1 → 2
3.064s handleUpdate is called for Pod (key: default/web): resync, resourceVersion 1
3.524s handleUpdate is called for Pod (key: default/nginx): 2 → 3, node kind
3.626s handleUpdate is called for Pod (key: default/nginx): 3 → 4
11.111s handleAdd is called for Pod (key: default/nginx): new
13.024s handleAdd is called for Pod (key: default/web): new
123.456s run
`) {
		after, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		d, err := time.ParseDuration(after)
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, Line{At: start.Add(d), Text: text})
	}
	want := `line 8 does not fit: expected handleUpdate, handleUpdate with a node that the scheduler chose, handleDelete or deleted

         expected                                     after  printed
      1  cache is synced                             0.000s  cache is synced
      2  (passed over)                               0.012s  run
      3  handleAdd, new                              3.040s  handleAdd is called for Pod (key: default/nginx): new
      4  handleUpdate                                3.049s  handleUpdate is called for Pod (key: default/nginx): 1 → 2
      5  (passed over)                               3.064s  handleUpdate is called for Pod (key: default/web): resync, resourceVersion 1
      6  handleUpdate with a node that the sched…    3.524s  handleUpdate is called for Pod (key: default/nginx): 2 → 3, node kind
      7  handleUpdate                                3.626s  handleUpdate is called for Pod (key: default/nginx): 3 → 4
-->   8  handleUpdate                               11.111s  handleAdd is called for Pod (key: default/nginx): new
         or handleUpdate with a node that the sc…
         or handleDelete
         or deleted
      9                                             13.024s  handleAdd is called for Pod (key: default/web): new
     10                                            123.456s  run
still missing:
         handleDelete and deleted
         bye
`
	compare(t, sequence.Match(log), want, 8, "handleUpdate", "handleUpdate with a node that the scheduler chose", "handleDelete", "deleted")

	// The log ends too early, and nothing at all is printed.
	want = `the log ends before b

         expected     after  printed
      1  a           0.000s  x
      2  a           5.000s  y
-->      a
         or b
still missing:
         b
`
	compare(t, steps(Like("a", "x|y").OneOrMore(), b).Match(read("0@x 5@y")), want, 3, "a", "b")
	want = `the log ends before a

         expected     after  printed
-->      a
still missing:
         a
`
	compare(t, steps(a).Match(nil), want, 1, "a")

	// Since is the start, and the lines after the end are shown too.
	want = `line 2 does not fit: expected the end

         expected     after  printed
      1  a           1.000s  a
-->   2  the end     2.000s  b
      3              3.000s  c
`
	compare(t, Sequence{Since: start, Steps: []Step{a}}.Match(read("1@a 2@b 3@c")), want, 2, "the end")
}

func compare(t *testing.T, err error, want string, line int, names ...string) {
	t.Helper()
	mismatch := (*Mismatch)(nil)
	if !errors.As(err, &mismatch) {
		t.Fatalf("got %v, want a *Mismatch", err)
	}
	if err.Error() != want {
		t.Errorf("got\n%s\nwant\n%s", err, want)
	}
	if mismatch.Line != line || !slices.Equal(mismatch.Want, names) {
		t.Errorf("got line %d, %q, want line %d, %q", mismatch.Line, mismatch.Want, line, names)
	}
}
