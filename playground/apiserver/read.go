package apiserver

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
)

// bookmarkEvery is the period of a watch's bookmarks: the API server's bookmarkFrequency
// (apiserver v0.37.2, pkg/storage/cacher/cacher.go).
const bookmarkEvery = time.Minute

// A selection is what a list or a watch asks for.
type selection struct {
	namespace string
	labels    labels.Selector
	fields    fields.Selector
}

func selectionOf(query url.Values, namespace string) (sel selection, err error) {
	sel.namespace = namespace
	if sel.labels, err = labels.Parse(query.Get("labelSelector")); err != nil {
		return sel, apierrors.NewBadRequest(err.Error())
	}
	if sel.fields, err = fields.ParseSelector(query.Get("fieldSelector")); err != nil {
		return sel, apierrors.NewBadRequest(err.Error())
	}
	for _, r := range sel.fields.Requirements() {
		if !podFields(&corev1.Pod{}).Has(r.Field) {
			return sel, apierrors.NewBadRequest("field label not supported: " + r.Field)
		}
	}
	return sel, nil
}

// podFields are those that a field selector can name (kubernetes v1.37.2, pkg/apis/core/v1/conversion.go).
func podFields(pod *corev1.Pod) fields.Set {
	return fields.Set{
		"metadata.name":            pod.Name,
		"metadata.namespace":       pod.Namespace,
		"spec.nodeName":            pod.Spec.NodeName,
		"spec.restartPolicy":       string(pod.Spec.RestartPolicy),
		"spec.schedulerName":       pod.Spec.SchedulerName,
		"spec.serviceAccountName":  pod.Spec.ServiceAccountName,
		"spec.hostNetwork":         strconv.FormatBool(pod.Spec.HostNetwork),
		"status.phase":             string(pod.Status.Phase),
		"status.podIP":             pod.Status.PodIP,
		"status.podIPs":            pod.Status.PodIP,
		"status.nominatedNodeName": pod.Status.NominatedNodeName,
	}
}

func (sel selection) has(pod *corev1.Pod) bool {
	return pod != nil && (sel.namespace == "" || pod.Namespace == sel.namespace) &&
		sel.labels.Matches(labels.Set(pod.Labels)) && sel.fields.Matches(podFields(pod))
}

// A token is what continue holds: the version of the first page, and the last pod so far.
type token struct {
	Version uint64 `json:"rv"`
	Start   string `json:"start"`
}

func (s *Server) list(query url.Values, namespace string) (any, error) {
	sel, err := selectionOf(query, namespace)
	if err != nil {
		return nil, err
	}
	var problems field.ErrorList
	if query.Get("resourceVersionMatch") != "" && query.Get("resourceVersion") == "" {
		problems = append(problems, field.Forbidden(field.NewPath("resourceVersionMatch"),
			"resourceVersionMatch is forbidden unless resourceVersion is provided"))
	}
	if query.Get("sendInitialEvents") != "" {
		problems = append(problems, field.Forbidden(field.NewPath("sendInitialEvents"), "sendInitialEvents is forbidden for list"))
	}
	if len(problems) > 0 {
		return nil, invalidOptions(problems...)
	}
	limit, _ := strconv.Atoi(query.Get("limit"))
	asked, err := versionOf(query)
	if err != nil {
		return nil, apierrors.NewBadRequest("invalid resource version: " + err.Error())
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if asked > s.version {
		return nil, tooLarge(asked, s.version)
	}
	from := token{Version: s.version}
	if query.Get("resourceVersionMatch") == string(metav1.ResourceVersionMatchExact) {
		from.Version = asked
	}
	if text := query.Get("continue"); text != "" {
		data, err := base64.RawURLEncoding.DecodeString(text)
		if err == nil {
			err = json.Unmarshal(data, &from)
		}
		if err != nil {
			return nil, apierrors.NewBadRequest("invalid continue token: continue key is not valid: " + err.Error())
		}
	}
	pods, err := s.at(from.Version)
	if err != nil {
		return nil, err
	}
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	list.ResourceVersion = strconv.FormatUint(from.Version, 10)
	rest := int64(0)
	for _, pod := range pods {
		name := pod.Namespace + "/" + pod.Name
		switch {
		case name <= from.Start || !sel.has(pod):
		case limit > 0 && len(list.Items) == limit:
			rest++
		default:
			list.Items = append(list.Items, *pod) // in a list, pods have no kind
		}
	}
	if rest > 0 {
		last := list.Items[limit-1]
		data, err := json.Marshal(token{from.Version, last.Namespace + "/" + last.Name})
		if err != nil {
			return nil, err
		}
		list.Continue = base64.RawURLEncoding.EncodeToString(data)
		if sel.labels.Empty() && sel.fields.Empty() {
			list.RemainingItemCount = &rest
		}
	}
	return list, nil
}

// at returns the pods as of a version. It needs the lock.
func (s *Server) at(version uint64) ([]*corev1.Pod, error) {
	if version < s.version-uint64(len(s.log)) {
		return nil, apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. " +
			"You can start a new list without the continue parameter.")
	}
	pods := maps.Clone(s.pods)
	for i := len(s.log) - 1; i >= 0 && s.log[i].version > version; i-- {
		w := s.log[i]
		if w.old != nil {
			pods[key{Namespace: w.old.Namespace, Name: w.old.Name}] = w.old
		} else {
			delete(pods, key{Namespace: w.now.Namespace, Name: w.now.Name})
		}
	}
	return sorted(pods), nil
}

