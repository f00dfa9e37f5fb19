package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A Timeline is a picture of events over time, in lanes. Its numbers are in Units, from 0
// to End.
type Timeline struct {
	Name, Title, Alt, Unit string
	End                    float64
	Lanes                  []Lane
}

type Lane struct {
	Name   string
	Events []Event
}

// An Event happens at one moment, or lasts until another one.
type Event struct {
	At, Until   float64
	Kind, Label string
}

func (t *Timeline) check() error {
	if t.End <= 0 || t.Unit == "" || len(t.Lanes) == 0 {
		return fmt.Errorf("needs lanes, a unit and an end")
	}
	for _, l := range t.Lanes {
		for _, e := range l.Events {
			if e.At < 0 || max(e.At, e.Until) > t.End || e.Until != 0 && e.Until < e.At || e.Kind == "" {
				return fmt.Errorf("lane %q: an event needs a kind and a place from 0 to %g: %+v", l.Name, t.End, e)
			}
		}
	}
	kinds, _ := t.styles()
	kinds = slices.DeleteFunc(kinds, func(kind string) bool { return !t.glyphs(kind) })
	if len(kinds) > len(shapes) {
		return fmt.Errorf("has %d kinds of events, and there are %d shapes", len(kinds), len(shapes))
	}
	return nil
}

// known gives the kinds of most recordings the same look in all pictures. Other kinds get
// a style that is unused in their picture.
var known = []string{"list", "watch", "resync", "relist", "cut", "add", "update", "delete"}

// styles returns the color and the shape of each kind, in the legend's order. Bars have no
// shape, so they can share the style of a glyph.
func (t *Timeline) styles() (kinds []string, style map[string]int) {
	style = map[string]int{}
	taken := map[bool]map[int]bool{true: {}, false: {}}
	for _, l := range t.Lanes {
		for _, e := range l.Events {
			if slices.Contains(kinds, e.Kind) {
				continue
			}
			kinds = append(kinds, e.Kind)
			if i := slices.Index(known, strings.ToLower(e.Kind)); i >= 0 {
				style[e.Kind], taken[t.glyphs(e.Kind)][i] = i, true
			}
		}
	}
	for _, kind := range kinds {
		if _, ok := style[kind]; !ok {
			others := taken[t.glyphs(kind)]
			style[kind] = unused(others)
			others[style[kind]] = true
		}
	}
	return kinds, style
}

// glyphs reports whether a kind has events without a duration.
func (t *Timeline) glyphs(kind string) bool {
	return slices.ContainsFunc(t.Lanes, func(l Lane) bool {
		return slices.ContainsFunc(l.Events, func(e Event) bool { return e.Kind == kind && e.Until == 0 })
	})
}

// unused returns a style whose shape, and if possible also its color, no other kind has.
func unused(taken map[int]bool) int {
	clash := func(i, n int) bool {
		for t := range taken {
			if t%n == i%n {
				return true
			}
		}
		return false
	}
	colours := len(schemes[0].kinds)
	for _, distinct := range []bool{true, false} {
		for i := range len(shapes) * colours {
			if !clash(i, len(shapes)) && (!distinct || !clash(i, colours)) {
				return i
			}
		}
	}
	return 0
}

// An item is drawn for an event, or for several that share a place.
type item struct {
	kind       string
	bar        bool
	x0, x1     float64 // the glyph's center twice, or the bar's ends
	level      int
	label      string
	lx         float64 // where the label starts
	labelLevel int
}

type span struct{ from, to float64 }

// rows holds the occupied parts of each level of a lane, the lowest one first.
type rows [][]span

const levels = 7

func (r rows) free(level int, s span) bool {
	return level < levels && !slices.ContainsFunc(r[level], func(o span) bool {
		return s.from < o.to+3 && o.from < s.to+3
	})
}

func (r rows) take(level int, s span) { r[level] = append(r[level], s) }

