package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
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
func etcd() string       { return version("go.etcd.io/etcd/server/v3") }
func kwok() string       { return version("sigs.k8s.io/kwok") }

// everything is what go build calls the tool lines of go.mod.
var everything = []string{"tool"}

// build puts the tools of go.mod into a folder, unless it has done so before, and returns that
// folder. It is named after their versions and appears by one rename, so it is never incomplete.
// Unless compileAll is true, build downloads what is published, and compiles the rest. If
// downloadOnly is true, it compiles nothing, and the next build goes on from there.
func build(ctx context.Context, root string, compileAll, downloadOnly bool) (bin string, err error) {
	versions := fmt.Sprintf("kubernetes-%s-etcd-%s-kwok-%s", kubernetes(), etcd(), kwok())
	bin = filepath.Join(root, "bin", versions)
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

	downloads := filepath.Join(root, "download", versions)
	tools := everything
	var downloaded []published
	if !compileAll {
		tools, downloaded, err = fetch(ctx, downloads)
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if err != nil && !downloadOnly {
			fmt.Fprintf(os.Stderr, "Not downloaded: %v.\n", err)
		}
	}
	var stale map[string]bool
	var all int
	if len(tools) > 0 {
		if stale, all, err = modules(ctx, work, tools); err != nil {
			return "", fmt.Errorf("downloading the modules: %w", err)
		}
	}
	if downloadOnly {
		return "", nil
	}
	if len(stale) > 0 {
		fmt.Fprintf(os.Stderr, firstBuild, len(stale), all, kubernetes(), etcd(), kwok(),
			minutes(len(stale), all, runtime.NumCPU()), runtime.NumCPU())
	}
	if len(tools) > 0 {
		if err := compile(ctx, work, out, stale, tools); err != nil {
			return "", err
		}
	}
	if len(downloaded) == 0 { // etcd's main package is called server
		if err := os.Rename(filepath.Join(out, "server"), filepath.Join(out, "etcd")); err != nil {
			return "", err
		}
	}
	for _, p := range downloaded {
		if err := os.Rename(filepath.Join(downloads, p.name), filepath.Join(out, p.name)); err != nil {
			return "", err
		}
	}
	if err := os.RemoveAll(filepath.Dir(downloads)); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(bin), 0o700); err != nil {
		return "", err
	}
	return bin, os.Rename(out, bin)
}

// fetch downloads what is published for this system into a folder. It returns what is left to be
// compiled, as arguments of go build, and what need not be.
func fetch(ctx context.Context, downloads string) (tools []string, downloaded []published, err error) {
	if runtime.GOOS != "linux" {
		return everything, nil, fmt.Errorf("no API server is published for %s", runtime.GOOS)
	}
	if err := download(ctx, downloads, publishes()); err != nil {
		return everything, nil, err
	}
	if err := download(ctx, downloads, publishesKwok()); err != nil {
		return []string{"sigs.k8s.io/kwok/cmd/kwok", "sigs.k8s.io/kwok/cmd/kwokctl"}, publishes(), err
	}
	return nil, slices.Concat(publishes(), publishesKwok()), nil
}

// modules downloads what go.mod pins. It returns the packages that Go's build cache lacks, and how
// many there are in all.
func modules(ctx context.Context, work string, tools []string) (stale map[string]bool, all int, err error) {
	step, finish := progress(`downloading {{counters .}} modules, {{etime .}}  {{string . "step"}}`, 0, "searching")
	defer finish()
	stale = map[string]bool{}
	// The main packages always count as stale, because they are not installed.
	args := slices.Concat([]string{"list", "-deps", "-f", `{{if ne .Name "main"}}{{.Stale}} {{.ImportPath}}{{end}}`}, quick, tools)
	err = lines(goCommand(ctx, work, args...), func(line string) {
		if module, ok := strings.CutPrefix(line, "go: downloading "); ok {
			step(module)
		} else if pkg, ok := strings.CutPrefix(line, "true "); ok {
			stale[pkg] = true
			all++
		} else {
			all++
		}
	})
	return stale, all, err
}

// quick makes the compiler faster: nothing is inlined, and what only a debugger needs is left out.
// README.md has what that costs. With the same flags, as in the Makefile, other builds share Go's
// build cache, and with these tags also builds with cgo.
var quick = []string{"-trimpath", "-tags=netgo,osusergo", "-gcflags=all=-l -dwarf=false"}

// compile builds tools into out. It shows which of the stale packages it has compiled.
func compile(ctx context.Context, work, out string, stale map[string]bool, tools []string) error {
	const linking = "linking"
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
	args := slices.Concat([]string{"build", "-v", "-ldflags", ldflags, "-o", out + "/"}, quick, tools)
	err := lines(goCommand(ctx, work, args...), func(line string) {
		if stale[line] {
			if left--; left == 0 {
				line = linking
			}
			step(line)
		}
	})
	if err != nil {
		return fmt.Errorf("building Kubernetes: %w", err)
	}
	return nil
}

const firstBuild = `Compiling %d of the %d packages of Kubernetes %s, etcd %s and kwok %s, once on this machine.
This takes about %d min on the %d cores here, at most 6 GB of disk (0.5 GB for the programs, the rest in
Go's own caches) and 5 GB of memory. You may interrupt it: the next up continues where it stopped.
Meanwhile read 01-clientset/README.md, or watch an informer: go run ./playground
`

// minutes estimates how long it takes to compile some of all packages. The compiler needs 11 minutes
// of one core for all, and the linker one more, which it cannot share well.
func minutes(some, all, cores int) int {
	return int(math.Ceil(11*float64(some)/float64(max(all, 1))/float64(cores))) + 1
}

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

// progress shows the progress of the build on stderr: as a bar on a terminal, otherwise as a line at
// the start, every ten seconds, and at the end.
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
