package logmatch

import (
	"cmp"
	"fmt"
	"math/bits"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

// Mismatch says how a log differs from a Sequence.
type Mismatch struct {
	Reason string   // one sentence
	Line   int      // the first line that does not fit, from 1, or the number of lines plus one
	Want   []string // names of what the line could have been, and "the end" if all steps were complete

	picture string
	cause   error
}

// Error returns the reason, and below it the sequence alongside the whole log.
func (m *Mismatch) Error() string { return m.Reason + "\n\n" + m.picture }

// Unwrap returns the cause of the context that ended an Await, or nil.
func (m *Mismatch) Unwrap() error { return m.cause }

// mismatch shows each line of the log next to the step that it matched, and an arrow at
// the line with this number.
func (r *reader) mismatch(number int, log []Line, reason string) *Mismatch {
	m := &Mismatch{Reason: reason, Line: number, Want: r.wanted()}
	taken := make([]string, max(len(log), number))
	p := r.furthest()
	for i := range slices.Backward(log) {
		switch {
		case i < len(r.taken) && r.taken[i]:
			taken[i], p = p.part.name, p.before
		case i < number-1:
			taken[i] = "(passed over)"
		}
	}
	start := r.Since
	if len(log) > 0 && (start.IsZero() || log[0].At.Before(start)) {
		start = log[0].At
	}

	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(margin, left, right string) { fmt.Fprintf(w, "%7s  %s\t%s\n", margin, shorten(left), right) }
	row("", "expected", "   after  printed")
	for i, left := range taken {
		margin, right := "", ""
		if i < len(log) {
			margin = fmt.Sprint(i + 1)
			right = fmt.Sprintf("%7.3fs  %s", log[i].At.Sub(start).Seconds(), log[i].Text)
		}
		if i != number-1 {
			row(margin, left, right)
			continue
		}
		row(fmt.Sprintf("-->%4s", margin), m.Want[0], right)
		for _, want := range m.Want[1:] {
			row("", "or "+want, "")
		}
	}
	_ = w.Flush()
	if missing := r.missing(); missing != nil {
		fmt.Fprintf(&b, "still missing:\n         %s\n", strings.Join(missing, "\n         "))
	}
	m.picture = trailing.ReplaceAllString(b.String(), "\n")
	return m
}

var trailing = regexp.MustCompile(` +\n`)

// shorten keeps the left column narrow.
func shorten(name string) string {
	if runes := []rune(name); len(runes) > 40 {
		return string(runes[:39]) + "…"
	}
	return name
}

// furthest returns the interpretation of the log that got furthest in the sequence.
func (r *reader) furthest() *place {
	return slices.MaxFunc(r.places, func(a, b *place) int {
		return cmp.Or(cmp.Compare(a.step, b.step), cmp.Compare(bits.OnesCount64(a.seen), bits.OnesCount64(b.seen)))
	})
}

// wanted returns the names of everything that may come next.
func (r *reader) wanted() (names []string) {
	for _, p := range r.places {
		for i, j := range r.options(p) {
			if name := r.Steps[i].parts[j].name; !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if r.matched() {
		names = append(names, "the end")
	}
	return names
}

// missing returns what is still required after the interpretation that got furthest.
func (r *reader) missing() []string { return r.rest(r.furthest()) }

func and(names []string) string { return strings.Join(names, " and ") }

// or joins names: "a, b or c".
func or(names []string) string {
	last := len(names) - 1
	return strings.TrimPrefix(strings.Join(names[:last], ", ")+" or "+names[last], " or ")
}
