// Package playground opens the playground in Chromium, as a reader does.
package playground

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
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

// open opens the page with a story in a new browser.
func open(t *testing.T, story string, width int64) *tab {
	t.Helper()
	return openAt(t, address+"#"+story, width)
}

func openAt(t *testing.T, url string, width int64) *tab {
	t.Helper()
	options := chromedp.DefaultExecAllocatorOptions[:]
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 5*time.Minute)
	t.Cleanup(cancel)
	p := &tab{ctx}
	p.do(t, chromedp.EmulateViewport(width, 900), chromedp.Navigate(url), chromedp.WaitVisible("main"))
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

// click waits for the button with a text, which a later frame may bring, and clicks it.
func (p *tab) click(t *testing.T, name string) {
	t.Helper()
	p.await(t, fmt.Sprintf(
		"(b => { b?.click(); return !!b })([...document.querySelectorAll('button:enabled')].find(b => b.textContent.trim() === %q))", name))
}

// scheme makes the browser prefer light or dark, and reduced motion.
func (p *tab) scheme(t *testing.T, scheme string) {
	t.Helper()
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}}
	p.do(t, chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, media)
		return err
	}))
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

// rightAnswers are how the answers begin that the page computes from the runs of the stories.
var rightAnswers = map[string]string{
	"sync":      "When its third call has returned",
	"life":      "More often",
	"resync":    "None. b gets fewer than a.",
	"cut":       "It resumes the watch",
	"relist":    "A Delete of web with a tombstone",
	"selector":  "A Delete, although",
	"slow":      "At once",
	"own":       "Not found",
	"workqueue": "Fewer",
}

// TestStories plays each story to its end, and the same script outside the browser, which has to give the same
// events.
func TestStories(t *testing.T) {
	for story, right := range rightAnswers {
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
			compare(t, story, p.save(t))
		})
	}
}

