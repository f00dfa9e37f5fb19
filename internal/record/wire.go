package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"example.com/informers/internal/clusters"
)

// A wireRequest is a request of chapter 05.
type wireRequest struct {
	At     float64 `json:"at"`      // seconds since the program started
	Query  string  `json:"request"` // LIST or WATCH, and the query
	Answer string  `json:"answer"`  // status, type, encoding
	Bytes  int     `json:"bytes"`   // on the wire
	Frames string  `json:"frames"`  // of a watch, in the order in which they arrived
	Lasted float64 `json:"lasted"`
}

// A wireSize is the size of one answer.
type wireSize struct {
	What     string  `json:"what"`
	JSON     int     `json:"JSON"`
	Protobuf int     `json:"protobuf"`
	Ratio    float64 `json:"protobuf_of_JSON"`
	JSONGzip int     `json:"JSON_gzip"`
	Gzip     int     `json:"protobuf_gzip"`
}

// wire records each request that chapter 05 makes in five minutes, with WatchList and without,
// and the sizes of answers.
func wire(ctx context.Context, cluster *clusters.Cluster) (any, error) {
	client, err := cluster.Client()
	if err != nil {
		return nil, err
	}
	if err := syncedPods(ctx, client, "wire", 1); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "informers-record")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program := filepath.Join(dir, "05-resync")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "./05-resync").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}

	var result struct {
		WatchList []wireRequest `json:"watchlist"`
		List      []wireRequest `json:"list"`
		Sizes     []wireSize    `json:"sizes"`
	}
	begin := time.Now()
	runs, all := errgroup.WithContext(ctx)
	runs.Go(func() (err error) {
		result.WatchList, err = wireRun(all, cluster, program, begin)
		return err
	})
	runs.Go(func() (err error) {
		result.List, err = wireRun(all, cluster, program, begin, "KUBE_FEATURE_WatchListClient=false")
		return err
	})
	runs.Go(func() error { return wireWrites(all, client, begin) })
	if err := runs.Wait(); err != nil {
		return nil, err
	}

	if err := syncedPods(ctx, client, "sizes", 1000); err != nil {
		return nil, err
	}
	for _, s := range []struct{ what, query string }{
		{"a list of one pod", "limit=1"},
		{"a list of 100 pods", "limit=100"},
		{"a list of 1,000 pods", ""},
		{"a watch of 1,000 ADDED", "watch=true&timeoutSeconds=2&sendInitialEvents=true&" +
			"resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"},
	} {
		size := wireSize{What: s.what}
		if size.JSON, size.JSONGzip, err = answer(ctx, cluster, s.query, "application/json"); err != nil {
			return nil, err
		}
		if size.Protobuf, size.Gzip, err = answer(ctx, cluster, s.query, "application/vnd.kubernetes.protobuf"); err != nil {
			return nil, err
		}
		size.Ratio = round(float64(size.Protobuf) / float64(size.JSON))
		result.Sizes = append(result.Sizes, size)
	}
	return result, nil
}

