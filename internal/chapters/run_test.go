package chapters

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/informers/internal/logmatch"
)

var _ logmatch.Source = (*Program)(nil)

func shell(t *testing.T, script string) *Program {
	t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	return Start(t, sh, nil, "-c", script)
}

// TestLog: after the program has exited, Log has its whole output, in lines.
func TestLog(t *testing.T) {
	t.Parallel()
	p := shell(t, `for i in 0 1 2 3 4 5 6 7 8 9; do echo "line $i"; done; printf 'half '; printf 'a line\n\nno end'; echo no >&2`)
	for {
		changed := p.Changed() // before Ended, otherwise the last change could be missed
		if p.Ended() {
			break
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatal("Changed is not closed when the program exits")
		}
	}
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprintf("line %d", i))
	}
	want = append(want, "half a line", "", "no end")
	log := p.Log()
	if len(log) != len(want) {
		t.Fatalf("got %q, want %q", log, want)
	}
	for i, line := range log {
		if line.Text != want[i] {
			t.Errorf("line %d is %q, want %q", i+1, line.Text, want[i])
		}
		if line.At.Before(p.Started) || i > 0 && line.At.Before(log[i-1].At) || time.Since(line.At) < 0 {
			t.Errorf("line %d came at %s", i+1, line.At)
		}
	}
	if code := p.End(t, time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestAwait: a sequence follows a running program, and notices when it exits.
func TestAwait(t *testing.T) {
	t.Parallel()
	p := shell(t, `echo one; read line; echo two; exit 3`)
	one, two, three := logmatch.Exactly("one"), logmatch.Exactly("two"), logmatch.Exactly("three")
	err := logmatch.Sequence{Steps: []logmatch.Step{one, two, three}}.Await(t.Context(), p)
	if err == nil || !strings.HasPrefix(err.Error(), "the program ended before three\n") {
		t.Errorf("got %v", err)
	}
	// A signal to a program that has exited is not a failure: it may exit by itself.
	p.Signal(t, syscall.SIGTERM, time.Second)
	if code := p.End(t, time.Second); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
}

// TestSignal: a signal stops a program that waits, and a sequence notices that at once.
func TestSignal(t *testing.T) {
	t.Parallel()
	p := shell(t, `echo ready; exec sleep 60`)
	p.Await(t, &p.Stdout, "ready\n", 10*time.Second)
	if p.Ended() {
		t.Fatal("exited without a signal")
	}
	ended := make(chan error, 1)
	go func() {
		ended <- logmatch.Sequence{Steps: []logmatch.Step{logmatch.Exactly("ready"), logmatch.Exactly("more")}}.Await(t.Context(), p)
	}()
	p.Signal(t, syscall.SIGTERM, 10*time.Second)
	if code := p.ProcessState.ExitCode(); code != -1 {
		t.Errorf("exit code %d, want none", code)
	}
	if err := <-ended; err == nil {
		t.Error("the sequence matched")
	}
}
