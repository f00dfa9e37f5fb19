package playground

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestLoad logs how long frames take while 5,000 pods are in the store and 500 writes a second are asked for. It asserts
// only that the page goes on, and keeps a bounded number of events: a time would depend on the machine.
func TestLoad(t *testing.T) {
	run := filepath.Join(t.TempDir(), "many.json")
	script := `{"version":1,"until":5000,"events":[],"script":[[0,{"Do":"create","Name":"many","Count":5000,"Hold":true}],` +
		`[2000,{"Do":"start","Settings":{"Resync":0,"RunEvery":0,"WatchList":true,"Handlers":[{"Name":"a"},{"Name":"b"}]}}]]}`
	if err := os.WriteFile(run, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	p := open(t, "", 1280)
	p.do(t, chromedp.SetUploadFiles("input[type=file]", []string{run}))
	p.await(t, "document.querySelector('main').textContent.includes('and 4988 more')")
	p.click(t, "10×")
	got, err := chromedp.Run(p.ctx, chromedp.Evaluate[map[string]float64](`(async () => {
		const frames = []
		let last = performance.now(), run = true
		const frame = (now) => { frames.push(now - last); last = now; if (run) requestAnimationFrame(frame) }
		requestAnimationFrame(frame)
		const label = () => [...document.querySelectorAll('button')].find((b) => b.textContent.trim().startsWith('Label many'))
		const heap = performance.memory.usedJSHeapSize / 1e6
		let writes = 0
		const begin = performance.now()
		const timer = setInterval(() => { const button = label(); while (writes < (performance.now() - begin) / 2) { button.click(); writes++ } }, 20)
		await new Promise((r) => setTimeout(r, 20000))
		clearInterval(timer)
		run = false
		frames.sort((a, b) => a - b)
		const at = (share) => frames[Math.floor(frames.length * share)]
		return { writes, frames: frames.length, p50: at(0.5), p95: at(0.95), p99: at(0.99), heapBefore: heap, heapAfter: performance.memory.usedJSHeapSize / 1e6 }
	})()`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f writes in 20 s, %.0f frames: p50 %.1f ms, p95 %.1f ms, p99 %.1f ms; heap %.0f MB before, %.0f MB after",
		got["writes"], got["frames"], got["p50"], got["p95"], got["p99"], got["heapBefore"], got["heapAfter"])
	if footer := p.text(t, "footer"); !strings.Contains(footer, "The page keeps the last 5000 events") {
		t.Errorf("no event was dropped: %s", footer)
	}
	p.await(t, "document.querySelectorAll('.token').length > 5")
}
