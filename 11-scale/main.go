// 11-scale counts pods from the cache of an informer that costs less, and prints what it cost.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
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
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubeconfigs that use oidc, as kubectl does
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

var (
	kubeconfig  = flag.String("kubeconfig", "", "`path` of a kubeconfig (default: as kubectl)")
	kubecontext = flag.String("context", "", "`name` of a context in it (default: current)")
	namespace   = flag.String("namespace", metav1.NamespaceAll, "`names`, as in a,b (default: all)")
	syncTimeout = flag.Duration("sync-timeout", time.Minute, "how long to wait for the cache")
	by          = flag.String("by", "", "count pods by this `label` (default: by node)")
	keep        = flag.String("store", "whole", "what it keeps: whole, trimmed, or metadata")
	selector    = flag.String("selector", "", "only pods with these `labels`")
	field       = flag.String("field-selector", "", "only pods with these `fields`")
	encoding    = flag.String("encoding", "protobuf", "how pods are sent: protobuf or json")
	handlers    = flag.Uint("handlers", 0, "how many handlers to add, which do nothing")
)

// encodings are what the client accepts: the first that the API server has for the resource.
var encodings = map[string]string{
	"json":     "application/json",
	"protobuf": "application/vnd.kubernetes.protobuf,application/json",
}

func main() {
	klog.InitFlags(nil) // -v=4 logs what client-go does
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first ^C ends ctx, a second one kills the program

	config, err := newConfig()
	if err == nil {
		err = run(ctx, config, os.Stdout)
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// newConfig finds the cluster as kubectl does: --kubeconfig, or KUBECONFIG with
// one file or several, or ~/.kube/config, or the pod that the program runs in.
func newConfig() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = *kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: *kubecontext}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("no cluster configured: " +
			"set KUBECONFIG or --kubeconfig to a kubeconfig that names one")
	}
	if err != nil {
		return nil, fmt.Errorf("load kubeconfig: %w", err)
	}
	return config, nil
}

func run(ctx context.Context, config *rest.Config, stdout io.Writer) error {
	namespaces := strings.Split(*namespace, ",")
	if err := checkFlags(namespaces); err != nil {
		return err
	}

	// All requests go through the meter. Go's transport below it would request gzip, and
	// decompress: without compression, the meter counts the bytes that are sent.
	var m meter
	config.DisableCompression = true
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { m.next = next; return &m })
	config.AcceptContentTypes = encodings[*encoding]
	c, err := newClients(config)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	heapBefore, allocatedBefore := memory()
	start := time.Now()
	var stores []cache.TypedIndexer[metav1.Object]
	var synced []cache.DoneChecker
	for _, ns := range namespaces {
		informer, err := c.newInformer(ns)
		if err != nil {
			return err
		}
		stores = append(stores, informer.GetTypedIndexer())
		synced = append(synced, informer.HasSyncedChecker())
		for range *handlers { // each has goroutines, and a buffer for what it has not handled
			handler, err := informer.AddTypedEventHandler(
				cache.TypedResourceEventHandlerFuncs[metav1.Object]{})
			if err != nil {
				return fmt.Errorf("add handlers: %w", err)
			}
			synced = append(synced, handler.HasSyncedChecker())
		}
		go informer.RunWithContext(ctx)
	}

	syncCtx, cancelSync := context.WithTimeout(ctx, *syncTimeout)
	defer cancelSync()
	if !cache.WaitFor(syncCtx, "", synced...) {
		return fmt.Errorf("cache is not synced: %w", c.reason(ctx, namespaces))
	}
	took, requests, received := time.Since(start), m.requests.Load(), m.received.Load()
	heap, allocated := memory()

	pods, counts, begin := 0, map[string]int{}, time.Now()
	for _, store := range stores {
		for _, value := range store.ListIndexFuncValues("by") {
			there, err := store.ByTypedIndex("by", value)
			if err != nil {
				return fmt.Errorf("read index: %w", err)
			}
			pods, counts[value] = pods+len(there), counts[value]+len(there)
		}
	}
	byIndex := time.Since(begin) / time.Duration(max(1, len(counts))) // for the pods of one value
	out := log.New(stdout, "", 0)
	out.Printf("%-18s%8d", "pods in the store", pods)
	out.Printf("%-18s%8d ms", "time to sync", took.Milliseconds())
	out.Printf("%-18s%8d", "requests", requests)
	out.Printf("%-18s%8d KiB", "received", received/1024)
	out.Printf("%-18s%8d KiB", "heap", (heap-heapBefore)/1024)
	out.Printf("%-18s%8d KiB", "allocated", (allocated-allocatedBefore)/1024)
	out.Printf("%-18s%8d µs", "found by index", byIndex.Microseconds())
	begin = time.Now()
	for _, store := range stores {
		for _, pod := range store.List() {
			_, _ = value(pod.(metav1.Object)) // without an index, all have to be looked at
		}
	}
	out.Printf("%-18s%8d µs", "found by scan", time.Since(begin).Microseconds())
	out.Print("cache is synced")

	what := "on node "
	if *by != "" {
		what = "with " + *by + "="
	}
	for _, value := range slices.Sorted(maps.Keys(counts)) {
		out.Printf("pods %s%s: %d", what, cmp.Or(value, "<none>"), counts[value])
	}

	<-ctx.Done()
	return nil
}