// wireWrites creates, changes and deletes a pod, 20 s apart.
func wireWrites(ctx context.Context, client kubernetes.Interface, begin time.Time) error {
	pods := client.CoreV1().Pods("wire")
	for i, do := range []func() error{
		func() error { _, err := pods.Create(ctx, syncedPod(1), metav1.CreateOptions{}); return err },
		func() error {
			_, err := pods.Patch(ctx, "pod-1", types.MergePatchType,
				[]byte(`{"metadata":{"labels":{"changed":"yes"}}}`), metav1.PatchOptions{})
			return err
		},
		func() error { return pods.Delete(ctx, "pod-1", metav1.DeleteOptions{}) },
	} {
		if err := until(ctx, begin.Add(time.Duration(20*(i+1))*time.Second)); err != nil {
			return err
		}
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// wireRun runs the program for five minutes behind a proxy that records its requests.
func wireRun(ctx context.Context, cluster *clusters.Cluster, program string, begin time.Time, env ...string) ([]wireRequest, error) {
	config, err := cluster.Config()
	if err != nil {
		return nil, err
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, err
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		return nil, err
	}
	p := &wireProxy{next: transport, begin: begin}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: p, FlushInterval: -1,
	}
	server := httptest.NewServer(proxy)
	defer server.Close()
	kubeconfig := program + fmt.Sprint(len(env)) + ".kubeconfig"
	api := clientcmdapi.NewConfig()
	api.Clusters["wire"] = &clientcmdapi.Cluster{Server: server.URL}
	api.Contexts["wire"] = &clientcmdapi.Context{Cluster: "wire"}
	api.CurrentContext = "wire"
	if err := clientcmd.WriteToFile(*api, kubeconfig); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithDeadline(ctx, begin.Add(5*time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--kubeconfig", kubeconfig, "--namespace", "wire")
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		return nil, err
	}
	server.CloseClientConnections()
	p.Lock()
	defer p.Unlock()
	var all []wireRequest
	for _, b := range p.bodies {
		r := b.wireRequest
		r.Bytes = b.bytes.Len()
		if !b.ended {
			r.Lasted = p.now() - r.At
		}
		r.Lasted = round(r.Lasted)
		if strings.HasPrefix(r.Query, "WATCH") {
			r.Frames = frames(b.plain())
		}
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b wireRequest) int { return cmp.Compare(a.At, b.At) })
	return all, nil
}

type wireProxy struct {
	sync.Mutex
	next   http.RoundTripper
	begin  time.Time
	bodies []*wireBody
}

func (p *wireProxy) now() float64 { return round(time.Since(p.begin).Seconds()) }

func (p *wireProxy) RoundTrip(request *http.Request) (*http.Response, error) {
	at := p.now()
	response, err := p.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	query, _ := url.QueryUnescape(request.URL.RawQuery)
	verb := "LIST"
	if request.URL.Query().Get("watch") == "true" {
		verb = "WATCH"
	}
	kind := strings.ReplaceAll(response.Header.Get("Content-Type"), ";", ";\n")
	answer := []string{response.Status, kind}
	encoding := response.Header.Get("Content-Encoding")
	if encoding != "" {
		answer = append(answer, encoding)
	}
	body := &wireBody{ReadCloser: response.Body, proxy: p, encoding: encoding, wireRequest: wireRequest{
		At:     at,
		Query:  verb + " " + path.Base(request.URL.Path) + "\n" + strings.ReplaceAll(query, "&", "\n"),
		Answer: strings.Join(answer, "\n"),
	}}
	p.Lock()
	defer p.Unlock()
	p.bodies = append(p.bodies, body)
	response.Body = body
	return response, nil
}

type wireBody struct {
	io.ReadCloser
	proxy *wireProxy
	wireRequest
	bytes    bytes.Buffer
	encoding string
	ended    bool
}

func (b *wireBody) Read(to []byte) (int, error) {
	n, err := b.ReadCloser.Read(to)
	b.proxy.Lock()
	defer b.proxy.Unlock()
	b.bytes.Write(to[:n])
	if err != nil && !b.ended {
		b.ended = true
		b.Lasted = b.proxy.now() - b.At
	}
	return n, err
}

// plain returns the received part of the stream, uncompressed.
func (b *wireBody) plain() []byte {
	if b.encoding != "gzip" {
		return b.bytes.Bytes()
	}
	var plain bytes.Buffer
	if r, err := gzip.NewReader(&b.bytes); err == nil {
		_, _ = io.Copy(&plain, r) // ignore an error at the end: the stream was cut
	}
	return plain.Bytes()
}

// frames returns the types of a watch's events. In both encodings the type is plain text, before
// the object.
func frames(stream []byte) string {
	var all []string
	for len(stream) > 0 {
		first, name := len(stream), ""
		for _, kind := range []string{"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"} {
			if i := bytes.Index(stream, []byte(kind)); i >= 0 && i < first {
				first, name = i, kind
			}
		}
		if name == "" {
			break
		}
		all = append(all, name)
		stream = stream[first+len(name):]
	}
	return strings.Join(all, " ")
}

// answer returns the size of an answer, and its size with gzip, or 0 if the server does not
// compress it.
func answer(ctx context.Context, cluster *clusters.Cluster, query, accept string) (plain, zipped int, err error) {
	for _, encoding := range []string{"identity", "gzip"} {
		config, err := cluster.Config()
		if err != nil {
			return 0, 0, err
		}
		config.DisableCompression = true // so that the bytes are counted as sent
		transport, err := rest.TransportFor(config)
		if err != nil {
			return 0, 0, err
		}
		address := config.Host + "/api/v1/namespaces/sizes/pods?" + query
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return 0, 0, err
		}
		request.Header.Set("Accept", accept)
		request.Header.Set("Accept-Encoding", encoding)
		response, err := transport.RoundTrip(request)
		if err != nil {
			return 0, 0, err
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK {
			return 0, 0, fmt.Errorf("%s: %s %w", address, response.Status, err)
		}
		switch {
		case encoding == "identity":
			plain = len(body)
		case response.Header.Get("Content-Encoding") == "gzip":
			if _, err := gzip.NewReader(bytes.NewReader(body)); err != nil {
				return 0, 0, err
			}
			zipped = len(body)
		}
	}
	return plain, zipped, nil
}