// versionOf reads the parameter resourceVersion; 0 stands for "" and for "0".
func versionOf(query url.Values) (uint64, error) {
	text := query.Get("resourceVersion")
	if text == "" {
		return 0, nil
	}
	version, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resourceVersion: Invalid value: %q: %w", text, err)
	}
	return version, nil
}

func tooLarge(asked, current uint64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", asked, current), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return err
}

func invalidOptions(problems ...*field.Error) error {
	return apierrors.NewInvalid(metav1.SchemeGroupVersion.WithKind("ListOptions").GroupKind(), "", problems)
}

func (s *Server) watch(w http.ResponseWriter, r *http.Request, namespace string) {
	query := r.URL.Query()
	sel, err := selectionOf(query, namespace)
	asked, versionErr := versionOf(query)
	initial := query.Get("sendInitialEvents") == "true"
	bookmarks := query.Get("allowWatchBookmarks") == "true"
	match, matches := field.NewPath("resourceVersionMatch"), query.Get("resourceVersionMatch")
	switch {
	case err != nil:
	case versionErr != nil:
		err = versionErr
	case initial && matches == "":
		err = invalidOptions(field.Forbidden(match, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
	case !initial && matches != "":
		err = invalidOptions(field.Forbidden(match, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"))
	}
	if err != nil {
		s.answer(w, 0)(nil, err)
		return
	}
	var end <-chan time.Time
	if seconds, _ := strconv.Atoi(query.Get("timeoutSeconds")); seconds > 0 {
		timer := time.NewTimer(time.Duration(seconds) * time.Second)
		defer timer.Stop()
		end = timer.C
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w).Flush
	send := func(kind watch.EventType, object any) {
		raw, err := json.Marshal(object)
		if err == nil {
			_, _ = fmt.Fprintf(w, "{\"type\":%q,\"object\":%s}\n", kind, raw)
		}
	}
	bookmark := func(version uint64, ends bool) {
		// As the real one: an object of the kind with a resourceVersion, and nothing else.
		mark := &corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}}
		mark.ResourceVersion = strconv.FormatUint(version, 10)
		if ends {
			mark.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
		}
		if bookmarks {
			send(watch.Bookmark, mark)
		}
	}

	s.mu.Lock()
	seen := asked
	var first []*corev1.Pod
	if initial || asked == 0 {
		first, seen = sorted(s.pods), s.version
	}
	s.mu.Unlock()
	for _, pod := range first {
		if sel.has(pod) {
			send(watch.Added, typed(pod))
		}
	}
	if initial {
		bookmark(seen, true)
	}
	_ = flush()

	ticker := time.NewTicker(bookmarkEvery)
	defer ticker.Stop()
	for {
		s.mu.Lock()
		oldest := s.version - uint64(len(s.log))
		i := len(s.log)
		for i > 0 && s.log[i-1].version > seen {
			i--
		}
		news := slices.Clone(s.log[i:]) // the window moves on
		changed := s.changed
		s.mu.Unlock()
		if seen < oldest {
			send(watch.Error, statusOf(apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", seen, oldest+1))))
			return
		}
		if len(news) > 0 {
			time.Sleep(s.Lag)
		}
		for _, n := range news {
			seen = n.version
			switch had, has := sel.has(n.old), sel.has(n.now); {
			case has && had:
				send(watch.Modified, typed(n.now))
			case has:
				send(watch.Added, typed(n.now))
			case had && n.last != nil:
				send(watch.Deleted, typed(n.last))
			case had: // it left the selector: as it was, with the version that left
				left := typed(n.old)
				left.ResourceVersion = strconv.FormatUint(n.version, 10)
				send(watch.Deleted, left)
			}
		}
		if len(news) > 0 {
			_ = flush()
			continue
		}
		select {
		case <-changed:
		case <-ticker.C:
			bookmark(seen, false)
			_ = flush()
		case <-end:
			return
		case <-r.Context().Done():
			return
		}
	}
}
