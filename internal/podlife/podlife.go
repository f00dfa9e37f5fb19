// Package podlife records the life of a pod: every write, the client that made it, what it
// changed, and the handler call that followed.
package podlife

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"example.com/informers/internal/provider"
)

const (
	// Namespace is the namespace for which the audit log has the bodies of writes (cluster/audit.yaml).
	Namespace = "recorded"
	// User is the user agent of the client that creates and deletes the pod.
	User = "user"
)

// A Life is everything that was written to a pod, from its create until it was gone.
type Life struct {
	Writes []Write
	Calls  []Call // of handlers
}

// A Write created one version of the pod.
type Write struct {
	Old, New *corev1.Pod // Old is nil for the create; for the removal New is the last state
	Removed  bool

	Request  provider.Request
	Named    bool                        // the answer has this resourceVersion; otherwise it is inferred
	Managers []metav1.ManagedFieldsEntry // the entries that the write added or changed
	Changes  []Change
}

// A Call is a call of a handler.
type Call struct {
	Kind     string // "Add", "Update" or "Delete"
	Old, New string // resourceVersions; "" if there is none
	At       time.Time
}

// Component returns the client that made the write: the first word of its user agent.
func (w *Write) Component() string {
	component, _, _ := strings.Cut(w.Request.UserAgent, "/")
	return component
}

// Verb returns the verb and the resource of the request, such as "patch pods/status".
func (w *Write) Verb() string {
	resource := "pods"
	if w.Request.Subresource != "" {
		resource += "/" + w.Request.Subresource
	}
	return w.Request.Verb + " " + resource
}

// Live creates an nginx pod, waits until it is ready, deletes it, and waits until
// it is gone. Any number of pods may live at the same time.
func Live(ctx context.Context, c *provider.Cluster) (*Life, error) {
	config, err := c.Config()
	if err != nil {
		return nil, err
	}
	config.UserAgent = User
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	if err := Prepare(ctx, client, Namespace); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	calls, err := handle(ctx, client)
	if err != nil {
		return nil, err
	}
	versions, err := act(ctx, client, c.Nginx)
	if err != nil {
		return nil, err
	}
	life := &Life{}
	last := versions[len(versions)-1]
	if life.Calls, err = callsFor(ctx, last.Name, calls); err != nil {
		return nil, err
	}
	for i := range versions {
		w := Write{New: versions[i], Removed: i == len(versions)-1}
		if i > 0 {
			w.Old = versions[i-1]
		}
		if w.Changes, err = diff(w.Old, w.New); err != nil {
			return nil, err
		}
		w.Managers = changedManagers(w.Old, w.New)
		life.Writes = append(life.Writes, w)
	}
	return life, life.awaitJoin(ctx, c)
}

// Prepare creates a namespace, unless there is one of this name, and waits until pods can be
// created in it: the API server rejects them until there is the service account default.
func Prepare(ctx context.Context, client kubernetes.Interface, namespace string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	_, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	options := metav1.SingleObject(metav1.ObjectMeta{Name: "default"})
	w, err := client.CoreV1().ServiceAccounts(namespace).Watch(ctx, options)
	if err != nil {
		return err
	}
	defer w.Stop()
	if _, ok := <-w.ResultChan(); !ok {
		return fmt.Errorf("namespace %s has no service account default", namespace)
	}
	return nil
}

// act creates and deletes the pod. It returns the versions that a separate watch of the
// pod shows; the last one is that of the removal.
func act(ctx context.Context, client kubernetes.Interface, image string) ([]*corev1.Pod, error) {
	pods := client.CoreV1().Pods(Namespace)
	pod, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "nginx-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "nginx", Image: image}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	w, err := pods.Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector("metadata.name", pod.Name).String(),
		ResourceVersion: pod.ResourceVersion, // everything after the create
	})
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	versions := []*corev1.Pod{pod}
	deleted := false
	for event := range w.ResultChan() {
		now, ok := event.Object.(*corev1.Pod)
		if !ok {
			return nil, apierrors.FromObject(event.Object)
		}
		versions = append(versions, now)
		switch {
		case event.Type == watch.Deleted:
			return versions, nil
		case Ready(now) && !deleted:
			if err := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
				return nil, err
			}
			deleted = true
		}
	}
	return nil, fmt.Errorf("the watch of pod %s ended before the pod: %w", pod.Name, ctx.Err())
}

// Ready reports whether a pod is ready.
func Ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// A podCall is a handler's call for the pod of a name.
type podCall struct {
	pod string
	Call
}

