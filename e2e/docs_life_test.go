package e2e

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/e2e-framework/pkg/envconf"
	"sigs.k8s.io/e2e-framework/pkg/features"

	"example.com/informers/internal/podlife"
)

// The proofs of docs/a-pods-life.md. Each has its own pod, whose writes it
// joins with the audit log.

// testLife lets a pod live, and asserts something of its writes.
func testLife(t *testing.T, what string, assert func(*testing.T, *podlife.Life)) {
	t.Helper()
	testPage(t, what, func(t *testing.T, _ string) {
		if cluster.Which == "current" {
			t.Skip("somebody else's cluster shows no audit log")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*timeout)
		defer cancel()
		l, err := podlife.Live(ctx, cluster)
		if err != nil {
			t.Fatal(err)
		}
		for i := range l.Writes {
			w := &l.Writes[i]
			t.Logf("%s %s %s", w.New.ResourceVersion, w.Component(), w.Verb())
		}
		assert(t, l)
	})
}

// testPage asserts something in a separate namespace.
func testPage(t *testing.T, what string, assert func(t *testing.T, ns string)) {
	t.Helper()
	assess := func(ctx context.Context, t *testing.T, cfg *envconf.Config) context.Context {
		assert(t, cfg.Namespace())
		return ctx
	}
	testenv.Test(t, features.New("a pod's life").WithLabel("page", "a-pods-life").
		Assess(what, assess).Feature())
}

// kubelet is who plays it: its user agent, and its user for a node.
func kubelet(node string) (agent, user string) {
	if cluster.Which == "kind" {
		return "kubelet", "system:node:" + node
	}
	return "kwok-controller", "kwok-admin"
}

func TestPodsLifeEachUpdateIsOneWrite(t *testing.T) {
	t.Parallel()
	testLife(t, "each call of the handler is one write", func(t *testing.T, l *podlife.Life) {
		if len(l.Calls) != len(l.Writes) {
			t.Fatalf("%d calls, %d writes", len(l.Calls), len(l.Writes))
		}
		for i, call := range l.Calls {
			w := &l.Writes[i]
			want := podlife.Call{Kind: "Update", New: w.New.ResourceVersion, At: call.At}
			switch {
			case w.Old == nil:
				want.Kind = "Add"
			case w.Removed:
				want.Kind = "Delete"
			default:
				want.Old = w.Old.ResourceVersion
			}
			if call != want {
				t.Errorf("call %d is %+v, want %+v", i, call, want)
			}
		}
	})
}

func TestPodsLifeBeginsWithCreate(t *testing.T) {
	t.Parallel()
	testLife(t, "the user creates", func(t *testing.T, l *podlife.Life) {
		create := &l.Writes[0]
		if create.Component() != podlife.User || create.Verb() != "create pods" || !create.Named {
			t.Errorf("the first write is %+v", create.Request)
		}
		sent := &corev1.Pod{}
		if err := json.Unmarshal([]byte(create.Request.Sent), sent); err != nil {
			t.Fatal(err)
		}
		managed := owned(create.New, podlife.User)
		// Defaults: the user sent none, the audit log says that it did.
		if sent.Spec.DNSPolicy != corev1.DNSClusterFirst || !strings.Contains(managed, `"f:dnsPolicy"`) {
			t.Errorf("dnsPolicy: sent %q, managedFields %s", sent.Spec.DNSPolicy, managed)
		}
		// Admission: in neither.
		if len(sent.Spec.Volumes) != 0 || len(create.New.Spec.Volumes) != 1 ||
			sent.Spec.ServiceAccountName != "" || create.New.Spec.ServiceAccountName != "default" ||
			len(sent.Spec.Tolerations) != 0 || len(create.New.Spec.Tolerations) != 2 {
			t.Errorf("sent %+v, created %+v", sent.Spec, create.New.Spec)
		}
		for _, field := range []string{"f:volumes", "f:serviceAccountName", "f:tolerations"} {
			if strings.Contains(managed, field) {
				t.Errorf("managedFields have %s: %s", field, managed)
			}
		}
	})
}

