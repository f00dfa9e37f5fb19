// draw makes pictures and tables from the recordings in docs/data, and inserts them into
// the generated regions of docs/*.md and of the chapters. With -check it only reports what
// is stale.
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
	"path"
	"path/filepath"
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
	repo := os.DirFS(root)
	recordings, err := load(repo)
	if err != nil {
		return err
	}
	files := map[string][]byte{} // what has to be in a file; nil if it has to go
	drawn, err := fs.Glob(repo, "docs/pictures/*.svg")
	if err != nil {
		return err
	}
	for _, name := range drawn {
		files[name] = nil
	}
	if err := draw(files, recordings); err != nil {
		return err
	}
	if err := fillPages(files, repo, recordings); err != nil {
		return err
	}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(root, name)
		switch old, err := os.ReadFile(path); {
		case err == nil && files[name] != nil && bytes.Equal(old, files[name]):
		case check && files[name] == nil:
			problems = append(problems, fmt.Errorf("%s is stale: no recording draws it", name))
		case check:
			problems = append(problems, fmt.Errorf("%s is stale: make docs", name))
		case files[name] == nil:
			problems = append(problems, os.Remove(path))
		default:
			problems = append(problems, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, files[name], 0o644))
		}
	}
	return errors.Join(problems...)
}

// A recording is one file of docs/data. Its other fields are tables.
type recording struct {
	name     string
	recorded struct{ Command, Machine, Date string }
	pictures []drawable
	fields   map[string]json.RawMessage
}

// A drawable is a timeline, or dots.
type drawable interface {
	names() (name, alt string)
	check() error
	draw() ([]byte, error)
}

// load reads all recordings, in the order of their names.
func load(repo fs.FS) (recordings []*recording, err error) {
	names, err := fs.Glob(repo, "docs/data/*.json")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		r := &recording{name: strings.TrimSuffix(path.Base(name), ".json")}
		data, err := fs.ReadFile(repo, name)
		if err == nil {
			err = json.Unmarshal(data, &r.fields)
		}
		if err == nil {
			err = json.Unmarshal(r.fields["recorded"], &r.recorded)
		}
		if err == nil {
			err = errors.Join(pictures[*timeline](r, "timelines"), pictures[*dots](r, "dots"))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		recordings = append(recordings, r)
	}
	return recordings, nil
}

// pictures adds the pictures in a field of a recording, if it has this field.
func pictures[T drawable](r *recording, field string) error {
	text, ok := r.fields[field]
	if !ok {
		return nil
	}
	var all []T
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(&all)
	for _, p := range all {
		r.pictures = append(r.pictures, p)
	}
	return err
}

// draw adds the pictures of all recordings to files.
func draw(files map[string][]byte, recordings []*recording) error {
	for _, r := range recordings {
		for _, p := range r.pictures {
			of, _ := p.names()
			name := "docs/pictures/" + of + ".svg"
			err := p.check()
			if files[name] != nil {
				err = errors.New("another picture has this name")
			}
			if err == nil {
				files[name], err = p.draw()
			}
			if err != nil {
				return fmt.Errorf("docs/data/%s.json: picture %q: %w", r.name, of, err)
			}
		}
	}
	return nil
}
