package main

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// A published program can be downloaded: from url, which is the program or a .tar.gz that has
// it. sums is the address of a file with the SHA-256 of what is at url.
type published struct{ name, url, sums string }

// publishes returns the programs that Kubernetes and etcd publish for this system, at the addresses
// and with the variables of kwokctl (kwok v0.8.0, pkg/config/vars.go).
func publishes() []published {
	system := runtime.GOOS + "/" + runtime.GOARCH
	kube := cmp.Or(os.Getenv("KWOK_KUBE_BINARY_PREFIX"), "https://dl.k8s.io/release/"+kubernetes()+"/bin/"+system)
	release := cmp.Or(os.Getenv("KWOK_ETCD_BINARY_PREFIX"), "https://github.com/etcd-io/etcd/releases/download/"+etcd())
	archive := release + "/etcd-" + etcd() + "-" + strings.ReplaceAll(system, "/", "-") + ".tar.gz"
	all := []published{{"etcd", archive, release + "/SHA256SUMS"}}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"} {
		all = append(all, published{name, kube + "/" + name, kube + "/" + name + ".sha256"})
	}
	return all
}

// publishesKwok does the same for kwok. Its releases have no file of sums, but GitHub's API has the
// sums of all releases, for 60 requests an hour from one address. A mirror has NAME.sha256.
func publishesKwok() (all []published) {
	mirror := os.Getenv("KWOK_BINARY_PREFIX")
	for _, name := range []string{"kwok", "kwokctl"} {
		file := "/" + name + "-" + runtime.GOOS + "-" + runtime.GOARCH
		p := published{name, "https://github.com/kubernetes-sigs/kwok/releases/download/" + kwok() + file,
			"https://api.github.com/repos/kubernetes-sigs/kwok/releases/tags/" + kwok()}
		if mirror != "" {
			p.url, p.sums = mirror+file, mirror+file+".sha256"
		}
		all = append(all, p)
	}
	return all
}

const (
	answerLimit = 3 * time.Second  // until all hosts have sent the sums
	silentLimit = 30 * time.Second // without a byte of a download
)

// A file is a published program whose host has answered.
type file struct {
	published
	sum  string // SHA-256, in hexadecimal
	size int64  // bytes
}

// ask asks the hosts for sums and sizes. It fails soon if one of them does not answer.
func ask(ctx context.Context, programs []published) ([]file, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerLimit, fmt.Errorf("no answer in %s", answerLimit))
	defer cancel()
	files := make([]file, len(programs))
	all, ctx := errgroup.WithContext(ctx)
	for i, p := range programs {
		all.Go(func() error {
			sums, err := get(ctx, http.MethodGet, p.sums)
			if err != nil {
				return err
			}
			defer func() { _ = sums.Body.Close() }()
			text, err := io.ReadAll(io.LimitReader(sums.Body, 1<<20))
			if err != nil {
				return err
			}
			sum := sumOf(string(text), p.url[strings.LastIndex(p.url, "/")+1:])
			if sum == "" {
				return fmt.Errorf("%s has no SHA-256 of %s", p.sums, p.name)
			}
			head, err := get(ctx, http.MethodHead, p.url)
			if err != nil {
				return err
			}
			files[i] = file{p, sum, head.ContentLength}
			return head.Body.Close()
		})
	}
	return files, all.Wait()
}

var sumLine = regexp.MustCompile(`(?m)^([0-9a-f]{64})(?: [ *](\S+))?$`)

// sumOf finds the sum of a file in the output of sha256sum, or a sum that stands alone, or in what
// GitHub's API says of a release.
func sumOf(text, name string) string {
	var release struct {
		Assets []struct{ Name, Digest string }
	}
	if err := json.Unmarshal([]byte(text), &release); err == nil {
		for _, a := range release.Assets {
			if sum, ok := strings.CutPrefix(a.Digest, "sha256:"); ok && a.Name == name {
				return sum
			}
		}
	}
	for _, m := range sumLine.FindAllStringSubmatch(text, -1) {
		if m[2] == "" || m[2] == name {
			return m[1]
		}
	}
	return ""
}

