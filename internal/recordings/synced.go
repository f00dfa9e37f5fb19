package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// syncedRuns is the number of runs of each wait.
const syncedRuns = 50

// A syncedRow counts, for each wait, the runs in which it returned before all initial Adds
// were delivered.
type syncedRow struct {
	ClientGo     string `json:"client-go"`
	Clientset    string `json:"clientset"` // fake or cluster
	Pods         int    `json:"pods"`
	Runs         int    `json:"runs"`
	Factory      int    `json:"factory"`
	Informer     int    `json:"informer"`
	Registration int    `json:"registration"`
}

// ownWrites says when a lister has the pods that its own program creates.
type ownWrites struct {
	Pods    int     `json:"pods"`
	Missing int     `json:"missing_at_once"` // from the lister, when the call that created the pod returned
	Median  float64 `json:"median_ms"`
	Max     float64 `json:"max_ms"`
}

// synced measures what the waits of each version of client-go wait for, on the fake clientset
// and on a local cluster, and how far a lister is behind its own program's writes.
func (r *recorder) synced(ctx context.Context) (any, error) {
	own, err := r.ownWrites(ctx, 100)
	if err != nil {
		return nil, err
	}
	sizes := []int{10, 1000}
	for _, pods := range sizes {
		if err := r.create(ctx, fmt.Sprint("synced-", pods), pods, gated); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "informers-synced")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var rows []syncedRow
	for _, version := range []string{"v0.34.13", "v0.35.10", "v0.36.6", "v0.37.2"} {
		program := filepath.Join(dir, version)
		build := exec.CommandContext(ctx, "go", "-C", "docs/older", "run", "./with", version,
			"build", "-o", program, "./waits")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return nil, fmt.Errorf("build with client-go %s: %w", version, err)
		}
		for _, kubeconfig := range []string{"", r.cluster.Kubeconfig} {
			for _, pods := range sizes {
				row, err := countEarly(ctx, program, kubeconfig, pods)
				if err != nil {
					return nil, err
				}
				rows = append(rows, row)
			}
		}
	}
	return struct {
		Versions  []syncedRow `json:"versions"`
		OwnWrites []ownWrites `json:"ownWrites"`
	}{rows, []ownWrites{own}}, nil
}

// countEarly runs docs/older/waits.
func countEarly(ctx context.Context, program, kubeconfig string, pods int) (row syncedRow, err error) {
	cmd := exec.CommandContext(ctx, program, "-kubeconfig", kubeconfig, "-namespace", fmt.Sprint("synced-", pods),
		"-pods", strconv.Itoa(pods), "-runs", strconv.Itoa(syncedRuns))
	cmd.Stderr = os.Stderr
	printed, err := cmd.Output()
	if err != nil {
		return row, fmt.Errorf("%v: %w", cmd.Args, err)
	}
	early := map[string]int{}
	var wait struct {
		ClientGo, Clientset, Wait string
		Early                     int
	}
	for lines := json.NewDecoder(bytes.NewReader(printed)); lines.More(); {
		if err := lines.Decode(&wait); err != nil {
			return row, err
		}
		early[wait.Wait] = wait.Early
	}
	return syncedRow{
		ClientGo: wait.ClientGo, Clientset: wait.Clientset, Pods: pods, Runs: syncedRuns,
		Factory: early["factory"], Informer: early["informer"], Registration: early["registration"],
	}, nil
}

// ownWrites creates pods and looks for each in the lister, at once and until it is there.
func (r *recorder) ownWrites(ctx context.Context, pods int) (own ownWrites, err error) {
	const namespace = "synced-0"
	if err := r.create(ctx, namespace, 0, gated); err != nil {
		return own, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	factory := informers.NewSharedInformerFactoryWithOptions(r.client, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().Pods().TypedInformer()
	lister := factory.Core().V1().Pods().Lister().Pods(namespace)
	added := make(chan time.Time, pods)
	handler, err := informer.AddTypedEventHandler(corev1informers.PodHandlerFuncs{AddFunc: func(*corev1.Pod) {
		added <- time.Now()
	}})
	if err != nil {
		return own, err
	}
	factory.StartWithContext(ctx)
	if !cache.WaitFor(ctx, "", handler.HasSyncedChecker()) {
		return own, context.Cause(ctx)
	}
	var late []float64
	for i := range pods {
		pod, err := r.client.CoreV1().Pods(namespace).Create(ctx, gated(i), metav1.CreateOptions{})
		if err != nil {
			return own, err
		}
		created := time.Now()
		if _, err := lister.Get(pod.Name); err != nil {
			own.Missing++
		}
		at, err := take(ctx, added)
		if err != nil {
			return own, err
		}
		late = append(late, max(0, float64(at.Sub(created).Microseconds())/1000))
	}
	slices.Sort(late)
	own.Pods, own.Median, own.Max = pods, late[len(late)/2], late[len(late)-1]
	return own, nil
}
