package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes/scheme"
)

// The pods are in so many namespaces, have so many values of the label app, and so many share a node.
const teams, apps, podsPerNode = 10, 10, 100

func team(i int) string { return fmt.Sprint("team-", i%teams) }

// growLarge makes pods from one number to another. The API server creates the first, each with a
// status; the others are copies of those.
func (r *recorder) growLarge(ctx context.Context, from, to int) error {
	if from >= createdPods {
		return r.copyLarge(ctx, from, to)
	}
	for i := range teams {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: team(i)}}
		_, err := r.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	for i := from; i < to; i++ {
		g.Go(func() error {
			pods := r.client.CoreV1().Pods(team(i))
			pod, err := pods.Create(ctx, largePod(i), metav1.CreateOptions{FieldManager: "kube-controller-manager"})
			if err != nil {
				return err
			}
			addStatus(pod, i)
			_, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{FieldManager: "kubelet"})
			return err
		})
	}
	return g.Wait()
}

// createdPods can be copied: with this number added, the namespace and the label stay the same.
const createdPods = 1_000

// copyLarge writes copies of the pods to etcd, because the API server needs ten minutes or more to
// create 100,000. It sees the copies as it sees the writes of another API server.
func (r *recorder) copyLarge(ctx context.Context, from, to int) error {
	put, err := r.etcd()
	if err != nil {
		return err
	}
	list, err := r.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	texts := map[string]string{} // of the pods, in JSON
	for _, pod := range list.Items {
		pod.ResourceVersion = "" // of the key in etcd
		text, err := json.Marshal(pod)
		if err != nil {
			return err
		}
		texts[pod.Name] = string(text)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := from; i < to; i++ {
		g.Go(func() error {
			var pod corev1.Pod
			of := i % createdPods
			if err := json.Unmarshal([]byte(renumber(texts[largeName(of)], of, i)), &pod); err != nil {
				return fmt.Errorf("copy %s: %w", largeName(of), err)
			}
			pod.UID = uuid.NewUUID()
			return put(ctx, "/registry/pods/"+pod.Namespace+"/"+pod.Name, &pod)
		})
	}
	return g.Wait()
}

// renumber replaces the names, addresses and checksums of one pod with those of another.
func renumber(text string, from, to int) string {
	var pairs []string // the longer ones first
	for _, part := range []func(i int) string{
		largeName, podIP,
		func(i int) string { return fmt.Sprintf(`"nodeName":"node-%d"`, i/podsPerNode) },
		func(i int) string { return hash(i/podsPerNode, 64) },
		func(i int) string { return hash(i/podsPerNode, 10) },
		func(i int) string { return hash(i/podsPerNode, 8) },
	} {
		pairs = append(pairs, part(from), part(to))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// etcd returns a function that writes an object to the API server's etcd, as the API server does.
func (r *recorder) etcd() (put func(ctx context.Context, key string, object runtime.Object) error, err error) {
	pid, err := r.cluster.APIServer()
	if err != nil {
		return nil, err
	}
	flags, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(flags), "--etcd-servers=")
	server, _, _ := strings.Cut(rest, "\x00")
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	encoder := scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion)
	return func(ctx context.Context, key string, object runtime.Object) error {
		value, err := runtime.Encode(encoder, object)
		if err != nil {
			return err
		}
		body, err := json.Marshal(map[string][]byte{"key": []byte(key), "value": value}) // in base64
		if err != nil {
			return err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, server+"/v3/kv/put", bytes.NewReader(body))
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		text, err := io.ReadAll(response.Body)
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("etcd answers %s: %s", response.Status, text)
		}
		return err
	}, nil
}

// hash is a number in the form of a checksum of n letters.
func hash(i, n int) string {
	return strings.Repeat(fmt.Sprintf("%08x", uint32(i)*2654435761), n/8+1)[:n]
}

func largeApp(i int) string { return fmt.Sprint("app-", i/teams%apps) }

func largeName(i int) string { return fmt.Sprint(largeApp(i), "-", hash(i/podsPerNode, 10), "-", i) }

// largePod returns a pod as a Deployment makes it, with a sidecar.
func largePod(i int) *corev1.Pod {
	app := largeApp(i)
	owner := app + "-" + hash(i/podsPerNode, 10)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: largeName(i),
			Labels: map[string]string{
				"app": app, "pod-template-hash": hash(i/podsPerNode, 10),
				"app.kubernetes.io/name": app,
			},
			Annotations: map[string]string{
				"checksum/config":                   hash(i/podsPerNode, 64),
				"kubectl.kubernetes.io/restartedAt": "2026-11-20T10:00:00Z",
				"cni.example.com/podIP":             podIP(i),
			},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: owner, UID: types.UID("00000000-0000-4000-8000-0000" + hash(i/podsPerNode, 8)),
				Controller: new(true), BlockOwnerDeletion: new(true),
			}},
		},
		Spec: corev1.PodSpec{
			NodeName:           fmt.Sprint("node-", i/podsPerNode),
			ServiceAccountName: app,
			Tolerations: []corev1.Toleration{
				{Key: "dedicated", Operator: corev1.TolerationOpEqual, Value: "web", Effect: corev1.TaintEffectNoSchedule},
			},
			Volumes: []corev1.Volume{
				{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
					LocalObjectReference: corev1.LocalObjectReference{Name: app + "-config"}}}},
				{Name: "kube-api-access", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
					Sources: []corev1.VolumeProjection{
						{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: new(int64(3607)), Path: "token"}},
						{ConfigMap: &corev1.ConfigMapProjection{
							LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
							Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
						}},
					},
				}}},
			},
		},
	}
	for _, name := range []string{"web", "proxy"} {
		c := corev1.Container{
			Name: name, Image: "registry.example.com/shop/" + name + ":v1.22.3",
			Args:  []string{"--config=/etc/" + name + "/config.yaml", "--log-level=info"},
			Ports: []corev1.ContainerPort{{Name: "http-" + name, ContainerPort: int32(8000 + len(name))}},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
			},
			Env: []corev1.EnvVar{
				{Name: "DATABASE", Value: "postgres://database." + team(i) + ".svc:5432/shop"},
				{Name: "POD_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
				{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
					LocalObjectReference: corev1.LocalObjectReference{Name: app}, Key: "password"}}},
			},
		}
		for _, v := range pod.Spec.Volumes {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/var/run/" + v.Name, ReadOnly: true})
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	return pod
}

func podIP(i int) string { return fmt.Sprintf("10.%d.%d.%d", 64+i>>16, i>>8&255, i&255) }

// addStatus makes a created pod one that runs. A third manager, such as a network plugin, owns an
// annotation.
func addStatus(pod *corev1.Pod, i int) {
	now := metav1.NewTime(time.Now())
	host, ip := fmt.Sprintf("172.16.%d.%d", i/podsPerNode>>8, i/podsPerNode&255), podIP(i)
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, StartTime: &now, QOSClass: corev1.PodQOSBurstable,
		HostIP: host, HostIPs: []corev1.HostIP{{IP: host}}, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
	}
	for _, of := range []corev1.PodConditionType{
		corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled,
	} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: of, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	for j, c := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, ImageID: strings.TrimSuffix(c.Image, ":v1.22.3") + "@sha256:" + hash(j, 64),
			ContainerID: "containerd://" + hash(i*2+j, 64), Ready: true, Started: new(true),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
	pod.ManagedFields = append(pod.ManagedFields, metav1.ManagedFieldsEntry{
		Manager: "cni", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", Time: &now, FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{"f:cni.example.com/podIP":{}}}}`),
	})
}