// handle starts an informer, and sends the calls of its handler.
func handle(ctx context.Context, client kubernetes.Interface) (<-chan podCall, error) {
	calls := make(chan podCall, 1000) // more than there are while a pod lives
	called := func(kind, pod, old, now string) { calls <- podCall{pod, Call{kind, old, now, time.Now()}} }
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(Namespace))
	pods := factory.Core().V1().Pods().TypedInformer()
	handler, err := pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
		AddFunc: func(pod *corev1.Pod) {
			called("Add", pod.Name, "", pod.ResourceVersion)
		},
		UpdateFunc: func(old, pod *corev1.Pod) {
			called("Update", pod.Name, old.ResourceVersion, pod.ResourceVersion)
		},
		DeleteFunc: func(deleted corev1informers.DeletedPod) {
			now := "" // a tombstone has a stale version
			if deleted.FinalStateUnknown == nil {
				now = deleted.OptionalObj.ResourceVersion
			}
			called("Delete", deleted.GetName(), "", now)
		},
	})
	if err != nil {
		return nil, err
	}
	factory.StartWithContext(ctx)
	if !cache.WaitFor(ctx, "", handler.HasSyncedChecker()) {
		return nil, fmt.Errorf("the handler is not synced: %w", ctx.Err())
	}
	return calls, nil
}

// callsFor returns the calls for a pod, up to its Delete.
func callsFor(ctx context.Context, pod string, calls <-chan podCall) (all []Call, err error) {
	for {
		select {
		case call := <-calls:
			if call.pod == pod {
				all = append(all, call.Call)
			}
			if call.pod == pod && call.Kind == "Delete" {
				return all, nil
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("the handler is not told that %s is gone: %w", pod, ctx.Err())
		}
	}
}

// awaitJoin joins the writes with the audit log. A request appears in the log a moment
// after it was answered.
func (l *Life) awaitJoin(ctx context.Context, c *provider.Cluster) error {
	missing := errors.New("no audit log was read")
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 30*time.Second, true,
		func(ctx context.Context) (bool, error) {
			all, err := c.Audit(ctx)
			if err != nil {
				return false, err
			}
			missing = l.join(all)
			return missing == nil, nil
		})
	if wait.Interrupted(err) {
		return fmt.Errorf("%w: %w", err, missing)
	}
	return err
}

// join finds the request of each write: the first request whose answer has the
// resourceVersion of the write. A later one with the same version changed nothing. No
// answer has the resourceVersions of two writes:
//
//   - the binding, which is answered with a Status,
//   - the first of the two writes of the last delete: it sets
//     deletionGracePeriodSeconds to 0, and then removes the pod.
func (l *Life) join(requests []provider.Request) error {
	pod := l.Writes[0].New
	byVersion := map[string]provider.Request{}
	var binding, lastDelete provider.Request
	for _, r := range requests {
		var answer struct{ Metadata metav1.ObjectMeta }
		_ = json.Unmarshal([]byte(r.Answer), &answer) // the request of others may have no answer
		// In a create the pod has no name yet: the API server generates it.
		if r.Code >= 300 || r.Namespace != pod.Namespace || pod.Name != cmp.Or(r.Name, answer.Metadata.Name) {
			continue
		}
		switch r.Verb {
		case "delete":
			lastDelete = r
		case "create", "update", "patch":
			if r.Subresource == "binding" {
				binding = r
			}
		default:
			continue
		}
		if _, ok := byVersion[answer.Metadata.ResourceVersion]; !ok {
			byVersion[answer.Metadata.ResourceVersion] = r
		}
	}
	for i := range l.Writes {
		w := &l.Writes[i]
		w.Request, w.Named = byVersion[w.New.ResourceVersion]
		switch {
		case w.Named:
		case w.Binds():
			w.Request = binding
		case w.EndsGrace():
			w.Request = lastDelete
		}
		if w.Request.Verb == "" {
			return fmt.Errorf("no request for resourceVersion %s", w.New.ResourceVersion)
		}
	}
	return nil
}

// Binds reports whether the write assigned the pod to its node.
func (w *Write) Binds() bool {
	return w.Old != nil && w.Old.Spec.NodeName == "" && w.New.Spec.NodeName != ""
}

// EndsGrace reports whether the write set the grace period to 0.
func (w *Write) EndsGrace() bool {
	grace := w.New.DeletionGracePeriodSeconds
	return !w.Removed && grace != nil && *grace == 0
}

// changedManagers returns the entries of managedFields that the old version does not have.
func changedManagers(old, now *corev1.Pod) (changed []metav1.ManagedFieldsEntry) {
	if old == nil {
		return now.ManagedFields
	}
	for _, entry := range now.ManagedFields {
		if !slices.ContainsFunc(old.ManagedFields, func(b metav1.ManagedFieldsEntry) bool {
			return equality.Semantic.DeepEqual(b, entry)
		}) {
			changed = append(changed, entry)
		}
	}
	return changed
}
