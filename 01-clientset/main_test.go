package main

import (
	"bytes"
	"errors"
	"testing"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"
	fakediscovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pod(name, node string, phase corev1.PodPhase) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Phase: phase},
	}
}

// newClient answers LISTs with pages, one after the other. (The fake clientset
// itself knows neither Limit nor a resourceVersion.)
func newFake(pages ...corev1.PodList) *fake.Clientset {
	client := fake.NewClientset()
	client.Discovery().(*fakediscovery.FakeDiscovery).FakedServerVersion = &version.Info{GitVersion: "v1.37.2"}
	client.PrependReactor("list", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		options := action.(clienttesting.ListActionImpl).GetListOptions()
		for i, page := range pages {
			if i == 0 && options.Continue == "" || i > 0 && options.Continue == pages[i-1].Continue {
				return true, &page, nil
			}
		}
		return true, nil, errors.New("no such page")
	})
	return client
}

func TestRun(t *testing.T) {
	web, db := pod("web", "node-1", corev1.PodRunning), pod("db", "", corev1.PodPending)
	last := metav1.ListMeta{ResourceVersion: "812"}
	tests := []struct {
		name  string
		pages []corev1.PodList
		want  string
		err   string
	}{
		{"no pods", []corev1.PodList{{ListMeta: last}}, "connected to Kubernetes v1.37.2\n0 pods at resourceVersion 812\n", ""},
		{"one page", []corev1.PodList{{ListMeta: last, Items: []corev1.Pod{web, db}}},
			"connected to Kubernetes v1.37.2\ndefault/web is Running on node node-1\ndefault/db is Pending on node <none>\n2 pods at resourceVersion 812\n", ""},
		{"two pages", []corev1.PodList{
			{ListMeta: metav1.ListMeta{ResourceVersion: "812", Continue: "next"}, Items: []corev1.Pod{web}},
			{ListMeta: last, Items: []corev1.Pod{db}},
		}, "connected to Kubernetes v1.37.2\ndefault/web is Running on node node-1\ndefault/db is Pending on node <none>\n2 pods at resourceVersion 812\n", ""},
		{"error", nil, "connected to Kubernetes v1.37.2\n", "list pods: no such page"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(t.Context(), newFake(test.pages...), &out)
			if err != nil && err.Error() != test.err || err == nil && test.err != "" {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if out.String() != test.want {
				t.Errorf("printed:\n%swant:\n%s", &out, test.want)
			}
		})
	}
}
