package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// client-go passes the objects of an initial state to a transform twice, and needs the key.
func TestTransforms(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "team-1", Name: "web", ResourceVersion: "7"}, Spec: corev1.PodSpec{NodeName: "node-1"}}
	for name, transform := range map[string]cache.TransformFunc{"trim": trim, "locate": locate} {
		once, err := transform(pod)
		if err != nil {
			t.Fatal(err)
		}
		twice, err := transform(once)
		if err != nil {
			t.Fatal(err)
		}
		object, ok := twice.(metav1.Object)
		if !ok || object.GetResourceVersion() != "7" || cache.MetaObjectToName(object).String() != "team-1/web" {
			t.Errorf("%s makes %#v", name, twice)
		}
		switch o := twice.(type) {
		case *corev1.Pod:
			if o.Spec.NodeName != "node-1" {
				t.Errorf("%s drops the node", name)
			}
		case *located:
			if o.node != "node-1" {
				t.Errorf("%s drops the node", name)
			}
		}
	}
}
