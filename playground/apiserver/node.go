package apiserver

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// NodeName is the node on which RunPods puts pods.
const NodeName = "node-0"

// The life of an nginx pod on kind, as docs/data/life-kind.json has it: when a component writes, and what.
// The times are since the write before.
var (
	starts = []stage{
		{3 * time.Millisecond, "kube-scheduler", scheduled},
		{10 * time.Millisecond, "kubelet", initialized},
		{437 * time.Millisecond, "kubelet", sandboxed},
		{90 * time.Millisecond, "kubelet", running},
	}
	stops = []stage{
		{363 * time.Millisecond, "kubelet", observed},
		{154 * time.Millisecond, "kubelet", succeeded},
		{847 * time.Millisecond, "kubelet", cleaned},
		{7 * time.Millisecond, "kubelet", nil}, // the delete, with a grace period of 0
	}
)

// A stage is a write of a component to a pod.
type stage struct {
	after time.Duration
	who   string
	edit  func(*corev1.Pod)
}

// RunPods is the scheduler and the kubelet of one node, until ctx ends: it takes each pod that has no
// scheduling gate through its life. It needs no containers and starts none.
func (s *Server) RunPods(ctx context.Context) {
	living, dying := map[types.UID]bool{}, map[types.UID]bool{}
	var seen uint64
	for ctx.Err() == nil {
		s.mu.Lock()
		changed := s.changed
		var news []*corev1.Pod
		if len(s.log) == 0 || s.log[0].version > seen+1 { // at the start, and if it did not keep up
			news = sorted(s.pods)
		} else {
			for i := len(s.log) - 1; i >= 0 && s.log[i].version > seen; i-- {
				if w := s.log[i]; w.now != nil {
					news = append(news, w.now)
				} else {
					delete(living, w.last.UID)
					delete(dying, w.last.UID)
				}
			}
			slices.Reverse(news)
		}
		seen = s.version
		s.mu.Unlock()
		for _, pod := range news {
			if pod.DeletionTimestamp == nil && !living[pod.UID] && len(pod.Spec.SchedulingGates) == 0 && pod.Spec.SchedulerName == corev1.DefaultSchedulerName {
				living[pod.UID] = true
				go s.live(ctx, pod, starts, false)
			}
			if pod.DeletionTimestamp != nil && pod.Spec.NodeName == NodeName && !dying[pod.UID] {
				dying[pod.UID] = true
				go s.live(ctx, pod, stops, true)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// live takes one pod through stages, until it is gone or, if it does not stop by then, marked for deletion.
func (s *Server) live(ctx context.Context, first *corev1.Pod, stages []stage, deleted bool) {
	at := key{Namespace: first.Namespace, Name: first.Name}
	for _, stage := range stages {
		timer := time.NewTimer(stage.after)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		s.mu.Lock()
		pod, ok := s.pods[at]
		if !ok || pod.UID != first.UID || (pod.DeletionTimestamp != nil) != deleted {
			s.mu.Unlock()
			return
		}
		pod = pod.DeepCopy()
		if stage.edit != nil {
			stage.edit(pod)
			s.store(pod)
		} else {
			if *pod.DeletionGracePeriodSeconds != 0 {
				moment := now()
				pod.DeletionGracePeriodSeconds, pod.DeletionTimestamp = ptr[int64](0), &moment
				s.store(pod)
			}
			if len(pod.Finalizers) == 0 {
				s.remove(at)
			}
		}
		s.mu.Unlock()
	}
}

func scheduled(pod *corev1.Pod) {
	pod.Spec.NodeName = NodeName
	condition(pod, corev1.PodScheduled, true)
}

func initialized(pod *corev1.Pod) {
	condition(pod, corev1.PodReadyToStartContainers, false)
	condition(pod, corev1.PodInitialized, true)
	condition(pod, corev1.PodReady, false)
	condition(pod, corev1.ContainersReady, false)
	pod.Status.HostIP, pod.Status.ObservedGeneration = "172.18.0.2", pod.Generation
	started := now()
	pod.Status.StartTime = &started
	pod.Status.ContainerStatuses = nil
	for _, c := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Started: ptr(false),
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}},
		})
	}
}

func sandboxed(pod *corev1.Pod) { condition(pod, corev1.PodReadyToStartContainers, true) }

func running(pod *corev1.Pod) {
	condition(pod, corev1.PodReady, true)
	condition(pod, corev1.ContainersReady, true)
	pod.Status.Phase = corev1.PodRunning
	pod.Status.PodIP = fmt.Sprintf("10.244.0.%s", string(pod.UID[len(pod.UID)-2:]))
	for i := range pod.Status.ContainerStatuses {
		c := &pod.Status.ContainerStatuses[i]
		c.Ready, c.Started = true, ptr(true)
		c.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now()}}
	}
}

func observed(pod *corev1.Pod) { pod.Status.ObservedGeneration = pod.Generation }

func succeeded(pod *corev1.Pod) {
	condition(pod, corev1.PodReadyToStartContainers, false)
	condition(pod, corev1.PodReady, false)
	condition(pod, corev1.ContainersReady, false)
	pod.Status.Phase = corev1.PodSucceeded
	for i := range pod.Status.ContainerStatuses {
		c := &pod.Status.ContainerStatuses[i]
		c.Ready, c.Started = false, ptr(false)
		c.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", FinishedAt: now()}}
	}
}

// cleaned changes what a reader does not look at, so the Update seems to have no reason.
func cleaned(pod *corev1.Pod) {
	pod.Status.Message = ""
	pod.Status.Reason = ""
	pod.Status.HostIPs = []corev1.HostIP{{IP: pod.Status.HostIP}}
}

// condition sets a condition of a pod, with the time of its transition.
func condition(pod *corev1.Pod, kind corev1.PodConditionType, is bool) {
	status := corev1.ConditionFalse
	if is {
		status = corev1.ConditionTrue
	}
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == kind {
			if c.Status != status {
				c.Status, c.LastTransitionTime = status, now()
			}
			return
		}
	}
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: now()})
}
