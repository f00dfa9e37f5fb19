package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

var markdown = goldmark.New(goldmark.WithExtensions(extension.GFM))

// A page is a parsed Markdown file.
type page struct {
	name    string // relative to the root
	source  []byte
	doc     ast.Node
	anchors map[string]bool
}

func (r *repository) page(name string) (*page, error) {
	p := &page{name: name}
	source, err := os.ReadFile(filepath.Join(r.root, name))
	if err != nil {
		return nil, err
	}
	p.parse(source)
	return p, nil
}

func (p *page) parse(source []byte) {
	p.source, p.anchors = source, map[string]bool{}
	p.doc = markdown.Parser().Parse(text.NewReader(source))
	p.walk(func(n ast.Node) {
		if n.Kind() != ast.KindHeading {
			return
		}
		slug := slug(p.text(n))
		for unique, i := slug, 1; ; i++ {
			if !p.anchors[unique] {
				p.anchors[unique] = true
				break
			}
			unique = fmt.Sprint(slug, "-", i)
		}
	})
}

// slug is the anchor that GitHub gives to a heading.
func slug(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

func (p *page) walk(visit func(ast.Node)) {
	_ = ast.Walk(p.doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if entering {
			visit(n)
		}
		return ast.WalkContinue, nil
	})
}

// text is what a reader sees of a node.
func (p *page) text(n ast.Node) string {
	var b strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch n := n.(type) {
		case *ast.Text:
			if entering {
				b.Write(n.Value(p.source))
				if n.SoftLineBreak() || n.HardLineBreak() {
					b.WriteByte(' ')
				}
			}
		case *ast.String:
			if entering {
				b.Write(n.Value)
			}
		case *ast.RawHTML:
			if entering && string(n.Segments.Value(p.source)) == "<br>" {
				b.WriteByte(' ')
			}
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// line is the number of the line on which a node begins.
func (p *page) line(n ast.Node) int {
	at := -1
	_ = ast.Walk(n, func(n ast.Node, _ bool) (ast.WalkStatus, error) {
		if t, ok := n.(*ast.Text); ok {
			at = t.Segment.Start
		} else if n.Type() == ast.TypeBlock && n.Lines() != nil && n.Lines().Len() > 0 {
			at = n.Lines().At(0).Start
		}
		if at >= 0 {
			return ast.WalkStop, nil
		}
		return ast.WalkContinue, nil
	})
	return p.lineAt(max(0, at))
}

func (p *page) lineAt(offset int) int { return bytes.Count(p.source[:offset], []byte("\n")) + 1 }

func (p *page) lines(n ast.Node) string { return string(n.Lines().Value(p.source)) }

var comment = regexp.MustCompile(`^<!-- (\w+): (.*?) -->\s*$`)

// mark is the comment directly above a block: its kind, such as "test", and what it says.
func (p *page) mark(n ast.Node) (kind, rest string) {
	if html, ok := n.PreviousSibling().(*ast.HTMLBlock); ok {
		return p.comment(html)
	}
	return "", ""
}

func (p *page) comment(html *ast.HTMLBlock) (kind, rest string) {
	if m := comment.FindStringSubmatch(strings.TrimSpace(p.lines(html))); m != nil {
		return m[1], m[2]
	}
	return "", ""
}
