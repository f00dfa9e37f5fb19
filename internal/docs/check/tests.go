package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strings"
)

// A test is a Test function of the repository.
type test struct {
	file  string // relative to the root
	shows bool   // it holds a block of a page to what it printed
}

// readTests finds all tests, and which of them come to readmes.Shown.
func (r *repository) readTests() error {
	out, err := exec.Command("git", "-C", r.root, "ls-files", "--cached", "--others",
		"--exclude-standard", "*_test.go").Output()
	if err != nil {
		return err
	}
	r.tests = map[string]test{}
	calls := map[string]map[string][]string{} // by folder and function
	for _, name := range strings.Fields(string(out)) {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(r.root, name), nil, 0)
		if err != nil {
			return err
		}
		dir := filepath.Dir(name)
		if calls[dir] == nil {
			calls[dir] = map[string][]string{}
		}
		for _, decl := range file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			if strings.HasPrefix(fn.Name.Name, "Test") && fn.Recv == nil {
				r.tests[fn.Name.Name] = test{file: name}
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.Ident:
					calls[dir][fn.Name.Name] = append(calls[dir][fn.Name.Name], n.Name)
				}
				return true
			})
		}
	}
	for name, t := range r.tests {
		t.shows = reaches(calls[filepath.Dir(t.file)], name, "Shown", map[string]bool{})
		r.tests[name] = t
	}
	return nil
}

func reaches(calls map[string][]string, from, to string, seen map[string]bool) bool {
	if from == to {
		return true
	}
	if seen[from] {
		return false
	}
	seen[from] = true
	for _, next := range calls[from] {
		if reaches(calls, next, to, seen) {
			return true
		}
	}
	return false
}
