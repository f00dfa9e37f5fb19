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

		{"Key", keyed(Exactly("u (key: d/x)")), "u_(key:_d/y) u_(key:_d/x) v_(key:_x)", ""},
		{"Key, no prefix of another", keyed(), "u_(key:_d/xy)", ""},
		{"Key, lines without one stay", keyed(), "u", "line 1 does not fit: expected the end"},
		{"Key, a line with two", keyed(), "u_(key:_d/x)_(key:_d/y)", "line 1 does not fit: expected the end"},
		{"Key, not closed", keyed(), "u_(key:_d/y", "line 1 does not fit: expected the end"},
		{"no Key, all lines stay", steps(), "u_(key:_d/y)", "line 1 does not fit: expected the end"},

		{"Pass", Sequence{Pass: []Step{b}, Steps: []Step{a, c}}, "b a b b c b", ""},
		{"Pass, not others", Sequence{Pass: []Step{b}, Steps: []Step{a, c}}, "a x c", "line 2 does not fit: expected c"},
		{"Pass wins over a step", Sequence{Pass: []Step{b}, Steps: []Step{a, b}}, "a b", "the log ends before b"},

		{"Never", Sequence{Never: []Step{b}, Steps: []Step{letter.OneOrMore()}}, "a b", "line 2 is never allowed: b"},
		{"Never, also passed over", Sequence{Never: []Step{b}, Pass: []Step{letter}}, "a b", "line 2 is never allowed: b"},
		{"Never, after the end", Sequence{Never: []Step{b}, Steps: []Step{a}}, "a b", "line 2 is never allowed: b"},
		{"Never, another key", Sequence{Key: "d/x", Never: []Step{Like("u", "u.*")}}, "u_(key:_d/y)", ""},
		{"Never, the key", Sequence{Key: "d/x", Never: []Step{Like("u", "u.*")}}, "u_(key:_d/x)", "line 1 is never allowed: u"},

		{"Within", steps(a, b.Within(5*time.Second)), "0@a 5@b", ""},
		{"Within, too late", steps(a, b.Within(5*time.Second)), "0@a 5.001@b", "line 2 is too late: no b within 5s"},
		{"Within, in the first step", steps(a.Within(5 * time.Second)), "7@a", ""},
		{"Within, in the first step, a line before", Sequence{Pass: []Step{c}, Steps: []Step{a.Within(5 * time.Second)}}, "1@c 7@a", "line 2 is too late: no a within 5s"},
		{"Within, after Since", Sequence{Since: start, Steps: []Step{a.Within(5 * time.Second)}}, "7@a", "line 1 is too late: no a within 5s"},
		{"Within, the first line only", steps(a, b.OneOrMore().Within(5*time.Second), c), "0@a 5@b 20@b c", ""},
		{"Within, after the last of OneOrMore", steps(a.OneOrMore(), b.Within(5*time.Second)), "0@a 4@a 8@b", ""},
		{"Within, OneOrMore after it ran out", steps(a.OneOrMore(), b.Within(5*time.Second)), "0@a 6@a 7@b", "line 2 is too late: no b within 5s"},
		{"Within, AnyNumber does not stop it", steps(a, b.AnyNumber(), c.Within(5*time.Second)), "0@a 4@b 6@c", "line 3 is too late: no c within 5s"},
		{"Within, AnyNumber after it ran out", steps(a, b.AnyNumber(), c.Within(5*time.Second)), "0@a 6@b 7@c", "line 2 is too late: no c within 5s"},
		{"Within, of AnyNumber", steps(a, b.AnyNumber().Within(5*time.Second), c), "0@a 6@c", ""},
		{"Within, of AnyNumber, too late", steps(a, b.AnyNumber().Within(5*time.Second), c), "0@a 6@b c", "line 2 is too late: no b within 5s"},
		{"Within, lines passed over do not count", Sequence{Pass: []Step{c}, Steps: []Step{a, b.Within(5 * time.Second)}}, "0@a 4@c 6@b", "line 3 is too late: no b within 5s"},
		{"Within, AnyOrder", steps(a, AnyOrder(b, c).Within(5*time.Second)), "0@a 5@c 20@b", ""},
		{"Within, AnyOrder, too late", steps(a, AnyOrder(b, c).Within(5*time.Second)), "0@a 6@c b", "line 2 is too late: no b or c within 5s"},
		{"Within, both fit, one way is in time", steps(a, letter.AnyNumber(), b.OneOrMore(), c.Within(5*time.Second)), "0@a 1@b 4@b 9@c", ""},
		{"Within, both fit, the longer one", steps(a, b.OneOrMore(), b.AnyNumber(), c.Within(5*time.Second)), "0@a 1@b 4@b 9@c", ""},
		{"Within, two ways to the same place", steps(AnyOrder(letter, letter.AnyNumber()), Exactly("9").Within(5*time.Second)), "0@x 4@y 8@9", ""},
		{"Within, both fit, the further way is late", steps(a, letter.OneOrMore(), b.OneOrMore(), c.Within(5*time.Second)), "0@a 1@b 4@b 10@b 11@c", "line 4 is too late: no c within 5s"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			check(t, test.sequence.Match(read(test.log)), test.want)
			// A log without times meets every deadline.
			log := read(test.log)
			for i := range log {
				log[i].At = time.Time{}
			}
			if test.sequence.Since.IsZero() && (test.want == "" || strings.Contains(test.want, "too late")) {
				check(t, test.sequence.Match(log), "")
			}
		})
	}
}

