package main

import (
	"errors"
	"fmt"
	goast "go/ast"
	"go/parser"
	"go/token"
	gotypes "go/types"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/yuin/goldmark/ast"
	extast "github.com/yuin/goldmark/extension/ast"
)

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
		isTest := func(path string) bool { return strings.HasSuffix(path, "_test.go") }
		for _, path := range slices.DeleteFunc(paths, isTest) {
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
				return n == file
			})
		}
	}
	for todo := a.types; len(todo) > 0; todo = todo[1:] {
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
func (a apiPart) check(r *repository, p *page, names map[string]bool) (problems []string) {
	problem := func(what ...any) {
		problems = append(problems, a.heading+": "+strings.TrimSpace(fmt.Sprintln(what...)))
	}
	onPage, in := map[string]bool{}, false
	for n := p.doc.FirstChild(); n != nil; n = n.NextSibling() {
		if n.Kind() == ast.KindHeading {
			in = p.text(n) == a.heading
		}
		isList := n.Kind() == ast.KindList
		for row := n.FirstChild(); in && row != nil && (isList || n.Kind() == extast.KindTable); row = row.NextSibling() {
			said := ""
			for _, to := range p.all(row.LastChild(), ast.KindLink) {
				said += r.said(p, to)
			}
			for _, name := range p.all(row.FirstChild(), ast.KindCodeSpan) {
				deprecated, exists := names[name]
				last := name[strings.LastIndex(name, ".")+1:]
				switch {
				case !exists:
					problem(name, "is on the page and not in the source")
				case deprecated != strings.HasPrefix(p.text(row), "Deprecated"):
					problem(name, "is deprecated in the source:", deprecated)
				case !isList && !regexp.MustCompile(`\b`+last+`\b`).MatchString(said):
					problem(name, "is not where its row leads")
				}
				onPage[name] = true
			}
		}
	}
	for name := range names {
		if !onPage[name] {
			problem(name, "has no row")
		}
	}
	slices.Sort(problems)
	return problems
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

var apiParts = []apiPart{
	{heading: "tools/cache", module: "client-go", dirs: []string{"tools/cache"}, types: []string{
		"Indexer", "TypedSharedIndexInformer", "ResourceEventHandlerRegistration"}},
	{heading: "informers", module: "client-go", dirs: []string{"informers"},
		types: []string{"SharedInformerFactory"}},
	{heading: "util/workqueue", module: "client-go", dirs: []string{"util/workqueue"},
		types: []string{"TypedRateLimitingInterface"}},
	{heading: "tools/events", module: "client-go", dirs: []string{"tools/events", "tools/internal/events"},
		types: []string{"EventRecorderLogger", "EventBroadcaster"}},
	{heading: "tools/record", module: "client-go", dirs: []string{"tools/record"},
		types: []string{"EventRecorderLogger", "EventBroadcaster"}},
	{heading: "tools/leaderelection", module: "client-go", dirs: []string{"tools/leaderelection"},
		types: []string{"LeaderElectionConfig", "LeaderCallbacks"}},
	{heading: "util/wait", module: "apimachinery", dirs: []string{"pkg/util/wait"}},
	{heading: "rest.Config", module: "client-go", dirs: []string{"rest"},
		types: []string{"Config"}, membersOnly: true},
}

func TestAPI(t *testing.T) {
	r := &repository{root: "../../..", mods: map[string]module{}}
	p, err := r.page("docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range apiParts {
		// The version is the one that the repository uses, not the one that the page's links name.
		list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/"+a.module)
		list.Dir = r.root
		dir, err := list.Output()
		if err != nil {
			t.Fatal(err)
		}
		names, err := a.names(strings.TrimSpace(string(dir)))
		if err != nil {
			t.Fatal(err)
		}
		for _, problem := range a.check(r, p, names) {
			t.Error(problem)
		}
	}
}

func TestAPIProblems(t *testing.T) {
	const source = `package x

import "k8s.io/apps"

func F() {}

// Deprecated: use F.
func Old() {}

const A, hidden = 1, 2

type Store[T any] interface {
	Reader[T]
	Put()
	Apps() apps.Interface
	hide()
}

type Reader[T any] interface{ Get() (got T) }

type Config struct{ Host string }

func (Config) String() string { return "" }
`
	const there = "# There\n\nF, Get.\n\n## Stores\n\nA `Store`: `Put`, `Reader`.\n\n## Host\n\n`Config` has a Host.\n"
	const page = `## x

| name | misleads | place |
|---|---|---|
| $F$, $Reader.Get$ | $anything$ | [there](there.md) |
| $Store$, $Store.Put$, $Reader$ | never | [there](there.md#stores) |
| $Config$, $Config.Host$ | | [there](there.md#stores), [host](there.md#host) |

- Deprecated: $Old$
- Not met: $A$

## y

| name | misleads | place |
|---|---|---|
| $Nothing$ | | |
`
	a := apiPart{heading: "x", dirs: []string{"x"}, types: []string{"Store", "Config"}}
	for name, tt := range map[string]struct{ from, to, want string }{
		"nothing wrong":               {"", "", ""},
		"name without a row":          {"$F$, ", "", "x: F has no row"},
		"value without a row":         {"$A$", "", "x: A has no row"},
		"embedded interface's method": {", $Reader.Get$", "", "x: Reader.Get has no row"},
		"field without a row":         {", $Config.Host$", "", "x: Config.Host has no row"},
		"row of nothing":              {"$F$", "$F$, $G$", "x: G is on the page and not in the source"},
		"item of nothing":             {"$A$", "$A$, $B$", "x: B is on the page and not in the source"},
		"generated":                   {"$F$", "$F$, $Store.Apps$", "x: Store.Apps is on the page and not in the source"},
		"another heading": {
			"place |\n|---|---|---|\n| $F$, $Reader.Get$ | $anything$ | [there](there.md)",
			"place |\n|---|---|---|\n| $F$, $Reader.Get$ | $anything$ | [there](there.md#host)",
			"x: F is not where its row leads\nx: Reader.Get is not where its row leads",
		},
		"no place":             {"[there](there.md) |", " |", "x: F is not where its row leads\nx: Reader.Get is not where its row leads"},
		"became deprecated":    {"Deprecated", "Older", "x: Old is deprecated in the source: true"},
		"is not deprecated":    {"Not met", "Deprecated", "x: A is deprecated in the source: false"},
		"heading is not there": {"there.md#host", "there.md#hosts", "x: Config is not where its row leads\nx: Config.Host is not where its row leads"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &repository{root: t.TempDir()}
			write := func(name, text string) {
				path := filepath.Join(r.root, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			write("x/x.go", source)
			write("x/x_test.go", "package x\n\nfunc TestNothing() {}\n")
			write("docs/there.md", there)
			write("docs/page.md", strings.ReplaceAll(strings.Replace(page, tt.from, tt.to, 1), "$", "`"))
			p, err := r.page("docs/page.md")
			if err != nil {
				t.Fatal(err)
			}
			names, err := a.names(r.root)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(a.check(r, p, names), "\n"); got != tt.want {
				t.Errorf("%s\nwant\n%s", got, tt.want)
			}
		})
	}
}
