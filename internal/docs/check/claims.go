package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/yuin/goldmark/ast"
	extast "github.com/yuin/goldmark/extension/ast"
)

const claimsFile = "docs/claims.md"

// A claim is what a page says as a fact, with the tests, recordings and lines of source that
// prove it, as links.
type claim struct {
	page, text string
	proofs     []string
}

var (
	digit   = regexp.MustCompile(`\d`)
	version = regexp.MustCompile(`\bv?\d+\.\d+(\.\d+)?\b|\b\w*[a-zA-Z]\d+\w*|\b20[12]\d\b|\b0\d-\w+`)
	decimal = regexp.MustCompile(`\b\d+\.\d+ ?(s|ms|%|MB|MiB|kB|KiB|µs|times)\b`)
	test1   = regexp.MustCompile(`^Test\w+$`)
	inline  = regexp.MustCompile(`^<!-- proof: (.*?) -->$`)
)

// claims are those of a page: each block of prose and each item of a list with a number, each
// row of a table, and each answer of questions.md. It reports those without a proof.
func (r *repository) claims(p *page) (all []claim) {
	add := func(n ast.Node, text string, proofs []string) {
		if len(proofs) == 0 {
			r.problem(p, p.line(n), "nothing proves: %s", short(text))
		}
		all = append(all, claim{p.name, short(text), slices.Compact(proofs)})
	}
	if p.name == "docs/questions.md" {
		for n := p.doc.FirstChild(); n != nil; n = n.NextSibling() {
			if h, ok := n.(*ast.Heading); ok && h.Level == 2 {
				var proofs []string
				for s := n.NextSibling(); s != nil && s.Kind() != ast.KindHeading; s = s.NextSibling() {
					proofs = append(proofs, r.proofs(p, s)...)
				}
				add(n, p.text(n), proofs)
			}
		}
		return all
	}
	generated := ""
	for n := p.doc.FirstChild(); n != nil; n = n.NextSibling() {
		if html, ok := n.(*ast.HTMLBlock); ok {
			switch kind, rest := p.comment(html); {
			case kind == "generated":
				generated = rest
			case strings.Contains(p.lines(html), "/generated"):
				generated = ""
			}
			continue
		}
		if generated != "" {
			if table, ok := n.(*extast.Table); ok {
				data := strings.Fields(generated)[1]
				data, _, _ = strings.Cut(data, "/")
				for row := table.FirstChild().NextSibling(); row != nil; row = row.NextSibling() {
					add(row, p.cells(row), []string{fmt.Sprintf("[%s](data/%s.json)", data, data)})
				}
			}
			continue
		}
		switch n := n.(type) {
		case *ast.Paragraph, *ast.Blockquote:
			if text := p.prose(n); counts(text) {
				add(n, p.text(n), append(r.proofs(p, n), r.below(p, n)...))
			}
		case *ast.List:
			for item := n.FirstChild(); item != nil; item = item.NextSibling() {
				if text := p.prose(item); counts(text) {
					add(item, p.text(item), r.proofs(p, item))
				}
			}
		case *extast.Table:
			for row := n.FirstChild().NextSibling(); row != nil; row = row.NextSibling() {
				proofs := r.proofs(p, row)
				// A row that leads to pages says nothing itself.
				if len(proofs) > 0 || counts(p.prose(row)) || !p.leadsOn(row) {
					add(row, p.cells(row), proofs)
				}
			}
		}
	}
	return all
}

// counts says whether a text has a number. A version, a year and a chapter are names.
func counts(text string) bool {
	return decimal.MatchString(text) || digit.MatchString(version.ReplaceAllString(text, ""))
}

