// 10-faults makes a fault between the informer and its API server, and prints what follows.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	fault       = flag.String("fault", "cut", "what goes wrong: "+strings.Join(names, ", "))
	at          = flag.Duration("at", 10*time.Second, "when it begins, after the start")
	lasts       = flag.Duration("for", 20*time.Second, "how long it lasts")
)

// faults are the faults, each with the error that a running watch ends with. A Status is an
// answer to the requests that follow.
var faults = map[string]error{
	"cut": syscall.ECONNRESET, "silent": errors.New("http2: client connection lost"),
	"ended": io.EOF, "bookmark": io.EOF,
	"401": io.EOF, "403": io.EOF, "410": io.EOF, "429": io.EOF, "503": io.EOF,
}
var names = slices.Sorted(maps.Keys(faults))

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
	if faults[*fault] == nil {
		return fmt.Errorf("--fault must be one of %s", strings.Join(names, ", "))
	}
	if *at < 0 || *lasts < 0 {
		return errors.New("--at and --for must be 0 or more")
	}

	// Several goroutines print: a Logger keeps lines whole.
	out := log.New(clock{stdout, time.Now()}, "", 0)

	// All requests go through the wire, and the program requests nothing but pods.
	begun, begin := context.WithCancel(context.Background())
	over, end := context.WithCancel(context.Background())
	wire := &wire{out: out, begun: begun, over: over}
	config.Wrap(wire.wrap)
	config.ContentType = "application/json" // each event of a watch is then one line
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(*namespace))
	pods := factory.Core().V1().Pods().TypedInformer()

	// client-go retries forever, less and less often, and calls this with some of the errors.
	onError := func(_ context.Context, _ *cache.Reflector, err error) {
		out.Print("watch error handler is called: watch pods: ", err)
	}
	if err := pods.SetWatchErrorHandlerWithContext(onError); err != nil {
		return fmt.Errorf("set watch error handler: %w", err)
	}

	// Handlers get pointers into the store, which is shared: NEVER modify them.
	handleAdd := func(pod *corev1.Pod, isInInitialList bool) {
		origin := "new"
		if isInInitialList {
			origin = "initial"
		}
		out.Printf("handleAdd is called for Pod (key: %s): %s, resourceVersion %s",
			cache.MetaObjectToName(pod), origin, pod.ResourceVersion)
	}
	handleUpdate := func(old, pod *corev1.Pod) {
		change := old.ResourceVersion + " → " + pod.ResourceVersion
		if old.ResourceVersion == pod.ResourceVersion { // without a period there is no resync
			change = "relist, resourceVersion " + pod.ResourceVersion
		}
		out.Printf("handleUpdate is called for Pod (key: %s): %s",
			cache.MetaObjectToName(pod), change)
	}
	// For a deleted pod, rely on the key only: the informer may have missed the delete.
	handleDelete := func(pod corev1informers.DeletedPod) {
		out.Printf("handleDelete is called for Pod (key: %s): tombstone=%t",
			pod.GetKey(), pod.FinalStateUnknown != nil)
	}
	handler, err := pods.AddTypedEventHandler(corev1informers.PodDetailedHandlerFuncs{
		AddFunc: handleAdd, UpdateFunc: handleUpdate, DeleteFunc: handleDelete,
	})
	if err != nil {
		return fmt.Errorf("add handlers: %w", err)
	}

	time.AfterFunc(*at, func() {
		out.Printf("fault %s begins, for %s", *fault, *lasts)
		begin()
		time.AfterFunc(*lasts, func() {
			out.Printf("fault %s is over", *fault)
			end()
		})
	})
	if *at == 0 {
		<-begun.Done() // before the first request
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	factory.StartWithContext(ctx)

	syncCtx, cancelSync := context.WithTimeout(ctx, *syncTimeout)
	defer cancelSync()
	if !cache.WaitFor(syncCtx, "", handler.HasSyncedChecker()) {
		return fmt.Errorf("cache is not synced: %w", reason(ctx, client))
	}
	out.Print("cache is synced")

	<-ctx.Done()
	// Wait for a call in progress. factory.Shutdown would also wait for the reflector,
	// which may be in a long back-off if the server is down.
	return cache.ShutDownEventHandler(pods, handler)
}

// reason asks the server why the cache is not synced: the watch error handler may
// not hear of a refused connection (client-go's reflector.go, isWatchErrorRetriable).
func reason(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := client.CoreV1().Pods(*namespace).List(ctx, metav1.ListOptions{Limit: 1}); err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	return fmt.Errorf("not filled within %s, although the server answers a list", *syncTimeout)
}

// A clock begins each line with the seconds since the start.
type clock struct {
	to    io.Writer
	start time.Time
}

func (c clock) Write(line []byte) (int, error) {
	_, err := fmt.Fprintf(c.to, "%5.1fs %s", time.Since(c.start).Seconds(), line)
	return len(line), err
}

