package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/scheme"
)

// The ways in which an informer can keep a pod: what the server sends, and how a client decodes it.
var ways = []struct {
	name   string
	sent   func(pod *corev1.Pod) []byte
	decode func([]byte) (any, error)
}{
	{"typed", marshal[*corev1.Pod], func(data []byte) (any, error) {
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(data, nil, nil)
		return object, err
	}},
	{"map", marshal[*corev1.Pod], func(data []byte) (any, error) {
		object, _, err := unstructured.UnstructuredJSONScheme.Decode(data, nil, nil)
		return object, err
	}},
	{"metadata", func(pod *corev1.Pod) []byte {
		return marshal(&metav1.PartialObjectMetadata{TypeMeta: pod.TypeMeta, ObjectMeta: pod.ObjectMeta})
	}, func(data []byte) (any, error) {
		object := &metav1.PartialObjectMetadata{}
		return object, json.Unmarshal(data, object)
	}},
}

func marshal[T any](object T) []byte {
	data, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return data
}

// BenchmarkDecode says what one pod takes on the wire (as JSON), to decode, and in the store.
func BenchmarkDecode(b *testing.B) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			data := way.sent(realPod(0))
			for b.Loop() {
				if _, err := way.decode(data); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(data)), "sent-B")
			b.ReportMetric(kept(b, way.sent, way.decode), "kept-B")
		})
	}
}

// A map takes more memory than the Go type, and metadata takes less.
func TestKept(t *testing.T) {
	size := map[string]float64{}
	for _, way := range ways {
		size[way.name] = kept(t, way.sent, way.decode)
	}
	if size["metadata"] >= size["typed"] || size["typed"] >= size["map"] {
		t.Errorf("bytes for each pod: %v", size)
	}
}

// kept returns the heap that one pod of many takes, in bytes.
func kept(t testing.TB, sent func(*corev1.Pod) []byte, decode func([]byte) (any, error)) float64 {
	const pods = 200
	all := make([]any, pods)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range all {
		var err error
		if all[i], err = decode(sent(realPod(i))); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(all)
	return (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / pods
}

// realPod is as large as pods are: two containers with variables, probes and mounts, a status,
// and the managedFields of three writers.
func realPod(i int) *corev1.Pod {
	name := fmt.Sprintf("web-%d", i)
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: "2f3c1f0e-4f6c-4b43-9a55-0f6f5f0c8a01", ResourceVersion: fmt.Sprint(i + 1),
			Labels:      map[string]string{"app": "web", "pod-template-hash": "7c5ddbdf54", "team": "shop"},
			Annotations: map[string]string{"prometheus.io/scrape": "true", "checksum/config": strings.Repeat("4f", 32)},
		},
		Spec: corev1.PodSpec{NodeName: "node-0", ServiceAccountName: "default", RestartPolicy: corev1.RestartPolicyAlways},
	}
	for _, container := range []string{"web", "proxy"} {
		c := corev1.Container{
			Name: container, Image: "registry.example.com/shop/" + container + ":1.22",
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU: quantity.MustParse("100m"), corev1.ResourceMemory: quantity.MustParse("128Mi")}},
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready"}}, PeriodSeconds: 10},
		}
		for n := range 8 {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("SHOP_OPTION_%d", n), Value: "https://shop.example.com/option"})
		}
		for _, mount := range []string{"config", "certificates", "kube-api-access-x7x8v"} {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: mount, MountPath: "/etc/shop/" + mount, ReadOnly: true})
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: container, Image: c.Image, Ready: true, ContainerID: "containerd://" + strings.Repeat("ab", 32), ImageID: strings.Repeat("cd", 40)})
	}
	for _, condition := range []corev1.PodConditionType{"PodScheduled", "Initialized", "ContainersReady", "Ready", "PodReadyToStartContainers"} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
	}
	for _, manager := range []string{"kube-controller-manager", "kube-scheduler", "kubelet"} {
		var containers []string
		for n := range 12 {
			containers = append(containers, fmt.Sprintf(`"k:{\"name\":\"c%d\"}":{".":{},"f:image":{},"f:name":{}}`, n))
		}
		fields := `{"f:metadata":{"f:labels":{".":{},"f:app":{},"f:team":{}}},"f:spec":{` + strings.Join(containers, ",") + `}}`
		pod.ManagedFields = append(pod.ManagedFields, metav1.ManagedFieldsEntry{
			Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)})
	}
	return pod
}
