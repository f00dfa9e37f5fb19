package e2e

import (
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"sigs.k8s.io/e2e-framework/pkg/features"

	"example.com/informers/internal/chapters"
	"example.com/informers/internal/logmatch"
	"example.com/informers/internal/readmes"
)

// A wireFault is a fault of 10, and what it has to print of it.
type wireFault struct {
	name   string
	ends   string // how the running watch ends
	answer string // to what is requested during the fault
	relist bool   // else the watch is resumed
	told   bool   // the watch error handler
	logs   string // what client-go logs at the default verbosity
}

var wireFaults = []wireFault{
	{name: "cut", ends: "connection reset by peer", answer: "connection refused"},
	{name: "silent", ends: "http2: client connection lost", relist: true, logs: "watch ended with error"},
	{name: "ended", ends: "EOF"},
	{name: "410", ends: "EOF", answer: "200 OK, ERROR 410 Gone", relist: true},
	{name: "401", ends: "EOF", answer: "401 Unauthorized", relist: true, told: true},
	{name: "403", ends: "EOF", answer: "403 Forbidden", relist: true, told: true},
	{name: "429", ends: "EOF", answer: "429 Too Many Requests"},
	{name: "503", ends: "EOF", answer: "503 Service Unavailable", relist: true, told: true},
	{name: "bookmark", ends: "EOF", logs: "event bookmark expired"},
}

// A wire is a run of 10 with a fault.
type wire struct {
	scene
	wireFault
	watchList bool
}

// TestWireFaults: what 10 requests after a fault, what its handlers get, and what it is told.
// The table on the page is made from what it prints.
func TestWireFaults(t *testing.T) {
	t.Parallel()
	ran := make([]*wire, 2*len(wireFaults))
	t.Run("faults", func(t *testing.T) {
		for i := range ran {
			w := &wire{wireFault: wireFaults[i/2], watchList: i%2 == 0}
			t.Run(w.name+", WatchList "+w.mode(), func(t *testing.T) {
				t.Parallel()
				w.test(t)
				if !t.Failed() && w.chapter != nil { // else --skip-labels leaves it out
					ran[i] = w
				}
			})
		}
	})
	if slices.Contains(ran, nil) {
		return // a flag chose some of them, or one has failed
	}
	var table strings.Builder
	tabs := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tabs, "fault\tWatchList\tfirst request\tits answer\ttold\tclient-go logs\tthen\tgoes on after")
	for _, w := range ran {
		fmt.Fprintln(tabs, strings.Join(w.row(t), "\t"))
	}
	if err := tabs.Flush(); err != nil {
		t.Fatal(err)
	}
	readmes.Shown(t, root, table.String(), *update)
}

func (w *wire) mode() string {
	if w.watchList {
		return "on"
	}
	return "off"
}

// bookmarkMissing: the program is not synced before the fault is over.
func (w *wire) bookmarkMissing() bool { return w.name == "bookmark" && w.watchList }

