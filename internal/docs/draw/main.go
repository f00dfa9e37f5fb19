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
	recordings, err := load(root)
	if err != nil {
		return err
	}
	files, err := pictures(recordings)
	if err != nil {
		return err
	}
	filled, err := pages(root, recordings)
	if err != nil {
		return err
	}
	maps.Copy(files, filled)

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
		switch {
		case files[name] != nil:
		case check:
			problems = append(problems, fmt.Errorf("%s is stale: no recording draws it", name))
		default:
			problems = append(problems, os.Remove(path))
		}
	}
	return errors.Join(problems...)
}

// A recording is one file of docs/data. Its other fields are tables.
type recording struct {
	name      string
	recorded  struct{ Command, Machine, Date string }
	timelines []*timeline
	fields    map[string]json.RawMessage
}

// load reads all recordings, in the order of their names.
func load(root string) (recordings []*recording, err error) {
	paths, err := filepath.Glob(filepath.Join(root, "docs/data/*.json"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		r := &recording{name: strings.TrimSuffix(filepath.Base(path), ".json")}
		if err := r.read(path); err != nil {
			return nil, fmt.Errorf("docs/data/%s.json: %w", r.name, err)
		}
		recordings = append(recordings, r)
	}
	return recordings, nil
}

func (r *recording) read(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &r.fields); err != nil {
		return err
	}
	if err := json.Unmarshal(r.fields["recorded"], &r.recorded); err != nil {
		return fmt.Errorf("recorded: %w", err)
	}
	if r.fields["timelines"] == nil {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(r.fields["timelines"]))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r.timelines); err != nil {
		return fmt.Errorf("timelines: %w", err)
	}
	return nil
}

// pictures draws all timelines. It returns the files by their paths.
func pictures(recordings []*recording) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, r := range recordings {
		for _, t := range r.timelines {
			path := "docs/pictures/" + t.Name + ".svg"
			err := t.check()
			if files[path] != nil {
				err = errors.New("another picture has this name")
			}
			if err == nil {
				files[path], err = t.draw()
			}
			if err != nil {
				return nil, fmt.Errorf("docs/data/%s.json: picture %q: %w", r.name, t.Name, err)
			}
		}
	}
	return files, nil
}
