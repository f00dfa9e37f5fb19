package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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
	a := apiPart{heading: "x", dirs: []string{"x"}, types: []string{"Gone", "Store", "Config"}}
	for name, tt := range map[string]struct{ from, to, want string }{
		"nothing wrong":               {"", "", ""},
		"name without a row":          {"$F$, ", "", "docs/page.md:10: x: F has no row"},
		"value without a row":         {"$A$", "", "docs/page.md:10: x: A has no row"},
		"embedded interface's method": {", $Reader.Get$", "", "docs/page.md:10: x: Reader.Get has no row"},
		"field without a row":         {", $Config.Host$", "", "docs/page.md:10: x: Config.Host has no row"},
		"row of nothing":              {"$F$", "$F$, $G$", "docs/page.md:5: x: G is on the page and not in the source"},
		"item of nothing":             {"$A$", "$A$, $B$", "docs/page.md:10: x: B is on the page and not in the source"},
		"generated":                   {"$F$", "$F$, $Store.Apps$", "docs/page.md:5: x: Store.Apps is on the page and not in the source"},
		"another heading": {
			"place |\n|---|---|---|\n| $F$, $Reader.Get$ | $anything$ | [there](there.md)",
			"place |\n|---|---|---|\n| $F$, $Reader.Get$ | $anything$ | [there](there.md#host)",
			"docs/page.md:5: x: F is not where its row leads\ndocs/page.md:5: x: Reader.Get is not where its row leads",
		},
		"no place":             {"[there](there.md) |", " |", "docs/page.md:5: x: F is not where its row leads\ndocs/page.md:5: x: Reader.Get is not where its row leads"},
		"became deprecated":    {"Deprecated", "Older", "docs/page.md:9: x: Old is deprecated in the source: true"},
		"is not deprecated":    {"Not met", "Deprecated", "docs/page.md:10: x: A is deprecated in the source: false"},
		"heading is not there": {"there.md#host", "there.md#hosts", "docs/page.md:7: x: Config is not where its row leads\ndocs/page.md:7: x: Config.Host is not where its row leads"},
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
			a.check(r, p, names)
			got := fmt.Sprint(errors.Join(r.problems...))
			if tt.want == "" {
				tt.want = "<nil>"
			}
			if got != tt.want {
				t.Errorf("%s\nwant\n%s", got, tt.want)
			}
		})
	}
}
