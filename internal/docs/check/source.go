package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	blob   = regexp.MustCompile(`\(https://github\.com/([\w.-]+/[\w.-]+)/blob/([^/\s]+)/([^#\s)]+)(?:#L(\d+))?(?: "([^"\n]*)")?\)`)
	tagged = regexp.MustCompile(`^v?\d+\.\d+(\.\d+)?[\w.-]*$|^[0-9a-f]{40}$`)
)

// sourceLinks holds each link to a line on GitHub to its title, which is text of that line at
// that version. It returns the page with the lines' numbers.
func (r *repository) sourceLinks(p *page, text []byte) []byte {
	return blob.ReplaceAllFunc(text, func(link []byte) []byte {
		m := blob.FindStringSubmatch(string(link))
		line, err := r.sourceLine(m[1], m[2], m[3], m[4], m[5])
		if err != nil {
			r.problem(p, p.lineAt(strings.Index(string(p.source), m[3])), "%s %s %s: %v", m[1], m[2], m[3], err)
			return link
		}
		if line == 0 {
			return link
		}
		return fmt.Appendf(nil, "(https://github.com/%s/blob/%s/%s#L%d \"%s\")", m[1], m[2], m[3], line, m[5])
	})
}

func (r *repository) sourceLine(repo, tag, path, line, title string) (int, error) {
	if !tagged.MatchString(tag) {
		return 0, fmt.Errorf("%q is no version: pin the link", tag)
	}
	if len(tag) == 40 && line == "" {
		return 0, nil // a commit of something that is not a Go module
	}
	source, err := r.source(repo, tag, path)
	if err != nil {
		return 0, err
	}
	if line == "" && title == "" {
		return 0, nil
	}
	if title == "" {
		return 0, fmt.Errorf("a link to a line needs text of that line as its title")
	}
	var at []int
	for i, l := range strings.Split(source, "\n") {
		if strings.Contains(l, title) {
			at = append(at, i+1)
		}
	}
	want, _ := strconv.Atoi(line)
	switch {
	case len(at) == 0:
		return 0, fmt.Errorf("no line has %q", title)
	case len(at) == 1:
		return at[0], nil
	case slices.Contains(at, want):
		return want, nil
	}
	return 0, fmt.Errorf("lines %v have %q: say which", at, title)
}

type module struct {
	Dir, Error string
}

// goModule is the Go module with a file of a repository, and the file's path in it.
func goModule(repo, tag, path string) (mod, in string) {
	owner, name, _ := strings.Cut(repo, "/")
	switch owner {
	case "kubernetes":
		if rest, ok := strings.CutPrefix(path, "staging/src/"); ok && name == "kubernetes" {
			parts := strings.SplitN(rest, "/", 3)
			return "k8s.io/" + parts[1] + "@v0" + strings.TrimPrefix(tag, "v1"), parts[2]
		}
		return "k8s.io/" + name + "@" + tag, path
	case "kubernetes-sigs":
		return "sigs.k8s.io/" + name + "@" + tag, path
	case "etcd-io":
		if rest, ok := strings.CutPrefix(path, "server/"); ok {
			return "go.etcd.io/etcd/server/v3@" + tag, rest
		}
		return "go.etcd.io/etcd/v3@" + tag, path
	case "golang":
		return "golang.org/x/" + name + "@" + tag, path
	}
	return "github.com/" + repo + "@" + tag, path
}

func (r *repository) source(repo, tag, path string) (string, error) {
	name, in := goModule(repo, tag, path)
	mod, ok := r.mods[name]
	if !ok {
		cmd := exec.Command("go", "mod", "download", "-json", name)
		cmd.Dir = filepath.Join(r.root, "internal/docs")
		out, err := cmd.Output()
		if jsonErr := json.Unmarshal(out, &mod); jsonErr != nil {
			return "", fmt.Errorf("go mod download %s: %w", name, errors.Join(err, jsonErr))
		}
		r.mods[name] = mod
	}
	if mod.Error != "" {
		return "", fmt.Errorf("go mod download %s: %s", name, mod.Error)
	}
	source, err := os.ReadFile(filepath.Join(mod.Dir, in))
	if err != nil {
		return "", fmt.Errorf("there is no such file in %s", name)
	}
	return string(source), nil
}
