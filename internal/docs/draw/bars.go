package main

import (
	"fmt"

	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/number"
)

// Bars is a picture of sizes, one bar each.
type Bars struct {
	Name, Title, Alt, Unit string
	Bars                   []Bar
}

type Bar struct {
	Label string
	Value float64
}

func (b *Bars) check() error {
	if len(b.Bars) == 0 || b.Unit == "" {
		return fmt.Errorf("needs bars and a unit")
	}
	for _, bar := range b.Bars {
		if bar.Value < 0 || bar.Label == "" {
			return fmt.Errorf("a bar needs a label and a value: %+v", bar)
		}
	}
	return nil
}

func (b *Bars) draw(s scheme, f format) ([]byte, error) {
	value := func(v float64) string {
		return message.NewPrinter(language.English).Sprint(number.Decimal(v)) + " " + b.Unit
	}
	limit, left, most, right := f.width-2*edge, edge, 0.0, 0.0
	if !f.narrow() {
		limit = 300
	}
	lines := make([][]string, len(b.Bars))
	for i, bar := range b.Bars {
		most, right = max(most, bar.Value), max(right, width(value(bar.Value)))
		lines[i] = wrap(regular, bar.Label, limit)
		for _, line := range lines[i] {
			if !f.narrow() {
				left = max(left, edge+width(line)+12)
			}
		}
	}
	right = f.width - edge - right - 6 // where the longest bar ends
	height := func(i int) float64 {
		if n := float64(len(lines[i])); !f.narrow() {
			return row*n + 9
		} else {
			return row*(n+1) + 7
		}
	}
	y := titleHeight(f, b.Title)
	total := y + edge
	for i := range b.Bars {
		total += height(i)
	}
	p := newPage(s, f, total)
	p.title(b.Title)
	for i, bar := range b.Bars {
		for n, line := range lines[i] {
			p.write(regular, s.text, edge, y+row*(float64(n)+0.5), line)
		}
		middle := y + row*float64(len(lines[i]))/2
		if f.narrow() {
			middle = y + row*(float64(len(lines[i]))+0.5)
		}
		end := left
		if most > 0 {
			end = max(left+2, left+bar.Value/most*(right-left))
		}
		p.rect(s.kinds[0], left, middle-8, end, middle+8)
		p.write(regular, s.text, end+6, middle, value(bar.Value))
		y += height(i)
	}
	return p.done(b.Title, b.Alt)
}
