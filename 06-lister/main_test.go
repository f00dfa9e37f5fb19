package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pod(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, ResourceVersion: "1"},
		Spec:       corev1.PodSpec{NodeName: node},
	}
}

// newFake gives a version to what is written: the fake clientset itself gives none to objects.
func newFake() *fake.Clientset {
	client := fake.NewClientset(pod("db", "node-b"), pod("new", ""), pod("web", "node-a"), pod("web-2", "node-a"))
	client.PrependReactor("update", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		action.(clienttesting.UpdateAction).GetObject().(*corev1.Pod).ResourceVersion = "10"
		return false, nil, nil // and the fake stores it
	})
	return client
}

func TestRun(t *testing.T) {
	defer func(ns, name string) { *namespace, *annotate = ns, name }(*namespace, *annotate)
	*namespace, *annotate = "default", "web"
	synctest.Test(t, func(t *testing.T) {
		client := newFake()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var out bytes.Buffer
		var err error
		go func() { err = run(ctx, client, &out) }()
		time.Sleep(time.Second) // for the poll, in virtual time
		cancel()
		synctest.Wait()
		if err != nil {
			t.Fatal(err)
		}

		const want = `cache is synced
pods in the lister: 4
pods on node <none>: 1
pods on node node-a: 2
pods on node node-b: 1
written: resourceVersion 10; read before: resourceVersion 1
the lister has read it
`
		// The Update comes from another goroutine than the rest.
		_, printed, _ := strings.Cut(out.String(), "handler is synced\n")
		const update = "handleUpdate is called for Pod (key: default/web)\n"
		if strings.Count(printed, update) != 1 || strings.Replace(printed, update, "", 1) != want {
			t.Errorf("printed:\n%swant, and the Update:\n%s", printed, want)
		}
		web, err := client.CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil || web.Annotations["informers.example.com/seen"] == "" {
			t.Errorf("error %v, annotations %v", err, web.Annotations)
		}
	})
}

// Of a pod that the lister does not have, nothing is asked and nothing written.
func TestAnnotateNone(t *testing.T) {
	defer func(ns, name string) { *namespace, *annotate = ns, name }(*namespace, *annotate)
	*namespace, *annotate = "default", "none"
	synctest.Test(t, func(t *testing.T) {
		client := newFake()
		err := run(t.Context(), client, &bytes.Buffer{})
		synctest.Wait() // run cancels the reflector and does not wait for it
		if err == nil || err.Error() != `--annotate: pod "none" not found` {
			t.Errorf("error %v", err)
		}
		for _, action := range client.Actions() {
			if verb := action.GetVerb(); verb != "list" && verb != "watch" {
				t.Errorf("request: %s", verb)
			}
		}
	})
}
