// Package logmatch compares the output of a program, line by line, with a sequence. A
// sequence states exactly what is guaranteed, and nothing else.
package logmatch

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Line is a line that a program has printed.
type Line struct {
	At   time.Time // when it was read; may be zero in a log without times
	Text string    // without its line ending
}

// Source is a running program.
type Source interface {
	Log() []Line              // all lines so far
	Changed() <-chan struct{} // closed when there are more, or the program has exited
	Ended() bool              // there will be no more lines
}

// Step is one step of a Sequence: one kind of line or, for AnyOrder, several.
type Step []kind

// kind is a set of lines with a name.
type kind struct {
	name             string
	line             *regexp.Regexp
	optional, repeat bool
}

// Exactly matches one line, which equals text.
func Exactly(text string) Step { return Like(text, regexp.QuoteMeta(text)) }

// Like matches one line that the regular expression matches as a whole. A failure
// shows the name. It panics if expr does not compile.
func Like(name, expr string) Step {
	regexp.MustCompile(expr) // compiled alone, because "a)|(b" is not valid
	return Step{{name: name, line: regexp.MustCompile(`\A(?:` + expr + `)\z`)}}
}

// OneOrMore matches the step one or more times.
func (s Step) OneOrMore() Step { return s.times(false) }

// AnyNumber matches the step once, several times, or not at all.
func (s Step) AnyNumber() Step { return s.times(true) }

func (s Step) times(optional bool) Step {
	s = slices.Clone(s)
	for i := range s {
		s[i].optional, s[i].repeat = optional, true
	}
	return s
}

// AnyOrder matches each of the steps, in any order. Lines of a step that may occur
// several times can be anywhere among the others.
func AnyOrder(steps ...Step) Step { return slices.Concat(steps...) }

// Sequence is what a program prints.
type Sequence struct {
	Pass  []Step // lines that are ignored wherever they appear
	Steps []Step // what the other lines must match, in this order
}

// Match compares a whole log with the sequence: every line that is not ignored has to
// belong to a step, in order, and all required steps have to appear. The error shows
// the sequence next to the log, and where they part.
func (q Sequence) Match(log []Line) error {
	r := q.reader()
	for range log {
		if err := r.read(log); err != nil {
			return err
		}
	}
	if names := r.missing(); names != nil {
		return fmt.Errorf("the log ends before %s\n\n%s", names[0], r.picture(log))
	}
	return nil
}

// Await reads the lines of source as they appear, until all steps have matched. It
// returns an error, like Match, as soon as a line does not fit, the program exits, or
// ctx is done (it wraps the cause of ctx then).
func (q Sequence) Await(ctx context.Context, source Source) error {
	r := q.reader()
	for {
		// Read the log after these two, so that it is at least as new as they are.
		changed, ended := source.Changed(), source.Ended()
		log := source.Log()
		for r.missing() != nil && r.lines < len(log) {
			if err := r.read(log); err != nil {
				return err
			}
		}
		names := r.missing()
		switch {
		case names == nil:
			return nil
		case ended:
			return fmt.Errorf("the program ended before %s\n\n%s", names[0], r.picture(log))
		case ctx.Err() != nil:
			return fmt.Errorf("no %s: %w\n\n%s", names[0], context.Cause(ctx), r.picture(log))
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// reader reads a log line by line.
type reader struct {
	pass  []Step
	lines int    // how many it has read
	ways  []*way // all ways to read them, because a line can fit several steps; the furthest first
}

// way is one way to read the lines so far.
type way struct {
	rest   []Step // what may still come, beginning with what is left of the last line's step
	kind   kind   // what the last line matched
	line   int    // its index
	before *way
}

func (q Sequence) reader() *reader { return &reader{pass: q.Pass, ways: []*way{{rest: q.Steps}}} }

// read reads the next line of log. It stays where it is if that line does not fit.
func (r *reader) read(log []Line) error {
	fits := func(k kind) bool { return k.line.MatchString(log[r.lines].Text) }
	if slices.ContainsFunc(slices.Concat(r.pass...), fits) {
		r.lines++
		return nil
	}
	var ways []*way
	for _, next := range r.next() {
		same := func(w *way) bool {
			return len(w.rest) == len(next.rest) && slices.Equal(w.rest[0], next.rest[0])
		}
		if fits(next.kind) && !slices.ContainsFunc(ways, same) {
			ways = append(ways, next)
		}
	}
	if ways == nil {
		return fmt.Errorf("line %d does not fit: expected %s\n\n%s", r.lines+1, r.wanted(), r.picture(log))
	}
	slices.SortStableFunc(ways, func(a, b *way) int {
		return len(required(a.rest...)) - len(required(b.rest...))
	})
	r.lines, r.ways = r.lines+1, ways
	return nil
}

// next returns the ways to read one more line, for each kind of line that may come.
func (r *reader) next() (ways []*way) {
	for _, w := range r.ways {
		for i, step := range w.rest {
			for j, k := range step {
				left := slices.Clone(step)
				if k.repeat {
					left[j].optional = true
				} else {
					left = slices.Delete(left, j, j+1)
				}
				rest := slices.Concat([]Step{left}, w.rest[i+1:])
				ways = append(ways, &way{rest: rest, kind: k, line: r.lines, before: w})
			}
			if required(step) != nil {
				break
			}
		}
	}
	return ways
}

// required returns the names of the kinds of lines that have to appear.
func required(steps ...Step) (names []string) {
	for _, k := range slices.Concat(steps...) {
		if !k.optional {
			names = append(names, k.name)
		}
	}
	return names
}

// missing returns the names of what is still required.
func (r *reader) missing() []string { return required(r.ways[0].rest...) }

// wanted names everything that may come next.
func (r *reader) wanted() string {
	var names []string
	for _, next := range r.next() {
		if !slices.Contains(names, next.kind.name) {
			names = append(names, next.kind.name)
		}
	}
	if r.missing() == nil {
		names = append(names, "the end")
	}
	return strings.Join(names, " or ")
}

// picture shows each line of the log next to what it matched, and an arrow where the
// reader stopped.
func (r *reader) picture(log []Line) string {
	matched := make([]string, len(log)+1)
	for i := range r.lines {
		matched[i] = "(passed over)"
	}
	for w := r.ways[0]; w.before != nil; w = w.before {
		matched[w.line] = w.kind.name
	}
	matched[r.lines] = r.wanted()

	var b strings.Builder
	fmt.Fprintf(&b, "         %-40s     after  printed\n", "expected")
	for i, line := range log {
		arrow := ""
		if i == r.lines {
			arrow = "-->"
		}
		after := line.At.Sub(log[0].At).Seconds()
		fmt.Fprintf(&b, "%3s%4d  %-40.40s  %7.3fs  %s\n", arrow, i+1, matched[i], after, line.Text)
	}
	if r.lines == len(log) {
		fmt.Fprintf(&b, "-->      %s\n", matched[r.lines])
	}
	if names := r.missing(); names != nil {
		fmt.Fprintf(&b, "still missing:\n         %s\n", strings.Join(names, "\n         "))
	}
	return b.String()
}
