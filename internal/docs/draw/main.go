// draw makes pictures and tables from the recordings in docs/data, and inserts them into
// the generated regions of docs/*.md. With -check it only reports what is stale.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	root := flag.String("root", "../..", "`folder` of the repository")
	check := flag.Bool("check", false, "write nothing, fail if a file is stale")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(root string, check bool) error {
	recordings, err := load(root)
	if err != nil {
		return err
	}
	files, err := pictures(recordings)
	if err != nil {
		return err
	}
	pages, err := regions(root, recordings)
	if err != nil {
		return err
	}
	maps.Copy(files, pages)

	var problems []error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(root, name)
		old, err := os.ReadFile(path)
		switch {
		case err == nil && bytes.Equal(old, files[name]):
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			problems = append(problems, err)
		case check:
			problems = append(problems, fmt.Errorf("%s is stale: make docs", name))
		default:
			problems = append(problems, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, files[name], 0o644))
		}
	}
	drawn, err := filepath.Glob(filepath.Join(root, "docs/pictures/*.svg"))
	problems = append(problems, err)
	for _, path := range drawn {
		name := "docs/pictures/" + filepath.Base(path)
		switch _, ok := files[name]; {
		case ok:
		case check:
			problems = append(problems, fmt.Errorf("%s is stale: no recording draws it", name))
		default:
			problems = append(problems, os.Remove(path))
		}
	}
	return errors.Join(problems...)
}

// A Recording is one file of docs/data.
type Recording struct {
	Name      string                     `json:"-"`
	Fields    map[string]json.RawMessage `json:"-"`
	Recorded  struct{ Command, Machine, Date string }
	Timelines []*Timeline
}

// load reads all recordings, in the order of their names.
func load(root string) (recordings []*Recording, err error) {
	paths, err := filepath.Glob(filepath.Join(root, "docs/data/*.json"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		r := &Recording{Name: strings.TrimSuffix(filepath.Base(path), ".json")}
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, &r.Fields)
		}
		for field, into := range map[string]any{"recorded": &r.Recorded, "timelines": &r.Timelines} {
			if raw, ok := r.Fields[field]; ok && err == nil {
				dec := json.NewDecoder(bytes.NewReader(raw))
				if field != "recorded" { // "recorded" also has versions
					dec.DisallowUnknownFields()
				}
				if err = dec.Decode(into); err != nil {
					err = fmt.Errorf("%s: %w", field, err)
				}
			}
		}
		if err != nil {
			return nil, fmt.Errorf("docs/data/%s.json: %w", r.Name, err)
		}
		recordings = append(recordings, r)
	}
	return recordings, nil
}

var nameOK = regexp.MustCompile(`^[a-z0-9-]+$`)

func pictures(recordings []*Recording) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, r := range recordings {
		for _, t := range r.Timelines {
			err := t.check()
			if files["docs/"+path(t.Name)] != nil || !nameOK.MatchString(t.Name) {
				err = errors.New("needs a name of its own of a-z, 0-9 and -")
			} else if t.Title == "" || t.Alt == "" {
				err = errors.New("needs a title and an alt")
			}
			if err == nil {
				files["docs/"+path(t.Name)], err = t.svg()
			}
			if err != nil {
				return nil, fmt.Errorf("docs/data/%s.json: picture %q: %w", r.Name, t.Name, err)
			}
		}
	}
	return files, nil
}

// path returns the path of a picture, relative to docs.
func path(name string) string { return "pictures/" + name + ".svg" }
