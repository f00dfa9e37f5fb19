package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// A Fault is what is wrong with the server until the next call of Break. With the zero value, all is well.
type Fault struct {
	// Refuse refuses connections. A handler has none, so over HTTP stop the listener instead.
	Refuse bool
	// Silent accepts requests and does not answer; open watches deliver nothing.
	Silent bool
	// Code is the status of every answer: 401, 403, 429, 500 or 503.
	Code int
	// RetryAfter goes with Code, in seconds.
	RetryAfter int
	// SwallowBookmarks leaves out bookmarks, also the one that ends the initial state.
	SwallowBookmarks bool
}

type faults struct {
	mu      sync.Mutex
	fault   Fault
	healed  chan struct{} // closed when the server is not silent any more
	watches chan struct{} // closed when the current watches have to end
	reset   bool          // how they end
}

// Break makes a fault begin, or with the zero Fault end.
func (s *Server) Break(fault Fault) {
	f := &s.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault.Silent && !fault.Silent {
		close(f.healed)
	}
	if !f.fault.Silent && fault.Silent {
		f.healed = make(chan struct{})
	}
	f.fault = fault
}

// EndWatches ends the current watches: as a server does whose time is up, or with a reset of their
// streams.
func (s *Server) EndWatches(reset bool) {
	f := &s.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reset = reset
	if f.watches != nil {
		close(f.watches)
		f.watches = nil
	}
}

// Expire forgets past writes: a watch that starts before now gets 410 Expired.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = nil
}

func (f *faults) now() Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fault
}

// refuse is the error of a connection that is refused, as net reports it.
func (f *faults) refuse() error {
	if f.now().Refuse {
		return fmt.Errorf("dial tcp: connect: %w", syscall.ECONNREFUSED)
	}
	return nil
}

// answer waits while the server is silent, and returns the error that it answers with.
func (f *faults) answer(ctx context.Context) error {
	if err := f.wait(ctx); err != nil {
		return err
	}
	resource, fault := corev1.Resource("pods"), f.now()
	switch fault.Code {
	case 0:
		return nil
	case http.StatusUnauthorized:
		return apierrors.NewUnauthorized("Unauthorized")
	case http.StatusForbidden:
		return apierrors.NewForbidden(resource, "", errDenied)
	case http.StatusTooManyRequests:
		return apierrors.NewTooManyRequests("the server has received too many requests and has asked us to try again later", fault.RetryAfter)
	}
	return apierrors.NewGenericServerResponse(fault.Code, "", resource, "", "", fault.RetryAfter, true)
}

// wait blocks while the server is silent.
func (f *faults) wait(ctx context.Context) error {
	f.mu.Lock()
	silent, healed := f.fault.Silent, f.healed
	f.mu.Unlock()
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

// opened returns a channel that is closed when a watch that opens now has to end.
func (f *faults) opened() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watches == nil {
		f.watches = make(chan struct{})
	}
	return f.watches
}

// resets reports whether the watches were ended by a reset.
func (f *faults) resets() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reset
}

// errDenied reads as the real one, which begins with a kind.
var errDenied = errors.New(`User "jane" cannot list resource "pods" in API group "" at the cluster scope`) //nolint:staticcheck // the API's words

// errReset is a stream that ended without an answer, as HTTP/2 reports it.
var errReset = errors.New("stream error: stream ID 1; INTERNAL_ERROR; received from peer")