func steps(steps ...Step) Sequence { return Sequence{Steps: steps} }

func keyed(steps ...Step) Sequence { return Sequence{Key: "d/x", Steps: steps} }

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
		"Within inside":    func() { AnyOrder(a, b.Within(time.Second)) },
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
		{"a line that is never allowed", Sequence{Never: []Step{c}, Pass: []Step{letter}, Steps: []Step{b}}, "1@a 3@c 4@b", true, "line 2 is never allowed: c", 3 * time.Second},
		{"the program ends", steps(a, b), "1@a", true, "the program ended before b", 2 * time.Second},
		{"the program ends at its last line", steps(a), "1@a", true, "", time.Second},
		{"ctx ends", steps(a, b), "1@a", false, "no b: context deadline exceeded", never},

		{"in time", steps(a, b.Within(5*time.Second)), "1@a 6@b", false, "", 6 * time.Second},
		{"not in time", steps(a, b.Within(5*time.Second)), "1@a 7@b", false, "no b within 5s", 6 * time.Second},
		{"silence", steps(a, b.Within(5*time.Second)), "1@a", false, "no b within 5s", 6 * time.Second},
		{"only what may come", steps(a, c.AnyNumber(), b.Within(5*time.Second)), "1@a 3@c 5@c 7@c", false, "no b within 5s", 6 * time.Second},
		{"only what is passed over", Sequence{Pass: []Step{c}, Steps: []Step{a, b.Within(5 * time.Second)}}, "1@a 3@c 5@c 7@c", false, "no b within 5s", 6 * time.Second},
		{"another of OneOrMore", steps(a.OneOrMore(), b.Within(5*time.Second)), "1@a 5@a 11@b", false, "no b within 5s", 10 * time.Second},
		{"from the first line", Sequence{Pass: []Step{c}, Steps: []Step{a.Within(5 * time.Second)}}, "3@c 9@a", false, "no a within 5s", 8 * time.Second},
		{"nothing at all and no Since", steps(a.Within(5 * time.Second)), "", false, "no a: context deadline exceeded", never},
		{"AnyOrder begun", steps(AnyOrder(a, b).Within(5*time.Second), c), "1@a 20@b 21@c", false, "", 21 * time.Second},
		{"of two ways the longer", steps(a, b.OneOrMore(), b.AnyNumber(), c.Within(5*time.Second)), "0@a 1@b 4@b", false, "no c within 5s", 9 * time.Second},
		{"of two ways the further, though it began before", steps(a, letter.OneOrMore(), b, Exactly("d").AnyNumber(), c.Within(5*time.Second)), "0@a 1@x 2@b 6@d", false, "no c within 5s", 7 * time.Second},
		{"of two ways the one that goes on", steps(a, letter.OneOrMore(), b.OneOrMore(), c.Within(5*time.Second)), "0@a 1@b 4@b 8@x 9@b 10@c", false, "", 10 * time.Second},
		{"of two ways the further", steps(a, letter.OneOrMore(), b.OneOrMore(), c.Within(5*time.Second)), "0@a 1@b 4@b 10@b 11@c", false, "no c within 5s", 9 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), never)
				defer cancel()
				begin := time.Now()
				err := test.sequence.Await(ctx, play(read(test.log), test.ends))
				check(t, err, test.want)
				// A deadline has passed as soon as no line can be in time.
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

// TestAwaitSince: with a Since, the clock runs even if nothing is printed.
func TestAwaitSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		err := Sequence{Since: begin, Steps: []Step{a.Within(5 * time.Second)}}.Await(t.Context(), play(nil, false))
		check(t, err, "no a within 5s")
		if took := time.Since(begin).Truncate(time.Microsecond); took != 5*time.Second {
			t.Errorf("took %s, want 5s", took)
		}
	})
}

// TestAwaitOld: lines printed before Await count like later ones.
func TestAwaitOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := play(read("1@a 2@b 9@c"), true)
		time.Sleep(time.Minute)
		check(t, steps(a, b).Await(t.Context(), p), "")
		check(t, steps(a, b, c).Await(t.Context(), p), "")
		check(t, steps(a, b, c.Within(5*time.Second)).Await(t.Context(), p), "line 3 is too late: no c within 5s")
		check(t, steps(a, b, c, b).Await(t.Context(), p), "the program ended before b")
	})
}

// TestMismatch shows what a learner sees.
func TestMismatch(t *testing.T) {
	update := Like("handleUpdate", `handleUpdate is called for Pod \(key: default/nginx\): .*`)
	sequence := Sequence{
		Key:  "default/nginx",
		Pass: []Step{Exactly("run")},
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

         expected of default/nginx                    after  printed
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
      9  (passed over)                              13.024s  handleAdd is called for Pod (key: default/web): new
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
