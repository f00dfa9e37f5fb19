package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"image/color"
	"math"
	"regexp"
	"slices"
	"strings"

	xfont "golang.org/x/image/font"
	"golang.org/x/image/math/f64"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A scheme has GitHub's background and text colors, and colors for kinds. These stand out
// from the background and, also for color-blind readers, from each other.
type scheme struct {
	name                  string
	back, text, dim, grid color.NRGBA
	kinds                 []color.NRGBA
}

var schemes = []scheme{
	{
		"light", rgb(0xffffff), rgb(0x1f2328), rgb(0x59636e), rgb(0xd8dee4),
		[]color.NRGBA{rgb(0x0069a8), rgb(0xc44e00), rgb(0x007f5f), rgb(0xa63a7c), rgb(0x3d444d), rgb(0x8a6a00)},
	},
	{
		"dark", rgb(0x0d1117), rgb(0xf0f6fc), rgb(0xa5aeb8), rgb(0x2f363e),
		[]color.NRGBA{rgb(0x56b4e9), rgb(0xff8a3d), rgb(0x1fc79a), rgb(0xe58fc0), rgb(0xd1d7e0), rgb(0xf0e442)},
	},
}

func rgb(hex uint32) color.NRGBA {
	return color.NRGBA{R: uint8(hex >> 16), G: uint8(hex >> 8), B: uint8(hex), A: 255}
}

// tint returns the background mixed with a share of the color.
func (s scheme) tint(c color.NRGBA, share float64) color.NRGBA {
	mix := func(a, b uint8) uint8 { return uint8(math.Round(float64(a)*share + float64(b)*(1-share))) }
	return color.NRGBA{R: mix(c.R, s.back.R), G: mix(c.G, s.back.G), B: mix(c.B, s.back.B), A: 255}
}

const (
	wide  = 420.0 // of a picture: on a phone, it shrinks a little before a text is smaller than 11 px
	size  = 13.0  // of a text, in pixels
	row   = 19.0  // of texts and glyphs
	edge  = 8.0   // free space around the picture
	glyph = 5.5   // half the size of a glyph
)

var regular, bold = face(size, xfont.WeightNormal), face(size+2, xfont.WeightBold)

func face(size float64, weight xfont.Weight) font.Face {
	like := font.Font{Typeface: plot.DefaultFont.Typeface, Variant: "Sans", Weight: weight}
	return plot.DefaultTextHandler.Cache().Lookup(like, vg.Length(size))
}

func width(text string) float64 { return regular.Width(text).Points() }

