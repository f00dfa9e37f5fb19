package apiserver

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var decoder = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		panic(err) // the types are those of this build
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	return serializer.NewCodecFactory(scheme).UniversalDeserializer()
}()

// read decodes what a client sent, as JSON, YAML or protobuf.
func read(r *http.Request, into runtime.Object) error {
	data, err := io.ReadAll(r.Body)
	if err == nil && len(data) > 0 {
		_, _, err = decoder.Decode(data, nil, into)
	}
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

func dryRun(r *http.Request) bool { return r.URL.Query().Get("dryRun") == metav1.DryRunAll }

func (s *Server) create(r *http.Request, namespace string) (any, error) {
	pod := &corev1.Pod{}
	if err := read(r, pod); err != nil {
		return nil, err
	}
	if pod.Namespace != "" && pod.Namespace != namespace {
		return nil, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	pod.Namespace = namespace
	if pod.Name == "" && pod.GenerateName != "" {
		pod.Name = pod.GenerateName + rand.String(5)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.Namespaces, namespace) {
		return nil, apierrors.NewNotFound(corev1.Resource("namespaces"), namespace)
	}
	s.uid++
	pod.UID = types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", s.uid))
	pod.CreationTimestamp = now()
	pod.Generation, pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds, pod.ResourceVersion = 1, nil, nil, ""
	setDefaults(pod)
	if problems := validate(pod); len(problems) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind(), pod.Name, problems)
	}
	if _, ok := s.pods[key{Namespace: namespace, Name: pod.Name}]; ok {
		return nil, apierrors.NewAlreadyExists(corev1.Resource("pods"), pod.Name)
	}
	if !dryRun(r) {
		s.store(pod)
	}
	return typed(pod), nil
}

// now has the precision of the API: seconds.
func now() metav1.Time { return metav1.NewTime(time.Now().UTC().Truncate(time.Second)) }

// setDefaults fills in what the API server and its admission plugins fill in.
func setDefaults(pod *corev1.Pod) {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	spec := &pod.Spec
	set((*string)(&spec.RestartPolicy), string(corev1.RestartPolicyAlways))
	set((*string)(&spec.DNSPolicy), string(corev1.DNSClusterFirst))
	set(&spec.SchedulerName, corev1.DefaultSchedulerName)
	set(&spec.ServiceAccountName, "default")
	spec.DeprecatedServiceAccount = spec.ServiceAccountName
	if spec.TerminationGracePeriodSeconds == nil {
		spec.TerminationGracePeriodSeconds = ptr[int64](30)
	}
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	if spec.EnableServiceLinks == nil {
		spec.EnableServiceLinks = ptr(true)
	}
	spec.Priority, spec.PreemptionPolicy = ptr[int32](0), ptr(corev1.PreemptLowerPriority)
	for _, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		if !slices.ContainsFunc(spec.Tolerations, func(t corev1.Toleration) bool { return t.Key == taint }) {
			spec.Tolerations = append(spec.Tolerations, corev1.Toleration{
				Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr[int64](300),
			})
		}
	}
	for i := range spec.Containers {
		c := &spec.Containers[i]
		set(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
		set((*string)(&c.TerminationMessagePolicy), string(corev1.TerminationMessageReadFile))
		pull := corev1.PullIfNotPresent
		if _, tag, _ := strings.Cut(c.Image[strings.LastIndex(c.Image, "/")+1:], ":"); tag == "" || tag == "latest" {
			pull = corev1.PullAlways
		}
		set((*string)(&c.ImagePullPolicy), string(pull))
	}
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort}
	if len(spec.SchedulingGates) > 0 {
		pod.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, ObservedGeneration: 1,
			Reason: corev1.PodReasonSchedulingGated, Message: "Scheduling is blocked due to non-empty scheduling gates",
		}}
	}
}

func ptr[T any](v T) *T { return &v }

