// Package program builds the chapters and runs them in tests as a learner does:
// as binaries, with signals, exit codes, and what they print.
package program

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

// Chapters are the directories of the chapters, in the order of the lesson.
var Chapters = []string{"01-clientset", "02-factory", "03-handlers", "04-sync", "05-resync", "06-lister", "07-workqueue", "08-testing"}

// Parent is the chapter from which a chapter is a step, "" of the first.
func Parent(chapter string) string {
	switch i := slices.Index(Chapters, chapter); {
	case chapter == "06-lister":
		return "04-sync" // of the resync it needs nothing
	case i > 0:
		return Chapters[i-1]
	}
	return ""
}

// Build compiles chapters of the repository at root into dir, with flags of go
// build. The error holds what the compiler said.
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

// Overlay writes into dir what makes go build see a changed main.go of a chapter,
// and returns the flag for it. edits are pairs: what stands there once, and what
// to put in its place.
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
			t.Fatalf("%s/main.go does not hold once:\n%s", chapter, edit[0])
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

// Program is a binary that runs. It is a logmatch.Source of what it prints on stdout.
type Program struct {
	*exec.Cmd
	Stdout, Stderr Output
	Started        time.Time

	ended chan struct{}
	err   error // how the process ended, once ended is closed
}

// Start runs a binary. Its environment is env and an empty HOME, so it knows of
// no cluster but those it is told. It is killed when the test ends. What it prints
// is also in files of the test's ArtifactDir.
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

// artifact makes a file for an output of a program; go test -artifacts keeps it.
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

// Wait waits until the program has ended and all its output has been read.
func (p *Program) Wait() error {
	<-p.ended
	return p.err
}

// Log are the lines on stdout so far, each with the time when it was read.
func (p *Program) Log() []logmatch.Line {
	lines, _ := p.Stdout.log()
	return lines
}

// Changed is closed when stdout has more, or the program has ended.
func (p *Program) Changed() <-chan struct{} { return p.Stdout.Changed() }

// Ended says whether the program has ended and Log is complete.
func (p *Program) Ended() bool {
	_, ended := p.Stdout.log()
	return ended
}

// Signal sends sig and waits for the end. The test fails if that takes longer than limit.
func (p *Program) Signal(t *testing.T, sig os.Signal, limit time.Duration) (took time.Duration) {
	t.Helper()
	begin := time.Now()
	if err := p.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	p.End(t, limit)
	return time.Since(begin)
}

// End waits until the program has ended and returns its exit code. The test
// fails if that takes longer than limit.
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
// fails if that takes longer than limit, or the program ends before.
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
			p.fatalf(t, "printed no %q and has ended", text)
		}
		select {
		case <-changed:
		case <-timeout:
			p.fatalf(t, "printed no %q in %s", text, limit)
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
	lines   []logmatch.Line // the complete ones,
	rest    int             // and where in data the next begins
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

// end says that no more will come: the last line is complete without its end.
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

// String is all that was printed so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.data.String()
}

// Lines are the lines printed so far, without their ends.
func (o *Output) Lines() []string {
	return strings.FieldsFunc(o.String(), func(r rune) bool { return r == '\n' })
}

// Changed is closed when more is printed, or the program has ended.
func (o *Output) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return o.changed
}
