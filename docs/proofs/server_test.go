// Package proofs holds the tests behind the pages of docs that need no cluster. What needs a
// cluster is proved in e2e.
package proofs

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// A server is an API server for one resource, for what the fake clientset cannot show: relists,
// WatchList, faults. Real clients reach it through their transport, in memory, so that it works
// in a bubble of virtual time. It stores JSON, and so also what a client cannot decode.
type server struct {
	kind schema.GroupVersionKind

	mu       sync.Mutex
	version  int // the newest resourceVersion
	objects  map[string]*unstructured.Unstructured
	events   []event // for a watch that starts at an older version
	streams  map[*stream]bool
	requests []request
	fault    func(request) error
	// unfinished servers do not send the bookmark that ends the initial events.
	unfinished bool
}

type request struct {
	verb string // get, list, watch or delete
	metav1.ListOptions
	at time.Time
}

// initial says whether the request is a WatchList.
func (r request) initial() bool { return r.SendInitialEvents != nil && *r.SendInitialEvents }

// An event of a watch. Without a type it ends the watch.
type event struct {
	Type    watch.EventType `json:"type"`
	Object  any             `json:"object"`
	version int
	end     error
}

// A stream is the answer to a watch.
type stream struct {
	pending []event
	wake    chan struct{}
}

var podKind = corev1.SchemeGroupVersion.WithKind("Pod")

// serve returns a server of pods whose resourceVersion is 100, as if others had been written before.
func serve(pods ...*corev1.Pod) *server {
	s := newServer(podKind)
	s.replace(pods...)
	s.version = 100
	return s
}

func newServer(kind schema.GroupVersionKind) *server {
	return &server{kind: kind, streams: map[*stream]bool{}, objects: map[string]*unstructured.Unstructured{}}
}

// config is that of a client of the server, which does not throttle itself.
func (s *server) config() *rest.Config {
	return &rest.Config{Host: "http://in.memory", Transport: s, QPS: -1}
}

// put creates or updates objects. An object without a resourceVersion gets the next one.
func (s *server) put(objects ...runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, object := range objects {
		u := s.object(object)
		eventType := watch.Added
		if s.objects[u.GetName()] != nil {
			eventType = watch.Modified
		}
		s.objects[u.GetName()] = u
		s.send(eventType, u)
	}
}

// remove deletes an object. The event has the object as it is passed.
func (s *server) remove(object runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.object(object)
	delete(s.objects, u.GetName())
	s.send(watch.Deleted, u)
}

// replace changes what the server has, and no watch shows how.
func (s *server) replace(pods ...*corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.objects)
	for _, pod := range pods {
		u := s.object(pod)
		s.objects[u.GetName()] = u
	}
}

// object converts an object to what the server stores.
func (s *server) object(object runtime.Object) *unstructured.Unstructured {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		panic(err) // the test's own object
	}
	u := &unstructured.Unstructured{Object: maps.Clone(content)}
	u.SetGroupVersionKind(s.kind)
	if u.GetResourceVersion() == "" {
		u.SetResourceVersion(strconv.Itoa(s.version + 1))
	}
	s.version = max(s.version, number(u.GetResourceVersion()))
	return u
}

// number is 0 for what is not a number.
func number(resourceVersion string) int {
	n, _ := strconv.Atoi(resourceVersion)
	return n
}

func (s *server) send(eventType watch.EventType, u *unstructured.Unstructured) {
	e := event{Type: eventType, Object: u.Object, version: number(u.GetResourceVersion())}
	s.events = append(s.events, e)
	s.broadcast(e)
}

func (s *server) broadcast(e event) {
	for st := range s.streams {
		st.add(e)
	}
}

