package logmatch

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
)

// reader reads a log line by line. The same line can fit several steps, so it keeps all
// possible interpretations of the lines so far.
type reader struct {
	Sequence
	taken  []bool // for each line so far, whether it matched a step
	places []*place
}

// place is the position of one interpretation in the sequence.
type place struct {
	step   int       // the step that the last line matched
	seen   uint64    // the parts of it that have appeared, a bit each
	since  time.Time // the time of the last required line
	part   *part     // the part that the last line matched
	before *place
}

func (s Sequence) reader() *reader {
	return &reader{Sequence: s, places: []*place{{since: s.Since}}}
}

// read processes the next line, and returns what is wrong with it.
func (r *reader) read(line Line) (wrong string) {
	if len(r.taken) == 0 && r.Since.IsZero() {
		r.places[0].since = line.At
	}
	r.taken = append(r.taken, false)
	number := len(r.taken)
	if r.foreign(line.Text) {
		return ""
	}
	if name, found := find(r.Never, line.Text); found {
		return fmt.Sprintf("line %d is never allowed: %s", number, name)
	}
	if _, found := find(r.Pass, line.Text); found {
		return ""
	}

	if due, late := r.due(); late != "" && line.At.After(due) {
		return fmt.Sprintf("line %d is too late: %s", number, late)
	}
	var next []*place
	for _, p := range r.places {
		for i, j := range r.options(p) {
			part := &r.Steps[i].parts[j]
			if !part.match(line.Text) {
				continue
			}
			if due, ok := r.deadline(p, i); ok && line.At.After(due) {
				wrong = fmt.Sprintf("line %d is too late: %s", number, r.Steps[i].overdue())
				continue
			}
			to := &place{step: i, seen: 1 << j, since: p.since, part: part, before: p}
			if i == p.step {
				to.seen |= p.seen
			}
			if !part.optional {
				to.since = line.At
			}
			// If two ways lead to the same place, keep the one that leaves more time.
			k := slices.IndexFunc(next, func(n *place) bool { return n.step == to.step && n.seen == to.seen })
			if k < 0 {
				next = append(next, to)
			} else if to.since.After(next[k].since) {
				next[k] = to
			}
		}
	}
	if len(next) > 0 {
		r.taken[number-1], r.places = true, next
		return ""
	}
	if wrong == "" {
		wrong = fmt.Sprintf("line %d does not fit: expected %s", number, or(r.wanted()))
	}
	return wrong
}

// foreign reports whether the line has a key other than the sequence's.
func (s *Sequence) foreign(line string) bool {
	_, rest, _ := strings.Cut(line, "(key: ")
	key, _, found := strings.Cut(rest, ")")
	return found && s.Key != "" && key != s.Key
}

func find(steps []Step, line string) (name string, found bool) {
	for _, step := range steps {
		for _, part := range step.parts {
			if part.match(line) {
				return part.name, true
			}
		}
	}
	return "", false
}

// missing returns the names of the parts of a step that are still required.
func (s Step) missing(seen uint64) (names []string) {
	for j, part := range s.parts {
		if !part.optional && seen&(1<<j) == 0 {
			names = append(names, part.name)
		}
	}
	return names
}

// options iterates over the steps, and their parts, that may come next.
func (s *Sequence) options(p *place) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		seen := p.seen
		for i := p.step; i < len(s.Steps); i, seen = i+1, 0 {
			for j, part := range s.Steps[i].parts {
				if (seen&(1<<j) == 0 || part.repeat) && !yield(i, j) {
					return
				}
			}
			if s.Steps[i].missing(seen) != nil {
				return
			}
		}
	}
}

// pending returns the first step that is not complete, or the number of steps.
func (s *Sequence) pending(p *place) int {
	seen := p.seen
	for i := p.step; i < len(s.Steps); i, seen = i+1, 0 {
		if s.Steps[i].missing(seen) != nil {
			return i
		}
	}
	return len(s.Steps)
}

// matched reports whether nothing else is required.
func (r *reader) matched() bool {
	return slices.ContainsFunc(r.places, func(p *place) bool { return r.pending(p) == len(r.Steps) })
}

// deadline returns the deadline of a step that has one and has not started.
func (s *Sequence) deadline(p *place, step int) (due time.Time, ok bool) {
	begun := step == p.step && p.seen != 0
	if step == len(s.Steps) || begun || s.Steps[step].within == 0 || p.since.IsZero() {
		return time.Time{}, false
	}
	return p.since.Add(s.Steps[step].within), true
}

func (s Step) overdue() string {
	var names []string
	for _, part := range s.parts {
		names = append(names, part.name)
	}
	return fmt.Sprintf("no %s within %s", or(names), s.within)
}

// due returns the deadline of the next required step, and what is wrong after it; both
// are zero if there is none. Only the interpretations that got furthest count: another
// one could wait forever for a line that has appeared and matched something else.
func (r *reader) due() (due time.Time, wrong string) {
	next := r.pending(r.furthest())
	for _, p := range r.places {
		if r.pending(p) != next {
			continue
		}
		at, ok := r.deadline(p, next)
		if !ok {
			return time.Time{}, ""
		}
		if at.After(due) {
			due, wrong = at, r.Steps[next].overdue()
		}
	}
	return due, wrong
}
