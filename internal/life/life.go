// Package life records one pod's life: every write, who made it, what it changed,
// and the call of a handler that it became.
package life

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"example.com/informers/internal/clusters"
)

const (
	// Namespace is the one whose writes the audit log has with bodies (cluster/audit.yaml).
	Namespace = "recorded"
	// User is the user agent of who creates and deletes the pod.
	User = "user"
)

// A Life is what was written to a pod from its create until it was gone.
type Life struct {
	Writes []Write
	Idle   []clusters.Request // requests to write that wrote nothing
	Calls  []Call             // all calls of the handlers for this pod
}

// A Write made one version of the pod.
type Write struct {
	Old, New *corev1.Pod // no Old at the create; at the removal New is the last state
	Removed  bool

	Request clusters.Request
	// Named: the answer in the audit log has this resourceVersion. Without, the
	// request is inferred.
	Named    bool
	Managers []metav1.ManagedFieldsEntry // what the write changed or added in managedFields
	Changes  []Change

	Calls []Call // those with this resourceVersion
}

// A Call is one of a handler.
type Call struct {
	Kind     string // "Add", "Update" or "Delete"
	Old, New string // resourceVersions; "" if there is none
	At       time.Time
}

// Component is who made the write, by its user agent.
func (w *Write) Component() string { return Agent(w.Request) }

// Agent is the first word of a request's user agent.
func Agent(r clusters.Request) string {
	agent, _, _ := strings.Cut(r.UserAgent, "/")
	return agent
}

// Verb is what was asked for, such as "patch pods/status".
func (w *Write) Verb() string {
	resource := "pods"
	if w.Request.Subresource != "" {
		resource += "/" + w.Request.Subresource
	}
	return w.Request.Verb + " " + resource
}

// Live creates an nginx pod, waits until it is ready, deletes it, and waits until
// it is gone. Any number of pods may live at once.
func Live(ctx context.Context, c *clusters.Cluster) (*Life, error) {
	config, err := c.Config()
	if err != nil {
		return nil, err
	}
	config.UserAgent = User
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	if err := prepare(ctx, client); err != nil {
		return nil, fmt.Errorf("namespace %s: %w", Namespace, err)
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
	if life.Calls, err = calls.of(ctx, last); err != nil {
		return nil, err
	}
	for i := range versions {
		w := Write{New: versions[i], Removed: i == len(versions)-1}
		if i > 0 {
			w.Old = versions[i-1]
		}
		if w.Changes, err = Diff(w.Old, w.New); err != nil {
			return nil, err
		}
		w.Managers = changedManagers(w.Old, w.New)
		for _, call := range life.Calls {
			if call.New == w.New.ResourceVersion {
				w.Calls = append(w.Calls, call)
			}
		}
		life.Writes = append(life.Writes, w)
	}
	return life, life.await(ctx, c, last)
}

// prepare makes the namespace, and waits for what a pod needs in it. It stays for
// as long as the cluster.
func prepare(ctx context.Context, client kubernetes.Interface) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}}
	_, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	options := metav1.SingleObject(metav1.ObjectMeta{Name: "default"})
	w, err := client.CoreV1().ServiceAccounts(Namespace).Watch(ctx, options)
	if err != nil {
		return err
	}
	defer w.Stop()
	if _, ok := <-w.ResultChan(); !ok {
		return errors.New("no service account default")
	}
	return nil
}

// act creates and deletes the pod. It returns its versions, the last one that of
// the removal, as a watch of its own says.
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
		ResourceVersion: pod.ResourceVersion, // all that comes after the create
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

// Ready says whether a pod is.
func Ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// calls are those of a handler, by the pod's UID.
type calls struct {
	mu      sync.Mutex
	byName  map[string][]Call
	changed chan struct{}
}

func (c *calls) add(pod *corev1.Pod, call Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	call.At = time.Now()
	c.byName[pod.Name] = append(c.byName[pod.Name], call)
	close(c.changed)
	c.changed = make(chan struct{})
}

// of waits for the Delete of a pod, and returns all its calls.
func (c *calls) of(ctx context.Context, pod *corev1.Pod) ([]Call, error) {
	for {
		c.mu.Lock()
		all, changed := c.byName[pod.Name], c.changed
		c.mu.Unlock()
		if n := len(all); n > 0 && all[n-1].Kind == "Delete" {
			return all, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no handler is called for the delete of %s: %w", pod.Name, ctx.Err())
		}
	}
}

