package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/yuin/goldmark/ast"
	extast "github.com/yuin/goldmark/extension/ast"
)

var (
	digit   = regexp.MustCompile(`\d`)
	version = regexp.MustCompile(`\bv?\d+\.\d+(\.\d+)?\b|\b\w*[a-zA-Z]\d+\w*|\b20[12]\d\b|\b0\d-\w+`)
	decimal = regexp.MustCompile(`\b\d+\.\d+ ?(s|ms|%|MB|MiB|kB|KiB|µs|times)\b`)
	test1   = regexp.MustCompile(`^Test\w+$`)
	inline  = regexp.MustCompile(`^<!-- proof: (.*?) -->$`)
)

// claims reports what a page says as a fact and does not prove by a test, a recording or a line of
// source: each block of prose and each item of a list with a number, each row of a table, and each
// answer of questions.md.
func (r *repository) claims(p *page) {
	hold := func(n ast.Node, text string, proved bool) {
		if !proved {
			r.problem(p, p.line(n), "nothing proves: %s", short(text))
		}
	}
	if p.name == "docs/questions.md" {
		for n := p.doc.FirstChild(); n != nil; n = n.NextSibling() {
			if h, ok := n.(*ast.Heading); ok && h.Level == 2 {
				proved := false
				for s := n.NextSibling(); s != nil && s.Kind() != ast.KindHeading; s = s.NextSibling() {
					proved = r.proves(p, s) || proved
				}
				hold(n, p.text(n), proved)
			}
		}
		return
	}
	generated := false // from a recording
	for n := p.doc.FirstChild(); n != nil; n = n.NextSibling() {
		if html, ok := n.(*ast.HTMLBlock); ok {
			kind, _ := p.comment(html)
			generated = kind == "generated" || generated && !strings.Contains(p.lines(html), "/generated")
			continue
		}
		if generated {
			continue
		}
		switch n := n.(type) {
		case *ast.Paragraph, *ast.Blockquote:
			if counts(p.prose(n)) {
				proved := r.proves(p, n)
				hold(n, p.text(n), r.below(p, n) || proved)
			}
		case *ast.List:
			for item := n.FirstChild(); item != nil; item = item.NextSibling() {
				if counts(p.prose(item)) {
					hold(item, p.text(item), r.proves(p, item))
				}
			}
		case *extast.Table:
			for row := n.FirstChild().NextSibling(); row != nil; row = row.NextSibling() {
				proved := r.proves(p, row)
				// A row that leads to pages says nothing itself.
				hold(row, p.cells(row), proved || !counts(p.prose(row)) && p.leadsOn(row))
			}
		}
	}
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

// cells is a row as text.
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

// below says whether the block that a paragraph introduces has a proof.
func (r *repository) below(p *page, n ast.Node) bool {
	html, ok := n.NextSibling().(*ast.HTMLBlock)
	if !ok {
		return false
	}
	kind, rest := p.comment(html)
	if kind == "test" || kind == "proof" {
		name, _, _ := strings.Cut(rest, ";")
		return r.named(p, html, name)
	}
	return kind == "generated"
}

// proves says whether a node has a link to a test, a recording or source, or a comment that names one.
func (r *repository) proves(p *page, n ast.Node) (yes bool) {
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.RawHTML:
			if m := inline.FindStringSubmatch(string(n.Segments.Value(p.source))); m != nil {
				for _, name := range strings.Split(m[1], ",") {
					yes = r.named(p, n, strings.TrimSpace(name)) || yes
				}
			}
		case *ast.Link:
			text, to := p.text(n), string(n.Destination)
			switch {
			case test1.MatchString(text):
				file := filepath.Join(filepath.Dir(p.name), to)
				if r.tests[text].file != file {
					r.problem(p, p.line(n), "%s is not in %s", text, file)
				}
				yes = true
			case blob.MatchString("(" + to + ")"), strings.HasPrefix(to, "data/") && strings.HasSuffix(to, ".json"):
				yes = true
			}
		}
		return ast.WalkContinue, nil
	})
	return yes
}

// named says whether there is the proof that a comment names.
func (r *repository) named(p *page, n ast.Node, name string) bool {
	_, isTest := r.tests[name]
	_, err := os.Stat(filepath.Join(r.root, filepath.Dir(p.name), name))
	if !isTest && err != nil {
		r.problem(p, p.line(n), "there is no proof %s", name)
	}
	return true
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
	return text
}