// TestSameRun: a story gives the same events at the same times, each time, however fast it is played.
func TestSameRun(t *testing.T) {
	play := func(speeds ...string) string {
		p := open(t, "relist", 1280)
		p.do(t, chromedp.Click(".tale fieldset button"))
		for _, speed := range speeds {
			p.click(t, speed)
		}
		p.do(t, chromedp.WaitVisible(".tale .right"))
		return p.save(t)
	}
	first, second := play("as fast as it goes"), play("60×", "Step", "as fast as it goes")
	if first != second {
		t.Errorf("two runs of a story differ:\n%s\n%s", first, second)
	}
	var run saved
	if err := json.Unmarshal([]byte(first), &run); err != nil || len(run.Events) < 50 {
		t.Errorf("%d events were saved, %v", len(run.Events), err)
	}

	// The file opens again, at its end.
	path := filepath.Join(t.TempDir(), "informer.json")
	broken := filepath.Join(t.TempDir(), "broken.json")
	if err := errors.Join(os.WriteFile(path, []byte(first), 0o600), os.WriteFile(broken, []byte(`{"version":2}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	p := open(t, "", 1280)
	p.do(t, chromedp.SetUploadFiles("input[type=file]", []string{broken}), chromedp.WaitVisible(".problem"))
	if got := p.text(t, ".problem"); !strings.HasPrefix(got, "open broken.json: it is not a run that this page has saved") {
		t.Errorf("a broken file: %q", got)
	}
	p.do(t, chromedp.SetUploadFiles("input[type=file]", []string{path}))
	p.await(t, "document.querySelector('pre').textContent.includes('tombstone=true')")
}

// await waits until a JavaScript expression is true.
func (p *tab) await(t *testing.T, expression string) {
	t.Helper()
	if _, err := chromedp.Run(p.ctx, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(time.Minute))); err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
}

// TestControls uses each button without a story, and sees what it leads to.
func TestControls(t *testing.T) {
	p := open(t, "", 1280)
	has := func(selector, text string) {
		t.Helper()
		p.await(t, fmt.Sprintf("[...document.querySelectorAll(%q)].some(e => e.textContent.includes(%q))", selector, text))
	}
	p.click(t, "60×")
	has("pre", "handleAdd is called for Pod (key: default/web): initial")
	p.click(t, "Create")
	has("pre", "handleAdd is called for Pod (key: default/nginx): new, phase Pending")
	has("pre", "phase Running, Ready")
	p.click(t, "Label nginx")
	p.click(t, "Delete nginx")
	has("pre", "handleDelete is called for Pod (key: default/nginx): tombstone=false")
	p.click(t, "Create with a finalizer")
	has("td", "default/nginx")
	p.click(t, "Delete nginx now")
	p.click(t, "Remove its finalizer")
	p.await(t, "![...document.querySelectorAll('td')].some(e => e.textContent === 'default/nginx')")
	p.click(t, "Create 20")
	has("section", "and 9 more")
	for _, fault := range []string{"Cut: refused", "401", "403", "429", "503"} {
		p.click(t, fault)
		has(".requests", map[string]string{"Cut: refused": "refused"}[fault]+strings.TrimPrefix(fault, "Cut: refused"))
		p.click(t, "All well again")
		p.await(t, "document.querySelector('.requests li').textContent.includes(' 200 ')")
	}
	p.click(t, "End the watch")
	p.click(t, "Reset the watch")
	has(".errors", "watch ended with error")
	p.click(t, "410")
	has(".token", "relist")
	p.click(t, "Silent")
	p.click(t, "Swallow bookmarks")
	p.click(t, "All well again")
	p.click(t, "Add one, resync 10 s")
	has(".token", "c: Update resync")
	p.click(t, "Remove c")
	p.click(t, "Add a slow one")
	p.click(t, "Add one that changes the cache")
	p.click(t, "Stop the old one, start this one")
	p.click(t, "Stop")
	p.click(t, "Run it again")
	has(".errors", "run more than once is not allowed")
	p.keep(t)
}

// TestPanics: the page says why its program has ended, and starts it again.
func TestPanics(t *testing.T) {
	p := open(t, "", 1280)
	restart := func(why string) {
		t.Helper()
		p.await(t, fmt.Sprintf("(document.querySelector('.problem')?.textContent ?? '').includes(%q)", why))
		p.click(t, "Close")
		p.click(t, "From the start")
		p.click(t, "60×")
		p.await(t, "document.querySelector('pre').textContent.includes('cache is synced')")
	}
	p.click(t, "10×")
	p.await(t, "document.querySelector('pre').textContent.includes('cache is synced')")
	p.click(t, "Add one that panics")
	p.await(t, "(document.querySelector('.problem')?.textContent ?? '').includes('handler c panics')")
	p.click(t, "Close")
	p.do(t, chromedp.Click("input[type=checkbox]")) // the mutation detector
	p.await(t, "document.querySelector('pre').textContent === ''")
	p.await(t, "document.querySelector('pre').textContent.includes('cache is synced')")
	p.click(t, "Add one that changes the cache")
	restart("cache *v1.Pod modified")
	p.do(t, chromedp.Reload(), chromedp.WaitVisible("main"))
	p.await(t, "document.querySelector('pre').textContent.includes('cache is synced')")
}

// TestAddress: an address names a speed and settings, and follows what is chosen.
func TestAddress(t *testing.T) {
	p := open(t, "?speed=60&resync=10&watchlist=no&labels=app%3Dweb", 1280)
	p.await(t, "document.querySelector('.requests').textContent.includes('labelSelector=app%3Dweb')")
	p.await(t, "document.querySelector('.requests').textContent.includes('LIST')")
	p.await(t, "[...document.querySelectorAll('button')].find((b) => b.textContent === '60×').ariaPressed === 'true'")
	p.click(t, "10×")
	p.click(t, "Stop the old one, start this one")
	p.await(t, "location.hash === '#?speed=10&resync=10&watchlist=no&labels=app%3Dweb'")
	p.do(t, chromedp.Navigate("about:blank"))
	p.do(t, chromedp.Navigate(address+"#life?speed=60"), chromedp.WaitVisible(".tale"), chromedp.Click(".tale fieldset button"))
	p.await(t, "[...document.querySelectorAll('button')].find((b) => b.textContent === '60×').ariaPressed === 'true'")
	p.do(t, chromedp.WaitVisible(".tale .right"))
}

// TestTimeline: a mark is read with the pointer, chosen with a click or the arrow keys, and the past is dragged
// into view.
func TestTimeline(t *testing.T) {
	p := open(t, "", 1280)
	p.click(t, "60×")
	p.await(t, "document.querySelector('pre').textContent.includes('resync')")
	p.click(t, "Pause")
	p.click(t, "5 s")
	if _, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](`(() => {
		const svg = document.querySelector('.timeline svg'), box = svg.getBoundingClientRect()
		const fire = (type, x) => svg.dispatchEvent(new PointerEvent(type, { bubbles: true, clientX: box.left + x, clientY: box.top + 60 }))
		fire('pointerdown', 200)
		fire('pointermove', 100000)
		fire('pointerup', 100000)
		return true
	})()`)); err != nil {
		t.Fatal(err)
	}
	// The first 5 s have the initial state.
	p.await(t, "[...document.querySelectorAll('.timeline .tick')][0].textContent === '0 s'")
	p.await(t, "!!document.querySelector('.timeline .point.initial')")
	if _, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](`(() => {
		const mark = document.querySelector('.timeline .point.initial'), box = mark.getBoundingClientRect()
		mark.dispatchEvent(new PointerEvent('pointermove', { bubbles: true, clientX: box.left + box.width / 2, clientY: box.top }))
		return true
	})()`)); err != nil {
		t.Fatal(err)
	}
	p.await(t, "document.querySelector('.said').textContent.includes('default/web')")
	p.do(t, chromedp.Focus(".timeline [tabindex]"), chromedp.KeyEvent(kb.ArrowLeft))
	p.await(t, "!!document.querySelector('.timeline .chosen') && !!document.querySelector('.token[aria-pressed=true], #details')")
	p.click(t, "Now")
	p.await(t, "![...document.querySelectorAll('.timeline .tick')].some((e) => e.textContent === '0 s')")
	p.keep(t)
}

// TestHour: what the page and its program keep is bounded, however long they run.
func TestHour(t *testing.T) {
	p := open(t, "?resync=10", 1280)
	size := func(until string) (program, page float64) {
		p.click(t, "as fast as it goes")
		p.await(t, "document.querySelector('output.now').textContent.split(' ')[0] >= "+until)
		p.click(t, "Pause")
		got, err := chromedp.Run(p.ctx, chromedp.Evaluate[[]float64](
			"[Number(/has (\\d+) MB/.exec(document.querySelector('footer').textContent)[1]), performance.memory.usedJSHeapSize / 1e6]"))
		if err != nil {
			t.Fatal(err)
		}
		return got[0], got[1]
	}
	p.click(t, "Create 20")
	program, page := size("1200")
	p.await(t, "document.querySelector('footer').textContent.includes('The page keeps the last 5000 events')")
	later, pageLater := size("3600")
	t.Logf("after 20 minutes of virtual time: the program has %.0f MB, the page %.0f MB; after an hour %.0f MB and %.0f MB",
		program, page, later, pageLater)
	if later > 2*program {
		t.Errorf("the program grows: %.0f MB, then %.0f MB", program, later)
	}
}

// TestEveryone: nothing is cut off at two widths and in two schemes, and axe finds nothing.
func TestEveryone(t *testing.T) {
	axe, err := os.ReadFile(root + "/playground/page/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, story := range []string{"", "life"} {
		for _, width := range []int64{390, 1280} {
			for _, scheme := range []string{"light", "dark"} {
				t.Run(fmt.Sprintf("%s/%d/%s", story, width, scheme), func(t *testing.T) {
					p := open(t, story, width)
					p.scheme(t, scheme)
					if story != "" {
						p.do(t, chromedp.Click(".tale fieldset button"))
					}
					p.click(t, "as fast as it goes")
					p.await(t, "document.querySelectorAll('.token').length > 5")
					p.click(t, "Pause")
					p.do(t, chromedp.Click(".token"))
					p.keep(t)
					found, err := chromedp.Run(p.ctx, chromedp.Evaluate[[]string](string(axe)+`;(async () => {
						const { violations } = await axe.run()
						const found = violations.map((v) => v.id + ': ' + v.help + ': ' + v.nodes.map((n) => n.html).slice(0, 3).join(' '))
						if (document.documentElement.scrollWidth > innerWidth) found.push('wider than the window: ' + document.documentElement.scrollWidth)
						return found
					})()`, chromedp.EvalAwaitPromise))
					if err != nil || len(found) > 0 {
						t.Errorf("%v %s", err, strings.Join(found, "\n"))
					}
				})
			}
		}
	}
}

var update = flag.Bool("update", false, "take the pictures of the front page again, and write what stories tell")

// TestPicture takes the picture that opens the front page: a story at its end, one pod chosen.
func TestPicture(t *testing.T) {
	for _, scheme := range []string{"light", "dark"} {
		p := open(t, "relist", 1280)
		p.scheme(t, scheme)
		p.do(t, chromedp.Click(".tale fieldset button:nth-of-type(2)"))
		p.click(t, "as fast as it goes")
		p.do(t, chromedp.WaitVisible(".tale .right"))
		p.await(t, "[...document.querySelectorAll('.token')].some(e => e.textContent.includes('Delete tombstone') && (e.click(), true))")
		picture, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
		if err != nil || len(picture) < 10_000 {
			t.Fatalf("%d bytes, %v", len(picture), err)
		}
		file := root + "/docs/pictures/playground-" + scheme + ".png"
		if *update {
			err = os.WriteFile(file, picture, 0o644)
		} else {
			_, err = os.Stat(file)
		}
		if err != nil {
			t.Error(err)
		}
	}
}