func checkFlags(namespaces []string) error {
	if *syncTimeout <= 0 {
		return errors.New("--sync-timeout must be more than 0")
	}
	if !slices.Contains([]string{"whole", "trimmed", "metadata"}, *keep) {
		return errors.New("--store must be whole, trimmed, or metadata")
	}
	if encodings[*encoding] == "" {
		return errors.New("--encoding must be protobuf or json")
	}
	if *keep == "metadata" && *by == "" {
		return errors.New("--store metadata needs --by: the node is not in a pod's metadata")
	}
	if *keep == "metadata" && *encoding != "protobuf" {
		return errors.New("--store metadata needs --encoding protobuf: its client knows no other")
	}
	for i, ns := range namespaces {
		if slices.Contains(namespaces[:i], ns) || ns == "" && len(namespaces) > 1 {
			return errors.New("--namespace must name each namespace once")
		}
	}
	if _, err := labels.Parse(*selector); err != nil {
		return fmt.Errorf("--selector: %w", err)
	}
	if _, err := fields.ParseSelector(*field); err != nil {
		return fmt.Errorf("--field-selector: %w", err)
	}
	return nil
}

// A clients has the client for whole pods, and the one for metadata only.
type clients struct {
	pods     kubernetes.Interface
	metadata metadata.Interface
}

func newClients(config *rest.Config) (c clients, err error) {
	if c.pods, err = kubernetes.NewForConfig(config); err != nil {
		return c, err
	}
	c.metadata, err = metadata.NewForConfig(config)
	return c, err
}

// newInformer has an informer of the pods in one namespace. Its objects have a type that both
// pods and metadata have.
func (c clients) newInformer(ns string) (cache.TypedSharedIndexInformer[metav1.Object], error) {
	var informer cache.SharedIndexInformer
	if *keep == "metadata" {
		informer = metadatainformer.NewFilteredSharedInformerFactory(c.metadata, 0, ns, narrow).
			ForResource(corev1.SchemeGroupVersion.WithResource("pods")).Informer()
	} else {
		informer = informers.NewSharedInformerFactoryWithOptions(c.pods, 0,
			informers.WithNamespace(ns), informers.WithTweakListOptions(narrow)).
			Core().V1().Pods().TypedInformer()
	}
	// The transform sees each object before the store and the handlers do.
	if *keep != "whole" {
		if err := informer.SetTransform(trim); err != nil {
			return nil, fmt.Errorf("set transform: %w", err)
		}
	}
	// client-go retries forever, less and less often, and calls this with each error.
	onError := func(_ context.Context, _ *cache.Reflector, err error) {
		log.Print("watch pods: ", err)
	}
	if err := informer.SetWatchErrorHandlerWithContext(onError); err != nil {
		return nil, fmt.Errorf("set watch error handler: %w", err)
	}
	typed := cache.NewTypedSharedIndexInformer[metav1.Object](informer)
	err := typed.AddTypedIndexers(cache.TypedIndexers[metav1.Object]{"by": value})
	if err != nil {
		return nil, fmt.Errorf("add index: %w", err)
	}
	return typed, nil
}

// narrow makes the API server send fewer pods. It is for all requests: list and watch.
func narrow(options *metav1.ListOptions) {
	options.LabelSelector, options.FieldSelector = *selector, *field
}

// trim makes an object that has only what value reads, and what client-go reads: the key, and
// the version. What is not named here is dropped, also what a later Kubernetes adds.
// Trimmed again, the object stays as it is: client-go may pass one twice.
func trim(object any) (any, error) {
	switch o := object.(type) {
	case *corev1.Pod:
		return &corev1.Pod{
			ObjectMeta: trimMeta(o.ObjectMeta),
			Spec:       corev1.PodSpec{NodeName: o.Spec.NodeName},
		}, nil
	case *metav1.PartialObjectMetadata:
		return &metav1.PartialObjectMetadata{ObjectMeta: trimMeta(o.ObjectMeta)}, nil
	}
	return object, nil // an error would keep the object out of the store, with LIST all objects
}

func trimMeta(o metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: o.Name, Namespace: o.Namespace, UID: o.UID,
		ResourceVersion: o.ResourceVersion, Labels: o.Labels,
	}
}

// value is what pods are counted by.
func value(object metav1.Object) ([]string, error) {
	if pod, ok := object.(*corev1.Pod); ok && *by == "" {
		return []string{pod.Spec.NodeName}, nil
	}
	return []string{object.GetLabels()[*by]}, nil
}

// reason asks the server why a store is not filled: the watch error handler may
// not hear of a refused connection (client-go's reflector.go, isWatchErrorRetriable).
func (c clients) reason(ctx context.Context, namespaces []string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, ns := range namespaces {
		once := metav1.ListOptions{Limit: 1}
		narrow(&once)
		if _, err := c.pods.CoreV1().Pods(ns).List(ctx, once); err != nil {
			return fmt.Errorf("list pods: %w", err)
		}
	}
	return fmt.Errorf("not filled within %s, although the server answers a list", *syncTimeout)
}

// memory returns the bytes of all objects that are still in use, and of all that ever were.
func memory() (heap, allocated int64) {
	runtime.GC()
	runtime.GC() // a second time, for memory that finalizers freed
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc), int64(stats.TotalAlloc)
}

// A meter counts requests, and the bytes in the bodies of the answers: no headers, no TLS.
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

// A metered body goes on counting while a watch is open.
type metered struct {
	io.ReadCloser
	received *atomic.Int64
}

func (b *metered) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.received.Add(int64(n))
	return n, err
}
