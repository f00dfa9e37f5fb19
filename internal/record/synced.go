package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"example.com/informers/internal/clusters"
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
func synced(ctx context.Context, cluster *clusters.Cluster) (_ any, err error) {
	client, err := cluster.Client()
	if err != nil {
		return nil, err
	}
	out := struct {
		Versions  []syncedRow `json:"versions"`
		OwnWrites []ownWrites `json:"ownWrites"`
	}{}
	sizes := []int{10, 1000}
	for _, pods := range sizes {
		if err := syncedPods(ctx, client, syncedNamespace(pods), pods); err != nil {
			return nil, err
		}
	}
	if err := syncedPods(ctx, client, syncedNamespace(0), 0); err != nil {
		return nil, err
	}
	own, err := writeAndRead(ctx, client, syncedNamespace(0), 100)
	if err != nil {
		return nil, err
	}
	out.OwnWrites = []ownWrites{own}

	dir, err := os.MkdirTemp("", "informers-synced")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for _, mod := range []string{"go.v0.34.mod", "go.v0.35.mod", "go.v0.36.mod", "go.mod"} {
		program := filepath.Join(dir, mod)
		build := exec.CommandContext(ctx, "go", "-C", "docs/versions", "build", "-modfile", mod, "-o", program, ".")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return nil, fmt.Errorf("build with %s: %w", mod, err)
		}
		for _, kubeconfig := range []string{"", cluster.Kubeconfig} {
			for _, pods := range sizes {
				row, err := countEarly(ctx, program, kubeconfig, pods)
				if err != nil {
					return nil, err
				}
				out.Versions = append(out.Versions, row)
			}
		}
	}
	return out, nil
}

func syncedNamespace(pods int) string { return fmt.Sprint("synced-", pods) }

// countEarly runs docs/versions.
func countEarly(ctx context.Context, program, kubeconfig string, pods int) (row syncedRow, err error) {
	cmd := exec.CommandContext(ctx, program, "-kubeconfig", kubeconfig, "-namespace", syncedNamespace(pods),
		"-pods", fmt.Sprint(pods), "-runs", fmt.Sprint(syncedRuns))
	cmd.Stderr = os.Stderr
	printed, err := cmd.Output()
	if err != nil {
		return row, fmt.Errorf("%v: %w", cmd.Args, err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(printed)); lines.Scan(); {
		var wait struct {
			ClientGo, Clientset, Wait string
			Early                     int
		}
		if err := json.Unmarshal(lines.Bytes(), &wait); err != nil {
			return row, err
		}
		row.ClientGo, row.Clientset, row.Pods, row.Runs = wait.ClientGo, wait.Clientset, pods, syncedRuns
		switch wait.Wait {
		case "factory":
			row.Factory = wait.Early
		case "informer":
			row.Informer = wait.Early
		case "registration":
			row.Registration = wait.Early
		}
	}
	return row, nil
}

// syncedPods creates a namespace with pods that never change, because of a scheduling gate.
func syncedPods(ctx context.Context, client kubernetes.Interface, namespace string, pods int) error {
	return makePods(ctx, client, namespace, pods, syncedPod)
}

// makePods creates a namespace and numbered pods in it.
func makePods(
	ctx context.Context, client kubernetes.Interface, namespace string, pods int, pod func(i int) *corev1.Pod,
) error {
	meta := metav1.ObjectMeta{Name: namespace}
	if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		return err
	}
	// The API server rejects pods until the service account default exists.
	w, err := client.CoreV1().ServiceAccounts(namespace).Watch(ctx, metav1.SingleObject(metav1.ObjectMeta{Name: "default"}))
	if err != nil {
		return err
	}
	defer w.Stop()
	if event := <-w.ResultChan(); event.Type != watch.Added {
		return fmt.Errorf("namespace %s: no service account", namespace)
	}
	var g errgroup.Group
	g.SetLimit(20)
	for i := range pods {
		g.Go(func() error {
			_, err := client.CoreV1().Pods(namespace).Create(ctx, pod(i), metav1.CreateOptions{})
			return err
		})
	}
	return g.Wait()
}

func syncedPod(i int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("pod-", i)},
		Spec: corev1.PodSpec{
			SchedulingGates: []corev1.PodSchedulingGate{{Name: "informers.example.com/stay-pending"}},
			Containers:      []corev1.Container{{Name: "nginx", Image: "nginx:1.22"}},
		},
	}
}

// writeAndRead creates pods and looks for each in the lister, at once and until it is there.
func writeAndRead(ctx context.Context, client kubernetes.Interface, namespace string, pods int) (ownWrites, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	informer, lister := factory.Core().V1().Pods().TypedInformer(), factory.Core().V1().Pods().Lister().Pods(namespace)
	added := make(chan time.Time, pods)
	handler, err := informer.AddTypedEventHandler(corev1informers.PodHandlerFuncs{AddFunc: func(*corev1.Pod) {
		added <- time.Now()
	}})
	if err != nil {
		return ownWrites{}, err
	}
	factory.StartWithContext(ctx)
	if !cache.WaitFor(ctx, "", handler.HasSyncedChecker()) {
		return ownWrites{}, context.Cause(ctx)
	}
	result := ownWrites{Pods: pods}
	var late []float64
	for i := range pods {
		pod, err := client.CoreV1().Pods(namespace).Create(ctx, syncedPod(i), metav1.CreateOptions{})
		if err != nil {
			return ownWrites{}, err
		}
		created := time.Now()
		if _, err := lister.Get(pod.Name); err != nil {
			result.Missing++
		}
		late = append(late, max(0, float64((<-added).Sub(created).Microseconds())/1000))
	}
	slices.Sort(late)
	result.Median, result.Max = late[len(late)/2], late[len(late)-1]
	return result, nil
}