// validate checks what learners get wrong; the real one checks far more.
func validate(pod *corev1.Pod) (all field.ErrorList) {
	meta := field.NewPath("metadata")
	all = validation.ValidateObjectMeta(&pod.ObjectMeta, true, validation.NameIsDNSSubdomain, meta)
	containers := field.NewPath("spec", "containers")
	if len(pod.Spec.Containers) == 0 {
		all = append(all, field.Required(containers, ""))
	}
	for i, c := range pod.Spec.Containers {
		if c.Name == "" {
			all = append(all, field.Required(containers.Index(i).Child("name"), ""))
		}
		if c.Image == "" {
			all = append(all, field.Required(containers.Index(i).Child("image"), ""))
		}
	}
	return all
}

// change replaces a pod by what edit makes of it, if that differs. It needs the lock.
func (s *Server) change(r *http.Request, at key, subresource string, edit func(old *corev1.Pod) (*corev1.Pod, error)) (any, error) {
	if subresource != "" && subresource != "status" {
		return nil, apierrors.NewNotFound(corev1.Resource("pods/"+subresource), at.Name)
	}
	old, err := s.lookup(at)
	if err != nil {
		return nil, err
	}
	pod, err := edit(old.DeepCopy())
	if err != nil {
		return nil, err
	}
	conflict := func(format string, args ...any) error {
		return apierrors.NewConflict(corev1.Resource("pods"), at.Name, fmt.Errorf(format, args...))
	}
	switch {
	case pod.Name != old.Name || pod.Namespace != old.Namespace:
		return nil, apierrors.NewBadRequest(fmt.Sprintf(
			"the name of the object (%s) does not match the name on the URL (%s)", pod.Name, old.Name))
	case pod.UID != "" && pod.UID != old.UID:
		return nil, conflict("Precondition failed: UID in precondition: %s, UID in object meta: %s", pod.UID, old.UID)
	case pod.ResourceVersion != "" && pod.ResourceVersion != old.ResourceVersion:
		return nil, conflict("the object has been modified; please apply your changes to the latest version and try again")
	}
	// What a client cannot set.
	pod.UID, pod.CreationTimestamp, pod.Generation = old.UID, old.CreationTimestamp, old.Generation
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = old.DeletionTimestamp, old.DeletionGracePeriodSeconds
	pod.ResourceVersion, pod.TypeMeta, pod.ManagedFields = old.ResourceVersion, metav1.TypeMeta{}, nil
	if subresource == "status" {
		pod.Spec = old.Spec
		pod.DeletionTimestamp = old.DeletionTimestamp
	} else {
		pod.Status = old.Status
	}
	if problems := append(validate(pod), immutable(old, pod)...); len(problems) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind(), pod.Name, problems)
	}
	if reflect.DeepEqual(normal(old), normal(pod)) || dryRun(r) {
		return typed(pod), nil // nothing is written
	}
	if !reflect.DeepEqual(old.Spec, pod.Spec) {
		pod.Generation++
	}
	if pod.DeletionTimestamp != nil && len(pod.Finalizers) == 0 && *pod.DeletionGracePeriodSeconds == 0 {
		s.remove(at) // the last finalizer is gone; the answer has the version before
		return typed(pod), nil
	}
	return typed(s.store(pod)), nil
}

// normal is a pod as it is stored: empty and missing are the same.
func normal(pod *corev1.Pod) (m map[string]any) {
	data, err := json.Marshal(pod)
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		panic(err) // it came from JSON
	}
	return m
}

// immutable reports a change of the spec other than to an image.
func immutable(old, pod *corev1.Pod) field.ErrorList {
	masked := pod.Spec.DeepCopy()
	for i := range masked.Containers {
		if i < len(old.Spec.Containers) {
			masked.Containers[i].Image = old.Spec.Containers[i].Image
		}
	}
	masked.SchedulingGates = old.Spec.SchedulingGates
	masked.Tolerations = old.Spec.Tolerations
	a, b := normal(&corev1.Pod{Spec: old.Spec}), normal(&corev1.Pod{Spec: *masked})
	if reflect.DeepEqual(a, b) {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec"), "pod updates may not change fields other than "+
		"`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` "+
		"(only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)")}
}

func (s *Server) update(r *http.Request, at key, subresource string) (any, error) {
	sent := &corev1.Pod{}
	if err := read(r, sent); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(r, at, subresource, func(*corev1.Pod) (*corev1.Pod, error) {
		if sent.Namespace == "" {
			sent.Namespace = at.Namespace
		}
		return sent, nil
	})
}

