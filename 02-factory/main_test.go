package main

import (
	"bytes"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, ResourceVersion: "1"}}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(pod("web"), pod("db"))
		go func() {
			time.Sleep(time.Second)
			_, err := client.CoreV1().Pods("default").Create(t.Context(), pod("nginx"), metav1.CreateOptions{})
			if err != nil {
				t.Error(err)
			}
		}()

		var out bytes.Buffer
		begin := time.Now()
		if err := run(t.Context(), client, &out); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < 2*time.Second || took > 2100*time.Millisecond {
			t.Errorf("took %s, want 2 s", took)
		}
		// The background may be faster than the line after the start.
		want := regexp.MustCompile(`^before start: 0 pods in the store
(right after start: 0 pods in the store
then: 2 pods in the store|right after start: 2 pods in the store)
then: 3 pods in the store
$`)
		if !want.MatchString(out.String()) {
			t.Errorf("printed:\n%s", &out)
		}
	})
}

// A namespace that does not exist is not an error: it is empty.
func TestNamespace(t *testing.T) {
	*namespace = "nosuch"
	defer func() { *namespace = metav1.NamespaceAll }()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		if err := run(t.Context(), fake.NewClientset(pod("web")), &out); err != nil {
			t.Fatal(err)
		}
		if want := "before start: 0 pods in the store\nright after start: 0 pods in the store\n"; out.String() != want {
			t.Errorf("printed:\n%swant:\n%s", &out, want)
		}
	})
}