func TestPodsLifeBindingIsInNoAnswer(t *testing.T) {
	t.Parallel()
	testLife(t, "the scheduler binds", func(t *testing.T, l *podlife.Life) {
		bindings := 0
		for i := range l.Writes {
			w := &l.Writes[i]
			if !w.Binds() {
				continue
			}
			bindings++
			if w.Component() != "kube-scheduler" || w.Verb() != "create pods/binding" {
				t.Errorf("the node is set by %+v", w.Request)
			}
			if w.Named || !strings.Contains(w.Request.Answer, `"kind":"Status"`) {
				t.Errorf("the binding is answered with %s", w.Request.Answer)
			}
			if !conditions(w.New)[corev1.PodScheduled] || len(w.Managers) != 0 {
				t.Errorf("conditions %v, managers %v", w.New.Status.Conditions, w.Managers)
			}
			if strings.Contains(owned(w.New, ""), "f:nodeName") {
				t.Errorf("managedFields have the node: %s", owned(w.New, ""))
			}
		}
		if bindings != 1 {
			t.Errorf("%d bindings", bindings)
		}
	})
}

func TestPodsLifeKubeletWritesStatus(t *testing.T) {
	t.Parallel()
	testLife(t, "the kubelet writes the status until it is ready", func(t *testing.T, l *podlife.Life) {
		writes := 0
		for i := range l.Writes {
			w := &l.Writes[i]
			if w.Old == nil || w.Old.Spec.NodeName == "" || podlife.Ready(w.Old) {
				continue
			}
			if w.New.DeletionTimestamp != nil {
				break
			}
			writes++
			agent, user := kubelet(w.New.Spec.NodeName)
			if w.Component() != agent || w.Request.User != user || w.Verb() != "patch pods/status" {
				t.Errorf("%s is from %+v", w.New.ResourceVersion, w.Request)
			}
			// No precondition: a patch of a stale object does not conflict.
			if !w.Named || strings.Contains(w.Request.Sent, `"resourceVersion"`) {
				t.Errorf("sent %s", w.Request.Sent)
			}
			for _, change := range w.Changes {
				if !strings.HasPrefix(change.Path, "status.") {
					t.Errorf("%s changes %+v", w.New.ResourceVersion, change)
				}
			}
			for _, m := range w.Managers {
				if m.Manager != agent || m.Subresource != "status" {
					t.Errorf("%s is of the manager %+v", w.New.ResourceVersion, m)
				}
			}
		}
		if writes == 0 {
			t.Error("nobody wrote the status")
		}
	})
}

func TestPodsLifeDeleteSetsTimestamp(t *testing.T) {
	t.Parallel()
	testLife(t, "the user's delete only marks", func(t *testing.T, l *podlife.Life) {
		marks := 0
		for i := range l.Writes {
			w := &l.Writes[i]
			if w.Old == nil || w.Old.DeletionTimestamp != nil || w.New.DeletionTimestamp == nil {
				continue
			}
			marks++
			if w.Component() != podlife.User || w.Verb() != "delete pods" || w.Removed || !w.Named {
				t.Errorf("marked by %+v, removed: %t", w.Request, w.Removed)
			}
			if len(w.Managers) != 0 || strings.Contains(owned(w.New, ""), "f:deletionTimestamp") {
				t.Errorf("managedFields: %s", owned(w.New, ""))
			}
			// The moment is the end of the grace.
			grace := time.Duration(*w.New.Spec.TerminationGracePeriodSeconds) * time.Second
			ends := w.New.DeletionTimestamp.Sub(w.Request.Time)
			if ends < grace-time.Second || ends > grace+timeout {
				t.Errorf("the deletionTimestamp is %s after the request, the grace %s", ends, grace)
			}
			if w.New.Generation != w.Old.Generation+1 ||
				w.New.Status.Phase != w.Old.Status.Phase {
				t.Errorf("changes %v", w.Changes)
			}
		}
		if marks != 1 {
			t.Errorf("marked %d times", marks)
		}
	})
}

