// check holds the Markdown of the repository to what it talks of: snippets to compiled files,
// links to what they lead to, links to source to the lines of that source, commands to what CI
// runs, docs/api.md to the names that client-go exports, and each claim of docs to a proof. It
// fills in the snippets and the line numbers; with -check it only says what is stale.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
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
	list := exec.Command("git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard",
		"*.md", ":!*/testdata/*")
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("list the Markdown files: %w", err)
	}
	r := &repository{root: root, mods: map[string]module{}}
	names := strings.Fields(string(out))
	if err := r.readTests(); err != nil {
		return err
	}
	files := map[string][]byte{}
	for _, name := range names {
		p, err := r.page(name)
		if err != nil {
			return err
		}
		r.pages = append(r.pages, p)
	}
	// Links may lead to any page, so all of them are read first.
	for _, p := range r.pages {
		files[p.name] = r.sourceLinks(p, r.snippets(p))
	}
	for _, p := range r.pages {
		p.parse(files[p.name])
		r.links(p)
		r.blocks(p)
		if p.name == apiFile {
			if err := r.api(p); err != nil {
				return err
			}
		}
		if filepath.Dir(p.name) == "docs" {
			r.claims(p)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		old, err := os.ReadFile(filepath.Join(root, name))
		switch {
		case err == nil && bytes.Equal(old, files[name]):
		case check:
			r.problems = append(r.problems, fmt.Errorf("%s is stale: make docs", name))
		default:
			err := os.WriteFile(filepath.Join(root, name), files[name], 0o644)
			r.problems = append(r.problems, err)
		}
	}
	return errors.Join(r.problems...)
}

// A repository is what the pages may talk of.
type repository struct {
	root     string
	pages    []*page
	tests    map[string]test
	mods     map[string]module // by module@version
	problems []error
}

func (r *repository) problem(p *page, line int, format string, args ...any) {
	r.problems = append(r.problems, fmt.Errorf("%s:%d: %s", p.name, line, fmt.Sprintf(format, args...)))
}
