// Package apiserver is an API server for pods, in memory: lists, watches, and writes.
// It does for pods what the real one does, as far as an informer can tell; TestServerConforms in e2e runs
// the same requests against both, and lists what differs.
//
// A Server is an http.Handler, and an http.RoundTripper for a client in the same process. It needs no
// network and keeps time with the time package, so it runs in testing/synctest and in a browser.
package apiserver

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// Version is the Kubernetes release whose API server this one is compared with.
const Version = "v1.37.2"

// Options say how a Server differs from the default.
type Options struct {
	// Window is how many past writes a watch can start from. An older resourceVersion gets 410 Expired.
	// The default is 1000.
	Window int
	// Namespaces that exist. The default is default alone.
	Namespaces []string
	// Lag is how long after a write the watches get it. A real server needs some milliseconds.
	Lag time.Duration
	// Wrote is called with each write, if it is set: ADDED, MODIFIED or DELETED, and the pod with the
	// version of the write. It must not call the Server.
	Wrote func(kind watch.EventType, pod *corev1.Pod)
}

// A Server keeps pods. Its zero value is not usable: call New.
type Server struct {
	Options

	mu      sync.Mutex
	version uint64              // of the last write
	pods    map[key]*corev1.Pod // never changed once they are here
	log     []write             // the window, oldest first
	changed chan struct{}       // closed at the next write
	uid     int
}

// A key names a pod.
type key = types.NamespacedName

// A write is one change of one pod.
type write struct {
	version  uint64
	old, now *corev1.Pod // old is nil for a create, now is nil for a removal
	last     *corev1.Pod // what a removal reports: the last state, with the version of the removal
}

// New returns a server without pods.
func New(options Options) *Server {
	if options.Window == 0 {
		options.Window = 1000
	}
	if options.Namespaces == nil {
		options.Namespaces = []string{metav1.NamespaceDefault}
	}
	// Other writes came before, as on a real server.
	return &Server{Options: options, version: 100, pods: map[key]*corev1.Pod{}, changed: make(chan struct{})}
}

// ServeHTTP answers requests for pods and their subresources status and binding, and for the version.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/version" {
		s.answer(w, http.StatusOK)(map[string]string{"gitVersion": Version}, nil)
		return
	}
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(path) < 3 || path[0] != "api" || path[1] != "v1" {
		http.NotFound(w, r)
		return
	}
	var at key
	path = path[2:]
	if path[0] == "namespaces" && len(path) > 2 {
		at.Namespace = path[1]
		path = path[2:]
	}
	subresource := ""
	switch {
	case path[0] != "pods" || len(path) > 3:
		http.NotFound(w, r)
		return
	case len(path) == 3:
		subresource = path[2]
		fallthrough
	case len(path) == 2:
		at.Name = path[1]
	}

	query := r.URL.Query()
	switch watching, _ := strconv.ParseBool(query.Get("watch")); {
	case r.Method == http.MethodGet && at.Name == "" && watching:
		s.watch(w, r, at.Namespace)
	case r.Method == http.MethodGet && at.Name == "":
		s.answer(w, http.StatusOK)(s.list(query, at.Namespace))
	case r.Method == http.MethodGet:
		s.answer(w, http.StatusOK)(s.get(at))
	case r.Method == http.MethodPost && at.Name == "":
		s.answer(w, http.StatusCreated)(s.create(r, at.Namespace))
	case r.Method == http.MethodPost && subresource == "binding":
		s.answer(w, http.StatusCreated)(s.bind(r, at))
	case r.Method == http.MethodPut && at.Name != "":
		s.answer(w, http.StatusOK)(s.update(r, at, subresource))
	case r.Method == http.MethodPatch && at.Name != "":
		s.answer(w, http.StatusOK)(s.patch(r, at, subresource))
	case r.Method == http.MethodDelete && at.Name != "" && subresource == "":
		s.answer(w, http.StatusOK)(s.delete(r, at))
	default:
		s.answer(w, 0)(nil, apierrors.NewMethodNotSupported(corev1.Resource("pods"), strings.ToLower(r.Method)))
	}
}

// answer writes an object, or the Status of an error.
func (s *Server) answer(w http.ResponseWriter, code int) func(any, error) {
	return func(object any, err error) {
		if err != nil {
			status := statusOf(err)
			object, code = status, int(status.Code)
			if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
				w.Header().Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
			}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(object)
	}
}

// statusOf is how an error goes over the wire.
func statusOf(err error) *metav1.Status {
	status := metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error()}
	if known, ok := err.(apierrors.APIStatus); ok {
		status = known.Status()
	}
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return &status
}

// Typed is a pod as it stands alone in an answer: with its kind.
func typed(pod *corev1.Pod) *corev1.Pod {
	copied := *pod // the stored one has none, as in a list
	copied.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
	return &copied
}

func (s *Server) get(at key) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pod, err := s.lookup(at)
	if err != nil {
		return nil, err
	}
	return typed(pod), nil
}

// lookup needs the lock.
func (s *Server) lookup(at key) (*corev1.Pod, error) {
	if pod, ok := s.pods[at]; ok {
		return pod, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("pods"), at.Name)
}

// store keeps a new state of a pod under the next version, and wakes the watches. It needs the lock.
func (s *Server) store(pod *corev1.Pod) *corev1.Pod {
	at := key{Namespace: pod.Namespace, Name: pod.Name}
	s.version++
	pod.TypeMeta = metav1.TypeMeta{}
	pod.ResourceVersion = strconv.FormatUint(s.version, 10)
	s.append(write{version: s.version, old: s.pods[at], now: pod})
	s.pods[at] = pod
	return pod
}

// remove takes a pod out. Its last state gets the version of the removal. It needs the lock.
func (s *Server) remove(at key) *corev1.Pod {
	old := s.pods[at]
	s.version++
	last := old.DeepCopy()
	last.ResourceVersion = strconv.FormatUint(s.version, 10)
	delete(s.pods, at)
	s.append(write{version: s.version, old: old, last: last})
	return last
}

func (s *Server) append(w write) {
	s.log = append(s.log, w)
	if len(s.log) > s.Window {
		s.log = slices.Delete(s.log, 0, len(s.log)-s.Window)
	}
	close(s.changed)
	s.changed = make(chan struct{})
	if s.Wrote == nil {
		return
	}
	switch {
	case w.last != nil:
		s.Wrote(watch.Deleted, w.last)
	case w.old == nil:
		s.Wrote(watch.Added, w.now)
	default:
		s.Wrote(watch.Modified, w.now)
	}
}

// sorted returns pods by namespace and name.
func sorted(pods map[key]*corev1.Pod) []*corev1.Pod {
	all := make([]*corev1.Pod, 0, len(pods))
	for _, pod := range pods {
		all = append(all, pod)
	}
	slices.SortFunc(all, func(a, b *corev1.Pod) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return all
}
