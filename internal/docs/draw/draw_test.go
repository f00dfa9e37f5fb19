package main

import (
	"bytes"
	"encoding/xml"
	"flag"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "draw testdata again")

// copyOf returns a copy of testdata that a test can change.
func copyOf(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestSamePicturesEachTime(t *testing.T) {
	if *update {
		if err := run("testdata", false); err != nil {
			t.Fatal(err)
		}
	}
	if err := run("testdata", true); err != nil {
		t.Errorf("look at the difference, then go test ./draw -update: %v", err)
	}
	root := copyOf(t)
	if err := os.RemoveAll(filepath.Join(root, "docs/pictures")); err != nil {
		t.Fatal(err)
	}
	if err := run(root, false); err != nil {
		t.Fatal(err)
	}
	for _, file := range svgs(t, "testdata") {
		want, err := os.ReadFile(file)
		got, err2 := os.ReadFile(filepath.Join(root, "docs/pictures", filepath.Base(file)))
		if err != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs: %v %v", file, err, err2)
		}
	}
}

func svgs(t *testing.T, root string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "docs/pictures/*.svg"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no pictures: %v", err)
	}
	return files
}

func TestStaleFilesAreNamed(t *testing.T) {
	root := copyOf(t)
	change := func(file, from, to string) {
		path := filepath.Join(root, file)
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, bytes.Replace(text, []byte(from), []byte(to), 1), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	change("docs/sample.md", "| 100 |", "| 200 |")
	change("docs/pictures/resync.svg", "handler", "handlers")
	if err := os.Rename(filepath.Join(root, "docs/pictures/second.svg"), filepath.Join(root, "docs/pictures/old.svg")); err != nil {
		t.Fatal(err)
	}
	err := run(root, true)
	want := `docs/pictures/resync.svg is stale: make docs
docs/pictures/second.svg is stale: make docs
docs/sample.md is stale: make docs
docs/pictures/old.svg is stale: no recording draws it`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
	if err := run(root, false); err != nil {
		t.Fatal(err)
	}
	if err := run(root, true); err != nil {
		t.Errorf("still stale after it was drawn: %v", err)
	}
}

func TestMistakesAreErrors(t *testing.T) {
	for _, c := range []struct{ file, from, to, want string }{
		{"data/sample.json", `"alt": "In`, `"alt": "", "was": "In`, `unknown field "was"`},
		{"data/sample.json", `"alt": "One event, at 1 s of 2 s."`, `"alt": ""`, `"second": needs a title and an alt`},
		{"data/sample.json", `"end": 240`, `"end": 200`, `needs a kind and a place from 0 to 200`},
		{"data/sample.json", `"name": "second"`, `"name": "resync"`, `needs a name of its own`},
		{"sample.md", "picture resync", "picture resyncs", "no recording has this picture"},
		{"sample.md", "sample/runs", "sample/walks", `has no field "walks"`},
		{"sample.md", "generated: table", "generated: graph", `nothing generates a "graph"`},
		{"sample.md", "<!-- /generated -->", "", "ends with <!-- /generated -->"},
	} {
		root := copyOf(t)
		path := filepath.Join(root, "docs", c.file)
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), c.from) {
			t.Fatalf("%s has no %q: %v", c.file, c.from, err)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), c.from, c.to, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := run(root, false); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s with %q: got %v, want one line with %q", c.file, c.to, err, c.want)
		}
	}
}

