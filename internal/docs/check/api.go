package main

import (
	"encoding/json"
	"errors"
	"fmt"
	goast "go/ast"
	"go/parser"
	"go/token"
	gotypes "go/types"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/yuin/goldmark/ast"
	extast "github.com/yuin/goldmark/extension/ast"
)

const apiFile = "docs/api.md"

var apiParts = []apiPart{
	{heading: "tools/cache", module: "k8s.io/client-go", dirs: []string{"tools/cache"}, types: []string{
		"Indexer", "SharedIndexInformer", "TypedSharedIndexInformer", "ResourceEventHandlerRegistration"}},
	{heading: "informers", module: "k8s.io/client-go", dirs: []string{"informers"},
		types: []string{"SharedInformerFactory"}},
	{heading: "util/workqueue", module: "k8s.io/client-go", dirs: []string{"util/workqueue"},
		types: []string{"TypedRateLimitingInterface"}},
	{heading: "tools/events", module: "k8s.io/client-go", dirs: []string{"tools/events", "tools/internal/events"},
		types: []string{"EventRecorderLogger", "EventBroadcaster"}},
	{heading: "tools/record", module: "k8s.io/client-go", dirs: []string{"tools/record"},
		types: []string{"EventRecorderLogger", "EventBroadcaster"}},
	{heading: "tools/leaderelection", module: "k8s.io/client-go", dirs: []string{"tools/leaderelection"},
		types: []string{"LeaderElectionConfig", "LeaderCallbacks"}},
	{heading: "util/wait", module: "k8s.io/apimachinery", dirs: []string{"pkg/util/wait"}},
	{heading: "rest.Config", module: "k8s.io/client-go", dirs: []string{"rest"},
		types: []string{"Config"}, membersOnly: true},
}

// api holds docs/api.md to the source of the versions in go.mod, not to those that its links name.
func (r *repository) api(p *page) error {
	for _, a := range apiParts {
		download := exec.Command("go", "mod", "download", "-json", a.module)
		download.Dir = r.root
		out, err := download.Output()
		var mod module
		if err := errors.Join(err, json.Unmarshal(out, &mod)); err != nil {
			return fmt.Errorf("go mod download %s: %w", a.module, err)
		}
		names, err := a.names(mod.Dir)
		if err != nil {
			return err
		}
		a.check(r, p, names)
	}
	return nil
}

// An apiPart is a part of docs/api.md: its heading, the folders of source that it is about, and
// the types whose methods or fields are names too.
type apiPart struct {
	heading, module string
	dirs, types     []string
	membersOnly     bool
}

// names are those that the part's source exports, and whether their comment deprecates them.
func (a apiPart) names(root string) (map[string]bool, error) {
	names, types := map[string]bool{}, map[string]goast.Expr{}
	add := func(prefix string, name *goast.Ident, docs ...*goast.CommentGroup) {
		if name.IsExported() && (prefix != "" || !a.membersOnly) {
			names[prefix+name.Name] = slices.ContainsFunc(docs, func(d *goast.CommentGroup) bool {
				return strings.Contains(d.Text(), "Deprecated: ")
			})
		}
	}
	for _, dir := range a.dirs {
		paths, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil || len(paths) == 0 {
			return nil, fmt.Errorf("%s has no source: %w", dir, err)
		}
		for _, path := range paths {
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
			if err != nil {
				return nil, err
			}
			var doc *goast.CommentGroup
			goast.Inspect(file, func(n goast.Node) bool {
				switch n := n.(type) {
				case *goast.FuncDecl:
					if n.Recv == nil {
						add("", n.Name, n.Doc)
					}
				case *goast.GenDecl:
					doc = n.Doc
					return true
				case *goast.TypeSpec:
					types[n.Name.Name] = n.Type
					add("", n.Name, doc, n.Doc)
				case *goast.ValueSpec:
					for _, name := range n.Names {
						add("", name, doc, n.Doc)
					}
				}
				return n == file && !strings.HasSuffix(path, "_test.go")
			})
		}
	}
	for todo := a.types; len(todo) > 0; todo = todo[1:] {
		if types[todo[0]] == nil {
			continue // what the page has of it is reported
		}
		goast.Inspect(types[todo[0]], func(n goast.Node) bool {
			field, ok := n.(*goast.Field)
			if !ok {
				return true
			}
			kind := gotypes.ExprString(field.Type)
			generated := strings.HasPrefix(kind, "func() ") && strings.HasSuffix(kind, ".Interface")
			for i := 0; i < len(field.Names) && !generated; i++ { // generated: Core of the factory
				add(todo[0]+".", field.Names[i], field.Doc)
			}
			embedded, _, _ := strings.Cut(kind, "[")
			if len(field.Names) == 0 && types[embedded] != nil {
				todo = append(todo, embedded)
			}
			return false
		})
	}
	return names, nil
}

// check compares the part's names with those on the page: the code in the first column of its
// tables, whose rows lead to a place, and the code in its lists, which say why there is none.
func (a apiPart) check(r *repository, p *page, names map[string]bool) {
	line, onPage, in := 1, map[string]bool{}, false
	problem := func(name, what string) { r.problem(p, line, "%s: %s %s", a.heading, name, what) }
	for n := p.doc.FirstChild(); n != nil; n = n.NextSibling() {
		if n.Kind() == ast.KindHeading {
			in = p.text(n) == a.heading
		}
		isList := n.Kind() == ast.KindList
		for row := n.FirstChild(); in && row != nil && (isList || n.Kind() == extast.KindTable); row = row.NextSibling() {
			line = p.line(row)
			said := ""
			for _, to := range p.all(row.LastChild(), ast.KindLink) {
				said += r.said(p, to)
			}
			for _, name := range p.all(row.FirstChild(), ast.KindCodeSpan) {
				deprecated, exists := names[name]
				switch {
				case !exists:
					problem(name, "is on the page and not in the source")
				case deprecated != strings.HasPrefix(p.text(row), "Deprecated"):
					problem(name, fmt.Sprint("is deprecated in the source: ", deprecated))
				case !isList && !regexp.MustCompile(`\b`+name[strings.LastIndex(name, ".")+1:]+`\b`).MatchString(said):
					problem(name, "is not where its row leads")
				}
				onPage[name] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !onPage[name] {
			problem(name, "has no row")
		}
	}
}

// all are the code spans below a node, or the destinations of its links.
func (p *page) all(n ast.Node, kind ast.NodeKind) (all []string) {
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if link, ok := n.(*ast.Link); ok && entering && kind == ast.KindLink {
			all = append(all, string(link.Destination))
		} else if entering && n.Kind() == kind {
			all = append(all, p.text(n))
		}
		return ast.WalkContinue, nil
	})
	return all
}

// said is the text to which a link leads: a file, or the part of a page below a heading.
func (r *repository) said(p *page, to string) string {
	if m := blob.FindStringSubmatch("(" + to + ")"); m != nil {
		text, _ := r.source(m[1], m[2], m[3])
		return text
	}
	target, anchor, _ := strings.Cut(to, "#")
	text, _ := os.ReadFile(filepath.Join(r.root, filepath.Dir(p.name), target))
	if anchor == "" {
		return string(text)
	}
	p = &page{}
	p.parse(text)
	from, level := len(text), 0
	for n := p.doc.FirstChild(); n != nil; n = n.NextSibling() {
		h, ok := n.(*ast.Heading)
		if ok && h.Level <= level {
			return string(text[from:h.Lines().At(0).Start])
		}
		if ok && slug(p.text(h)) == anchor {
			from, level = h.Lines().At(0).Start, h.Level
		}
	}
	return string(text[from:])
}
