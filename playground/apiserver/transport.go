package apiserver

import (
	"context"
	"io"
	"net/http"
	"sync"
)

// RoundTrip answers a request without a network: for the Transport of a rest.Config in the same process.
// It returns when the handler has sent the header, as a connection does; the body follows.
func (s *Server) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r = r.Clone(r.Context())
		r.Body = http.NoBody
	}
	ctx, cancel := context.WithCancel(r.Context())
	r = r.WithContext(ctx)
	from, to := io.Pipe()
	w := &response{header: http.Header{}, body: to, started: make(chan struct{})}
	go func() {
		defer cancel()
		s.ServeHTTP(w, r)
		w.WriteHeader(http.StatusOK)
		_ = to.Close()
	}()
	select {
	case <-w.started:
	case <-ctx.Done():
		_ = from.CloseWithError(ctx.Err())
		return nil, ctx.Err()
	}
	return &http.Response{
		Status: http.StatusText(w.code), StatusCode: w.code, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: w.header, Body: body{from, cancel}, ContentLength: -1, Request: r,
	}, nil
}

// A body ends the handler when the client closes it, as a connection does.
type body struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b body) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}

// A response is the http.ResponseWriter of a RoundTrip.
type response struct {
	header  http.Header
	code    int
	body    *io.PipeWriter
	started chan struct{}
	once    sync.Once
}

func (w *response) Header() http.Header { return w.header }

func (w *response) WriteHeader(code int) {
	w.once.Do(func() {
		w.code = code
		close(w.started)
	})
}

func (w *response) Write(data []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(data)
}

// Flush does nothing: a pipe keeps nothing back.
func (w *response) Flush() {}
