package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

var snippet = regexp.MustCompile("(?m)^<!-- go: (\\S+) (.+) -->\n```go\n((?s:.*?))^```$")

// snippets returns the page with each Go snippet as its file has it.
func (r *repository) snippets(p *page) []byte {
	return snippet.ReplaceAllFunc(p.source, func(block []byte) []byte {
		m := snippet.FindSubmatch(block)
		code, err := r.declared(string(m[1]), string(m[2]))
		if err != nil {
			r.problem(p, p.lineAt(bytes.Index(p.source, block)), "%v", err)
			return block
		}
		return fmt.Appendf(nil, "<!-- go: %s %s -->\n```go\n%s```", m[1], m[2], code)
	})
}

// declared is a declaration of a Go file, by its name, or a step of it, by the comment with
// which it begins. A step ends with the next empty line.
func (r *repository) declared(name, what string) (string, error) {
	source, err := os.ReadFile(filepath.Join(r.root, name))
	if err != nil {
		return "", err
	}
	if comment, err := strconv.Unquote(what); err == nil {
		return step(name, string(source), comment)
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, source, parser.ParseComments)
	if err != nil {
		return "", err
	}
	for _, decl := range file.Decls {
		if !names(decl, what) {
			continue
		}
		from, to := decl.Pos(), decl.End()
		if doc := docOf(decl); doc != nil {
			from = doc.Pos()
		}
		return string(source[fset.Position(from).Offset:fset.Position(to).Offset]) + "\n", nil
	}
	return "", fmt.Errorf("%s declares no %s", name, what)
}

func docOf(decl ast.Decl) *ast.CommentGroup {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		return d.Doc
	case *ast.GenDecl:
		return d.Doc
	}
	return nil
}

func names(decl ast.Decl, what string) bool {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			return d.Name.Name == what
		}
		recv := d.Recv.List[0].Type
		if star, ok := recv.(*ast.StarExpr); ok {
			recv = star.X
		}
		ident, ok := recv.(*ast.Ident)
		return ok && ident.Name+"."+d.Name.Name == what
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.Name == what {
					return true
				}
			case *ast.ValueSpec:
				for _, name := range s.Names {
					if name.Name == what {
						return true
					}
				}
			}
		}
	}
	return false
}

func step(name, source, comment string) (string, error) {
	lines := strings.Split(source, "\n")
	found := -1
	for i, line := range lines {
		if strings.TrimSpace(line) == comment {
			if found >= 0 {
				return "", fmt.Errorf("%s has %q more than once", name, comment)
			}
			found = i
		}
	}
	if found < 0 {
		return "", fmt.Errorf("%s has no line %q", name, comment)
	}
	indent := lines[found][:strings.Index(lines[found], "//")]
	var b strings.Builder
	for _, line := range lines[found:] {
		if strings.TrimSpace(line) == "" {
			break
		}
		rest, ok := strings.CutPrefix(line, indent)
		if !ok {
			return "", fmt.Errorf("%s: the step %q ends in the middle of a block", name, comment)
		}
		b.WriteString(rest + "\n")
	}
	return b.String(), nil
}
