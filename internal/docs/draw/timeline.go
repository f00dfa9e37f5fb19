package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"regexp"
	"slices"
)

// A timeline is a picture of events over time, in lanes, from 0 to End seconds.
type timeline struct {
	Name, Title, Alt, Unit string
	End                    float64
	Lanes                  []struct {
		Name   string
		Events []event
	}
}

// An event happens at one moment, or lasts until another one. Labels are not drawn.
type event struct {
	At, Until   float64
	Kind, Label string
}

var nameOK = regexp.MustCompile(`^[a-z0-9-]+$`)

func (t *timeline) names() (name, alt string) { return t.Name, t.Alt }

func (t *timeline) check() error {
	switch {
	case !nameOK.MatchString(t.Name):
		return fmt.Errorf("needs a name of a-z, 0-9 and -")
	case t.Title == "" || t.Alt == "":
		return fmt.Errorf("needs a title and an alt")
	case t.End <= 0 || t.Unit != "s" || len(t.Lanes) == 0:
		return fmt.Errorf("needs lanes, an end and the unit s")
	case len(t.kinds()) > len(shapes):
		return fmt.Errorf("has %d kinds of events, and there are %d shapes", len(t.kinds()), len(shapes))
	}
	for _, l := range t.Lanes {
		for _, e := range l.Events {
			if e.At < 0 || max(e.At, e.Until) > t.End || e.Until != 0 && e.Until < e.At {
				return fmt.Errorf("lane %q: an event needs a place from 0 to %g: %+v", l.Name, t.End, e)
			}
			if e.Kind == "" || len(e.Kind) > 30 || e.Label != "" {
				return fmt.Errorf("lane %q: an event needs a kind of at most 30 letters and no label: %+v", l.Name, e)
			}
		}
	}
	return nil
}

// kinds returns the kinds of events, in the order of the legend.
func (t *timeline) kinds() (kinds []string) {
	for _, l := range t.Lanes {
		for _, e := range l.Events {
			if !slices.Contains(kinds, e.Kind) {
				kinds = append(kinds, e.Kind)
			}
		}
	}
	return kinds
}

// A scheme has GitHub's colors of background and text, and one color for each shape. The
// first six stand out from each other, also for color-blind readers; then they repeat.
type scheme struct {
	Back, Text, Dim, Grid string
	Kinds                 [8]string
}

var schemes = struct{ Light, Dark scheme }{
	scheme{
		"#ffffff", "#1f2328", "#59636e", "#d8dee4",
		[8]string{"#0069a8", "#c44e00", "#007f5f", "#a63a7c", "#3d444d", "#8a6a00", "#0069a8", "#c44e00"},
	},
	scheme{
		"#0d1117", "#f0f6fc", "#a5aeb8", "#2f363e",
		[8]string{"#56b4e9", "#ff8a3d", "#1fc79a", "#e58fc0", "#d1d7e0", "#f0e442", "#56b4e9", "#ff8a3d"},
	},
}

// Each kind has a shape, so that no one needs colors to tell kinds apart.
var shapes = [8]string{
	"M-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0z", // circle
	"M0-8l8 8l-8 8l-8-8z",                  // diamond
	"M0-8l8 14h-16z",                       // triangle
	"M-6-6h12v12h-12z",                     // square
	"M0-3l4-4l3 3l-4 4l4 4l-3 3l-4-4l-4 4l-3-3l4-4l-4-4l3-3z", // cross
	"M0 8l8-14h-16z",                    // triangle on its tip
	"M-2-8h4v6h6v4h-6v6h-4v-6h-6v-4h6z", // plus
	"M-3-8h6v16h-6z",                    // upright bar
}

// On a phone a picture is shown at 358 px, so that its texts of 16 px have 11 px.
const (
	width = 500.0
	edge  = 10.0 // free space around the picture
	row   = 24.0 // of texts
	level = 18.0 // of glyphs
	glyph = 8.0  // half the width of a glyph
	left  = edge + glyph
	right = width - edge - 20 // half of the last tick's text
)

// x returns the place of a moment.
func (t *timeline) x(at float64) float64 { return round(left + at/t.End*(right-left)) }

func round(x float64) float64 { return math.Round(x*10) / 10 }

// span returns the place of an event. The glyph of an event that lasts is at its start.
func (t *timeline) span(e event) (from, to float64) {
	x := t.x(e.At)
	if e.Until == 0 {
		return x - glyph, x + glyph
	}
	return x, max(t.x(e.Until), x+2*glyph)
}

// levels returns the level of each event, from the bottom up, so that nothing overlaps.
func (t *timeline) levels(events []event) []int {
	levels := make([]int, len(events))
	for i, e := range events {
		from, to := t.span(e)
		taken := func(level int) bool {
			for j, other := range events[:i] {
				if f, t := t.span(other); levels[j] == level && from < t && f < to {
					return true
				}
			}
			return false
		}
		for taken(levels[i]) {
			levels[i]++
		}
	}
	return levels
}

// A drawing is what timeline.svg writes.
type drawing struct {
	Title, Alt                 string
	Schemes, Shapes            any
	Width, Height, Top, Bottom float64
	Texts, Ticks               []text
	Marks                      []mark
}

type text struct {
	X, Y float64
	Text string
}

// A mark is the glyph of a kind, with a tail of some length.
type mark struct {
	X, Y, Tail float64
	Kind       int
}

var (
	//go:embed timeline.svg
	source string
	svg    = template.Must(template.New("").Parse(source))
)

// newDrawing returns a picture with a title and a legend in two columns. Its content begins at Top.
func newDrawing(title, alt string, kinds []string) drawing {
	d := drawing{Title: title, Alt: alt, Schemes: schemes, Shapes: shapes, Width: width}
	y := edge + row
	for i, kind := range kinds {
		x := left + float64(i%2)*(width/2-edge)
		at := y + row*(float64(i/2)+0.5)
		d.Marks = append(d.Marks, mark{X: x, Y: at, Kind: i})
		d.Texts = append(d.Texts, text{x + glyph + 6, at, kind})
	}
	d.Top = y + row*math.Ceil(float64(len(kinds))/2) + edge
	d.Bottom = d.Top
	return d
}

// draw returns the picture. The name of a lane is above its events.
func (t *timeline) draw() ([]byte, error) {
	kinds := t.kinds()
	d := newDrawing(t.Title, t.Alt, kinds)
	y := d.Top
	for _, l := range t.Lanes {
		d.Texts = append(d.Texts, text{edge, y + row/2, l.Name})
		levels := t.levels(l.Events)
		y += row + level*float64(slices.Max(append(levels, 0))+1)
		for i, e := range l.Events {
			m := mark{X: t.x(e.At), Y: y - level*(float64(levels[i])+0.5), Kind: slices.Index(kinds, e.Kind)}
			if e.Until > 0 {
				m.X += glyph
				m.Tail = max(0, round(t.x(e.Until)-m.X))
			}
			d.Marks = append(d.Marks, m)
		}
		y += edge
	}
	for at := 0.0; at <= t.End; at += step(t.End) {
		d.Ticks = append(d.Ticks, text{t.x(at), y + row/2, fmt.Sprint(at, " s")})
	}
	d.Bottom, d.Height = y, y+row
	var b bytes.Buffer
	err := svg.Execute(&b, d)
	return b.Bytes(), err
}

// step returns the time between ticks. There is room for eight.
func step(end float64) float64 {
	for _, s := range []float64{0.125, 0.25, 0.5, 1, 2, 5, 10, 15, 30} {
		if end/s <= 8 {
			return s
		}
	}
	return math.Ceil(end/8/60) * 60
}