// download saves programs in dir. A file there is complete, and has the published sum. After
// an error, the next download goes on with the programs that are missing.
func download(ctx context.Context, dir string, programs []published) error {
	programs = slices.DeleteFunc(programs, func(p published) bool {
		_, err := os.Stat(filepath.Join(dir, p.name))
		return err == nil
	})
	if len(programs) == 0 {
		return nil
	}
	files, err := ask(ctx, programs)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var total int64
	var names, hosts []string
	for _, f := range files {
		total += f.size
		names = append(names, f.name)
		hosts = append(hosts, host(f.sums), host(f.url))
	}
	slices.Sort(hosts)
	fmt.Fprintf(os.Stderr, "Downloading %s from %s, once on this machine.\nEach file has to have the SHA-256 that is published there.\n",
		strings.Join(names, ", "), strings.Join(slices.Compact(hosts), " and "))
	const mega = 1_000_000
	step, finish := progress(`downloading {{counters .}} MB {{bar .}} {{percent .}} {{etime .}}, {{rtime . "%s left"}}  {{string . "step"}}`, int(total/mega), "")
	defer finish()
	var read int64
	for _, f := range files {
		count := func(n int) {
			before := read / mega
			read += int64(n)
			for range read/mega - before {
				step(f.name)
			}
		}
		if err := f.save(ctx, dir, count); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

func host(address string) string { return strings.Split(address, "/")[2] }

// save downloads one program. It calls count with the number of bytes that have arrived.
func (f file) save(ctx context.Context, dir string, count func(n int)) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(silentLimit, func() { cancel(fmt.Errorf("no more bytes for %s", silentLimit)) })
	defer silence.Stop()
	response, err := get(ctx, http.MethodGet, f.url)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	hash := sha256.New()
	body := io.TeeReader(response.Body, writerFunc(func(data []byte) {
		silence.Reset(silentLimit)
		_, _ = hash.Write(data)
		count(len(data))
	}))
	part, err := create(filepath.Join(dir, f.name+".part"), body)
	defer func() { err = errors.Join(err, os.RemoveAll(part)) }()
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != f.sum {
		return fmt.Errorf("%s has the SHA-256 %s, and %s says %s", f.url, sum, f.sums, f.sum)
	}
	if strings.HasSuffix(f.url, ".tar.gz") {
		archive := part
		defer func() { err = errors.Join(err, os.RemoveAll(archive)) }()
		if part, err = unpack(archive, f.name); err != nil {
			return err
		}
	}
	return os.Rename(part, filepath.Join(dir, f.name))
}

// create writes an executable file and returns its path.
func create(path string, content io.Reader) (string, error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o700)
	if err != nil {
		return path, err
	}
	_, err = io.Copy(out, content)
	return path, errors.Join(err, out.Close())
}

// unpack takes one program out of an archive, and returns its path.
func unpack(archive, name string) (string, error) {
	in, err := os.Open(archive)
	if err != nil {
		return "", err
	}
	defer func() { _ = in.Close() }()
	unzipped, err := gzip.NewReader(in)
	if err != nil {
		return "", err
	}
	for files := tar.NewReader(unzipped); ; {
		header, err := files.Next()
		if err != nil {
			return "", fmt.Errorf("%s has no %s: %w", filepath.Base(archive), name, err)
		}
		if header.Typeflag == tar.TypeReg && filepath.Base(header.Name) == name {
			return create(archive+".unpacked", files)
		}
	}
}

type writerFunc func(data []byte)

func (w writerFunc) Write(data []byte) (int, error) {
	w(data)
	return len(data), nil
}

// trusted are the hosts to which dl.k8s.io and GitHub redirect.
var trusted = regexp.MustCompile(`(^|\.)(k8s\.io|github\.com|githubusercontent\.com)$`)

// web uses the proxy of the environment. It follows a redirect on the same host, and to hosts of
// Kubernetes and GitHub, but not from https to http.
var web = &http.Client{CheckRedirect: func(r *http.Request, via []*http.Request) error {
	from, to := via[len(via)-1].URL, r.URL
	switch {
	case len(via) > 5:
		return errors.New("more than 5 redirects")
	case from.Scheme == "https" && to.Scheme != "https", to.Host != from.Host && !trusted.MatchString(to.Hostname()):
		return fmt.Errorf("it redirects to %s://%s, which is not a host of Kubernetes or GitHub", to.Scheme, to.Host)
	}
	return nil
}}

// get sends a request, and fails unless the answer is 200.
func get(ctx context.Context, method, url string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := web.Do(r)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return nil, fmt.Errorf("%s: %w", r.URL.Host, cause)
	}
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return response, nil
}
