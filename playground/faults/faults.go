// Package faults makes the connection between an informer and its API server fail on purpose. It works on the
// client's side, as a transport, so it is the same for a server in memory and for a cluster. Other clients of
// the same server notice nothing.
package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// A Fault is what is wrong until the next call of Break. With the zero value, all is well.
type Fault struct {
	// Refuse refuses connections.
	Refuse bool `json:",omitzero"`
	// Silent accepts requests and does not answer; open watches deliver nothing.
	Silent bool `json:",omitzero"`
	// Code is the status of every answer: 401, 403, 429, 500 or 503.
	Code int `json:",omitzero"`
	// RetryAfter goes with Code, in seconds.
	RetryAfter int `json:",omitzero"`
	// SwallowBookmarks leaves out bookmarks, also the one that ends the initial state.
	SwallowBookmarks bool `json:",omitzero"`
}

// A Line is what all requests of one informer go through. Its zero value has no fault.
type Line struct {
	mu      sync.Mutex
	fault   Fault
	healed  chan struct{} // closed when the line is not silent any more
	expired bool          // the next watch that resumes gets 410
	watches map[*frames]bool
}

// Break makes a fault begin, or with the zero Fault end.
func (l *Line) Break(fault Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault.Silent && !fault.Silent {
		close(l.healed)
	}
	if !l.fault.Silent && fault.Silent {
		l.healed = make(chan struct{})
	}
	l.fault = fault
}

// EndWatches ends the open watches: as a server does whose time is up, or with a reset of their streams.
func (l *Line) EndWatches(reset bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.watches {
		err := io.EOF
		if reset {
			err = errReset
		}
		_ = w.to.CloseWithError(err)
	}
}

// Expire makes the next watch that resumes get 410, as if the server had forgotten the events since its
// resourceVersion.
func (l *Line) Expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expired = true
}

// Wrap returns a transport whose requests go through the line.
func (l *Line) Wrap(next http.RoundTripper) http.RoundTripper { return transport{l, next} }

type transport struct {
	*Line
	next http.RoundTripper
}

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.now().Refuse {
		return nil, fmt.Errorf("dial tcp: connect: %w", syscall.ECONNREFUSED)
	}
	if err := t.wait(r.Context()); err != nil {
		return nil, err
	}
	if fault := t.now(); fault.Code != 0 {
		return fault.answer(r), nil
	}
	query := r.URL.Query()
	watches, _ := strconv.ParseBool(query.Get("watch"))
	version := query.Get("resourceVersion")
	resumes := watches && query.Get("sendInitialEvents") == "" && version != "" && version != "0"
	if t.expires(resumes) {
		return gone(r, version), nil
	}
	response, err := t.next.RoundTrip(r)
	if err == nil && watches && response.StatusCode == http.StatusOK {
		response.Body = t.follow(r.Context(), response.Body)
	}
	return response, err
}

func (l *Line) now() Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault
}

// wait blocks while the line is silent.
func (l *Line) wait(ctx context.Context) error {
	l.mu.Lock()
	silent, healed := l.fault.Silent, l.healed
	l.mu.Unlock()
	if !silent {
		return nil
	}
	select {
	case <-healed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// expires reports whether a request gets 410. One that takes the whole state again does not.
func (l *Line) expires(resumes bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	expired := l.expired
	l.expired = false
	return expired && resumes
}

// frames is the body of a watch.
type frames struct {
	*io.PipeReader
	to     *io.PipeWriter
	cancel context.CancelFunc
}

// follow returns a body that has the frames of another one, as long as the line lets them through.
func (l *Line) follow(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	ctx, cancel := context.WithCancel(ctx)
	from, to := io.Pipe()
	w := &frames{from, to, cancel}
	l.mu.Lock()
	if l.watches == nil {
		l.watches = map[*frames]bool{}
	}
	l.watches[w] = true
	l.mu.Unlock()
	go func() {
		defer func() {
			_ = body.Close()
			l.mu.Lock()
			delete(l.watches, w)
			l.mu.Unlock()
		}()
		for lines := bufio.NewReader(body); ; {
			line, err := lines.ReadString('\n')
			bookmark := strings.HasPrefix(line, `{"type":"BOOKMARK"`)
			if l.wait(ctx) == nil && (!bookmark || !l.now().SwallowBookmarks) {
				_, _ = io.WriteString(to, line)
			}
			if err != nil {
				_ = to.CloseWithError(err)
				return
			}
		}
	}()
	context.AfterFunc(ctx, func() { _ = body.Close() })
	return w
}

func (w *frames) Close() error {
	w.cancel()
	return w.PipeReader.Close()
}

// answer is that of a server with this fault.
func (f Fault) answer(r *http.Request) *http.Response {
	resource := corev1.Resource("pods")
	var err *apierrors.StatusError
	switch f.Code {
	case http.StatusUnauthorized:
		err = apierrors.NewUnauthorized("Unauthorized")
	case http.StatusForbidden:
		err = apierrors.NewForbidden(resource, "", errDenied)
	case http.StatusTooManyRequests:
		err = apierrors.NewTooManyRequests("the server has received too many requests and has asked us to try again later", f.RetryAfter)
	default:
		err = apierrors.NewGenericServerResponse(f.Code, "", resource, "", "", f.RetryAfter, true)
	}
	response := answer(r, f.Code, status(err))
	if f.RetryAfter > 0 {
		response.Header.Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	return response
}

// gone is a watch whose only event says that it cannot start from a version.
func gone(r *http.Request, version string) *http.Response {
	err := apierrors.NewResourceExpired("too old resource version: " + version)
	return answer(r, http.StatusOK, map[string]any{"type": watch.Error, "object": status(err)})
}

func status(err *apierrors.StatusError) metav1.Status {
	s := err.Status()
	s.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return s
}

func answer(r *http.Request, code int, body any) *http.Response {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // all types can be written
	}
	return &http.Response{
		Status: http.StatusText(code), StatusCode: code, Proto: "HTTP/2.0", ProtoMajor: 2, Request: r, ContentLength: -1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(text) + "\n")),
	}
}

// errDenied reads as the real one, which begins with a kind.
var errDenied = errors.New(`User "jane" cannot list resource "pods" in API group "" at the cluster scope`) //nolint:staticcheck // the API's words

// errReset is a stream that ended without an answer, as HTTP/2 reports it.
var errReset = errors.New("stream error: stream ID 1; INTERNAL_ERROR; received from peer")
