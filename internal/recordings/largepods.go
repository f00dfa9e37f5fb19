package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The pods are in so many namespaces, have so many values of the label app, and so many share a node.
const teams, apps, podsPerNode = 10, 10, 100

func team(i int) string { return fmt.Sprint("team-", i%teams) }

// growLarge creates the large pods from one number to another, each with a status. Nothing but this
// program writes to pods of an --api-only cluster.
func (r *recorder) growLarge(ctx context.Context, from, to int) error {
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

// hash is a number in the form of a checksum of n letters.
func hash(i, n int) string {
	return strings.Repeat(fmt.Sprintf("%08x", uint32(i)*2654435761), n/8+1)[:n]
}

// largePod returns a pod as a Deployment makes it, with a sidecar.
func largePod(i int) *corev1.Pod {
	app := fmt.Sprint("app-", i/teams%apps)
	owner := app + "-" + hash(i/podsPerNode, 10)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprint(owner, "-", i),
			Labels: map[string]string{
				"app": app, "pod-template-hash": hash(i/podsPerNode, 10),
				"app.kubernetes.io/name": app, "app.kubernetes.io/instance": app, "app.kubernetes.io/version": "v1.22.3",
				"app.kubernetes.io/part-of": "shop", "app.kubernetes.io/managed-by": "Helm",
			},
			Annotations: map[string]string{
				"checksum/config":                        hash(i/podsPerNode, 64),
				"kubectl.kubernetes.io/restartedAt":      "2026-11-20T10:00:00Z",
				"prometheus.io/port":                     "9090",
				"prometheus.io/scrape":                   "true",
				"cni.example.com/podIP":                  podIP(i),
				"cluster-autoscaler.example.com/evict":   "true",
				"sidecar.example.com/injected-at-commit": hash(i/podsPerNode, 40),
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
				{Name: "certificates", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: app + "-tls"}}},
				{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
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
				Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
			},
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
				HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http-" + name)}}},
			Env: []corev1.EnvVar{
				{Name: "POD_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
				{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
					LocalObjectReference: corev1.LocalObjectReference{Name: app}, Key: "password"}}},
			},
		}
		for j := range 8 {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("SERVICE_", j), Value: fmt.Sprintf("http://service-%d.%s.svc:8080", j, team(i))})
		}
		for _, v := range pod.Spec.Volumes {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/var/run/" + v.Name, ReadOnly: v.EmptyDir == nil})
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
