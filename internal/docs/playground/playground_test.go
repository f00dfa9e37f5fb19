// Package playground opens the playground in Chromium, as a reader does.
package playground

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

const root = "../../.."

// address is that of the playground, which serves while the tests run.
var address string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "playground")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary := filepath.Join(dir, "playground")
	build := exec.Command("go", "build", "-o", binary, "./playground")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("%w\n%s", err, out)
	}
	server := exec.Command(binary, "--no-open")
	server.Dir, server.Stderr = root, os.Stderr
	stdout, err := server.StdoutPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		return 1, err
	}
	defer func() {
		_ = server.Process.Signal(syscall.SIGINT)
		_ = server.Wait()
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return 1, err
	}
	address = strings.TrimSpace(line)
	return m.Run(), nil
}

// A tab is the page in a browser.
type tab struct{ ctx context.Context }

// open opens the page in a new browser.
func open(t *testing.T, story string, width int64) *tab {
	t.Helper()
	options := chromedp.DefaultExecAllocatorOptions[:]
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	p := &tab{ctx}
	p.do(t, chromedp.EmulateViewport(width, 900), chromedp.Navigate(address+"#"+story), chromedp.WaitVisible("main"))
	return p
}

func (p *tab) do(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

func (p *tab) text(t *testing.T, selector string) string {
	t.Helper()
	text, err := chromedp.Run(p.ctx, chromedp.Text(selector))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// click clicks the button with a text.
func (p *tab) click(t *testing.T, name string) {
	t.Helper()
	found, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](fmt.Sprintf(
		"(b => { b?.click(); return !!b })([...document.querySelectorAll('button')].find(b => b.textContent.trim() === %q))", name)))
	if err != nil || !found {
		t.Fatalf("click %q: %v", name, err)
	}
}

// keep keeps a picture of the page, for go test -artifacts.
func (p *tab) keep(t *testing.T) {
	t.Helper()
	png, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(t.ArtifactDir(), "page.png"), png, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestStories plays each story to its end. The answer that the page computes from the run has to be this one.
func TestStories(t *testing.T) {
	for story, right := range map[string]string{
		"sync":      "When its third call has returned",
		"life":      "More often",
		"resync":    "None. b gets fewer than a.",
		"cut":       "It resumes the watch",
		"relist":    "A Delete of web with a tombstone",
		"selector":  "A Delete, although",
		"slow":      "At once",
		"own":       "Not found",
		"workqueue": "Fewer",
	} {
		t.Run(story, func(t *testing.T) {
			p := open(t, story, 1280)
			p.do(t, chromedp.Click(".tale fieldset button"))
			p.click(t, "as fast as it goes")
			p.do(t, chromedp.WaitVisible(".tale .right, .tale .wrong"))
			p.keep(t)
			if problem, err := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.querySelector('.problem')?.textContent ?? ''")); err != nil || problem != "" {
				t.Errorf("the page reports %q, %v", problem, err)
			}
			if got := p.text(t, ".tale .right"); !strings.HasPrefix(got, right) {
				t.Errorf("the page says that %q is right, want %q", got, right)
			}
		})
	}
}
