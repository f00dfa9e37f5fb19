package main

import (
	"flag"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// full is metadata of which most is to be dropped.
func full() metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: "web", Namespace: "default", UID: "u", ResourceVersion: "7", Labels: map[string]string{"app": "web"},
		Annotations:   map[string]string{"long": strings.Repeat("x", 1000)},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
	}
}

// TestTrim: what is read stays, everything else goes, and a second pass changes nothing.
func TestTrim(t *testing.T) {
	kept := metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "u", ResourceVersion: "7", Labels: map[string]string{"app": "web"}}
	for name, test := range map[string]struct{ object, want any }{
		"pod": {
			&corev1.Pod{
				ObjectMeta: full(),
				Spec: corev1.PodSpec{
					NodeName:   "node-0",
					Volumes:    []corev1.Volume{{Name: "data"}},
					Containers: []corev1.Container{{Name: "web", Env: []corev1.EnvVar{{Name: "A", Value: "b"}}}},
				},
				Status: corev1.PodStatus{Phase: corev1.PodRunning},
			},
			&corev1.Pod{ObjectMeta: kept, Spec: corev1.PodSpec{NodeName: "node-0"}},
		},
		"pod without a node": {&corev1.Pod{ObjectMeta: full()}, &corev1.Pod{ObjectMeta: kept}},
		"metadata":           {&metav1.PartialObjectMetadata{ObjectMeta: full()}, &metav1.PartialObjectMetadata{ObjectMeta: kept}},
		"another type":       {&corev1.Node{ObjectMeta: full()}, &corev1.Node{ObjectMeta: full()}},
	} {
		t.Run(name, func(t *testing.T) {
			for pass := range 2 {
				trimmed, err := trim(test.object)
				if err != nil || !reflect.DeepEqual(trimmed, test.want) {
					t.Fatalf("pass %d: %+v, %v, want %+v", pass+1, trimmed, err, test.want)
				}
				test.object = trimmed
			}
		})
	}
}

// TestValue: trimming does not change what pods are counted by.
func TestValue(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: full(), Spec: corev1.PodSpec{NodeName: "node-0"}}
	for label, want := range map[string]string{"": "node-0", "app": "web", "tier": ""} {
		set(t, map[string]string{"by": label})
		trimmed, err := trim(pod)
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range []metav1.Object{pod, trimmed.(metav1.Object)} {
			if values, err := value(object); err != nil || !slices.Equal(values, []string{want}) {
				t.Errorf("by %q: %q, %v, want %q", label, values, err, want)
			}
		}
	}
}

// TestScaleFlags: what cannot work is one line, before any request.
func TestScaleFlags(t *testing.T) {
	for name, test := range map[string]struct {
		flags map[string]string
		want  string
	}{
		"no node in metadata": {map[string]string{"store": "metadata"}, "--store metadata needs --by: the node is not in a pod's metadata"},
		"JSON metadata": {
			map[string]string{"store": "metadata", "by": "app", "encoding": "json"},
			"--store metadata needs --encoding protobuf: its client knows no other",
		},
		"a namespace twice": {map[string]string{"namespace": "a,b,a"}, "--namespace must name each namespace once"},
		"and all":           {map[string]string{"namespace": "a,"}, "--namespace must name each namespace once"},
		"a bad selector":    {map[string]string{"selector": "app in"}, "--selector: "},
		"a bad field":       {map[string]string{"field-selector": "spec.nodeName"}, "--field-selector: "},
	} {
		t.Run(name, func(t *testing.T) {
			set(t, test.flags)
			err := run(t.Context(), &rest.Config{}, io.Discard)
			if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}

// set sets flags for the time of a test.
func set(t *testing.T, flags map[string]string) {
	t.Helper()
	for name, text := range flags {
		t.Cleanup(func() { _ = flag.Set(name, flag.Lookup(name).DefValue) })
		if err := flag.Set(name, text); err != nil {
			t.Fatal(err)
		}
	}
}