// pack finds a place for every event of a lane, so that nothing overlaps: first for bars
// and glyphs, from the bottom up, then for each label, next to its event or, as a flag,
// above it. It leaves out only labels for which there is no place at all.
func pack(events []Event, scale func(float64) float64, left, right float64) (items []item, height int) {
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b Event) int {
		return cmp.Or(-cmp.Compare(min(a.Until, 1), min(b.Until, 1)), cmp.Compare(a.At, b.At))
	})
	taken := make(rows, levels)
	counts := map[int]int{}
	for _, e := range events {
		x := scale(e.At)
		it := item{kind: e.Kind, label: e.Label, x0: x, x1: x, bar: e.Until > 0}
		room := span{x - glyph, x + glyph}
		if it.bar {
			it.x1 = max(scale(e.Until), x+3)
			room = span{it.x0, it.x1}
		} else if i := slices.IndexFunc(items, func(o item) bool {
			return !o.bar && o.kind == e.Kind && o.label == e.Label && x-o.x0 < 2*glyph
		}); i >= 0 { // no room for one more glyph: say how many there are
			items[i].x1 = x
			counts[i]++
			continue
		}
		for it.level < levels-1 && !taken.free(it.level, room) {
			it.level++
		}
		taken.take(it.level, room)
		items = append(items, it)
	}
	for i := range items {
		it := &items[i]
		if n := counts[i]; n > 0 {
			it.label = strings.TrimSpace(fmt.Sprintf("×%d %s", n+1, it.label))
		}
		if it.label != "" && !taken.place(it, left, right) {
			it.label = ""
		}
		height = max(height, it.level+1)
		if it.label != "" {
			height = max(height, it.labelLevel+1)
		}
	}
	return items, max(height, 1)
}

// place finds room for an item's label and reserves it.
func (r rows) place(it *item, left, right float64) bool {
	w := width(it.label)
	try := func(level int, x float64) bool {
		s := span{x - 4, x + w + 4}
		if x < left || x+w > right || !r.free(level, s) {
			return false
		}
		it.lx, it.labelLevel = x, level
		r.take(level, s)
		return true
	}
	half := glyph + 8.0
	if it.bar {
		if it.x1-it.x0 >= w+8 { // inside the bar
			it.lx, it.labelLevel = (it.x0+it.x1-w)/2, it.level
			return true
		}
		half = 8
	}
	if try(it.level, it.x1+half) || try(it.level, it.x0-half-w) {
		return true
	}
	pole := (it.x0 + it.x1) / 2
	for level := it.level + 1; level < levels; level++ {
		if try(level, pole+5) || try(level, pole-5-w) || try(level, max(left, min(pole-w/2, right-w))) {
			for l := it.level + 1; l < level; l++ {
				r.take(l, span{pole - 1, pole + 1})
			}
			return true
		}
		if !r.free(level, span{pole - 1, pole + 1}) {
			return false
		}
	}
	return false
}

