// playground serves a page in which an informer of client-go runs, in the reader's browser:
//
//	go run ./playground
//	go run ./playground --cluster
//
// It builds the page's program for WebAssembly, serves it on loopback, and opens the browser. With --cluster
// the informer runs here instead, on the cluster of your kubeconfig, and the page shows it.
package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

//go:embed page/dist
var page embed.FS

var (
	noOpen  = flag.Bool("no-open", false, "print the address only")
	address = flag.String("address", "127.0.0.1:0", "loopback `address` to serve on; port 0 takes a free one")
	cluster = flag.Bool("cluster", false, "show an informer on the cluster of your kubeconfig; it only reads pods, unless --allow-writes")
	site    = flag.String("site", "", "write a `folder` for a static host instead of serving")
)

// attachFlags are those of attach, with the chapters' names.
var attachFlags = []string{"kubeconfig", "context", "namespace", "resync", "allow-writes"}

func init() {
	flag.String("kubeconfig", "", "with --cluster: `path` of a kubeconfig (default: as kubectl)")
	flag.String("context", "", "with --cluster: `name` of a context in it (default: current)")
	flag.String("namespace", "", "with --cluster: `namespace` to use (default: all)")
	flag.Bool("allow-writes", false, "with --cluster: the page may write pods, in a namespace that is made for it and removed at the end")
	flag.String("resync", "30s", "with --cluster: `time` between two resyncs, 0 for none")
}

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first ^C ends ctx, a second one kills the program
	err := run(ctx)
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if host, _, err := net.SplitHostPort(*address); err != nil || !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("--address must be a loopback address with a port, such as 127.0.0.1:8080, not %q", *address)
	}
	if flag.NArg() > 0 {
		return fmt.Errorf("playground takes flags only, not %q", flag.Arg(0))
	}
	for _, name := range attachFlags {
		if f := flag.Lookup(name); !*cluster && f.Value.String() != f.DefValue {
			return fmt.Errorf("--%s needs --cluster", name)
		}
	}
	if flag.Lookup("allow-writes").Value.String() == "true" && flag.Lookup("namespace").Value.String() != "" {
		return errors.New("--allow-writes makes a namespace: leave out --namespace")
	}
	if entries, err := os.ReadDir(*site); *site != "" && err == nil && len(entries) > 0 {
		return fmt.Errorf("--site: %s is not empty", *site)
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return fmt.Errorf("%w: choose another port with --address", err)
	}
	defer func() { _ = listener.Close() }()
	root, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	if *cluster {
		return attach(ctx, listener, root)
	}
	files, err := build(ctx, root)
	if err != nil {
		return err
	}
	if *site != "" {
		return write(root, files)
	}
	return serve(ctx, listener, root, files, nil)
}

// output runs a command and returns the line that it prints.
func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = errors.New(strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// build compiles the program for WebAssembly into the user's cache folder, and returns the files that the
// page loads apart from its own: informer.wasm.gz, and Go's wasm_exec.js.
func build(ctx context.Context, root string) (map[string]string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("find the cache folder: %w", err)
	}
	dir := filepath.Join(cache, "informers-playground")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	program := filepath.Join(dir, "informer.wasm")
	fmt.Fprintln(os.Stderr, "building client-go for the browser: about a minute the first time")
	cmd := exec.CommandContext(ctx, "go", "build", "-v", "-ldflags=-s -w", "-o", program, "./playground/wasm")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var other []string // the compiler's errors
	count := 0
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if line := lines.Text(); strings.ContainsAny(line, " :") {
			other = append(other, line)
		} else if count++; count%50 == 0 {
			fmt.Fprintf(os.Stderr, "%d packages compiled\n", count)
		}
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("go build ./playground/wasm: %w\n%s", err, strings.Join(other, "\n"))
	}
	packed := program + ".gz"
	if older(packed, program) {
		if err := pack(packed, program); err != nil {
			return nil, fmt.Errorf("compress the program: %w", err)
		}
	}
	goroot, err := output(ctx, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"informer.wasm.gz": packed,
		"wasm_exec.js":     filepath.Join(goroot, "lib", "wasm", "wasm_exec.js"),
	}, nil
}

// older reports whether a file is missing, or older than another one.
func older(file, than string) bool {
	a, err := os.Stat(file)
	b, errThan := os.Stat(than)
	return err != nil || errThan != nil || a.ModTime().Before(b.ModTime())
}

