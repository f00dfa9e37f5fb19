// Package logmatch compares the output of a program, line by line, with a sequence. A
// sequence states exactly what is guaranteed, and nothing else.
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
	Text string    // without its line ending
}

// Source is a running program.
type Source interface {
	Log() []Line              // all lines so far
	Changed() <-chan struct{} // closed when there are more, or the program has exited
	Ended() bool              // there will be no more lines
}

// Step is one step of a Sequence. A plain step matches one line.
type Step struct {
	parts []part // more than one: in any order
}

// part matches a set of lines and has a name.
type part struct {
	name             string
	match            func(line string) bool
	optional, repeat bool
}

// Exactly matches one line, which equals text.
func Exactly(text string) Step {
	return Step{[]part{{name: text, match: func(line string) bool { return line == text }}}}
}

// Like matches one line that the regular expression matches as a whole. A failure
// shows the name. It panics if expr does not compile.
func Like(name, expr string) Step {
	regexp.MustCompile(expr) // compiled alone, because "a)|(b" is not valid
	return Step{[]part{{name: name, match: regexp.MustCompile(`\A(?:` + expr + `)\z`).MatchString}}}
}

// OneOrMore matches the step one or more times.
func (s Step) OneOrMore() Step { return s.times(false) }

// AnyNumber matches the step once, several times, or not at all.
func (s Step) AnyNumber() Step { return s.times(true) }

func (s Step) times(optional bool) Step {
	s.parts = slices.Clone(s.parts)
	for i := range s.parts {
		s.parts[i].optional, s.parts[i].repeat = optional, true
	}
	return s
}

// AnyOrder matches each of the steps, at most 64, in any order. Lines of a step that
// may occur several times can be anywhere among the others.
func AnyOrder(steps ...Step) Step {
	var whole Step
	for _, step := range steps {
		whole.parts = append(whole.parts, step.parts...)
	}
	if len(whole.parts) > 64 {
		panic("logmatch: AnyOrder of more than 64 steps")
	}
	return whole
}

// Sequence is what a program prints.
type Sequence struct {
	Pass  []Step    // lines that are ignored wherever they appear
	Steps []Step    // what the other lines must match, in this order
	Since time.Time // from when a failure counts the seconds; if zero, from the first line
}

// Match compares a whole log with the sequence: every line that is not ignored has to
// belong to a step, in order, and all required steps have to appear. The error is a *Mismatch.
func (s Sequence) Match(log []Line) error {
	r := s.reader()
	for i, line := range log {
		if !r.read(line.Text) {
			return r.mismatch(i+1, log, r.misfit())
		}
	}
	if !r.matched() {
		return r.mismatch(len(log)+1, log, "the log ends before "+r.missing()[0])
	}
	return nil
}

// Await reads the lines of source as they appear, until all steps have matched. It
// returns a *Mismatch as soon as a line does not fit, the program exits, or ctx is
// canceled (it wraps the cause of ctx then).
func (s Sequence) Await(ctx context.Context, source Source) error {
	r := s.reader()
	for {
		// Read the log after these two, so that it is at least as new as they are.
		changed, ended := source.Changed(), source.Ended()
		log := source.Log()
		for i := len(r.taken); i < len(log) && !r.matched(); i++ {
			if !r.read(log[i].Text) {
				return r.mismatch(i+1, log, r.misfit())
			}
		}
		switch {
		case r.matched():
			return nil
		case ended:
			return r.mismatch(len(log)+1, log, "the program ended before "+r.missing()[0])
		case ctx.Err() != nil:
			m := r.mismatch(len(log)+1, log, fmt.Sprintf("no %s: %s", r.missing()[0], context.Cause(ctx)))
			m.cause = context.Cause(ctx)
			return m
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}
