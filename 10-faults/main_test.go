package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"k8s.io/client-go/rest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A server answers each request with 200, and sends an event and a bookmark after 12 s.
type server struct{}

func (server) RoundTrip(r *http.Request) (*http.Response, error) {
	body, to := io.Pipe()
	time.AfterFunc(12*time.Second, func() {
		_, _ = io.WriteString(to, "event\nbookmark k8s.io/initial-events-end\n")
	})
	context.AfterFunc(r.Context(), func() { _ = to.CloseWithError(r.Context().Err()) })
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: body, Request: r}, nil
}

// TestWire: a watch begins at 0 s. Each fault is between 10 s and 30 s. At 15 s there is a
// rewatch and at 16 s a relist, whatever became of the first watch.
func TestWire(t *testing.T) {
	for name, want := range map[string]string{
		"cut": ` 10.0s answer ends: connection reset by peer
 15.0s request after 5.0s: rewatch, resourceVersion=7&watch=true
 15.0s answer: connection refused
 16.0s request after 1.0s: relist, resourceVersion=7
 16.0s answer: connection refused
 30.0s fault cut is over
`,
		"silent": ` 15.0s request after 15.0s: rewatch, resourceVersion=7&watch=true
 16.0s request after 16.0s: relist, resourceVersion=7
 30.0s fault silent is over
 30.0s answer ends: http2: client connection lost
 30.0s answer: 200 OK
 30.0s answer: 200 OK
 42.0s event
 42.0s bookmark k8s.io/initial-events-end
`,
		"ended": ` 10.0s answer ends: EOF
 15.0s request after 5.0s: rewatch, resourceVersion=7&watch=true
 15.0s answer: 200 OK
 16.0s request after 1.0s: relist, resourceVersion=7
 16.0s answer: 200 OK
 27.0s event
 27.0s bookmark k8s.io/initial-events-end
 30.0s fault ended is over
`,
		"bookmark": ` 12.0s event
 15.0s request after 15.0s: rewatch, resourceVersion=7&watch=true
 15.0s answer: 200 OK
 16.0s request after 1.0s: relist, resourceVersion=7
 16.0s answer: 200 OK
 27.0s event
 30.0s fault bookmark is over
 30.0s answer ends: EOF
 30.0s answer ends: EOF
`,
		"401": refused("401 Unauthorized", ""),
		"403": refused("403 Forbidden", ""),
		"429": refused("429 Too Many Requests", ", Retry-After 1"),
		"503": refused("503 Service Unavailable", ""),
		"410": ` 10.0s answer ends: EOF
 15.0s request after 5.0s: rewatch, resourceVersion=7&watch=true
 15.0s answer: 200 OK, ERROR 410 Gone
 15.0s {"type": "ERROR", "object": ` + gone + `}
 16.0s request after 1.0s: relist, resourceVersion=7
 16.0s answer: 200 OK
 30.0s fault 410 is over
`,
	} {
		t.Run(name, func(t *testing.T) {
			setFault(t, name, 10*time.Second, 20*time.Second)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				var printed bytes.Buffer
				w := newWire(&printed)
				w.next = server{}
				for _, next := range []struct {
					query string
					wait  time.Duration
				}{
					{"?watch=true&sendInitialEvents=true&timeoutSeconds=300", 15 * time.Second},
					{"?watch=true&resourceVersion=7&allowWatchBookmarks=true", time.Second},
					{"?resourceVersion=7", 34 * time.Second},
				} {
					go request(ctx, t, w, next.query)
					time.Sleep(next.wait)
				}
				cancel()
				synctest.Wait()
				want = `  0.0s request after 0.0s: list, sendInitialEvents=true&watch=true
  0.0s answer: 200 OK
 10.0s fault ` + name + " begins\n" + want
				// Nothing says what the end of a fault releases first.
				lines := strings.SplitAfter(printed.String(), "\n")
				released := func(line string) bool { return strings.HasPrefix(line, " 30.0s answer") }
				if i := slices.IndexFunc(lines, released); i >= 0 {
					end := i
					for released(lines[end]) {
						end++
					}
					slices.Sort(lines[i:end])
				}
				if got := strings.Join(lines, ""); got != want {
					t.Errorf("printed:\n%swant:\n%s", got, want)
				}
			})
		})
	}
}

const gone = `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Gone", "message": "Gone"}`

// refused is what follows if requests are answered with a Status.
func refused(status, header string) string {
	code, text, _ := strings.Cut(status, " ")
	body := strings.NewReplacer("410", code, `"reason": "Gone"`, `"reason": "`+strings.ReplaceAll(text, " ", "")+`"`, "Gone", text).Replace(gone)
	return ` 10.0s answer ends: EOF
 15.0s request after 5.0s: rewatch, resourceVersion=7&watch=true
 15.0s answer: ` + status + `
 15.0s ` + body + header + `
 16.0s request after 1.0s: relist, resourceVersion=7
 16.0s answer: ` + status + `
 30.0s fault ` + code + ` is over
`
}

// request prints the events of a watch, or the Status.
func request(ctx context.Context, t *testing.T, w *wire, query string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://server/api/v1/pods"+query, nil)
	if err != nil {
		t.Error(err)
		return
	}
	response, err := w.RoundTrip(r)
	if err != nil {
		return
	}
	defer func() { _ = response.Body.Close() }()
	if r.URL.Query().Get("watch") == "" { // nobody reads a list here
		return
	}
	header := ""
	if seconds := response.Header.Get("Retry-After"); seconds != "" {
		header = ", Retry-After " + seconds
	}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		w.printf("%s%s", lines.Text(), header)
	}
}

func setFault(t *testing.T, name string, begins, duration time.Duration) {
	f, a, l := *fault, *at, *lasts
	*fault, *at, *lasts = name, begins, duration
	t.Cleanup(func() { *fault, *at, *lasts = f, a, l })
}

func TestBadFaults(t *testing.T) {
	for _, test := range []struct {
		fault     string
		at, lasts time.Duration
	}{{"", 1, 1}, {"404", 1, 1}, {"cut", -1, 1}, {"cut", 1, 0}, {"cut", 1, -1}} {
		setFault(t, test.fault, test.at, test.lasts)
		var printed bytes.Buffer
		if err := run(t.Context(), &rest.Config{}, &printed); err == nil || printed.Len() > 0 {
			t.Errorf("--fault %s --at %s --for %s: error %v, printed %q", test.fault, test.at, test.lasts, err, &printed)
		}
	}
}
