// Package logmatch holds what a program prints, line by line, to a sequence: what
// is guaranteed, exactly, and nothing that is not.
package logmatch

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Line is a line that a program has printed.
type Line struct {
	At   time.Time // when it was read; may be zero in a log without times
	Text string    // without its end
}

// Source is a program that runs.
type Source interface {
	Log() []Line              // all lines so far
	Changed() <-chan struct{} // closed when there is more, or the program has ended
	Ended() bool              // no more will come
}

// Step is one step of a Sequence. A plain one stands for one line.
type Step struct {
	parts  []part // more than one: in any order
	within time.Duration
}

// part is a set of lines with a name.
type part struct {
	name             string
	match            func(line string) bool
	optional, repeat bool
}

// Exactly is one line that is text.
func Exactly(text string) Step {
	return Step{parts: []part{{name: text, match: func(line string) bool { return line == text }}}}
}

// Like is one line that the regular expression matches as a whole. A failure
// shows the name. It panics if expr does not compile.
func Like(name, expr string) Step {
	regexp.MustCompile(expr) // alone: "a)|(b" is none
	return Step{parts: []part{{name: name, match: regexp.MustCompile(`\A(?:` + expr + `)\z`).MatchString}}}
}

// OneOrMore is the step, and any number of further lines that match it.
func (s Step) OneOrMore() Step { return s.times(false) }

// AnyNumber is the step once, several times, or not at all.
func (s Step) AnyNumber() Step { return s.times(true) }

func (s Step) times(optional bool) Step {
	s.parts = slices.Clone(s.parts)
	for i := range s.parts {
		s.parts[i].optional, s.parts[i].repeat = optional, true
	}
	return s
}

// Within sets a deadline: the step's first line comes at most d after the last
// line of the step before, or, in the first step, after the Sequence's Since.
//
// The clock starts anew with each line of a step that has to come, unless it had
// run out by then; lines of an AnyNumber step leave it alone. Where lines can be
// taken for one step or for the next, the reading counts that got furthest, and
// of several such the one that leaves most time.
func (s Step) Within(d time.Duration) Step {
	s.within = d
	return s
}

// AnyOrder is each of the steps, at most 64, in any order. The lines of those that
// may come several times mix freely with the others. A deadline belongs to the
// whole, so it panics if one of the steps has one.
func AnyOrder(steps ...Step) Step {
	var whole Step
	for _, step := range steps {
		if step.within != 0 {
			panic("logmatch: Within is for AnyOrder as a whole")
		}
		whole.parts = append(whole.parts, step.parts...)
	}
	if len(whole.parts) > 64 {
		panic("logmatch: AnyOrder of more than 64 steps")
	}
	return whole
}

// Sequence is what a program prints of one thing.
type Sequence struct {
	Key   string    // "namespace/name": lines with another "(key: …)" are passed over, lines without one are not; empty: all lines count
	Pass  []Step    // lines that are passed over wherever they come
	Never []Step    // lines of this key or of none that must not come, passed over or not
	Steps []Step    // what all other lines must be, in this order
	Since time.Time // where the first step's deadline starts; zero: the first line
}

// Match holds a whole log to the sequence: every line that is not passed over
// belongs to a step, in order, all steps are there, and deadlines are kept. The
// error is a *Mismatch.
func (s Sequence) Match(log []Line) error {
	r := s.reader()
	for i, line := range log {
		if reason := r.read(line); reason != "" {
			return r.mismatch(i+1, log, reason)
		}
	}
	if !r.matched() {
		return r.mismatch(len(log)+1, log, "the log ends before "+r.missing()[0])
	}
	return nil
}

// Await reads the lines of source as they come, until all steps have matched. It
// returns a *Mismatch as soon as a line does not fit or is never allowed, a
// deadline passes, the program ends, or ctx does (whose cause it wraps).
func (s Sequence) Await(ctx context.Context, source Source) error {
	r := s.reader()
	for {
		// What is read after these three is at least as new as they are.
		changed, ended, now := source.Changed(), source.Ended(), time.Now()
		log := source.Log()
		for i := len(r.taken); i < len(log) && !r.matched(); i++ {
			if reason := r.read(log[i]); reason != "" {
				return r.mismatch(i+1, log, reason)
			}
		}
		if r.matched() {
			return nil
		}
		due, late := r.due()
		switch {
		case ended:
			return r.mismatch(len(log)+1, log, "the program ended before "+r.missing()[0])
		case late != "" && now.After(due):
			return r.mismatch(len(log)+1, log, late)
		case ctx.Err() != nil:
			m := r.mismatch(len(log)+1, log, fmt.Sprintf("no %s: %s", r.missing()[0], context.Cause(ctx)))
			m.cause = context.Cause(ctx)
			return m
		}
		var timeout <-chan time.Time
		if late != "" {
			timeout = time.After(time.Until(due) + time.Nanosecond)
		}
		select {
		case <-changed:
		case <-timeout:
		case <-ctx.Done():
		}
	}
}