// handle starts an informer and notes how its handlers are called.
func handle(ctx context.Context, client kubernetes.Interface) (*calls, error) {
	c := &calls{byName: map[string][]Call{}, changed: make(chan struct{})}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(Namespace))
	pods := factory.Core().V1().Pods().TypedInformer()
	handler, err := pods.AddTypedEventHandler(corev1informers.PodHandlerFuncs{
		AddFunc: func(pod *corev1.Pod) {
			c.add(pod, Call{Kind: "Add", New: pod.ResourceVersion})
		},
		UpdateFunc: func(old, pod *corev1.Pod) {
			c.add(pod, Call{Kind: "Update", Old: old.ResourceVersion, New: pod.ResourceVersion})
		},
		DeleteFunc: func(deleted corev1informers.DeletedPod) {
			if pod := deleted.OptionalObj; pod != nil {
				c.add(pod, Call{Kind: "Delete", New: pod.ResourceVersion})
			}
		},
	})
	if err != nil {
		return nil, err
	}
	factory.StartWithContext(ctx)
	if !cache.WaitFor(ctx, "", handler.HasSyncedChecker()) {
		return nil, fmt.Errorf("the handler is not synced: %w", ctx.Err())
	}
	return c, nil
}

// await joins the writes with the audit log, which has a request a moment after
// it was answered.
func (l *Life) await(ctx context.Context, c *clusters.Cluster, pod *corev1.Pod) error {
	missing := errors.New("no audit log was read")
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 30*time.Second, true,
		func(ctx context.Context) (bool, error) {
			all, err := c.Audit(ctx)
			if err != nil {
				return false, err
			}
			missing = l.join(slices.DeleteFunc(all, func(r clusters.Request) bool {
				return !of(r, pod)
			}))
			return missing == nil, nil
		})
	if wait.Interrupted(err) {
		return fmt.Errorf("%w: %w", err, missing)
	}
	return err
}

// of says whether a request is to write a pod. The name of a pod that the API server
// names is only in the answer to its create.
func of(r clusters.Request, pod *corev1.Pod) bool {
	writes := slices.Contains([]string{"create", "update", "patch", "delete"}, r.Verb)
	return writes && r.Namespace == pod.Namespace &&
		(r.Name == pod.Name || r.Name == "" && answered(r).Name == pod.Name)
}

// answered is the metadata of the object in an answer.
func answered(r clusters.Request) (meta metav1.ObjectMeta) {
	var object struct{ Metadata metav1.ObjectMeta }
	if json.Unmarshal([]byte(r.Answer), &object) == nil {
		meta = object.Metadata
	}
	return meta
}

// join finds the request of each write. That of a write is the first one that was
// answered with its resourceVersion. Two writes have none:
//
//   - the binding is answered with a Status,
//   - the delete that removes a pod writes twice, deletionGracePeriodSeconds: 0
//     and the removal, and is answered once.
func (l *Life) join(requests []clusters.Request) error {
	l.Idle = nil
	used := map[int]bool{}
	find := func(w *Write, named bool, ok func(r clusters.Request) bool) {
		i := slices.IndexFunc(requests, ok)
		if i >= 0 {
			w.Request, w.Named, used[i] = requests[i], named, true
		}
	}
	for i := range l.Writes {
		w := &l.Writes[i]
		w.Request = clusters.Request{}
		find(w, true, func(r clusters.Request) bool {
			return r.Code < 300 && answered(r).ResourceVersion == w.New.ResourceVersion
		})
		if w.Request.Verb != "" {
			continue
		}
		switch {
		case Bound(w):
			find(w, false, func(r clusters.Request) bool {
				return r.Code < 300 && r.Subresource == "binding"
			})
		case w.Removed || Zero(w):
			last := -1
			for i, r := range requests {
				if r.Code < 300 && r.Verb == "delete" {
					last = i
				}
			}
			find(w, false, func(r clusters.Request) bool { return last >= 0 && r == requests[last] })
		}
		if w.Request.Verb == "" {
			return fmt.Errorf("no request in the audit log for resourceVersion %s", w.New.ResourceVersion)
		}
	}
	for i, r := range requests {
		if !used[i] {
			l.Idle = append(l.Idle, r)
		}
	}
	return nil
}

// Bound says whether a write gave the pod its node.
func Bound(w *Write) bool {
	return w.Old != nil && w.Old.Spec.NodeName == "" && w.New.Spec.NodeName != ""
}

// Zero says whether a write took the pod's last grace.
func Zero(w *Write) bool {
	grace := w.New.DeletionGracePeriodSeconds
	return w.Old != nil && grace != nil && *grace == 0 && !w.Removed
}

// changedManagers are the entries of managedFields that the old version does not have.
func changedManagers(old, now *corev1.Pod) (changed []metav1.ManagedFieldsEntry) {
	var before []metav1.ManagedFieldsEntry
	if old != nil {
		before = old.ManagedFields
	}
	for _, entry := range now.ManagedFields {
		if !slices.ContainsFunc(before, func(b metav1.ManagedFieldsEntry) bool { return same(b, entry) }) {
			changed = append(changed, entry)
		}
	}
	return changed
}

func same(a, b metav1.ManagedFieldsEntry) bool {
	return a.Manager == b.Manager && a.Operation == b.Operation && a.Subresource == b.Subresource &&
		a.Time.Equal(b.Time) && a.FieldsV1.Equal(*b.FieldsV1)
}
