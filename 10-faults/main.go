// 10-faults makes a fault between the informer and its API server, and prints what follows.
package main

import (
	"bufio"
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
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubeconfigs that use oidc, as kubectl does
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

var (
	kubeconfig  = flag.String("kubeconfig", "", "`path` of a kubeconfig (default: as kubectl)")
	kubecontext = flag.String("context", "", "`name` of a context in it (default: current)")
	namespace   = flag.String("namespace", metav1.NamespaceAll, "`namespace` to use (default: all)")
	syncTimeout = flag.Duration("sync-timeout", time.Minute, "how long to wait for the cache")
	fault       = flag.String("fault", "cut", "what goes wrong, one of "+names)
	at          = flag.Duration("at", 10*time.Second, "when that begins, after the start")
	lasts       = flag.Duration("for", 20*time.Second, "how long it lasts")
)

// faults has for each fault the error with which it ends a running watch.
var faults = map[string]error{"cut": syscall.ECONNRESET, "ended": io.EOF, "bookmark": io.EOF,
	"silent": errors.New("http2: client connection lost"),
	"401":    io.EOF, "403": io.EOF, "410": io.EOF, "429": io.EOF, "503": io.EOF}
var names = strings.Join(slices.Sorted(maps.Keys(faults)), ", ")

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
	if *syncTimeout <= 0 {
		return errors.New("--sync-timeout must be more than 0")
	}
	if faults[*fault] == nil || *at < 0 || *lasts <= 0 {
		return errors.New("--at must be 0 or more, --for more than 0, and --fault one of " + names)
	}

	// All requests go through the wire, and the program requests nothing but pods.
	w := newWire(stdout)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { w.next = next; return w })
	config.ContentType = "application/json" // each event of a watch is then one line
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(*namespace))
	pods := factory.Core().V1().Pods().TypedInformer()
	onError := func(_ context.Context, _ *cache.Reflector, err error) {
		w.printf("watch error handler is called: watch pods: %v", err)
	}
	if err := pods.SetWatchErrorHandlerWithContext(onError); err != nil {
		return fmt.Errorf("set watch error handler: %w", err)
	}

	// There is no resync: an Update without a change is from a relist.
	handleAdd := func(pod *corev1.Pod, isInInitialList bool) {
		origin := map[bool]string{true: "initial", false: "new"}[isInInitialList]
		w.printf("handleAdd is called for Pod (key: %s): %s, resourceVersion %s",
			cache.MetaObjectToName(pod), origin, pod.ResourceVersion)
	}
	handleUpdate := func(old, pod *corev1.Pod) {
		why := old.ResourceVersion + " → " + pod.ResourceVersion
		if old.ResourceVersion == pod.ResourceVersion {
			why = "relist, resourceVersion " + pod.ResourceVersion
		}
		w.printf("handleUpdate is called for Pod (key: %s): %s", cache.MetaObjectToName(pod), why)
	}
	handleDelete := func(pod corev1informers.DeletedPod) {
		w.printf("handleDelete is called for Pod (key: %s): tombstone=%t",
			pod.GetKey(), pod.FinalStateUnknown != nil)
	}
	handler, err := pods.AddTypedEventHandler(corev1informers.PodDetailedHandlerFuncs{
		AddFunc: handleAdd, UpdateFunc: handleUpdate, DeleteFunc: handleDelete,
	})
	if err != nil {
		return fmt.Errorf("add handlers: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	factory.StartWithContext(ctx)
	syncCtx, cancelSync := context.WithTimeout(ctx, *syncTimeout)
	defer cancelSync()
	if !cache.WaitFor(syncCtx, "", handler.HasSyncedChecker()) {
		// The watch error handler may not hear of a refused connection: ask the server.
		once := metav1.ListOptions{Limit: 1, TimeoutSeconds: new(int64(5))}
		_, err := client.CoreV1().Pods(*namespace).List(ctx, once)
		return fmt.Errorf("cache is not synced: list pods: %w", cmp.Or(err, errors.New("no error")))
	}
	w.printf("cache is synced")
	<-ctx.Done()
	return cache.ShutDownEventHandler(pods, handler) // waits for a call in progress
}

// A wire is what all requests go through. It prints what passes, and makes the fault.
type wire struct {
	next        http.RoundTripper
	printf      func(format string, args ...any)
	begun, over context.Context // done when the fault begins, and when it is over
	ended       atomic.Value    // the time when the last answer ended
	listed      atomic.Bool     // the last request was a list, so a watch follows
	expired     atomic.Bool     // the answer was 410, and the next version is not too old
}

func newWire(stdout io.Writer) *wire {
	start, out := time.Now(), log.New(stdout, "", 0) // a Logger keeps lines whole
	w := &wire{printf: func(format string, args ...any) {
		out.Printf("%5.1fs %s", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}}
	after := func(d time.Duration, what string) context.Context {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(d, func() { w.printf("fault %s %s", *fault, what); cancel() })
		return ctx
	}
	w.begun, w.over = after(*at, "begins"), after(*at+*lasts, "is over")
	if w.ended.Store(start); *at == 0 {
		<-w.begun.Done() // before the first request
	}
	return w
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	query, kind := r.URL.Query(), "relist"
	watches, version := query.Has("watch"), query.Get("resourceVersion")
	if listed := w.listed.Swap(!watches); watches && !query.Has("sendInitialEvents") {
		kind = map[bool]string{true: "watch", false: "rewatch"}[listed]
	} else if version == "" || version == "0" {
		kind = "list"
	}
	maps.DeleteFunc(query, func(key string, _ []string) bool {
		return key != "resourceVersion" && key != "sendInitialEvents" && key != "watch"
	})
	wait := time.Since(w.ended.Load().(time.Time)) // the back-off
	w.printf("request after %.1fs: %s, %s", wait.Seconds(), kind, query.Encode())

	response, err := w.answer(r, kind)
	w.ended.Store(time.Now())
	if err != nil {
		w.printf("answer: %v", err)
		return nil, err
	}
	w.printf("answer: %s", response.Status)
	if watches && response.StatusCode == http.StatusOK && response.Request != nil {
		response.Body = w.follow(r.Context(), response.Body)
	}
	return response, nil
}

func (w *wire) faulty() bool { return w.begun.Err() != nil && w.over.Err() == nil }

// answer is the server's, or that of the fault.
func (w *wire) answer(r *http.Request, kind string) (*http.Response, error) {
	code, _ := strconv.Atoi(*fault)
	switch {
	case !w.faulty():
		code = 0
	case *fault == "cut":
		return nil, syscall.ECONNREFUSED
	case *fault == "silent":
		select {
		case <-w.over.Done():
		case <-r.Context().Done():
		}
	}
	if code == 0 || code == http.StatusGone && (kind != "rewatch" || w.expired.Swap(true)) {
		return w.next.RoundTrip(r)
	}
	text, header := http.StatusText(code), http.Header{"Content-Type": {"application/json"}}
	body := fmt.Sprintf(`{"kind": "Status", "apiVersion": "v1", "status": "Failure", `+
		`"code": %d, "reason": %q, "message": %q}`, code, strings.ReplaceAll(text, " ", ""), text)
	switch code {
	case http.StatusTooManyRequests:
		header.Set("Retry-After", "1")
	case http.StatusGone: // an API server says this in the stream
		code, text, body = 200, "OK, ERROR 410 Gone", `{"type": "ERROR", "object": `+body+"}"
	}
	return &http.Response{StatusCode: code, Status: fmt.Sprint(code, " ", text), Header: header,
		Body: io.NopCloser(strings.NewReader(body))}, nil
}

// follow passes on the events of a watch, each a line, until the server or the fault ends it.
func (w *wire) follow(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	events, to := io.Pipe()
	when, whole := w.begun, func() bool { return true }
	if *fault == "silent" || *fault == "bookmark" {
		when = w.over
	}
	if when.Err() == nil { // the fault ends only what was there before
		whole = context.AfterFunc(when, func() { _ = body.Close() }) //nolint:contextcheck // timed
	}
	go func() {
		lines, line, err := bufio.NewReader(body), "", error(nil)
		for err == nil {
			line, err = lines.ReadString('\n')
			last := strings.Contains(line, metav1.InitialEventsAnnotationKey)
			if !w.faulty() || *fault != "silent" && (*fault != "bookmark" || !last) {
				_, _ = io.WriteString(to, line)
			}
		}
		if !whole() {
			err = faults[*fault]
		}
		if w.ended.Store(time.Now()); ctx.Err() == nil {
			w.printf("answer ends: %v", err)
		}
		_ = to.CloseWithError(err)
	}()
	return events
}