func (w *wire) test(t *testing.T) {
	testenv.Test(t, features.New("10-faults, "+w.name+", WatchList "+w.mode()).WithLabel("chapter", "10").WithLabel("fault", "wire").
		WithSetup("three pods", w.setup(func(t *testing.T) { w.createGated(t, "unchanged", "changed", "deleted") })).
		WithSetup("10", step(func(t *testing.T) {
			args := []string{"--namespace", w.namespace, "--fault", w.name, "--at", "15s", "--for", "10s"}
			if w.name == "bookmark" {
				// client-go looks every 10 s, and logs what is missing for 10 s.
				args = append(args, "--at", "0s", "--for", "25s")
			}
			env := []string{"KUBECONFIG=" + w.kubeconfig} // the mutation detector would log that it is on
			if !w.watchList {
				env = append(env, "KUBE_FEATURE_WatchListClient=false")
			}
			w.chapter = chapters.Start(t, filepath.Join(*built, "10-faults"), env, args...)
			if !w.bookmarkMissing() {
				w.awaitTimed(t, "cache is synced", timeout)
			}
			w.awaitTimed(t, "fault "+w.name+" begins", timeout)
			if w.name != "silent" && w.name != "bookmark" { // until then events pass
				w.awaitTimed(t, "answer ends: "+w.ends, timeout)
			}
		})).
		Assess("a fault, while pods are deleted, changed and created", step(func(t *testing.T) {
			w.delete(t, "deleted")
			w.change(t, "changed")
			w.createGated(t, "created")
			w.awaitTimed(t, "fault "+w.name+" is over", timeout)
		})).
		Assess("the program sees all of it, and what is written next", step(func(t *testing.T) {
			w.awaitTimed(t, `handleAdd is called for Pod \(key: `+w.key("created")+`\): .*`, 2*timeout) // back-offs are up to a minute
			w.createGated(t, "after")
			w.awaitTimed(t, `handleAdd is called for Pod \(key: `+w.key("after")+`\): .*`, 2*timeout)
			w.interrupt(t)
			w.story(t)
			w.agreesWith(t, w.lines(".*"))
		})).
		Assess("its requests", step(func(t *testing.T) {
			w.holds(t, "request|answer|fault|watch error", logmatch.Sequence{
				Pass:  []logmatch.Step{logmatch.Exactly("fault " + w.name + " is over")},
				Steps: w.requests(),
			})
		})).
		Assess("its handlers", step(func(t *testing.T) {
			w.holds(t, "handle", logmatch.Sequence{Steps: w.handlers()})
		})).
		Assess("what client-go logs", step(func(t *testing.T) {
			if got := w.logged(); got != w.wants() {
				t.Errorf("client-go logs %s, want %s:\n%s", got, w.wants(), &w.chapter.Stderr)
			}
		})).
		Feature())
}

// seconds begins each line.
const seconds = `^ *(\d+\.\d)s `

func (w *wire) awaitTimed(t *testing.T, expr string, limit time.Duration) {
	t.Helper()
	w.awaitStep(t, logmatch.Like(expr, seconds+expr), limit)
}

// lines are those that begin with a match of expr, without their seconds.
func (w *wire) lines(expr string) (lines []logmatch.Line) {
	like := regexp.MustCompile(seconds + `((?:` + expr + `).*)$`)
	for _, line := range w.chapter.Log() {
		if m := like.FindStringSubmatch(line.Text); m != nil {
			lines = append(lines, logmatch.Line{At: line.At, Text: m[2]})
		}
	}
	return lines
}

// holds holds what 10 prints of one kind to a sequence. Goroutines print requests and
// handlers' calls, so nothing says in which order lines of both kinds come.
func (w *wire) holds(t *testing.T, expr string, q logmatch.Sequence) {
	t.Helper()
	if err := q.Match(w.lines(expr)); err != nil {
		t.Error(err)
	}
}

// requests are the requests and their answers, with the fault between them.
func (w *wire) requests() []logmatch.Step {
	request := func(kind, query string) logmatch.Step {
		return logmatch.Like("a "+kind, `request after \d+\.\ds: `+kind+`, `+query)
	}
	answer := func(text string) logmatch.Step { return logmatch.Exactly("answer: " + text) }
	good := answer("200 OK")
	rewatch := request("rewatch", `resourceVersion=\d+&watch=true`)
	// The whole state, with one request or with two.
	all := func(kind, version string) []logmatch.Step {
		if w.watchList {
			return []logmatch.Step{request(kind, version+`(&)?sendInitialEvents=true&watch=true`), good}
		}
		return []logmatch.Step{
			request(kind, cmp.Or(version, "resourceVersion=0")), good, request("watch", `resourceVersion=\d+&watch=true`), good,
		}
	}
	begins, ends := logmatch.Exactly("fault "+w.name+" begins"), logmatch.Exactly("answer ends: "+w.ends)
	list, relist := all("list", ""), all("relist", `resourceVersion=\d+`)
	during := slices.Concat(list, []logmatch.Step{begins, ends})

	switch w.name {
	case "cut", "429": // the same request again and again
		return append(during, logmatch.AnyOrder(rewatch.OneOrMore(), answer(w.answer).OneOrMore()), good)
	case "ended":
		return append(during, rewatch, good)
	case "silent":
		return append(during, relist...)
	case "410":
		return slices.Concat(during, []logmatch.Step{rewatch, answer(w.answer)}, relist)
	case "bookmark":
		if w.watchList {
			return slices.Concat([]logmatch.Step{begins}, list, []logmatch.Step{ends}, list)
		}
		return slices.Concat([]logmatch.Step{begins}, list, []logmatch.Step{ends, rewatch, good})
	}
	// 401, 403 and 503. With WatchList a watch that fails is followed by a list.
	told := logmatch.Like("the watch error handler", `watch error handler is called: .*`)
	retries := logmatch.AnyOrder(request("relist", ".*").OneOrMore(), answer(w.answer).AnyNumber(), told.AnyNumber())
	last := logmatch.AnyOrder(request("watch", ".*").AnyNumber(), good.AnyNumber()) // after a list
	return append(during, rewatch, answer(w.answer), told, retries, good, last)
}

