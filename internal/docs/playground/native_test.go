package playground

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chromedp/chromedp"

	"example.com/informers/playground/control"
	"example.com/informers/playground/engine"
)

// A saved run is what the page writes into a file.
type saved struct {
	control.Story
	Events []engine.Event
}

// save returns the file that the page saves.
func (p *tab) save(t *testing.T) string {
	t.Helper()
	text, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`(async () => {
		let blob
		URL.createObjectURL = (b) => { blob = b; return '#' }
		HTMLAnchorElement.prototype.click = () => {};
		[...document.querySelectorAll('button')].find((b) => b.textContent === 'Save').click()
		return blob.text()
	})()`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// native runs a script with the engine outside the browser, in a bubble of virtual time.
func native(t *testing.T, run saved) (events []engine.Event) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		p := control.InMemory(ctx, func(event engine.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, event)
		})
		begin := time.Now()
		for _, a := range run.Script {
			time.Sleep(time.Until(begin.Add(time.Duration(a.Time * float64(time.Millisecond)))))
			if err := p.Do(a.Command); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		time.Sleep(time.Until(begin.Add(time.Duration(run.Until * float64(time.Millisecond)))))
		synctest.Wait()
		mu.Lock()
		events = slices.Clone(events)
		mu.Unlock()
		cancel()
		p.Wait()
	})
	return events
}

// told returns what a handler, the work queue, or a watcher of the API server is told about each pod, in order. A
// version is the number of the write to its pod. What may differ between two runs is left out: the order across
// pods, which is a map's, and times, because back-offs have jitter.
func told(events []engine.Event) map[string][]string {
	all, writes := map[string][]string{}, map[string][]string{}
	for _, e := range events {
		if e.Stage == engine.Server {
			writes[e.Key] = append(writes[e.Key], e.Version)
		}
	}
	for _, e := range events {
		if e.Stage == engine.Handler || e.Stage == engine.Work || e.Stage == engine.Server {
			about := fmt.Sprint(e.Stage, " ", e.Handler, " ", e.Key)
			line := fmt.Sprintln(e.Kind, slices.Index(writes[e.Key], e.Old), slices.Index(writes[e.Key], e.Version))
			all[about] = append(all[about], line)
		}
	}
	return all
}

// compare holds a run in the browser to the same script outside it, and to what a test in e2e expects of it on a
// cluster.
func compare(t *testing.T, story, text string) {
	t.Helper()
	var run saved
	if err := json.Unmarshal([]byte(text), &run); err != nil {
		t.Fatal(err)
	}
	run.Told = control.Told(run.Events)
	want, err := json.MarshalIndent(run.Story, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "playground/control/testdata", story+".json")
	if *update {
		err = os.WriteFile(file, append(want, '\n'), 0o644)
	}
	if got, errRead := os.ReadFile(file); err != nil || errRead != nil || string(got) != string(want)+"\n" {
		t.Errorf("%s is stale: go -C internal/docs test ./playground -run TestStories -args -update (%v)", file, errors.Join(err, errRead))
	}
	browser, outside := told(run.Events), told(native(t, run))
	if len(browser) == 0 || len(browser) != len(outside) {
		t.Errorf("%d series of events in the browser, %d outside", len(browser), len(outside))
	}
	for about, want := range outside {
		if got := browser[about]; !slices.Equal(got, want) {
			t.Errorf("%s: in the browser\n%s\noutside\n%s", about, strings.Join(got, ""), strings.Join(want, ""))
		}
	}
}