func (st *stream) add(events ...event) {
	st.pending = append(st.pending, events...)
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// bookmark sends a bookmark, which may be the one that ends the initial events.
func (s *server) bookmark(version int, initialEventsEnd bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broadcast(s.newBookmark(version, initialEventsEnd))
}

func (s *server) newBookmark(version int, initialEventsEnd bool) event {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(s.kind)
	u.SetResourceVersion(strconv.Itoa(version))
	if initialEventsEnd {
		u.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return event{Type: watch.Bookmark, Object: u.Object}
}

// expire ends the watches as the API server does when their events are gone: with 410.
func (s *server) expire() { s.abort(gone()) }

// abort sends an error event.
func (s *server) abort(err *apierrors.StatusError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = nil
	s.broadcast(event{Type: watch.Error, Object: status(err.ErrStatus)})
}

// end ends the watches, as the server does with io.EOF, or as a connection does with another error.
func (s *server) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broadcast(event{end: err})
}

// fail answers requests with what fault returns, unless it is nil: with the status of the API, or
// with the error of a connection.
func (s *server) fail(fault func(request) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

func always(err error) func(request) error { return func(request) error { return err } }

func gone() *apierrors.StatusError { return apierrors.NewResourceExpired("too old resource version") }

func forbidden() error {
	return apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("you may not"))
}

func refused() error { return os.NewSyscallError("connect", syscall.ECONNREFUSED) }

// seen returns the requests so far.
func (s *server) seen() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// last returns the newest request.
func (s *server) last() request {
	seen := s.seen()
	return seen[len(seen)-1]
}

// verbs are what was requested, in order.
func (s *server) verbs() (verbs []string) {
	for _, r := range s.seen() {
		verbs = append(verbs, r.verb)
	}
	return verbs
}

// RoundTrip answers a get, list or watch, of any namespace, and accepts each delete.
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	req := request{verb: "list", at: time.Now()}
	query := r.URL.Query()
	if err := metav1.Convert_url_Values_To_v1_ListOptions(&query, &req.ListOptions, nil); err != nil {
		return nil, err
	}
	name := path.Base(r.URL.Path)
	switch {
	case r.Method == http.MethodDelete:
		req.verb = "delete"
	case req.Watch:
		req.verb = "watch"
	case name != strings.ToLower(s.kind.Kind)+"s":
		req.verb = "get"
	}
	s.mu.Lock()
	s.requests = append(s.requests, req)
	fault := s.fault
	s.mu.Unlock()

	if fault != nil {
		if err := fault(req); err != nil {
			return failure(r, err)
		}
	}
	partial := strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")
	s.mu.Lock()
	defer s.mu.Unlock()
	switch req.verb {
	case "delete":
		return success(r, line(status(metav1.Status{Status: metav1.StatusSuccess}))), nil
	case "get":
		return success(r, line(s.objects[name].Object)), nil
	case "list":
		return success(r, line(s.list(partial))), nil
	}
	ctx, cancel := context.WithCancel(r.Context())
	reader, writer := io.Pipe()
	go s.stream(ctx, writer, s.open(req), partial)
	return success(r, body{reader, cancel}), nil
}

// A body stops the server's side when the client closes it.
type body struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b body) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}

func success(r *http.Request, body io.ReadCloser) *http.Response {
	header := http.Header{"Content-Type": {"application/json"}}
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: body, Request: r}
}

func failure(r *http.Request, err error) (*http.Response, error) {
	var answer *apierrors.StatusError
	if !errors.As(err, &answer) {
		return nil, err
	}
	response := success(r, line(status(answer.ErrStatus)))
	if apierrors.IsNotFound(err) { // of a resource that the server does not have
		response.Header.Set("Content-Type", "text/plain")
		response.Body = io.NopCloser(strings.NewReader("404 page not found\n"))
	}
	response.StatusCode = int(answer.ErrStatus.Code)
	return response, nil
}

func (s *server) list(partial bool) map[string]any {
	items := []any{}
	for _, name := range slices.Sorted(maps.Keys(s.objects)) {
		items = append(items, view(s.objects[name].Object, partial))
	}
	kind, version := s.kind.Kind, s.kind.GroupVersion()
	if partial {
		kind, version = "PartialObjectMetadata", metav1.SchemeGroupVersion
	}
	return map[string]any{
		"kind": kind + "List", "apiVersion": version.String(), "items": items,
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(s.version)},
	}
}

// open returns a stream with the events that the watch begins with.
func (s *server) open(req request) *stream {
	st := &stream{wake: make(chan struct{}, 1)}
	s.streams[st] = true
	if !req.initial() {
		for _, e := range s.events {
			if from := number(req.ResourceVersion); from > 0 && e.version > from {
				st.add(e)
			}
		}
		return st
	}
	for _, name := range slices.Sorted(maps.Keys(s.objects)) {
		st.add(event{Type: watch.Added, Object: s.objects[name].Object})
	}
	if !s.unfinished {
		st.add(s.newBookmark(s.version, true))
	}
	return st
}

// stream writes events until one ends the watch, or the client closes it.
func (s *server) stream(ctx context.Context, out *io.PipeWriter, st *stream, partial bool) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.streams, st)
	}()
	for {
		s.mu.Lock()
		pending := st.pending
		st.pending = nil
		s.mu.Unlock()
		for _, e := range pending {
			if e.Type == "" {
				out.CloseWithError(e.end)
				return
			}
			if object, ok := e.Object.(map[string]any); ok {
				e.Object = view(object, partial)
			}
			if _, err := io.Copy(out, line(e)); err != nil {
				return
			}
		}
		select {
		case <-st.wake:
		case <-ctx.Done():
			out.CloseWithError(ctx.Err())
			return
		}
	}
}

// view is an object as a client gets it: whole, or only its metadata.
func view(object map[string]any, partial bool) map[string]any {
	if !partial {
		return object
	}
	return map[string]any{
		"kind": "PartialObjectMetadata", "apiVersion": metav1.SchemeGroupVersion.String(),
		"metadata": object["metadata"],
	}
}

func status(status metav1.Status) *metav1.Status {
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return &status
}

func line(value any) io.ReadCloser {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // the test's own objects
	}
	return io.NopCloser(strings.NewReader(string(text) + "\n"))
}