// step returns the distance between ticks: a round number, and enough for their labels.
func step(end, pixels float64, unit string) float64 {
	var steps []float64
	for ten := 1e-6; ten < 1e9; ten *= 10 {
		steps = append(steps, 1*ten, 2*ten, 5*ten)
	}
	if unit == "s" || unit == "min" {
		steps = slices.DeleteFunc(steps, func(s float64) bool { return s > 10.5 })
		steps = append(steps, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
	}
	for _, s := range steps {
		if s/end*pixels >= max(pixels/13, width(tick(end-s))+14) {
			return s
		}
	}
	return end
}

func tick(v float64) string {
	return strconv.FormatFloat(math.Round(v*1e6)/1e6, 'f', -1, 64)
}

var units = map[string]string{"s": "seconds", "ms": "milliseconds", "min": "minutes", "h": "hours"}

// svg is the picture, for a reader of each scheme.
func (t *Timeline) svg() ([]byte, error) {
	return both(t.draw(schemes[0]), t.draw(schemes[1]), t.Title, t.Alt)
}

func (t *Timeline) draw(s scheme) *page {
	left, right := edge+glyph+3, wide-edge-12
	names := make([][]string, len(t.Lanes)) // the lines of each lane's name, above it
	for i, l := range t.Lanes {
		names[i] = wrap(regular, l.Name, wide-2*edge)
	}
	scale := func(at float64) float64 { return left + at/t.End*(right-left) }

	// Heights first, then the canvas.
	kinds, style := t.styles()
	type entry struct{ x, y float64 }
	var legend []entry
	at := entry{edge, titleHeight(t.Title) + row/2}
	for _, kind := range kinds {
		w := 18 + width(kind) + 18
		if at.x > edge && at.x+w-18 > wide-edge {
			at = entry{edge, at.y + row}
		}
		legend = append(legend, at)
		at.x += w
	}
	top := at.y + row/2 + 8
	y := top
	items := make([][]item, len(t.Lanes))
	base := make([]float64, len(t.Lanes))
	for i, l := range t.Lanes {
		var height int
		items[i], height = pack(l.Events, scale, left-glyph, wide-4)
		y += 6 + row*float64(len(names[i])+height)
		base[i] = y - row/2
		y += 6
	}
	bottom := y + 2
	p := newPage(s, bottom+5+2*row+edge)

	p.title(t.Title)
	for i, kind := range kinds {
		p.key(t, kind, style[kind], legend[i].x+glyph+1, legend[i].y)
		p.write(regular, s.text, legend[i].x+18, legend[i].y, kind)
	}
	for v, by := 0.0, step(t.End, right-left, t.Unit); v <= t.End*1.000001; v += by {
		p.line(s.grid, 1, scale(v), top, scale(v), bottom+4)
		w := width(tick(v))
		p.write(regular, s.dim, min(scale(v)-w/2, wide-4-w), bottom+5+row/2, tick(v))
	}
	unit := cmp.Or(units[t.Unit], t.Unit)
	p.write(regular, s.dim, (left+right-width(unit))/2, bottom+5+row*1.5, unit)
	p.line(s.dim, 1, left, bottom, right, bottom)
	for i := range t.Lanes {
		if i > 0 {
			y := base[i-1] + row/2 + 6
			p.line(s.grid, 1, edge, y, right, y)
		}
		p.lane(items[i], base[i], style)
		for n, line := range names[i] {
			y := base[i] - row*float64(len(names[i])-1-n+lanesHeight(items[i]))
			p.rect(s.back, edge, y-row/2, edge+width(line)+4, y+row/2)
			p.write(regular, s.text, edge, y, line)
		}
	}
	return p
}

func lanesHeight(items []item) int {
	height := 1
	for _, it := range items {
		height = max(height, it.level+1)
		if it.label != "" {
			height = max(height, it.labelLevel+1)
		}
	}
	return height
}

// key draws the legend entry for a kind: its glyph, or a bar.
func (p *page) key(t *Timeline, kind string, style int, x, y float64) {
	if t.glyphs(kind) {
		p.mark(style, x, y)
	} else {
		p.bar(style, x-glyph-1, x+glyph+1, y)
	}
}

func (p *page) lane(items []item, base float64, style map[string]int) {
	at := func(level int) float64 { return base - row*float64(level) }
	for _, it := range items {
		y, pole := at(it.level), (it.x0+it.x1)/2
		if it.label != "" && it.labelLevel > it.level {
			p.line(p.dim, 1, pole, y, pole, at(it.labelLevel)+row/2-3)
		}
		if it.bar {
			p.bar(style[it.kind], it.x0, it.x1, y)
		} else {
			p.mark(style[it.kind], pole, y)
		}
	}
	for _, it := range items {
		if it.label == "" {
			continue
		}
		y := at(it.labelLevel)
		if !it.bar || it.labelLevel > it.level || it.lx < it.x0 || it.lx > it.x1 {
			p.rect(p.back, it.lx-2, y-7, it.lx+width(it.label)+2, y+7)
		}
		p.write(regular, p.text, it.lx, y, it.label)
	}
}
