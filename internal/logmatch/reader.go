package logmatch

import (
	"fmt"
	"iter"
	"slices"
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
	step   int    // the step that the last line matched
	seen   uint64 // the parts of it that have appeared, a bit each
	part   *part  // the part that the last line matched
	before *place
}

func (s Sequence) reader() *reader { return &reader{Sequence: s, places: []*place{{}}} }

// read processes the next line, and reports whether it fits.
func (r *reader) read(line string) bool {
	r.taken = append(r.taken, false)
	for _, step := range r.Pass {
		if slices.ContainsFunc(step.parts, func(p part) bool { return p.match(line) }) {
			return true
		}
	}
	var next []*place
	for _, p := range r.places {
		for i, j := range r.options(p) {
			part := &r.Steps[i].parts[j]
			if !part.match(line) {
				continue
			}
			to := &place{step: i, seen: 1 << j, part: part, before: p}
			if i == p.step {
				to.seen |= p.seen
			}
			if !slices.ContainsFunc(next, func(n *place) bool { return n.step == to.step && n.seen == to.seen }) {
				next = append(next, to)
			}
		}
	}
	if len(next) == 0 {
		return false
	}
	r.taken[len(r.taken)-1], r.places = true, next
	return true
}

// misfit says what is wrong with the last line.
func (r *reader) misfit() string {
	return fmt.Sprintf("line %d does not fit: expected %s", len(r.taken), or(r.wanted()))
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

// matched reports whether nothing else is required.
func (r *reader) matched() bool {
	return slices.ContainsFunc(r.places, func(p *place) bool { return r.rest(p) == nil })
}

// rest returns the names of what is still required after a place, one name per step.
func (s *Sequence) rest(p *place) (names []string) {
	seen := p.seen
	for i := p.step; i < len(s.Steps); i, seen = i+1, 0 {
		if parts := s.Steps[i].missing(seen); parts != nil {
			names = append(names, and(parts))
		}
	}
	return names
}
