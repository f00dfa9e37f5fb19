package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A mirror serves programs as dl.k8s.io and GitHub do. A test changes its files, or answers itself.
type mirror struct {
	files map[string][]byte // by path

	mu      sync.Mutex
	answers map[string]http.HandlerFunc
	asked   []string
}

// answer makes f answer the next requests for a path; nil serves the file again.
func (m *mirror) answer(path string, f http.HandlerFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers[path], m.asked = f, nil
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.asked = append(m.asked, r.Method+" "+r.URL.Path)
	answer := m.answers[r.URL.Path]
	m.mu.Unlock()
	if answer != nil && r.Method == http.MethodGet {
		answer(w, r)
		return
	}
	data, ok := m.files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// newMirror serves what read returns for each program, and makes it what publishes names.
func newMirror(t *testing.T, read func(program string) []byte) *mirror {
	t.Helper()
	m := &mirror{files: map[string][]byte{}, answers: map[string]http.HandlerFunc{}}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	t.Setenv("KWOK_KUBE_BINARY_PREFIX", server.URL+"/kube")
	t.Setenv("KWOK_ETCD_BINARY_PREFIX", server.URL+"/etcd")
	t.Setenv("KWOK_BINARY_PREFIX", server.URL+"/kwok")
	for _, p := range allPublished() {
		data := read(p.name)
		path := strings.TrimPrefix(p.url, server.URL)
		sum := func() string { return fmt.Sprintf("%x", sha256.Sum256(m.files[path])) }
		if strings.HasSuffix(path, ".tar.gz") {
			m.files[path] = archived(t, data)
			m.files[strings.TrimPrefix(p.sums, server.URL)] = []byte(strings.Repeat("0", 64) + "  other.tar.gz\n" + sum() + "  " + filepath.Base(path) + "\n")
		} else {
			m.files[path] = data
			m.files[path+".sha256"] = []byte(sum())
		}
	}
	return m
}

// archived returns etcd's archive with its program.
func archived(t *testing.T, program []byte) []byte {
	t.Helper()
	var archive bytes.Buffer
	zip, err := gzip.NewWriterLevel(&archive, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	files := tar.NewWriter(zip)
	err = errors.Join(
		files.WriteHeader(&tar.Header{Name: "etcd-v3/README.md", Typeflag: tar.TypeReg}),
		files.WriteHeader(&tar.Header{Name: "etcd-v3/etcd", Typeflag: tar.TypeReg, Size: int64(len(program)), Mode: 0o755}))
	if err == nil {
		_, err = files.Write(program)
	}
	if err := errors.Join(err, files.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

func words(program string) []byte { return bytes.Repeat([]byte(program+" "), 1000) }

func allPublished() []published { return slices.Concat(publishes(), publishesKwok()) }

// TestDownload takes the programs that were compiled here from a mirror on loopback.
func TestDownload(t *testing.T) {
	compiled := func(program string) []byte {
		data, err := os.ReadFile(filepath.Join(programs, program))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	newMirror(t, compiled)
	dir := t.TempDir()
	if err := download(t.Context(), dir, allPublished()); err != nil {
		t.Fatal(err)
	}
	for _, p := range allPublished() {
		path := filepath.Join(dir, p.name)
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, compiled(p.name)) {
			t.Errorf("%s: %d bytes, %v", p.name, len(got), err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o700 {
			t.Errorf("%s: %v, %v", p.name, info.Mode(), err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != len(allPublished()) {
		t.Errorf("%v is left, %v", left, err)
	}
}

// TestBadDownload: what is not the published file is never saved, one line says why, and the next try goes on with
// what is missing.
func TestBadDownload(t *testing.T) {
	elsewhere := httptest.NewServer(http.NotFoundHandler())
	defer elsewhere.Close()
	const path = "/kube/kube-scheduler"
	for name, test := range map[string]struct {
		path   string // default: the program's
		answer http.HandlerFunc
		want   string
		asking bool // it fails before anything is downloaded
	}{
		"wrong content": {answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("something else")) }, want: "has the SHA-256 "},
		"cut": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(words("kube-scheduler"))
		}, want: "unexpected EOF"},
		"gone":                {answer: http.NotFound, want: "404 Not Found"},
		"redirect to another": {answer: http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP, want: "which is not a host of Kubernetes or GitHub"},
		"redirect in circles": {answer: http.RedirectHandler(path, http.StatusFound).ServeHTTP, want: "more than 5 redirects"},
		"no sum":              {path: path + ".sha256", answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, want: "has no SHA-256 of kube-scheduler", asking: true},
		"no file of sums":     {path: path + ".sha256", answer: http.NotFound, want: "404 Not Found", asking: true},
		"sum of another": {path: "/etcd/SHA256SUMS", answer: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(strings.Repeat("a", 64) + "  other"))
		}, want: "has no SHA-256 of etcd", asking: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMirror(t, words)
			if test.path == "" {
				test.path = path
			}
			m.answer(test.path, test.answer)
			dir := t.TempDir()
			err := download(t.Context(), dir, allPublished())
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("download: %v; want one line with %q", err, test.want)
			}
			saved, err := filepath.Glob(filepath.Join(dir, "*"))
			if err != nil || len(saved) != map[bool]int{false: 3, true: 0}[test.asking] {
				t.Errorf("saved: %v, %v", saved, err)
			}
			m.answer(test.path, nil)
			if err := download(t.Context(), dir, allPublished()); err != nil {
				t.Fatal(err)
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			if again := strings.Count(strings.Join(m.asked, "\n"), "GET /kube/kube-apiserver\n"); !test.asking && again != 0 {
				t.Error("a complete file was downloaded again")
			}
		})
	}
}

// TestSlowDownload: ^C ends it soon, and leaves only what is complete.
func TestSlowDownload(t *testing.T) {
	m := newMirror(t, words)
	ctx, cancel := context.WithCancel(t.Context())
	m.answer("/kube/kube-scheduler", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("slow"))
		_ = http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done()
	})
	dir := t.TempDir()
	if err := download(ctx, dir, allPublished()); !errors.Is(err, context.Canceled) {
		t.Errorf("download: %v, want %v", err, context.Canceled)
	}
	if _, err := os.Stat(filepath.Join(dir, "kube-scheduler.part")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a part is left: %v", err)
	}
	m.answer("/kube/kube-scheduler", nil)
	if err := download(t.Context(), dir, allPublished()); err != nil {
		t.Error(err)
	}
}

