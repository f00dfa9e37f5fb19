package promises

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/informers/internal/chapters"
)

// TestBreakIt makes the changes that the READMEs suggest under "Break it" and
// sees what they say. The READMEs show the same lines of code.
func TestBreakIt(t *testing.T) {
	tests := []struct {
		name, chapter string
		edits         []string // what is replaced in main.go, and with what
		env, args     []string
		check         func(t *testing.T, p *chapters.Program)
	}{
		{
			name: "paging", chapter: "01-clientset",
			edits: []string{"Limit: 500", "Limit: 2"},
			check: func(t *testing.T, p *chapters.Program) {
				_, kubeconfig := serve(t, apiserver(50))
				unchanged := start(t, "01-clientset", nil, "--kubeconfig", kubeconfig)
				code := p.End(t, 10*time.Second) + unchanged.End(t, 10*time.Second)
				if code != 0 || !slices.Equal(p.Stdout.Lines()[1:], unchanged.Stdout.Lines()[1:]) {
					t.Errorf("exit codes %d, stdout:\n%s\nunchanged:\n%s", code, &p.Stdout, &unchanged.Stdout)
				}
			},
		},
		{
			name: "started before it was asked for", chapter: "02-factory",
			edits: []string{
				"	factory.StartWithContext(ctx)\n", "",
				"	pods := factory", "	factory.StartWithContext(ctx)\n	pods := factory",
			},
			check: func(t *testing.T, p *chapters.Program) {
				want := "before start: 0 pods in the store\nright after start: 0 pods in the store\n"
				if code := p.End(t, 5*time.Second); code != 0 || p.Stdout.String() != want {
					t.Errorf("exit code %d, stdout:\n%s", code, &p.Stdout)
				}
			},
		},
		{
			name: "a handler changes the store", chapter: "03-handlers",
			edits: []string{"	handleAdd := func(pod *corev1.Pod) {\n", "	handleAdd := func(pod *corev1.Pod) {\n		pod.Labels = map[string]string{\"seen\": \"yes\"}\n"},
			env:   []string{detector},
			check: func(t *testing.T, p *chapters.Program) {
				if code := p.End(t, 20*time.Second); code != 2 || !strings.Contains(p.Stderr.String(), "panic: cache *v1.Pod modified") {
					t.Errorf("exit code %d, stderr:\n%s", code, &p.Stderr)
				}
			},
		},
		{
			name: "a slow handler", chapter: "04-sync",
			edits: []string{"	handleAdd := func(pod *corev1.Pod) {\n", "	handleAdd := func(pod *corev1.Pod) {\n		time.Sleep(time.Second)\n"},
			args:  []string{"--sync-timeout", "3s"},
			check: func(t *testing.T, p *chapters.Program) {
				want := "cache is not synced: the handlers are still busy with the first pods\n"
				if code := p.End(t, 10*time.Second); code != 1 || p.Stderr.String() != want || !strings.Contains(p.Stdout.String(), "store is synced\n") {
					t.Errorf("exit code %d, stderr:\n%s\nstdout:\n%s", code, &p.Stderr, &p.Stdout)
				}
			},
		},
		{
			name: "a fast resync", chapter: "05-resync",
			args: []string{"--resync", "1s"},
			check: func(t *testing.T, p *chapters.Program) {
				p.Await(t, &p.Stdout, "handleUpdate is called for Pod (key: default/pod-0): resync, resourceVersion 101\n", 10*time.Second)
				p.Signal(t, syscall.SIGINT, 2*time.Second)
			},
		},
		{
			name: "something hangs at the end", chapter: "12-production",
			edits: []string{
				"shutdownTimeout  = 20 * time.Second", "shutdownTimeout  = time.Second",
				"	defer endWork() // factory", "	defer func() { select {} }()\n	defer endWork() // factory",
			},
			check: func(t *testing.T, p *chapters.Program) {
				p.Await(t, &p.Stdout, started("12-production"), 10*time.Second)
				p.Signal(t, syscall.SIGINT, 10*time.Second)
				if code, stderr := p.ProcessState.ExitCode(), p.Stderr.String(); code != 1 || stderr != "not stopped within 1s\n" {
					t.Errorf("exit code %d, stderr:\n%s", code, stderr)
				}
			},
		},
	}
	for _, test := range tests {
		t.Run(test.chapter+"/"+test.name, func(t *testing.T) {
			t.Parallel()
			dir := binDir
			if test.edits != nil {
				dir = t.TempDir()
				if err := chapters.Build(root, dir, []string{test.chapter}, chapters.Overlay(t, root, dir, test.chapter, test.edits...)); err != nil {
					t.Fatal(err)
				}
			}
			_, kubeconfig := serve(t, apiserver(50))
			test.check(t, chapters.Start(t, filepath.Join(dir, test.chapter), test.env, append(test.args, "--kubeconfig", kubeconfig)...))
		})
	}
}