// wrap breaks a text into lines at its spaces. It does not break a word that is too wide.
func wrap(f font.Face, text string, limit float64) (lines []string) {
	for _, word := range strings.Fields(text) {
		if n := len(lines); n > 0 && f.Width(lines[n-1]+" "+word).Points() <= limit {
			lines[n-1] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// A page is a canvas whose y grows downward, in reading order.
type page struct {
	scheme
	svg    *vgsvg.Canvas
	height float64
}

func newPage(s scheme, height float64) *page {
	height = math.Ceil(height)
	p := &page{s, vgsvg.New(vg.Length(wide), vg.Length(height)), height}
	p.rect(s.back, 0, 0, wide, height)
	return p
}

func (p *page) point(x, y float64) vg.Point {
	round := func(v float64) vg.Length { return vg.Length(math.Round(v*10) / 10) }
	return vg.Point{X: round(x), Y: round(p.height - y)}
}

func (p *page) path(x, y float64, points []f64.Vec2) (path vg.Path) {
	path.Move(p.point(x+points[0][0], y+points[0][1]))
	for _, pt := range points[1:] {
		path.Line(p.point(x+pt[0], y+pt[1]))
	}
	return path
}

// fill fills a polygon whose points are relative to x, y.
func (p *page) fill(c color.Color, x, y float64, points ...f64.Vec2) {
	path := p.path(x, y, points)
	path.Close()
	p.svg.SetColor(c)
	p.svg.Fill(path)
}

func (p *page) rect(c color.Color, x0, y0, x1, y1 float64) {
	p.fill(c, x0, y0, f64.Vec2{0, 0}, f64.Vec2{x1 - x0, 0}, f64.Vec2{x1 - x0, y1 - y0}, f64.Vec2{0, y1 - y0})
}

func (p *page) line(c color.Color, w, x0, y0, x1, y1 float64) {
	p.svg.SetColor(c)
	p.svg.SetLineWidth(vg.Length(w))
	p.svg.Stroke(p.path(x0, y0, []f64.Vec2{{0, 0}, {x1 - x0, y1 - y0}}))
}

// write writes a text that is vertically centered at y.
func (p *page) write(f font.Face, c color.Color, x, y float64, text string) {
	p.svg.SetColor(c)
	p.svg.FillString(f, p.point(x, y+f.Font.Size.Points()*0.35), text)
}

// title writes the title and returns where the rest can start.
func (p *page) title(title string) float64 {
	lines := wrap(bold, title, wide-2*edge)
	for i, line := range lines {
		p.write(bold, p.text, edge, edge+row*(float64(i)+0.5), line)
	}
	return titleHeight(title)
}

func titleHeight(title string) float64 {
	return edge + row*float64(len(wrap(bold, title, wide-2*edge))) + 6
}

// body returns what was drawn. A browser without Liberation Sans uses a font of the same width.
func (p *page) body() (string, error) {
	var svg bytes.Buffer
	_, err := p.svg.WriteTo(&svg)
	body := svg.String()[strings.Index(svg.String(), "<g"):]
	return strings.ReplaceAll(body, "font-family:Liberation Sans;font-variant:normal;",
		"font-family:'Liberation Sans',Arial,Helvetica,sans-serif;"), err
}

var hex = regexp.MustCompile(`#[0-9A-Fa-f]{6}\b`)

// both makes one picture of two that differ only in their colors: each pair of colors becomes a variable,
// which the reader's scheme sets.
func both(light, dark *page, title, alt string) ([]byte, error) {
	body, err := light.body()
	other, err2 := dark.body()
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	if hex.ReplaceAllString(body, "") != hex.ReplaceAllString(other, "") {
		return nil, errors.New("the schemes differ in more than their colors")
	}
	var pairs []string
	others := hex.FindAllString(other, -1)
	body = hex.ReplaceAllStringFunc(body, func(color string) string {
		pair := color + " " + others[0]
		others = others[1:]
		if !slices.Contains(pairs, pair) {
			pairs = append(pairs, pair)
		}
		return fmt.Sprintf("var(--c%d)", slices.Index(pairs, pair))
	})
	var vars [2]strings.Builder
	for i, pair := range pairs {
		for j, color := range strings.Fields(pair) {
			fmt.Fprintf(&vars[j], "--c%d:%s;", i, color)
		}
	}
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" width="%g" height="%g" viewBox="0 0 %[1]g %[2]g" role="img">
<title>%s</title>
<desc>%s</desc>
<style>svg{%s}@media(prefers-color-scheme:dark){svg{%s}}</style>
%s`, wide, light.height, escape(title), escape(alt), &vars[0], &vars[1], body), nil
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder returns no error
	return b.String()
}

// shapes have the size of a circle of radius 1. Each kind has its own, so that no one
// needs colors to tell kinds apart.
var shapes = [][]f64.Vec2{
	ngon(24, 0, 0.95), // circle
	ngon(4, 0, 1.15),  // diamond
	ngon(3, 0, 1.2),   // triangle
	ngon(4, 45, 1.15), // square
	cross(45),
	ngon(3, 180, 1.2), // triangle on its tip
	cross(0),
	{{-0.45, -1}, {0.45, -1}, {0.45, 1}, {-0.45, 1}}, // upright bar
}

func ngon(n int, degrees, radius float64) (points []f64.Vec2) {
	for i := range n {
		sin, cos := math.Sincos(degrees*math.Pi/180 + 2*math.Pi*float64(i)/float64(n))
		points = append(points, f64.Vec2{radius * sin, -radius * cos})
	}
	return points
}

func cross(degrees float64) (points []f64.Vec2) {
	const arm, half = 1.15, 0.36
	for i := range 4 {
		sin, cos := math.Sincos((degrees + 90*float64(i)) * math.Pi / 180)
		for _, at := range []f64.Vec2{{-half, -half}, {-half, -arm}, {half, -arm}} {
			points = append(points, f64.Vec2{at[0]*cos - at[1]*sin, at[0]*sin + at[1]*cos})
		}
	}
	return points
}

// mark draws a kind's glyph with a border in the background color.
func (p *page) mark(kind int, x, y float64) {
	for _, layer := range []struct {
		color  color.NRGBA
		radius float64
	}{{p.back, glyph + 1.5}, {p.kinds[kind%len(p.kinds)], glyph}} {
		var points []f64.Vec2
		for _, pt := range shapes[kind%len(shapes)] {
			points = append(points, f64.Vec2{pt[0] * layer.radius, pt[1] * layer.radius})
		}
		p.fill(layer.color, x, y, points...)
	}
}

// bar draws an event with a duration, tinted so that a text in it is legible.
func (p *page) bar(kind int, x0, x1, y float64) {
	c := p.kinds[kind%len(p.kinds)]
	p.rect(c, x0, y-7.5, x1, y+7.5)
	if x1-x0 > 4 {
		p.rect(p.tint(c, 0.22), x0+1.5, y-6, x1-1.5, y+6)
	}
}
