package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
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
func (r *recorder) wire(ctx context.Context) (any, error) {
	if err := r.create(ctx, "wire", 1, gated); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "informers-record")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program := filepath.Join(dir, "05-resync")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./05-resync")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("%v: %w", build.Args, err)
	}
	var result struct {
		WatchList []wireRequest `json:"watchlist"`
		List      []wireRequest `json:"list"`
		Sizes     []wireSize    `json:"sizes"`
	}
	runs, all := errgroup.WithContext(ctx)
	runs.Go(func() (err error) {
		result.WatchList, err = r.chapter05(all, program)
		return err
	})
	runs.Go(func() (err error) {
		result.List, err = r.chapter05(all, program, "KUBE_FEATURE_WatchListClient=false")
		return err
	})
	runs.Go(func() error { return r.write(all) })
	if err := runs.Wait(); err != nil {
		return nil, err
	}

	if err := r.create(ctx, "sizes", 1000, gated); err != nil {
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
		for _, answer := range []struct {
			size             *int
			accept, encoding string
		}{
			{&size.JSON, "application/json", "identity"},
			{&size.JSONGzip, "application/json", "gzip"},
			{&size.Protobuf, "application/vnd.kubernetes.protobuf", "identity"},
			{&size.Gzip, "application/vnd.kubernetes.protobuf", "gzip"},
		} {
			if *answer.size, err = r.size(ctx, s.query, answer.accept, answer.encoding); err != nil {
				return nil, fmt.Errorf("%s: %w", s.what, err)
			}
		}
		size.Ratio = round(float64(size.Protobuf)/float64(size.JSON), 100)
		result.Sizes = append(result.Sizes, size)
	}
	return result, nil
}

// write creates, changes and deletes a pod, 20 s apart.
func (r *recorder) write(ctx context.Context) error {
	pods := r.client.CoreV1().Pods("wire")
	for _, do := range []func() error{
		func() error { _, err := pods.Create(ctx, gated(1), metav1.CreateOptions{}); return err },
		func() error { return r.label(ctx, "wire", "pod-1") },
		func() error { return pods.Delete(ctx, "pod-1", metav1.DeleteOptions{}) },
	} {
		if err := until(ctx, time.Now().Add(20*time.Second)); err != nil {
			return err
		}
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// chapter05 runs the program for five minutes behind a proxy that records its requests.
func (r *recorder) chapter05(ctx context.Context, program string, env ...string) ([]wireRequest, error) {
	config, tap := r.tapped()
	tap.keep = true
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, err
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		return nil, err
	}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport, FlushInterval: -1,
	})
	defer server.Close()
	kubeconfig := program + fmt.Sprint(len(env)) + ".kubeconfig"
	api := clientcmdapi.NewConfig()
	api.Clusters["wire"] = &clientcmdapi.Cluster{Server: server.URL}
	api.Contexts["wire"] = &clientcmdapi.Context{Cluster: "wire"}
	api.CurrentContext = "wire"
	if err := clientcmd.WriteToFile(*api, kubeconfig); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithDeadline(ctx, tap.begin.Add(5*time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--kubeconfig", kubeconfig, "--namespace", "wire")
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		return nil, err
	}
	server.CloseClientConnections()
	tap.cut(false)
	tap.Lock()
	defer tap.Unlock()
	var requests []wireRequest
	for _, e := range tap.requests {
		requests = append(requests, row(e))
	}
	return requests, nil
}

func row(e *exchange) wireRequest {
	verb, _, _ := strings.Cut(e.kind(), " ")
	query, _ := url.QueryUnescape(e.request.URL.RawQuery)
	header := e.response.Header
	r := wireRequest{
		At:     round(e.at, 100),
		Query:  verb + " " + path.Base(e.request.URL.Path) + "\n" + strings.ReplaceAll(query, "&", "\n"),
		Answer: e.response.Status + "\n" + strings.ReplaceAll(header.Get("Content-Type"), ";", ";\n"),
		Bytes:  e.bytes, Lasted: round(e.until-e.at, 100),
	}
	received := io.Reader(&e.kept)
	if encoding := header.Get("Content-Encoding"); encoding != "" {
		r.Answer += "\n" + encoding
		if plain, err := gzip.NewReader(received); err == nil {
			received = plain
		}
	}
	if verb == "WATCH" {
		stream, _ := io.ReadAll(received) // ignore an error at the end: the stream was cut
		r.Frames = frames(stream)
	}
	return r
}

// In both encodings the type of a watch's event is plain text, before the object.
var frame = regexp.MustCompile("ADDED|MODIFIED|DELETED|BOOKMARK|ERROR")

// frames returns the types of a watch's events.
func frames(stream []byte) string {
	return string(bytes.Join(frame.FindAll(stream, -1), []byte(" ")))
}

// size returns the size of an answer as it is sent, or 0 if the server does not compress it
// as asked.
func (r *recorder) size(ctx context.Context, query, accept, encoding string) (int, error) {
	// A transport decompresses only what it asked for itself.
	sent, err := r.client.CoreV1().RESTClient().Get().RequestURI("/api/v1/namespaces/sizes/pods?"+query).
		SetHeader("Accept", accept).SetHeader("Accept-Encoding", encoding).DoRaw(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := gzip.NewReader(bytes.NewReader(sent)); err != nil && encoding == "gzip" {
		return 0, nil
	}
	return len(sent), nil
}
