package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cheggaaa/pb/v3"
	"golang.org/x/mod/modfile"
	"golang.org/x/term"
)

// go.mod pins what is built. It is embedded, so that the built program runs from
// any folder.
var (
	//go:embed go.mod
	goMod []byte
	//go:embed go.sum
	goSum []byte
)

// version returns the version that go.mod requires of a module.
func version(module string) string {
	mod, err := modfile.ParseLax("go.mod", goMod, nil)
	if err != nil {
		panic(err) // the program was compiled with this go.mod
	}
	for _, r := range mod.Require {
		if r.Mod.Path == module {
			return r.Mod.Version
		}
	}
	panic("go.mod does not require " + module)
}

func kubernetes() string { return version("k8s.io/kubernetes") }

// build compiles the tools of go.mod, unless it has done so before, and returns
// the folder that holds them. The folder is named after their versions and appears
// by one rename, so it is never incomplete.
func build(ctx context.Context, root string) (bin string, err error) {
	etcd, kwok := version("go.etcd.io/etcd/server/v3"), version("sigs.k8s.io/kwok")
	bin = filepath.Join(root, "bin", fmt.Sprintf("kubernetes-%s-etcd-%s-kwok-%s", kubernetes(), etcd, kwok))
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}

	work := filepath.Join(root, "build")
	if err := os.RemoveAll(work); err != nil { // left behind by a run that was killed
		return "", fmt.Errorf("removing an earlier build: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	out := filepath.Join(work, "bin")
	if err := os.MkdirAll(out, 0o700); err != nil {
		return "", fmt.Errorf("making a folder to build in: %w", err)
	}
	for name, content := range map[string][]byte{"go.mod": goMod, "go.sum": goSum} {
		if err := os.WriteFile(filepath.Join(work, name), content, 0o600); err != nil {
			return "", fmt.Errorf("preparing the build: %w", err)
		}
	}

	fmt.Fprintf(os.Stderr, firstBuild, kubernetes(), etcd, kwok)
	stale, err := modules(ctx, work)
	if err != nil {
		return "", fmt.Errorf("downloading the modules: %w", err)
	}
	if err := compile(ctx, work, out, stale); err != nil {
		return "", fmt.Errorf("building Kubernetes: %w", err)
	}

	// etcd's main package is called server.
	if err := os.Rename(filepath.Join(out, "server"), filepath.Join(out, "etcd")); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(bin), 0o700); err != nil {
		return "", err
	}
	return bin, os.Rename(out, bin)
}

// modules downloads what go.mod pins and returns the packages that Go's build
// cache lacks.
func modules(ctx context.Context, work string) (stale map[string]bool, err error) {
	step, finish := progress(`downloading {{counters .}} modules, {{etime .}}  {{string . "step"}}`, 0, "searching")
	defer finish()
	stale = map[string]bool{}
	// The pattern "tool" means every tool line of go.mod. The main packages
	// always count as stale, because they are not installed.
	list := goCommand(ctx, work, "list", "-deps", "-trimpath", "-f", `{{if and .Stale (ne .Name "main")}}{{.ImportPath}}{{end}}`, "tool")
	return stale, lines(list, func(line string) {
		if module, ok := strings.CutPrefix(line, "go: downloading "); ok {
			step(module)
		} else {
			stale[line] = true
		}
	})
}

// compile builds the tools into out. Other builds of the same sources share Go's
// build cache if they also use no cgo and trimmed paths.
func compile(ctx context.Context, work, out string, stale map[string]bool) error {
	const linking = "linking the programs, about a minute"
	left, template, first := len(stale), `compiling {{counters .}} packages {{bar .}} {{percent .}} {{etime .}}, {{rtime . "%s left"}}  {{string . "step"}}`, ""
	if left == 0 {
		template, first = `{{etime .}}  {{string . "step"}}`, linking
	}
	step, finish := progress(template, left, first)
	defer finish()
	// Without these values the programs report v0.0.0, and kubectl version fails.
	ldflags := "-s -w"
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		ldflags += " -X " + pkg + ".gitVersion=" + kubernetes()
	}
	return lines(goCommand(ctx, work, "build", "-v", "-trimpath", "-ldflags", ldflags, "-o", out+"/", "tool"), func(line string) {
		if stale[line] {
			if left--; left == 0 {
				line = linking
			}
			step(line)
		}
	})
}

const firstBuild = `Building Kubernetes %s, etcd %s and kwok %s from their Go modules, once on this machine.
From nothing this takes about 11 minutes on 2 cores, 6 GB of disk (0.5 GB for the programs, the rest
in Go's own caches) and 5 GB of memory. You may interrupt it: the next up continues where it stopped.
`

// goCommand returns a go command that runs in dir. When it is interrupted it leaves
// temporary files, so these are in dir too, and compilers, so all its processes are
// in one group.
func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PWD="+dir, "GOTMPDIR="+dir, "GOWORK=off", "CGO_ENABLED=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// progress shows the progress of the build on stderr: as a bar on a terminal,
// otherwise as a line at the start, every ten seconds, and at the end.
func progress(template string, total int, what string) (step func(what string), finish func()) {
	bar := pb.New(total).SetTemplateString(template).Set("step", what).SetWriter(os.Stderr)
	if term.IsTerminal(int(os.Stderr.Fd())) {
		bar.Start()
		return func(what string) { bar.Set("step", what).Increment() }, func() { bar.Finish() }
	}
	bar.SetTemplateString(strings.Replace(template, "{{bar .}} ", "", 1)).Set(pb.Static, true).SetWriter(io.Discard).Start()
	said := time.Now()
	say := func() {
		fmt.Fprintln(os.Stderr, bar.String())
		said = time.Now()
	}
	say()
	return func(what string) {
		bar.Set("step", what).Increment()
		if time.Since(said) > 10*time.Second || bar.Current() == bar.Total() {
			say()
		}
	}, func() {}
}
