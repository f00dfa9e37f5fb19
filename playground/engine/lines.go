package engine

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// What chapter 05 prints about a pod, in its words: TestLinesOfChapter05 compares them.

func added(pod *corev1.Pod, isInInitialList bool) string {
	origin := "new"
	if isInInitialList {
		origin = "initial"
	}
	return origin + ", " + strings.Join(facts(pod), ", ")
}

// change says why an Update is called. Only a resync passes the stored object itself.
func change(old, pod *corev1.Pod) string {
	switch {
	case old == pod:
		return "resync, resourceVersion " + pod.ResourceVersion
	case old.ResourceVersion == pod.ResourceVersion:
		return "relist, resourceVersion " + pod.ResourceVersion
	}
	known := func(fact string) bool { return slices.Contains(facts(old), fact) }
	versions := old.ResourceVersion + " → " + pod.ResourceVersion
	return strings.Join(append([]string{versions}, slices.DeleteFunc(facts(pod), known)...), ", ")
}

func facts(pod *corev1.Pod) []string {
	node := cmp.Or(pod.Spec.NodeName, "<none>")
	facts := []string{"phase " + string(pod.Status.Phase), "node " + node}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			facts = append(facts, string(c.Type))
		}
	}
	if pod.DeletionTimestamp != nil {
		facts = append(facts, "deletion")
	}
	return facts
}
