package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
)

// Dots are a picture of values in lanes, on a logarithmic axis from a power of ten to another.
type dots struct {
	Name, Title, Alt, Unit string
	Lanes                  []struct {
		Name string
		Dots []struct {
			At   float64
			Kind string
		}
	}
}

func (d *dots) names() (name, alt string) { return d.Name, d.Alt }

func (d *dots) check() error {
	switch {
	case !nameOK.MatchString(d.Name):
		return fmt.Errorf("needs a name of a-z, 0-9 and -")
	case d.Title == "" || d.Alt == "" || d.Unit == "":
		return fmt.Errorf("needs a title, an alt and a unit")
	case len(d.kinds()) == 0 || len(d.kinds()) > len(shapes):
		return fmt.Errorf("has %d kinds of dots, and there are %d shapes", len(d.kinds()), len(shapes))
	}
	for _, l := range d.Lanes {
		for _, dot := range l.Dots {
			if dot.At <= 0 || dot.Kind == "" {
				return fmt.Errorf("lane %q: a dot needs a kind and a value above 0: %+v", l.Name, dot)
			}
		}
	}
	return nil
}

// kinds returns the kinds of dots, in the order of the legend.
func (d *dots) kinds() (kinds []string) {
	for _, l := range d.Lanes {
		for _, dot := range l.Dots {
			if !slices.Contains(kinds, dot.Kind) {
				kinds = append(kinds, dot.Kind)
			}
		}
	}
	return kinds
}

// axis returns the powers of ten below and above all values.
func (d *dots) axis() (from, to float64) {
	from, to = math.Inf(1), math.Inf(-1)
	for _, l := range d.Lanes {
		for _, dot := range l.Dots {
			from, to = min(from, math.Floor(math.Log10(dot.At))), max(to, math.Ceil(math.Log10(dot.At)))
		}
	}
	return from, max(to, from+1)
}

// draw returns the picture. The name of a lane is above its dots.
func (d *dots) draw() ([]byte, error) {
	kinds := d.kinds()
	p := newDrawing(d.Title, d.Alt, kinds)
	from, to := d.axis()
	const left, right = edge + 30, width - edge - 36 // half of the texts of the first and last tick
	x := func(at float64) float64 { return round(left + (math.Log10(at)-from)/(to-from)*(right-left)) }
	for _, l := range d.Lanes {
		p.Texts = append(p.Texts, text{edge, p.Bottom + row/2, l.Name})
		p.Bottom += row + level
		for _, dot := range l.Dots {
			p.Marks = append(p.Marks, mark{X: x(dot.At), Y: p.Bottom - level/2, Kind: slices.Index(kinds, dot.Kind)})
		}
		p.Bottom += edge / 2
	}
	for power := from; power <= to; power++ {
		at := math.Pow(10, power)
		label := fmt.Sprint(at)
		if at >= 1000 {
			label = fmt.Sprintf("%.0f,000", at/1000)
		}
		p.Ticks = append(p.Ticks, text{x(at), p.Bottom + row/2, label + " " + d.Unit})
	}
	p.Height = p.Bottom + row
	var b bytes.Buffer
	err := svg.Execute(&b, p)
	return b.Bytes(), err
}
