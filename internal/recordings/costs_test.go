package main

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// Each number of a table is the median of what was measured, and ratios are to the first way.
func TestCostTables(t *testing.T) {
	tables, measured := costTables{}, map[string][]cost{}
	for _, way := range append(costWays, indexWay) {
		for _, heap := range []float64{9_000, 1_000, 5_000} {
			measured[way.name] = append(measured[way.name], cost{"heap": heap, "node, index": 10, "node, scan": 500})
		}
	}
	for i := range measured[costWays[1].name] {
		measured[costWays[1].name][i]["heap"] /= 4
	}
	tables.add(1_000, measured)
	clients := tables["client_1000"].([]costClient)
	if first := clients[0]; first.Heap != 5.12 || first.Ratio != 1 || clients[1].Ratio != 0.25 {
		t.Errorf("the heap is %g MB, ratios are %g and %g", first.Heap, first.Ratio, clients[1].Ratio)
	}
	if answer := tables["answers"].([]costAnswer)[0]; answer.Ratio != 50 {
		t.Errorf("a scan takes %g times as long", answer.Ratio)
	}
	if alt := tables["dots"].([]*dots)[0].Alt; !strings.HasPrefix(alt, "most tutorials: 5.12 MB (1,000 pods); ") {
		t.Errorf("the picture says %q", alt)
	}
}

// The index, the selectors and the namespaces find the shares that the page names.
func TestShareOfLargePods(t *testing.T) {
	nodes, selected := map[string]int{}, map[string]int{}
	for i := range 1_000 {
		pod := largePod(i)
		nodes[pod.Spec.NodeName]++
		selected[pod.Labels["app"]]++
	}
	if len(nodes) != 10 || nodes["node-1"] != podsPerNode || len(selected) != apps || selected["app-1"] != 100 {
		t.Errorf("pods by node: %v, by label: %v", nodes, selected)
	}
}

// A copy of a pod is what that pod would be.
func TestRenumber(t *testing.T) {
	text := func(i int) string {
		pod := largePod(i)
		addStatus(pod, i)
		pod.Status = corev1.PodStatus{PodIP: pod.Status.PodIP}
		pod.ManagedFields = nil
		text, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got, want := renumber(text(101), 101, 4_101), text(4_101); got != want {
		t.Errorf("pod 101 as pod 4101:\n%s\nwant:\n%s", got, want)
	}
}