// prose is the text of a node without code and without the text of links to other places.
func (p *page) prose(n ast.Node) string {
	var b strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch n := n.(type) {
		case *ast.CodeSpan, *ast.FencedCodeBlock:
			return ast.WalkSkipChildren, nil
		case *ast.Link:
			if external(string(n.Destination)) {
				return ast.WalkSkipChildren, nil
			}
		case *ast.Text:
			if entering {
				b.Write(n.Value(p.source))
				b.WriteByte(' ')
			}
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// cells is a row as text, without the links that prove it.
func (p *page) cells(row ast.Node) string {
	var cells []string
	for c := row.FirstChild(); c != nil; c = c.NextSibling() {
		if text := strings.TrimSpace(p.text(c)); text != "" {
			cells = append(cells, text)
		}
	}
	return strings.Join(cells, ": ")
}

// leadsOn says whether the row has a link to a page.
func (p *page) leadsOn(row ast.Node) (yes bool) {
	_ = ast.Walk(row, func(n ast.Node, _ bool) (ast.WalkStatus, error) {
		if link, ok := n.(*ast.Link); ok {
			target, anchor, _ := strings.Cut(string(link.Destination), "#")
			yes = yes || strings.HasSuffix(target, ".md") || target == "" && anchor != ""
		}
		return ast.WalkContinue, nil
	})
	return yes
}

// below is the proof that a paragraph has in the block that it introduces.
func (r *repository) below(p *page, n ast.Node) []string {
	html, ok := n.NextSibling().(*ast.HTMLBlock)
	if !ok {
		return nil
	}
	switch kind, rest := p.comment(html); kind {
	case "test", "proof":
		name, _, _ := strings.Cut(rest, ";")
		return r.named(p, html, name)
	case "generated":
		fields := strings.Fields(rest)
		if fields[0] == "table" {
			name, _, _ := strings.Cut(fields[1], "/")
			return []string{fmt.Sprintf("[%s](data/%s.json)", name, name)}
		}
		return []string{fmt.Sprintf("[%s](%s)", fields[1], filepath.Base(p.name))}
	}
	return nil
}

// proofs are the links of a node to tests, recordings and source, and its comments that name
// one.
func (r *repository) proofs(p *page, n ast.Node) (all []string) {
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.RawHTML:
			if m := inline.FindStringSubmatch(string(n.Segments.Value(p.source))); m != nil {
				for _, name := range strings.Split(m[1], ",") {
					all = append(all, r.named(p, n, strings.TrimSpace(name))...)
				}
			}
		case *ast.Link:
			text, to := p.text(n), string(n.Destination)
			switch {
			case test1.MatchString(text):
				if file := filepath.Join(filepath.Dir(p.name), to); r.tests[text].file != file {
					r.problem(p, p.line(n), "%s is not in %s", text, file)
					break
				}
				all = append(all, fmt.Sprintf("[`%s`](%s)", text, to))
			case blob.MatchString("(" + to + ")"):
				all = append(all, fmt.Sprintf("[%s](%s)", text, to))
			case strings.HasPrefix(to, "data/") && strings.HasSuffix(to, ".json"):
				all = append(all, fmt.Sprintf("[%s](%s)", strings.TrimSuffix(filepath.Base(to), ".json"), to))
			}
		}
		return ast.WalkContinue, nil
	})
	return all
}

// named is the proof that a comment names.
func (r *repository) named(p *page, n ast.Node, name string) []string {
	if t, ok := r.tests[name]; ok {
		path, _ := filepath.Rel(filepath.Dir(p.name), t.file)
		return []string{fmt.Sprintf("[`%s`](%s)", name, path)}
	}
	if _, err := os.Stat(filepath.Join(r.root, filepath.Dir(p.name), name)); err == nil {
		return []string{fmt.Sprintf("[%s](%s)", strings.TrimSuffix(filepath.Base(name), ".json"), name)}
	}
	r.problem(p, p.line(n), "there is no proof %s", name)
	return nil
}

// short is the sentence with the first number, or the first one, in at most 140 characters.
func short(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	sentences := strings.SplitAfter(text, ". ")
	i := max(0, slices.IndexFunc(sentences, counts))
	text = strings.TrimSpace(sentences[i])
	if runes := []rune(text); len(runes) > 140 {
		text = string(runes[:140])
		text = text[:strings.LastIndex(text, " ")] + " …"
	}
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`, "`", "", "[", `\[`).Replace(text)
}

func claimsPage(all []claim) []byte {
	var b strings.Builder
	missing := 0
	for _, c := range all {
		if len(c.proofs) == 0 {
			missing++
		}
	}
	fmt.Fprintf(&b, "# Claims\n\nGenerated by `make docs`; `make pages` fails if a claim has no proof. "+
		"A claim is each number, each row of a table of facts and each answer of [questions](questions.md). "+
		"Its proof is a test, a recording, or a line of source at a pinned version, which is compared too.\n\n"+
		"%d claims, %d without a proof.\n", len(all), missing)
	last := ""
	for _, c := range all {
		if c.page != last {
			last = c.page
			name := filepath.Base(c.page)
			fmt.Fprintf(&b, "\n## %s\n\n| claim in [%s](%s) | proof |\n|---|---|\n", name, name, name)
		}
		fmt.Fprintf(&b, "| %s | %s |\n", c.text, strings.Join(c.proofs, ", "))
	}
	return []byte(b.String())
}
