// scale has pods in memory in ways that chapter 11 does not have: as most tutorials do it, with
// several handlers, and with the cache of controller-runtime. It prints what 11 prints.
//
//	KUBECONFIG=… go -C controller-runtime run ./scale --way tutorial
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A way starts what fills a store, and waits until it is filled. The result keeps the store in use,
// and counts its pods.
type way func(context.Context, *rest.Config) (pods func() (int, error), err error)

var ways = map[string]way{
	"tutorial":      informers(1, 1),
	"tutorial-json": asJSON(informers(1, 1)),
	"handlers":      informers(1, 10),
	"informers":     informers(2, 1),
	"index":         index,
	"nodes":         nodes,
	"cache":         fromCache(&corev1.Pod{}, cache.Options{}),
	"cache-strip":   fromCache(&corev1.Pod{}, cache.Options{DefaultTransform: cache.TransformStripManagedFields()}),
	"cache-trim":    fromCache(&corev1.Pod{}, cache.Options{DefaultTransform: trim}),
	"cache-label":   fromCache(&corev1.Pod{}, cache.Options{ByObject: map[client.Object]cache.ByObject{&corev1.Pod{}: {Label: selected}}}),
	"cache-metadata": fromCache(&metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}},
		cache.Options{DefaultTransform: cache.TransformStripManagedFields()}),
}

var (
	name    = flag.String("way", "", "`name`: "+strings.Join(slices.Sorted(maps.Keys(ways)), ", "))
	timeout = flag.Duration("sync-timeout", time.Minute, "how long to wait for the store")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	start, ok := ways[*name]
	if !ok {
		return errors.New("--way must be one of " + strings.Join(slices.Sorted(maps.Keys(ways)), ", "))
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return errors.New("no cluster configured: set KUBECONFIG to a kubeconfig that names one")
	}
	if err != nil {
		return fmt.Errorf("load kubeconfig: %w", err)
	}
	// As in 11: the meter counts the bytes that are sent, so they must not be compressed.
	var m meter
	config.DisableCompression = true
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { m.next = next; return &m })

	ctx, cancel := context.WithTimeoutCause(ctx, *timeout, errors.New("the store is not filled in time"))
	defer cancel()
	heapBefore, allocatedBefore := memory()
	begin := time.Now()
	pods, err := start(ctx, config)
	if err != nil {
		return err
	}
	took, requests, received := time.Since(begin), m.requests.Load(), m.received.Load()
	heap, allocated := memory()
	n, err := pods()
	if err != nil {
		return err
	}
	fmt.Printf("%-18s%8d\n", "pods in the store", n)
	fmt.Printf("%-18s%8d ms\n", "time to sync", took.Milliseconds())
	fmt.Printf("%-18s%8d\n", "requests", requests)
	fmt.Printf("%-18s%8d KiB\n", "received", received/1024)
	fmt.Printf("%-18s%8d KiB\n", "heap", (heap-heapBefore)/1024)
	fmt.Printf("%-18s%8d KiB\n", "allocated", (allocated-allocatedBefore)/1024)
	fmt.Println("cache is synced")
	<-ctx.Done()
	return nil
}

// memory returns the bytes of all objects that are still in use, and of all that ever were.
func memory() (heap, allocated int64) {
	runtime.GC()
	runtime.GC() // a second time, for memory that finalizers freed
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc), int64(stats.TotalAlloc)
}

// A meter counts requests, and the bytes in the bodies of the answers.
type meter struct {
	next               http.RoundTripper
	requests, received atomic.Int64
}

func (m *meter) RoundTrip(r *http.Request) (*http.Response, error) {
	m.requests.Add(1)
	response, err := m.next.RoundTrip(r)
	if err == nil {
		response.Body = &metered{response.Body, &m.received}
	}
	return response, err
}

type metered struct {
	io.ReadCloser
	received *atomic.Int64
}

func (b *metered) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.received.Add(int64(n))
	return n, err
}

// trim keeps what the question "which pods run on which node" needs, as 11 does.
func trim(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID,
			ResourceVersion: pod.ResourceVersion, Labels: pod.Labels,
		},
		Spec: corev1.PodSpec{NodeName: pod.Spec.NodeName},
	}, nil
}