// Every picture has a text for screen readers, no small text, and no text outside its
// border.
func TestPicturesAreLegible(t *testing.T) {
	for _, file := range svgs(t, "testdata") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var svg struct {
			Role   string  `xml:"role,attr"`
			Width  float64 `xml:"width,attr"`
			Title  string  `xml:"title"`
			Desc   string  `xml:"desc"`
			Groups []struct {
				Texts []struct {
					X     float64 `xml:"x,attr"`
					Style string  `xml:"style,attr"`
					Text  string  `xml:",chardata"`
				} `xml:"text"`
			} `xml:"g"`
		}
		if err := xml.Unmarshal(data, &svg); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if svg.Role != "img" || svg.Title == "" || svg.Desc == "" {
			t.Errorf("%s has no role, title or desc", file)
		}
		const shown = 358 // on GitHub, on a phone
		n := 0
		for _, group := range svg.Groups {
			for _, text := range group.Texts {
				n++
				px, _ := strconv.ParseFloat(regexp.MustCompile(`font-size:(.*?)px`).FindStringSubmatch(text.Style)[1], 64)
				if px*shown/svg.Width < 11 {
					t.Errorf("%s: %q has %g px", file, text.Text, px)
				}
				if px == size && text.X+width(text.Text) > svg.Width {
					t.Errorf("%s: %q leaves the picture", file, text.Text)
				}
			}
		}
		if n == 0 {
			t.Errorf("%s has no text", file)
		}
	}
	page, err := os.ReadFile("testdata/docs/sample.md")
	if err != nil {
		t.Fatal(err)
	}
	if alts := regexp.MustCompile(`<img alt="[^"]{20,}" src="pictures/\w+\.svg">`).FindAll(page, -1); len(alts) != 2 {
		t.Errorf("%d pictures with an alt, want 2", len(alts))
	}
}

// Nothing in a lane overlaps, no matter how crowded the lane is.
func TestNothingOverlaps(t *testing.T) {
	var events []Event
	for i := range 60 {
		e := Event{At: float64(i * i % 97), Kind: fmt.Sprint("kind ", i%3)}
		if i%2 == 0 {
			e.Label = fmt.Sprint("event ", i)
		}
		if i%20 == 3 {
			e.Until = e.At + 3
		}
		events = append(events, e)
	}
	for _, right := range []float64{wide - 10, 870} {
		items, _ := pack(events, func(at float64) float64 { return 20 + at/100*(right-40) }, 10, right)
		type box struct {
			span
			level int
			what  string
		}
		var boxes []box
		labels := 0
		for _, it := range items {
			if it.level < levels-1 { // the last level gets what does not fit elsewhere
				boxes = append(boxes, box{span{it.x0 - 3, it.x1 + 3}, it.level, it.kind})
			}
			if it.label != "" {
				labels++
				boxes = append(boxes, box{span{it.lx, it.lx + width(it.label)}, it.labelLevel, it.label})
			}
		}
		for i, a := range boxes {
			if a.from < 0 || a.to > right+3 {
				t.Errorf("%s leaves the picture", a.what)
			}
			for _, b := range boxes[:i] {
				if a.level == b.level && a.from < b.to && b.from < a.to {
					t.Errorf("at %g px: %v lies on %v", right, a, b)
				}
			}
		}
		if labels < 5 {
			t.Errorf("at %g px only %d labels are left", right, labels)
		}
	}
}

// WCAG requires a contrast of 3 for shapes and of 4.5 for text.
func TestColoursHaveContrast(t *testing.T) {
	for _, s := range schemes {
		for _, c := range s.kinds {
			if r := contrast(c, s.back); r < 3 {
				t.Errorf("%s: %v has a contrast of %.1f", s.name, c, r)
			}
			if r := contrast(s.text, s.tint(c, 0.22)); r < 4.5 {
				t.Errorf("%s: a text in a bar of %v has a contrast of %.1f", s.name, c, r)
			}
		}
		for _, c := range []color.NRGBA{s.text, s.dim} {
			if r := contrast(c, s.back); r < 4.5 {
				t.Errorf("%s: the text %v has a contrast of %.1f", s.name, c, r)
			}
		}
	}
}

func contrast(a, b color.NRGBA) float64 {
	light := func(c color.NRGBA) float64 {
		part := func(v uint8) float64 {
			x := float64(v) / 255
			if x <= 0.04045 {
				return x / 12.92
			}
			return math.Pow((x+0.055)/1.055, 2.4)
		}
		return 0.2126*part(c.R) + 0.7152*part(c.G) + 0.0722*part(c.B) + 0.05
	}
	return max(light(a), light(b)) / min(light(a), light(b))
}
