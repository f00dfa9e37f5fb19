// browser opens the pages with pictures in Chromium, as GitHub shows them on a phone and
// on a desktop, light and dark, and reports what cannot be seen or read there.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"flag"
	"fmt"
	"html/template"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/renderer/html"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed check.js
	checkJS []byte

	page = template.Must(template.New("").Parse(pageHTML))
)

func main() {
	root := flag.String("root", "../..", "`folder` of the repository")
	out := flag.String("out", "", "`folder` for screenshots (default: none are taken)")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: browser [flags] [FILES, relative to the root of the repository]")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	problems, err := run(ctx, *root, filepath.Join(*root, "internal/docs/browser"), *out, flag.Args())
	if err != nil {
		problems = append(problems, err.Error())
	}
	if len(problems) > 0 {
		fmt.Fprintln(os.Stderr, strings.Join(problems, "\n"))
		os.Exit(1)
	}
}

// run returns the problems of the files or, without files, of those in pages. assets is the
// folder of package.json.
func run(ctx context.Context, root, assets, out string, files []string) (problems []string, err error) {
	if len(files) == 0 {
		if files, err = pages(root); err != nil {
			return nil, err
		}
	}
	if err := install(ctx, assets); err != nil {
		return nil, err
	}
	if out != "" {
		if err := os.MkdirAll(out, 0o755); err != nil {
			return nil, err
		}
	}
	server := httptest.NewServer(handler(root, assets))
	defer server.Close()

	options := chromedp.DefaultExecAllocatorOptions[:]
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := chromedp.NewExecAllocator(ctx, options...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	if err := chromedp.Do(ctx); err != nil {
		return nil, fmt.Errorf("start Chromium: %w", err)
	}
	for _, file := range files {
		found, err := look(ctx, server.URL, file, out)
		if err != nil {
			return problems, fmt.Errorf("%s: %w", file, err)
		}
		problems = append(problems, found...)
	}
	return problems, nil
}

var visible = regexp.MustCompile("(?m)^ *```mermaid|<picture|<img|!\\[")

// pages lists docs/*.md, and the READMEs that have a picture or a diagram.
func pages(root string) (files []string, err error) {
	for _, pattern := range []string{"docs/*.md", "README.md", "*/README.md"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			file, err := filepath.Rel(root, path)
			if err != nil {
				return nil, err
			}
			file = filepath.ToSlash(file)
			if (strings.HasPrefix(file, "docs/") || visible.Match(text)) && !slices.Contains(files, file) {
				files = append(files, file)
			}
		}
	}
	return files, nil
}

// install runs npm ci, unless the packages of the lock file are installed.
func install(ctx context.Context, assets string) error {
	lock, err := os.Stat(filepath.Join(assets, "package-lock.json"))
	if err != nil {
		return err
	}
	installed, err := os.Stat(filepath.Join(assets, "node_modules/.package-lock.json"))
	if err == nil && !installed.ModTime().Before(lock.ModTime()) {
		return nil
	}
	npm := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	npm.Dir = assets
	if printed, err := npm.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w: %s", err, strings.Join(strings.Fields(string(printed)), " "))
	}
	return nil
}

// handler serves the repository, with Markdown as HTML.
func handler(root, assets string) http.Handler {
	md := goldmark.New(goldmark.WithExtensions(extension.GFM),
		goldmark.WithParserOptions(parser.WithAutoHeadingID()), goldmark.WithRendererOptions(html.WithUnsafe()))
	files := http.FileServer(http.Dir(root))
	mux := http.NewServeMux()
	mux.Handle("GET /-/", http.StripPrefix("/-/", http.FileServer(http.Dir(filepath.Join(assets, "node_modules")))))
	mux.HandleFunc("GET /-/check.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = w.Write(checkJS)
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, ".md") {
			files.ServeHTTP(w, r)
			return
		}
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(r.URL.Path)))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		var body, all bytes.Buffer
		err = md.Convert(text, &body)
		if err == nil {
			err = page.Execute(&all, map[string]any{"Name": r.URL.Path, "Body": template.HTML(body.String())})
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(all.Bytes())
	})
	return mux
}

// look opens a page at every width and in every scheme. A problem is one line. It says
// where the problem occurs, unless that is everywhere.
func look(ctx context.Context, url, file, out string) (problems []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var found []string
	seen := map[string][]string{}
	for _, width := range []int64{390, 1280} {
		for _, scheme := range []string{"light", "dark"} {
			here, err := show(ctx, url+"/"+file, width, scheme)
			if err != nil {
				return nil, err
			}
			if out != "" {
				name := strings.ReplaceAll(strings.TrimSuffix(file, ".md"), "/", "-")
				name = fmt.Sprintf("%s-%d-%s.png", name, width, scheme)
				shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
				if err != nil {
					return nil, err
				}
				if err := os.WriteFile(filepath.Join(out, name), shot, 0o644); err != nil {
					return nil, err
				}
			}
			for _, problem := range here {
				if seen[problem] == nil {
					found = append(found, problem)
				}
				seen[problem] = append(seen[problem], fmt.Sprintf("%d px %s", width, scheme))
			}
		}
	}
	for _, problem := range found {
		line := file + ": " + problem
		if where := seen[problem]; len(where) < 4 {
			line += " (" + strings.Join(where, ", ") + ")"
		}
		problems = append(problems, line)
	}
	return problems, nil
}

// show opens a page and returns what check.js finds in it.
func show(ctx context.Context, url string, width int64, scheme string) ([]string, error) {
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
	response, err := chromedp.RunResponse(ctx,
		chromedp.EmulateViewport(width, 900),
		chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
			_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, media)
			return err
		}),
		chromedp.Navigate(url))
	if err != nil {
		return nil, err
	}
	if response.Status != http.StatusOK {
		return nil, fmt.Errorf("the server has no such page: %d", response.Status)
	}
	return chromedp.Run(ctx, chromedp.Evaluate[[]string](fmt.Sprintf("check(%d)", width), chromedp.EvalAwaitPromise))
}
