package server

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// An HTTP is the transport to an API server that has pods. It answers a get, a list, and a watch
// with whole pods or with their metadata only, as the client asks, and it knows selectors.
type HTTP struct {
	mu       sync.Mutex
	version  int
	pods     []*corev1.Pod
	watches  []*watching
	requests []string
}

// watching is the body of the answer to a watch. It ends when the client cancels the request.
type watching struct {
	request *http.Request
	events  chan []byte
	unread  []byte // of the event that Read has begun
}

// NewHTTP returns a transport to a server that has these pods.
func NewHTTP(pods ...*corev1.Pod) *HTTP { return &HTTP{version: 100, pods: pods} }

// Requests returns method and URL of each request.
func (s *HTTP) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Put writes a pod, and sends it to the watches.
func (s *HTTP) Put(pod *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	pod.ResourceVersion = strconv.Itoa(s.version)
	var old *corev1.Pod
	if i := slices.IndexFunc(s.pods, func(p *corev1.Pod) bool { return p.Name == pod.Name }); i >= 0 {
		old = s.pods[i]
		s.pods = slices.Delete(s.pods, i, i+1)
	}
	s.pods = append(s.pods, pod)
	for _, w := range s.watches {
		before, now := old != nil && selected(w.request, old), selected(w.request, pod)
		switch {
		case before && now:
			w.send(watch.Modified, pod)
		case before: // it is no longer selected, so this client gets a delete
			w.send(watch.Deleted, pod)
		case now:
			w.send(watch.Added, pod)
		}
	}
}

// RoundTrip answers a request.
func (s *HTTP) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.Method+" "+r.URL.String())
	var found []*corev1.Pod
	for _, pod := range s.pods {
		if path.Base(r.URL.Path) == pod.Name || path.Base(r.URL.Path) == "pods" && selected(r, pod) {
			found = append(found, pod)
		}
	}
	switch {
	case r.URL.Query().Get("watch") != "":
		w := &watching{request: r, events: make(chan []byte, 100)}
		if r.URL.Query().Get("sendInitialEvents") == "true" {
			for _, pod := range found {
				w.send(watch.Added, pod)
			}
			w.send(watch.Bookmark, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				ResourceVersion: strconv.Itoa(s.version), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
			}})
		}
		s.watches = append(s.watches, w)
		return response(r, http.StatusOK, io.NopCloser(w)), nil
	case path.Base(r.URL.Path) == "pods":
		items := []any{}
		for _, pod := range found {
			items = append(items, view(r, pod))
		}
		kind, version := "PodList", "v1"
		if onlyMetadata(r) {
			kind, version = "PartialObjectMetadataList", metav1.SchemeGroupVersion.String()
		}
		return answer(r, http.StatusOK, map[string]any{
			"kind": kind, "apiVersion": version, "items": items,
			"metadata": map[string]any{"resourceVersion": strconv.Itoa(s.version)},
		}), nil
	case len(found) == 1:
		return answer(r, http.StatusOK, view(r, found[0])), nil
	}
	return answer(r, http.StatusNotFound, apierrors.NewNotFound(corev1.Resource("pods"), path.Base(r.URL.Path)).ErrStatus), nil
}

// selected says whether the selectors of a request select a pod.
func selected(r *http.Request, pod *corev1.Pod) bool {
	query := r.URL.Query()
	field, err := fields.ParseSelector(query.Get("fieldSelector"))
	label, labelErr := labels.Parse(query.Get("labelSelector"))
	return err == nil && labelErr == nil && label.Matches(labels.Set(pod.Labels)) && field.Matches(fields.Set{
		"metadata.name": pod.Name, "metadata.namespace": pod.Namespace,
		"spec.nodeName": pod.Spec.NodeName, "status.phase": string(pod.Status.Phase),
	})
}

func onlyMetadata(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")
}

// view returns what a client gets of a pod.
func view(r *http.Request, pod *corev1.Pod) runtime.Object {
	if onlyMetadata(r) {
		return &metav1.PartialObjectMetadata{
			TypeMeta:   metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: metav1.SchemeGroupVersion.String()},
			ObjectMeta: pod.ObjectMeta,
		}
	}
	pod = pod.DeepCopy()
	pod.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
	return pod
}

func answer(r *http.Request, code int, body any) *http.Response {
	return response(r, code, io.NopCloser(bytes.NewReader(encode(body))))
}

func response(r *http.Request, code int, body io.ReadCloser) *http.Response {
	return &http.Response{
		Request: r, StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: body,
	}
}

func encode(object any) []byte {
	data, err := json.Marshal(object)
	if err != nil {
		panic(err) // these types can all be encoded
	}
	return data
}

func (w *watching) send(kind watch.EventType, pod *corev1.Pod) {
	w.events <- encode(map[string]any{"type": kind, "object": view(w.request, pod)})
}

// Read waits for the next event.
func (w *watching) Read(p []byte) (int, error) {
	if len(w.unread) == 0 {
		select {
		case w.unread = <-w.events:
		case <-w.request.Context().Done():
			return 0, w.request.Context().Err()
		}
	}
	n := copy(p, w.unread)
	w.unread = w.unread[n:]
	return n, nil
}