// A wire is what all requests go through. It makes the fault, and prints what passes.
type wire struct {
	next        http.RoundTripper
	out         *log.Logger
	begun, over context.Context // the fault's
	ended       atomic.Value    // when the last answer ended
	listed      atomic.Bool     // it was a list, so a watch from its version is due
	expired     atomic.Bool     // 410 was answered: the version of a relist is not too old
}

func (w *wire) wrap(next http.RoundTripper) http.RoundTripper {
	w.next = next
	return w
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	query := r.URL.Query()
	kind := w.kind(query)
	wait := ""
	if ended, ok := w.ended.Load().(time.Time); ok {
		wait = fmt.Sprintf(" after %.1fs", time.Since(ended).Seconds())
	}
	maps.DeleteFunc(query, func(key string, _ []string) bool {
		return key != "resourceVersion" && key != "sendInitialEvents" && key != "watch"
	})
	w.out.Printf("request%s: %s, %s", wait, kind, query.Encode())

	response, err := w.fail(r, kind)
	failed := response != nil || err != nil
	if !failed {
		response, err = w.next.RoundTrip(r)
	}
	w.ended.Store(time.Now())
	if err != nil {
		w.out.Print("answer: ", err)
		return nil, err
	}
	w.out.Print("answer: ", response.Status)
	good := !failed && response.StatusCode == http.StatusOK
	w.listed.Store(good && !query.Has("watch"))
	if good && query.Has("watch") {
		response.Body = w.follow(r.Context(), response.Body)
	}
	return response, nil
}

// kind says by its query what a request is for.
func (w *wire) kind(query url.Values) string {
	version := query.Get("resourceVersion")
	switch all := query.Has("sendInitialEvents") || !query.Has("watch"); {
	case !all && w.listed.Load():
		return "watch"
	case !all:
		return "rewatch"
	case version == "" || version == "0":
		return "list"
	}
	return "relist"
}

func (w *wire) faulty() bool { return w.begun.Err() != nil && w.over.Err() == nil }

// fail is what becomes of a request during the fault, or nil if it passes.
func (w *wire) fail(r *http.Request, kind string) (*http.Response, error) {
	code, _ := strconv.Atoi(*fault)
	switch {
	case !w.faulty():
	case *fault == "cut":
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	case *fault == "silent":
		select {
		case <-w.over.Done():
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	case code == http.StatusGone:
		if kind == "rewatch" && !w.expired.Swap(true) {
			return status(r, code)
		}
	case code != 0:
		return status(r, code)
	}
	return nil, nil
}

// status is an API server's answer if it refuses a request.
func status(r *http.Request, code int) (*http.Response, error) {
	pods := corev1.Resource("pods")
	status := apierrors.NewGenericServerResponse(code, "get", pods, "", "", 0, false).Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	body, err := json.Marshal(status)
	header := http.Header{"Content-Type": {"application/json"}}
	text := fmt.Sprintf("%d %s", code, http.StatusText(code))
	switch code {
	case http.StatusTooManyRequests:
		header.Set("Retry-After", "1")
	case http.StatusGone: // in the stream, as an event
		body, text = fmt.Appendf(nil, `{"type":"ERROR","object":%s}`, body), "200 OK, in it ERROR "+text
		code = http.StatusOK
	}
	return &http.Response{StatusCode: code, Status: text, Header: header, Request: r,
		Body: io.NopCloser(bytes.NewReader(body))}, err
}

// A stream is the answer to a watch, until the server, the client or the fault ends it.
type stream struct {
	io.Closer
	ctx      context.Context
	wire     *wire
	lines    *bufio.Reader
	rest     []byte      // of a line
	withheld atomic.Bool // a line, by the fault
	cut      atomic.Bool
}

func (w *wire) follow(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	s := &stream{Closer: body, ctx: ctx, wire: w, lines: bufio.NewReader(body)}
	when := w.begun
	if *fault == "silent" || *fault == "bookmark" {
		when = w.over
	}
	if when.Err() == nil { // else the fault does not end this one
		context.AfterFunc(when, func() {
			if *fault != "bookmark" || s.withheld.Load() {
				s.cut.Store(true)
				_ = body.Close()
			}
		})
	}
	return s
}

func (s *stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		line, err := s.lines.ReadBytes('\n')
		end := bytes.Contains(line, []byte(metav1.InitialEventsAnnotationKey))
		if s.wire.faulty() && (*fault == "silent" || *fault == "bookmark" && end) {
			s.withheld.Store(true)
			line = nil
		}
		if s.cut.Load() {
			line, err = nil, faults[*fault]
		}
		if s.rest = line; err != nil && len(line) == 0 {
			if s.ctx.Err() == nil {
				s.wire.ended.Store(time.Now())
				s.wire.out.Print("answer ends: ", err)
			}
			return 0, err
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}
