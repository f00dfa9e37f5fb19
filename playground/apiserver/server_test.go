package apiserver

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func ask(t *testing.T, s *Server, method, path, body string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://x/api/v1/namespaces/default/pods"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := s.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func create(t *testing.T, s *Server, name string) {
	t.Helper()
	pod := `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"` + name + `"},"spec":{"containers":[{"name":"nginx","image":"nginx"}]}}`
	if response := ask(t, s, "POST", "", pod); response.StatusCode != http.StatusCreated {
		t.Fatal(response.Status)
	}
}

func line(t *testing.T, from *bufio.Reader) string {
	t.Helper()
	text, err := from.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestWindow: a watch starts from each version in the window, and gets every later write in order. Before the
// window, and for a client that does not keep up with it, it is 410.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Window: 10})
		for i := range 30 {
			create(t, s, fmt.Sprintf("pod-%d", i))
		}
		for _, test := range []struct {
			from int
			want string
		}{
			{120, `"name":"pod-20"`}, {129, `"name":"pod-29"`}, {119, "too old resource version: 119 (121)"},
		} {
			got := line(t, bufio.NewReader(ask(t, s, "GET", fmt.Sprintf("?watch=true&resourceVersion=%d", test.from), "").Body))
			if !strings.Contains(got, test.want) {
				t.Errorf("from %d: %s, want %s", test.from, got, test.want)
			}
		}
		slow := bufio.NewReaderSize(ask(t, s, "GET", "?watch=true&resourceVersion=130", "").Body, 16)
		for i := range 40 {
			create(t, s, fmt.Sprintf("late-%d", i))
		}
		for want := 0; ; want++ {
			text := line(t, slow)
			if strings.Contains(text, `"code":410`) {
				break
			}
			if !strings.Contains(text, fmt.Sprintf(`"name":"late-%d"`, want)) || want == 39 {
				t.Fatalf("event %d of a slow client: %s", want, text)
			}
		}
	})
}

// TestCloseEndsAWatch: a goroutine that is left would keep the bubble from ending.
func TestCloseEndsAWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{})
		create(t, s, "web")
		response := ask(t, s, "GET", "?watch=true", "")
		if got := line(t, bufio.NewReader(response.Body)); !strings.Contains(got, `"name":"web"`) {
			t.Error(got)
		}
		if err := response.Body.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}

// TestBookmarksAndTimeout: a bookmark a minute, and the end after timeoutSeconds.
func TestBookmarksAndTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{})
		begin := time.Now()
		from := bufio.NewReader(ask(t, s, "GET", "?watch=true&allowWatchBookmarks=true&resourceVersion=100&timeoutSeconds=150", "").Body)
		for i := 1; i <= 2; i++ {
			if got := line(t, from); !strings.Contains(got, `"BOOKMARK"`) || time.Since(begin) != time.Duration(i)*time.Minute {
				t.Errorf("after %s: %s", time.Since(begin), got)
			}
		}
		if got, err := from.ReadString('\n'); err == nil || time.Since(begin) != 150*time.Second {
			t.Errorf("after %s: %s, %v", time.Since(begin), got, err)
		}
	})
}

// TestPodsLive: the writes to a pod, as docs/data/life-kind.json has them.
func TestPodsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{})
		go s.RunPods(t.Context())
		from := bufio.NewReader(ask(t, s, "GET", "?watch=true&resourceVersion=100", "").Body)
		create(t, s, "web")
		begin := time.Now()
		for i, want := range []string{`"ADDED"`, `"nodeName":"node-0"`, `"ContainerCreating"`, `"PodReadyToStartContainers","status":"True"`, `"phase":"Running"`} {
			if got := line(t, from); !strings.Contains(got, want) {
				t.Errorf("write %d is %s, want %s", i, got, want)
			}
		}
		if took := time.Since(begin); took != 540*time.Millisecond {
			t.Errorf("it is ready after %s", took)
		}
		ask(t, s, "DELETE", "/web", "")
		begin = time.Now()
		for i, want := range []string{`"deletionGracePeriodSeconds":30`, `"observedGeneration":2`, `"phase":"Succeeded"`, `"MODIFIED"`, `"deletionGracePeriodSeconds":0`, `"DELETED"`} {
			if got := line(t, from); !strings.Contains(got, want) {
				t.Errorf("write %d of its end is %s, want %s", i, got, want)
			}
		}
		if took := time.Since(begin); took != 1371*time.Millisecond {
			t.Errorf("it is gone after %s", took)
		}
	})
}