// pack compresses a file. The other one is complete, or not there.
func pack(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.CreateTemp(filepath.Dir(to), "new")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(out.Name()) }() // it is renamed by then, if all went well
	zip, err := gzip.NewWriterLevel(out, gzip.BestCompression)
	if err != nil {
		return err
	}
	_, err = io.Copy(zip, in)
	if err := errors.Join(err, zip.Close(), out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}

// serve answers requests for the page until ctx ends.
func serve(ctx context.Context, listener net.Listener, root string, files map[string]string, events *feed) error {
	h, err := newHandler(root, files, listener.Addr().String())
	if err != nil {
		return err
	}
	h.events = events
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	url := "http://" + listener.Addr().String() + h.prefix
	fmt.Println(url)
	if !*noOpen {
		if err := open(url); err != nil {
			fmt.Fprintln(os.Stderr, "open the address above in a browser:", err)
		}
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// A handler serves the page to those who know its address.
type handler struct {
	host   string
	prefix string // of paths: a random token
	page   http.Handler
	files  map[string]string
	root   *os.Root // of the repository, for the Markdown that the page links to
	events *feed    // of an informer on a cluster, or nil
}

func newHandler(root string, files map[string]string, host string) (*handler, error) {
	dist, err := fs.Sub(page, "page/dist")
	if err != nil {
		return nil, err
	}
	repository, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	prefix := "/" + rand.Text() + "/"
	return &handler{host: host, prefix: prefix, page: http.StripPrefix(prefix, http.FileServerFS(dist)), files: files, root: repository}, nil
}

// security are the headers of each answer: nothing from elsewhere, nothing inline, in no frame.
var security = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; " +
		"connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
	"Cache-Control":                "no-store",
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range security {
		w.Header().Set(name, value)
	}
	path, ok := strings.CutPrefix(r.URL.Path, h.prefix)
	switch origin := r.Header.Get("Origin"); {
	case r.Host != h.host:
		http.Error(w, "playground: this is not its host", http.StatusForbidden)
	case origin != "" && origin != "http://"+h.host:
		http.Error(w, "playground: no requests from other pages", http.StatusForbidden)
	case !ok:
		http.Error(w, "playground: open the address that it printed", http.StatusForbidden)
	case r.Method == http.MethodPost && path == "events" && h.events != nil && origin != "":
		h.events.ServeHTTP(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "playground: it serves only", http.StatusMethodNotAllowed)
	case h.files[path] != "":
		w.Header().Set("Content-Type", map[string]string{".gz": "application/gzip", ".js": "text/javascript"}[filepath.Ext(path)])
		http.ServeFile(w, r, h.files[path])
	case path == "events" && h.events != nil:
		h.events.ServeHTTP(w, r)
	case strings.HasPrefix(path, "repository/"):
		h.markdown(w, strings.TrimPrefix(path, "repository/"))
	default:
		h.page.ServeHTTP(w, r)
	}
}

func (h *handler) markdown(w http.ResponseWriter, name string) {
	text, err := []byte(nil), fs.ErrNotExist
	if strings.HasSuffix(name, ".md") {
		text, err = h.root.ReadFile(filepath.FromSlash(name))
	}
	if err != nil {
		http.Error(w, "playground: it has no "+name, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(text)
}

// write makes a folder that a static host serves.
func write(root string, files map[string]string) error {
	dist, err := fs.Sub(page, "page/dist")
	if err == nil {
		err = os.CopyFS(*site, dist)
	}
	for name, from := range files {
		var data []byte
		if data, err = os.ReadFile(from); err == nil {
			err = os.WriteFile(filepath.Join(*site, name), data, 0o644)
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("--site: %w", err)
	}
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "node_modules" || strings.HasPrefix(entry.Name(), ".")) {
			return filepath.SkipDir
		}
		name, err := filepath.Rel(root, path)
		if err != nil || !strings.HasSuffix(name, ".md") {
			return err
		}
		to := filepath.Join(*site, "repository", name)
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, text, 0o644)
		}
		return err
	})
}

// open shows an address in the user's browser.
func open(url string) error {
	command := map[string][]string{
		"darwin": {"open"}, "windows": {"rundll32", "url.dll,FileProtocolHandler"},
	}[runtime.GOOS]
	if command == nil {
		command = []string{"xdg-open"}
	}
	cmd := exec.Command(command[0], append(command[1:], url)...)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return nil
}