func TestPodsLifeLastDeleteWritesTwice(t *testing.T) {
	t.Parallel()
	testLife(t, "the kubelet's delete removes", func(t *testing.T, l *podlife.Life) {
		n := len(l.Writes)
		end, gone := &l.Writes[n-2], &l.Writes[n-1]
		if !end.EndsGrace() || !gone.Removed || end.Named || !gone.Named ||
			end.Request != gone.Request {
			t.Fatalf("the last two writes are %+v and %+v", end.Request, gone.Request)
		}
		agent, user := kubelet(gone.New.Spec.NodeName)
		if gone.Component() != agent || gone.Request.User != user || gone.Verb() != "delete pods" ||
			!strings.Contains(gone.Request.Sent, `"gracePeriodSeconds":0`) {
			t.Errorf("the last request is %+v", gone.Request)
		}
		named := strings.Contains(gone.Request.Sent, string(gone.New.UID))
		if named != (agent == "kubelet") {
			t.Errorf("%s sent %s", agent, gone.Request.Sent)
		}
		if len(end.Managers)+len(gone.Managers)+len(gone.Changes) != 0 {
			t.Errorf("managers %v and %v, changes %v", end.Managers, gone.Managers, gone.Changes)
		}
		// It moves to the time of the request: back from the end of the grace, and forward
		// where a container took longer than that.
		moved := end.New.DeletionTimestamp
		update, last := l.Calls[len(l.Calls)-2], l.Calls[len(l.Calls)-1]
		if moved.Time.Before(end.Request.Time.Truncate(time.Second)) || moved.After(update.At) {
			t.Errorf("the deletionTimestamp is %s, the request came at %s, the handler's call at %s",
				moved, end.Request.Time, update.At)
		}
		if last.Kind != "Delete" || last.New != gone.New.ResourceVersion {
			t.Errorf("the last call is %+v", last)
		}
	})
}

// owned is what managedFields say that a manager, or anybody, owns.
func owned(pod *corev1.Pod, manager string) string {
	var b strings.Builder
	for _, m := range pod.ManagedFields {
		if manager == "" || m.Manager == manager {
			b.WriteString(m.FieldsV1.GetRawString())
		}
	}
	return b.String()
}

func TestPodsLifeStaleUpdateConflicts(t *testing.T) {
	t.Parallel()
	testPage(t, "a stale update is refused, a patch is not", func(t *testing.T, ns string) {
		pods := client.CoreV1().Pods(ns)
		stale, err := pods.Create(t.Context(), gated("web"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pods.Patch(t.Context(), "web", types.MergePatchType, []byte(changed),
			metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		stale.Labels = map[string]string{"mine": "yes"}
		if _, err = pods.Update(t.Context(), stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("update: %v, want a conflict", err)
		}
		mine := []byte(`{"metadata":{"labels":{"mine":"yes"}}}`)
		now, err := pods.Patch(t.Context(), "web", types.MergePatchType, mine, metav1.PatchOptions{})
		if err != nil || now.Labels["changed"] != "yes" || now.Labels["mine"] != "yes" {
			t.Errorf("patch: %v, labels %v", err, now.Labels)
		}
	})
}

func TestPodsLifeStatusOnlyBySubresource(t *testing.T) {
	t.Parallel()
	testPage(t, "a status sent to the pod is dropped", func(t *testing.T, ns string) {
		pods := client.CoreV1().Pods(ns)
		before, err := pods.Create(t.Context(), gated("web"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		patch := func(message string, subresources ...string) *corev1.Pod {
			status := []byte(`{"status":{"message":"` + message + `"}}`)
			pod, err := pods.Patch(t.Context(), "web", types.MergePatchType, status,
				metav1.PatchOptions{}, subresources...)
			if err != nil {
				t.Fatal(err)
			}
			return pod
		}
		pod := patch("dropped")
		if pod.Status.Message != "" || pod.ResourceVersion != before.ResourceVersion {
			t.Errorf("the patch of the pod writes %s after %s", pod.ResourceVersion, before.ResourceVersion)
		}
		if pod := patch("kept", "status"); pod.Status.Message != "kept" {
			t.Error("the patch of the status is dropped")
		}
	})
}
