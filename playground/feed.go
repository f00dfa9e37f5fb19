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
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
)

// most is how many events a page gets that is opened late.
const most = 5000

// A feed is what an informer on a cluster has reported so far, a line each, for any number of pages.
type feed struct {
	mu      sync.Mutex
	lines   [][]byte // the last ones
	dropped int
	changed chan struct{} // closed when there are more
	ended   bool
	sending sync.Mutex
	to      io.WriteCloser // takes commands
}

func (f *feed) add(line []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if bytes.Contains(line, []byte(`"kind":"attached"`)) { // a new run begins
		f.dropped += len(f.lines)
		f.lines = nil
	}
	if line == nil {
		f.ended = true
	} else if f.lines = append(f.lines, line); len(f.lines) > 2*most {
		f.dropped += len(f.lines) - most
		f.lines = slices.Clone(f.lines[len(f.lines)-most:])
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// ServeHTTP sends the lines as server-sent events, until the page is closed.
func (f *feed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		f.command(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	if r.Method == http.MethodHead { // the page asks whether there are any
		return
	}
	flush := http.NewResponseController(w).Flush
	for next := 0; ; {
		f.mu.Lock()
		next = max(next, f.dropped)
		lines, changed, ended := f.lines[next-f.dropped:], f.changed, f.ended
		next += len(lines)
		f.mu.Unlock()
		for _, line := range lines {
			_, _ = fmt.Fprintf(w, "data: %s\n\n", line)
		}
		if ended {
			_, _ = fmt.Fprint(w, "event: ended\ndata: {}\n\n")
		}
		if err := flush(); err != nil || ended {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// command passes a command of the page on, as one line.
func (f *feed) command(w http.ResponseWriter, r *http.Request) {
	var line bytes.Buffer
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
	if err == nil {
		err = json.Compact(&line, body)
	}
	if err != nil {
		http.Error(w, "playground: a command is an object in JSON", http.StatusBadRequest)
		return
	}
	line.WriteByte('\n')
	f.sending.Lock()
	defer f.sending.Unlock()
	if _, err := f.to.Write(line.Bytes()); err != nil {
		http.Error(w, "playground: the informer has stopped", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// attach runs an informer on a cluster, in a program that is compiled only now, and serves the page for it.
func attach(ctx context.Context, listener net.Listener, root string) error {
	dir, err := os.MkdirTemp("", "informers-playground")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fmt.Fprintln(os.Stderr, "building client-go for this machine: about a minute the first time")
	program := filepath.Join(dir, "attach")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./playground/attach")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./playground/attach: %w\n%s", err, out)
	}
	var args []string
	flag.Visit(func(f *flag.Flag) {
		if slices.Contains(attachFlags, f.Name) {
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	informer := exec.CommandContext(ctx, program, args...)
	informer.Stderr = os.Stderr
	stdout, err := informer.StdoutPipe()
	if err != nil {
		return err
	}
	stdin, err := informer.StdinPipe()
	if err != nil {
		return err
	}
	informer.Cancel = stdin.Close // it ends with its stdin, also when this program is killed
	if err := informer.Start(); err != nil {
		return err
	}
	events := &feed{changed: make(chan struct{}), to: stdin}
	lines := bufio.NewReader(stdout)
	first, err := lines.ReadBytes('\n')
	if err != nil { // it has said why, on stderr
		_ = informer.Wait()
		return errors.New("no informer was started")
	}
	go func() {
		for line, err := first, error(nil); err == nil; line, err = lines.ReadBytes('\n') {
			events.add(line[:len(line)-1])
		}
		events.add(nil)
	}()
	return errors.Join(serve(ctx, listener, root, nil, events), func() error { cancel(); _ = informer.Wait(); return nil }())
}