// TestNoAnswer: what can be reached decides within seconds.
func TestNoAnswer(t *testing.T) {
	m := newMirror(t, words)
	m.answer("/kube/kubectl.sha256", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	begin := time.Now()
	err := download(t.Context(), t.TempDir(), allPublished())
	if err == nil || !strings.HasSuffix(err.Error(), "no answer in 3s") || time.Since(begin) > answerLimit+10*time.Second {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
}

// TestBuildWithDownloads: what is published is not compiled, and all programs end up in one folder.
func TestBuildWithDownloads(t *testing.T) {
	for name, test := range map[string]struct {
		missing  string // at the mirror
		compiled []string
	}{
		"all":     {"", nil},
		"no kwok": {"/kwok/kwokctl-" + runtime.GOOS + "-" + runtime.GOARCH + ".sha256", []string{"kwok", "kwokctl"}},
		"no etcd": {"/etcd/SHA256SUMS", []string{"etcd", "kubectl", "kwok", "kwokctl"}}, // all of small
	} {
		t.Run(name, func(t *testing.T) {
			root := small(t, "package main\n\nfunc main() { print(`built`) }\n")
			m := newMirror(t, words)
			delete(m.files, test.missing)
			if bin, err := build(t.Context(), root, false, true); bin != "" || err != nil {
				t.Fatalf("with downloads only: %q, %v", bin, err)
			}
			m.answer("", nil) // forgets what was asked
			bin, err := build(t.Context(), root, false, false)
			if err != nil {
				t.Fatal(err)
			}
			var compiled []string
			for _, p := range allPublished() {
				got, err := os.ReadFile(filepath.Join(bin, p.name))
				if err == nil && !bytes.Equal(got, words(p.name)) {
					compiled = append(compiled, p.name)
				}
			}
			slices.Sort(compiled)
			if !slices.Equal(compiled, test.compiled) {
				t.Errorf("compiled: %q, want %q", compiled, test.compiled)
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			if test.missing == "" && len(m.asked) > 0 {
				t.Errorf("downloaded again: %q", m.asked)
			}
			noBuildFolder(t, root)
			if _, err := os.Stat(filepath.Join(root, "download")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the folder of the downloads is left: %v", err)
			}
		})
	}
}

// TestSumOfARelease: GitHub's API has the sums of kwok.
func TestSumOfARelease(t *testing.T) {
	sum := strings.Repeat("0123456789abcdef", 4)
	release := `{"tag_name": "v1", "assets": [{"name": "kwok-linux-arm64", "digest": null}, {"name": "kwok-linux-amd64", "digest": "sha256:` + sum + `"}]}`
	for name, want := range map[string]string{"kwok-linux-amd64": sum, "kwok-linux-arm64": "", "kwok": ""} {
		if got := sumOf(release, name); got != want {
			t.Errorf("the sum of %s is %q, want %q", name, got, want)
		}
	}
}