func (s *Server) patch(r *http.Request, at key, subresource string) (any, error) {
	patch, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(r, at, subresource, func(old *corev1.Pod) (*corev1.Pod, error) {
		before, err := json.Marshal(old)
		if err != nil {
			return nil, err
		}
		var after []byte
		switch types.PatchType(kind) {
		case types.MergePatchType:
			after, err = jsonpatch.MergePatch(before, patch)
		case types.StrategicMergePatchType:
			after, err = strategicpatch.StrategicMergePatch(before, patch, corev1.Pod{})
		case types.JSONPatchType:
			var operations jsonpatch.Patch
			if operations, err = jsonpatch.DecodePatch(patch); err == nil {
				after, err = operations.Apply(before)
			}
		default:
			return nil, apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "patch", corev1.Resource("pods"), at.Name,
				"the body of the request was in an unknown format", 0, false)
		}
		pod := &corev1.Pod{}
		if err == nil {
			err = json.Unmarshal(after, pod)
		}
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		return pod, nil
	})
}

// delete marks a pod, and removes it if nothing keeps it: a node that has to stop its containers first,
// or a finalizer.
func (s *Server) delete(r *http.Request, at key) (any, error) {
	options := &metav1.DeleteOptions{}
	data, err := io.ReadAll(r.Body)
	if err == nil && len(data) > 0 {
		err = json.Unmarshal(data, options)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.lookup(at)
	if err != nil {
		return nil, err
	}
	if p := options.Preconditions; p != nil {
		conflict := func(what string, want, have any, cause string) error {
			return apierrors.NewConflict(corev1.Resource("Pod"), at.Name, fmt.Errorf(
				"the %s in the precondition (%v) does not match the %s in record (%v). The object might have been %s",
				what, want, what, have, cause))
		}
		if p.UID != nil && *p.UID != old.UID {
			return nil, conflict("UID", *p.UID, old.UID, "deleted and then recreated")
		}
		if p.ResourceVersion != nil && *p.ResourceVersion != old.ResourceVersion {
			return nil, conflict("ResourceVersion", *p.ResourceVersion, old.ResourceVersion, "modified")
		}
	}
	grace := *old.Spec.TerminationGracePeriodSeconds
	if options.GracePeriodSeconds != nil {
		grace = max(*options.GracePeriodSeconds, 0)
	}
	if old.Spec.NodeName == "" || old.Status.Phase == corev1.PodSucceeded || old.Status.Phase == corev1.PodFailed {
		grace = 0 // no node has to stop anything
	}
	if old.DeletionGracePeriodSeconds != nil && *old.DeletionGracePeriodSeconds < grace {
		grace = *old.DeletionGracePeriodSeconds // it can only get shorter
	}
	pod := old
	if old.DeletionGracePeriodSeconds == nil || *old.DeletionGracePeriodSeconds != grace {
		pod = old.DeepCopy()
		ends := metav1.NewTime(now().Add(time.Duration(grace) * time.Second))
		if old.DeletionTimestamp == nil {
			pod.Generation++
		}
		pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &ends, &grace
		if dryRun(r) {
			return typed(pod), nil
		}
		s.store(pod)
	}
	if dryRun(r) {
		return typed(pod), nil
	}
	if grace == 0 && len(pod.Finalizers) == 0 {
		pod = s.remove(at)
	}
	return typed(pod), nil
}

// bind puts a pod on a node, as the scheduler does.
func (s *Server) bind(r *http.Request, at key) (any, error) {
	binding := &corev1.Binding{}
	if err := read(r, binding); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.lookup(at)
	if err != nil {
		return nil, err
	}
	if old.Spec.NodeName != "" {
		return nil, apierrors.NewConflict(corev1.Resource("pods/binding"), at.Name,
			fmt.Errorf("pod %s is already assigned to node %q", at.Name, old.Spec.NodeName))
	}
	pod := old.DeepCopy()
	pod.Spec.NodeName = binding.Target.Name
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now(),
	})
	s.store(pod)
	return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess, Code: http.StatusCreated}, nil
}
