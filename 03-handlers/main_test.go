package main

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pod(name, resourceVersion string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, ResourceVersion: resourceVersion}}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(pod("web", "1"))
		pods := client.CoreV1().Pods("default")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()

		var out bytes.Buffer
		var err error
		go func() { err = run(ctx, client, &out) }()
		synctest.Wait() // the fake clientset loses what is written between its LIST and its watch

		_, createErr := pods.Create(ctx, pod("nginx", "2"), metav1.CreateOptions{})
		_, updateErr := pods.Update(ctx, pod("nginx", "3"), metav1.UpdateOptions{})
		deleteErr := pods.Delete(ctx, "nginx", metav1.DeleteOptions{})
		time.Sleep(31 * time.Second)
		synctest.Wait()
		cancel()
		synctest.Wait()

		if err := errors.Join(createErr, updateErr, deleteErr, err); err != nil {
			t.Fatal(err)
		}
		const want = `handleAdd is called for Pod (key: default/web)
handleAdd is called for Pod (key: default/nginx)
handleUpdate is called for Pod (key: default/nginx)
handleDelete is called for Pod (key: default/nginx)
handleUpdate is called for Pod (key: default/web)
` // the last one is the resync
		if out.String() != want {
			t.Errorf("printed:\n%swant:\n%s", &out, want)
		}
	})
}
