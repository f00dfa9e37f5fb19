package main

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// copyOf returns a copy of testdata that a test can change.
func copyOf(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	return root
}

// change replaces a text in a file.
func change(t *testing.T, path, from, to string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), from) {
		t.Fatalf("%s has no %q: %v", path, from, err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The files of testdata are as they should be. To draw them again: go run ./draw -root draw/testdata
func TestSamePicturesEachTime(t *testing.T) {
	if err := run("testdata", true); err != nil {
		t.Error(err)
	}
}

func TestStaleFilesAreNamed(t *testing.T) {
	for _, c := range []struct {
		name, want string
		spoil      func(t *testing.T, docs string)
	}{
		{"table", "docs/sample.md is stale: make docs", func(t *testing.T, docs string) {
			change(t, docs+"/sample.md", "| 100 |", "| 200 |")
		}},
		{"alt", "docs/sample.md is stale: make docs", func(t *testing.T, docs string) {
			change(t, docs+"/sample.md", "lists ", "lists")
		}},
		{"picture", "docs/pictures/sample.svg is stale: make docs", func(t *testing.T, docs string) {
			change(t, docs+"/pictures/sample.svg", "nobody", "somebody")
		}},
		{"datum", "docs/pictures/sample.svg is stale: make docs", func(t *testing.T, docs string) {
			change(t, docs+"/data/sample.json", `"until": 138`, `"until": 137`)
		}},
		{"missing", "docs/pictures/sample.svg is stale: make docs", func(t *testing.T, docs string) {
			if err := os.Remove(docs + "/pictures/sample.svg"); err != nil {
				t.Fatal(err)
			}
		}},
		{"old", "docs/pictures/old.svg is stale: no recording draws it", func(t *testing.T, docs string) {
			if err := os.WriteFile(docs+"/pictures/old.svg", nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := copyOf(t)
			c.spoil(t, filepath.Join(root, "docs"))
			if err := run(root, true); err == nil || err.Error() != c.want {
				t.Errorf("got:\n%v\nwant:\n%s", err, c.want)
			}
			if err := run(root, false); err != nil {
				t.Fatal(err)
			}
			if err := run(root, true); err != nil {
				t.Errorf("still stale after it was drawn: %v", err)
			}
		})
	}
}

func TestMistakesAreErrors(t *testing.T) {
	for _, c := range []struct{ file, from, to, want string }{
		{"data/sample.json", `"until": 138`, `"to": 138`, `unknown field "to"`},
		{"data/sample.json", `"alt": "In`, `"alt": "", "was": "In`, `unknown field "was"`},
		{"data/sample.json", `"title": "A list & a watch <twice>"`, `"title": ""`, "needs a title and an alt"},
		{"data/sample.json", `"alt": "In 240 s the reflector lists [once] at 0 s, and a second time at 150 s, ` +
			`after a cut of 12 s."`, `"alt": ""`, "needs a title and an alt"},
		{"data/sample.json", `"end": 240`, `"end": 200`, `needs a place from 0 to 200`},
		{"data/sample.json", `"kind": "list"`, `"kind": ""`, `needs a kind`},
		{"data/sample.json", `"label": ""`, `"label": "first"`, `no label`},
		{"data/sample.json", `"unit": "s"`, `"unit": "min"`, `needs lanes, an end and the unit s`},
		{"data/sample.json", `"name": "sample"`, `"name": "a sample"`, "needs a name of a-z, 0-9 and -"},
		{"data/sample.json", `"timelines": [`, `"timelines": [{"name": "sample", "title": "A", "alt": "A",
			"unit": "s", "end": 1, "lanes": [{}]},`, "another picture has this name"},
		{"data/sample.json", `"at": 0.2`, `"at": 0`, "needs a kind and a value above 0"},
		{"data/sample.json", `"at": 0.2`, `"until": 0.2`, `unknown field "until"`},
		{"data/sample.json", `"unit": "MB"`, `"unit": ""`, "needs a title, an alt and a unit"},
		{"data/sample.json", `"name": "sizes"`, `"name": "sample"`, "another picture has this name"},
		{"data/sample.json", `"resyncs": 7`, `"resyncs": []`, "resyncs is not flat"},
		{"data/sample.json", `"resyncs": 0`, `"resync": 0`, `"resync" "note"] differ from`},
		{"sample.md", "picture sample", "picture samples", "no recording has this picture"},
		{"sample.md", "sample/runs", "sample/walks", `has no field "walks"`},
		{"sample.md", "generated: table", "generated: graph", `nothing generates a "graph"`},
		{"sample.md", "<!-- /generated -->", "", "ends with <!-- /generated -->"},
	} {
		root := copyOf(t)
		change(t, filepath.Join(root, "docs", c.file), c.from, c.to)
		err := run(root, false)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s with %q: got %v, want one line with %q", c.file, c.to, err, c.want)
		}
	}
}

// Nothing in a lane overlaps, no matter how crowded the lane is.
func TestNothingOverlaps(t *testing.T) {
	picture := &timeline{End: 100}
	var events []event
	for i := range 60 {
		e := event{At: float64(i * i % 97)}
		if i%20 == 3 {
			e.Until = e.At + 3
		}
		events = append(events, e)
	}
	levels := picture.levels(events)
	for i, a := range events {
		from, to := picture.span(a)
		if from < 0 || to > width {
			t.Errorf("%+v leaves the picture", a)
		}
		for j, b := range events[:i] {
			f, t2 := picture.span(b)
			if levels[i] == levels[j] && from < t2 && f < to {
				t.Errorf("%+v lies on %+v", a, b)
			}
		}
	}
}

// WCAG requires a contrast of 3 for shapes and of 4.5 for text.
func TestColorsHaveContrast(t *testing.T) {
	for _, s := range []scheme{schemes.Light, schemes.Dark} {
		for _, c := range s.Kinds {
			if r := contrast(t, c, s.Back); r < 3 {
				t.Errorf("%s on %s has a contrast of %.1f", c, s.Back, r)
			}
		}
		for _, c := range []string{s.Text, s.Dim} {
			if r := contrast(t, c, s.Back); r < 4.5 {
				t.Errorf("the text %s on %s has a contrast of %.1f", c, s.Back, r)
			}
		}
	}
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	luminance := func(color string) float64 {
		rgb, err := strconv.ParseUint(strings.TrimPrefix(color, "#"), 16, 24)
		if err != nil {
			t.Fatal(err)
		}
		part := func(v uint64) float64 {
			x := float64(v&0xff) / 255
			if x <= 0.04045 {
				return x / 12.92
			}
			return math.Pow((x+0.055)/1.055, 2.4)
		}
		return 0.2126*part(rgb>>16) + 0.7152*part(rgb>>8) + 0.0722*part(rgb) + 0.05
	}
	return max(luminance(a), luminance(b)) / min(luminance(a), luminance(b))
}