// handlers are the calls of the handlers.
func (w *wire) handlers() []logmatch.Step {
	initial := func(names ...string) logmatch.Step {
		var steps []logmatch.Step
		for _, name := range names {
			steps = append(steps, added(w.key(name), `: initial, resourceVersion \d+`))
		}
		return logmatch.AnyOrder(steps...)
	}
	created, after := added(w.key("created"), `: new, .*`), added(w.key("after"), ": new, .*")
	write := updated(w.key("changed"), `: \d+ → \d+`)
	relisted := func(name string) logmatch.Step {
		return updated(w.key(name), `: relist, resourceVersion \d+`)
	}
	before := initial("unchanged", "changed", "deleted")
	switch {
	case w.bookmarkMissing(): // the first list that counts is after the fault
		return []logmatch.Step{initial("unchanged", "changed", "created"), after}
	case w.name == "410": // the relist may come before, between or after the writes
		return []logmatch.Step{before, logmatch.AnyOrder(
			updated(w.key("deleted"), `: \d+ → \d+`).AnyNumber(), deleted(w.key("deleted"), `: tombstone=(true|false)`),
			write, created, relisted("unchanged"),
			relisted("deleted").AnyNumber(), relisted("changed").AnyNumber(), relisted("created").AnyNumber(),
		), after}
	case w.relist:
		return []logmatch.Step{before, logmatch.AnyOrder(
			deleted(w.key("deleted"), `: tombstone=true`), write, created, relisted("unchanged"),
		), after}
	}
	return []logmatch.Step{
		before, updated(w.key("deleted"), `: \d+ → \d+`).AnyNumber(), deleted(w.key("deleted"), `: tombstone=false`), write, created, after,
	}
}

// wants is what client-go has to log, and logged what it logs.
func (w *wire) wants() string {
	if w.name == "bookmark" && !w.watchList {
		return "nothing"
	}
	return cmp.Or(w.logs, "nothing")
}

func (w *wire) logged() string {
	var logged []string
	for _, line := range w.chapter.Stderr.Lines() {
		text := line
		if m := regexp.MustCompile(`"Warning: ([^"]*)"`).FindStringSubmatch(line); m != nil {
			text = m[1]
		}
		logged = append(logged, text)
	}
	return cmp.Or(strings.Join(slices.Compact(logged), "; "), "nothing")
}

// row is what the program printed, in short. The last request is the one with which it goes on.
func (w *wire) row(t *testing.T) []string {
	t.Helper()
	var first, answer, then string
	var begins, goesOn float64
	told := "no"
	for _, line := range w.chapter.Log() {
		if w.name == "bookmark" && strings.HasSuffix(line.Text, " cache is synced") {
			break // the watch ends later, whether or not it needed the bookmark
		}
		m := regexp.MustCompile(seconds + `(.*)$`).FindStringSubmatch(line.Text)
		at, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		switch text := m[2]; {
		case strings.HasSuffix(text, " begins"):
			begins, then = at, ""
		case strings.HasPrefix(text, "request"):
			_, kind, _ := strings.Cut(text, ": ")
			kind, _, _ = strings.Cut(kind, ",")
			if kind != "watch" {
				then = kind
			}
			if begins > 0 || w.name == "bookmark" {
				first = cmp.Or(first, kind)
			}
		case strings.HasPrefix(text, "answer: "):
			if first != "" {
				text = strings.TrimPrefix(text, "answer: ")
				answer = cmp.Or(answer, regexp.MustCompile(`ERROR \d+`).FindString(text), regexp.MustCompile(`^\d+`).FindString(text), text)
			}
			goesOn = at - begins
		case strings.HasPrefix(text, "watch error handler"):
			told = "yes"
		}
	}
	return []string{w.name, w.mode(), first, answer, told, w.logged(), then, fmt.Sprintf("%.1fs", goesOn)}
}
