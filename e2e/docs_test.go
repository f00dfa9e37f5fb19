package e2e

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/e2e-framework/pkg/features"
)

// apart is the test's own namespace, and the configuration of a client that only this test uses.
func apart(t *testing.T, prefix string) (ns string, config *rest.Config) {
	t.Helper()
	ns, err := newNamespace(t.Context(), t, client, prefix)
	if err == nil {
		config, err = cluster.Config()
	}
	if err != nil {
		t.Fatal(err)
	}
	return ns, config
}

// TestStaleWrite proves docs/questions.md on writing with what a cache holds.
func TestStaleWrite(t *testing.T) {
	t.Parallel()
	s := &scene{}
	var stale *corev1.Pod
	testenv.Test(t, features.New("a stale write").WithLabel("part", "docs").
		WithSetup("a pod of which the cache holds an older version", s.setup(func(t *testing.T) {
			s.createGated(t, "web")
			var err error
			if stale, err = s.client.CoreV1().Pods(s.namespace).Get(t.Context(), "web", metav1.GetOptions{}); err != nil {
				t.Fatal(err)
			}
			s.change(t, "web")
		})).
		Assess("of the older version is a conflict", step(func(t *testing.T) {
			mine := stale.DeepCopy()
			mine.Labels = map[string]string{"mine": "yes"}
			_, err := s.client.CoreV1().Pods(s.namespace).Update(t.Context(), mine, metav1.UpdateOptions{})
			if !apierrors.IsConflict(err) {
				t.Errorf("got %v", err)
			}
		})).
		Assess("succeeds when it is tried again with what the server has", step(func(t *testing.T) {
			pods := s.client.CoreV1().Pods(s.namespace)
			err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
				pod, err := pods.Get(t.Context(), "web", metav1.GetOptions{})
				if err != nil {
					return err
				}
				metav1.SetMetaDataLabel(&pod.ObjectMeta, "mine", "yes")
				_, err = pods.Update(t.Context(), pod, metav1.UpdateOptions{})
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})).
		Assess("as a patch needs no version", step(func(t *testing.T) { s.change(t, "web") })).
		Feature())
}
