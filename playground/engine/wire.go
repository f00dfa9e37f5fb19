package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// tap reports the requests of a transport, their answers, and the frames of a watch.
func (e *Engine) tap(next http.RoundTripper) http.RoundTripper {
	return &wire{RoundTripper: next, engine: e}
}

type wire struct {
	http.RoundTripper
	engine *Engine
	count  atomic.Int64
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	id := int(w.count.Add(1))
	verb := "LIST"
	if r.URL.Query().Get("watch") != "" {
		verb = "WATCH"
	}
	w.engine.see(Event{Stage: Request, Kind: verb, Request: id, Text: r.URL.Query().Encode()})
	response, err := w.RoundTripper.RoundTrip(r)
	if err != nil {
		w.engine.see(Event{Stage: Request, Kind: "refused", Request: id, Text: err.Error()})
		return nil, err
	}
	w.engine.see(Event{Stage: Request, Kind: "status", Request: id, Text: fmt.Sprint(response.StatusCode)})
	response.Body = &body{ReadCloser: response.Body, engine: w.engine, id: id, frames: verb == "WATCH" && response.StatusCode == http.StatusOK}
	return response, nil
}

// A body is an answer as it is read.
type body struct {
	io.ReadCloser
	engine *Engine
	id     int
	frames bool
	rest   []byte // of a frame that is not complete
	bytes  int
	ended  bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes += n
	if b.frames {
		b.rest = append(b.rest, p[:n]...)
		for {
			line, rest, ok := bytes.Cut(b.rest, []byte("\n"))
			if !ok {
				break
			}
			b.frame(line)
			b.rest = rest
		}
	}
	if err != nil && !b.ended {
		b.ended = true
		b.engine.see(Event{Stage: Request, Kind: "end", Request: b.id, Bytes: b.bytes, Text: err.Error()})
	}
	return n, err
}

// frame reports one event of a watch.
func (b *body) frame(line []byte) {
	var frame struct {
		Type   string
		Object json.RawMessage
	}
	event := Event{Stage: Request, Request: b.id, Bytes: len(line) + 1}
	if err := json.Unmarshal(line, &frame); err != nil {
		event.Kind, event.Text = "frame", err.Error()
		b.engine.see(event)
		return
	}
	event.Kind = frame.Type
	pod := &corev1.Pod{}
	if err := json.Unmarshal(frame.Object, pod); err == nil && pod.Kind == "Pod" {
		event.Version = pod.ResourceVersion
		if pod.Name != "" {
			event.Key, event.Pod = cache.MetaObjectToName(pod).String(), pod
		}
	} else {
		event.Text = string(frame.Object)
	}
	b.engine.see(event)
}
