// Package chapters lists the chapters, builds them, and runs them in tests as a learner does: as
// binaries, with signals, exit codes, and outputs.
package chapters

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/informers/internal/logmatch"
)

// Build compiles chapters of the repository at root into dir, with flags of go
// build. The error includes the output of the compiler.
func Build(root, dir string, chapters []string, flags ...string) error {
	args := append(append([]string{"build"}, flags...), "-o", dir+string(filepath.Separator))
	for _, chapter := range chapters {
		args = append(args, "./"+chapter)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Overlay writes files to dir that make go build use a changed main.go of a chapter,
// and returns the flag for it. edits are pairs: a text that occurs exactly once, and
// its replacement.
func Overlay(t *testing.T, root, dir, chapter string, edits ...string) (flag string) {
	t.Helper()
	main, err := filepath.Abs(filepath.Join(root, chapter, "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(main)
	if err != nil {
		t.Fatal(err)
	}
	source := string(data)
	for edit := range slices.Chunk(edits, 2) {
		if strings.Count(source, edit[0]) != 1 {
			t.Fatalf("%s/main.go does not have exactly one occurrence of:\n%s", chapter, edit[0])
		}
		source = strings.Replace(source, edit[0], edit[1], 1)
	}
	changed := filepath.Join(dir, "changed.go")
	if err := os.WriteFile(changed, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	data, err = json.Marshal(map[string]map[string]string{"Replace": {main: changed}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return "-overlay=" + path
}

// Program is a running binary. It is a logmatch.Source for its stdout.
type Program struct {
	*exec.Cmd
	Stdout, Stderr Output
	Started        time.Time

	ended chan struct{}
	err   error // how the process exited; valid after ended is closed
}

// Start runs a binary. Its environment is env and an empty HOME, so it finds only the
// clusters that env and args name. It is killed when the test ends. Its output is also
// in files of the test's ArtifactDir.
func Start(t *testing.T, binary string, env []string, args ...string) *Program {
	t.Helper()
	p := &Program{Cmd: exec.Command(binary, args...), Started: time.Now(), ended: make(chan struct{})}
	p.Env = append([]string{"HOME=" + t.TempDir()}, env...)
	p.Cmd.Stdout = io.MultiWriter(&p.Stdout, artifact(t, binary, "stdout"))
	p.Cmd.Stderr = io.MultiWriter(&p.Stderr, artifact(t, binary, "stderr"))
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.Cmd.Wait()
		p.Stdout.end()
		p.Stderr.end()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		_ = p.Wait()
	})
	return p
}

// artifact creates a file for an output of a program; go test -artifacts keeps it.
func artifact(t *testing.T, binary, output string) io.Writer {
	t.Helper()
	name := strings.NewReplacer("/", "_", "*", "_").Replace(t.Name() + "." + filepath.Base(binary))
	f, err := os.CreateTemp(t.ArtifactDir(), name+"-*."+output)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// Wait waits until the program has exited and all its output has been read.
func (p *Program) Wait() error {
	<-p.ended
	return p.err
}

// Log returns the lines of stdout so far, each with the time when it was read.
func (p *Program) Log() []logmatch.Line {
	lines, _ := p.Stdout.log()
	return lines
}

// Changed returns a channel that is closed when stdout has more, or the program has
// exited.
func (p *Program) Changed() <-chan struct{} { return p.Stdout.Changed() }

// Ended reports whether the program has exited and Log is complete.
func (p *Program) Ended() bool {
	_, ended := p.Stdout.log()
	return ended
}

// Signal sends sig and waits until the program exits. The test fails if that takes
// longer than limit.
func (p *Program) Signal(t *testing.T, sig os.Signal, limit time.Duration) (took time.Duration) {
	t.Helper()
	begin := time.Now()
	if err := p.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	p.End(t, limit)
	return time.Since(begin)
}

// End waits until the program has exited and returns its exit code. The test fails if
// that takes longer than limit.
func (p *Program) End(t *testing.T, limit time.Duration) (code int) {
	t.Helper()
	timer := time.AfterFunc(limit, func() { _ = p.Process.Kill() })
	err := p.Wait()
	if !timer.Stop() {
		p.fatalf(t, "had not ended after %s", limit)
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return p.ProcessState.ExitCode()
}

// Await waits until o, one of the program's outputs, contains text. The test
// fails if that takes longer than limit, or the program exits before.
func (p *Program) Await(t *testing.T, o *Output, text string, limit time.Duration) {
	t.Helper()
	timeout := time.After(limit)
	for {
		changed := o.Changed()
		_, ended := o.log()
		if strings.Contains(o.String(), text) {
			return
		}
		if ended {
			p.fatalf(t, "exited and did not print %q", text)
		}
		select {
		case <-changed:
		case <-timeout:
			p.fatalf(t, "did not print %q in %s", text, limit)
		}
	}
}

func (p *Program) fatalf(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Fatalf("%s %s\nstdout:\n%s\nstderr:\n%s", filepath.Base(p.Path), fmt.Sprintf(format, args...), &p.Stdout, &p.Stderr)
}

// Output collects what a program prints. Its zero value is ready for use.
type Output struct {
	mu      sync.Mutex
	data    bytes.Buffer
	lines   []logmatch.Line // the complete ones
	rest    int             // where the next one starts in data
	ended   bool
	changed chan struct{}
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.data.Write(p)
	o.split()
	return n, err
}

// end marks the output as complete: its last line needs no line ending.
func (o *Output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.split()
}

func (o *Output) split() {
	for line := range bytes.Lines(o.data.Bytes()[o.rest:]) {
		text, complete := strings.CutSuffix(string(line), "\n")
		if complete || o.ended {
			o.lines = append(o.lines, logmatch.Line{At: time.Now(), Text: text})
			o.rest += len(line)
		}
	}
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
}

func (o *Output) log() (lines []logmatch.Line, ended bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clip(o.lines), o.ended
}

// String returns everything printed so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.data.String()
}

// Lines returns the lines printed so far, without their line endings.
func (o *Output) Lines() []string {
	return strings.FieldsFunc(o.String(), func(r rune) bool { return r == '\n' })
}

// Changed returns a channel that is closed when more is printed, or the program has
// exited.
func (o *Output) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return o.changed
}
