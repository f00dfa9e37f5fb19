package main

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A wiretap is a transport that notes requests. It can end watches, and refuse to resume one.
type wiretap struct {
	sync.Mutex
	next     http.RoundTripper
	begin    time.Time
	keep     bool // what is received
	expired  bool // the next request that resumes a watch is answered with 410
	requests []*exchange
}

// An exchange is a request and its answer.
type exchange struct {
	io.ReadCloser
	tap       *wiretap
	request   *http.Request
	response  *http.Response
	at, until float64 // in seconds; until is 0 as long as the answer has not ended
	bytes     int
	kept      bytes.Buffer
	cut       bool
}

func (w *wiretap) now() float64 { return time.Since(w.begin).Seconds() }

func (w *wiretap) RoundTrip(request *http.Request) (*http.Response, error) {
	w.Lock()
	e := &exchange{tap: w, request: request, at: w.now()}
	expired := w.expired && e.kind() == resuming
	w.expired = w.expired && !expired
	w.Unlock()
	response, err := answer410(request), error(nil)
	if !expired {
		response, err = w.next.RoundTrip(request)
	}
	if err != nil {
		return nil, err
	}
	w.Lock()
	defer w.Unlock()
	e.ReadCloser, e.response = response.Body, response
	w.requests = append(w.requests, e)
	response.Body = e
	return response, nil
}

const resuming = "WATCH that resumes"

func (e *exchange) kind() string {
	query := e.request.URL.Query()
	switch {
	case query.Get("watch") != "true":
		return "LIST"
	case e.response != nil && e.response.StatusCode == http.StatusGone:
		return "WATCH, answered with 410"
	case query.Get("sendInitialEvents") == "true":
		return "WATCH with the initial state"
	default:
		return resuming
	}
}

func answer410(request *http.Request) *http.Response {
	return &http.Response{
		StatusCode: http.StatusGone, Request: request, ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(`{"kind":"Status","apiVersion":"v1","status":"Failure",` +
			`"reason":"Expired","code":410,"message":"too old resource version"}`)),
	}
}

// cut ends the open watches, as a server does after some time. If they are to be expired,
// the request that resumes one is answered with 410.
func (w *wiretap) cut(expired bool) {
	w.Lock()
	defer w.Unlock()
	w.expired = expired
	for _, e := range w.requests {
		if e.until == 0 {
			e.cut, e.until = true, w.now()
			_ = e.Close()
		}
	}
}

// received returns the number of requests and of bytes in their answers.
func (w *wiretap) received() (requests, bytes int) {
	w.Lock()
	defer w.Unlock()
	for _, e := range w.requests {
		bytes += e.bytes
	}
	return len(w.requests), bytes
}

// Read ends a cut stream as if the server had ended it.
func (e *exchange) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	e.tap.Lock()
	defer e.tap.Unlock()
	e.bytes += n
	if e.tap.keep {
		e.kept.Write(p[:n])
	}
	if err != nil && e.until == 0 {
		e.until = e.tap.now()
	}
	if err != nil && e.cut {
		err = io.EOF
	}
	return n, err
}
