package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCause(t *testing.T) {
	for name, test := range map[string]struct{ output, want string }{
		"last line":   {"go: downloading x v1\ngo: x@v1: no such host\n", "go: x@v1: no such host"},
		"nothing":     {"", ""},
		"kwokctl":     {`{"level":"INFO","msg":"Cluster is creating"}` + "\n" + `{"level":"ERROR","msg":"Execute exit","err":"open \"x\": no such file"}` + "\n", `open \"x\": no such file`},
		"etcd's port": {`{"level":"fatal","msg":"discovery failed","error":"listen tcp 127.0.0.1:32765: bind: address already in use","stacktrace":"main.main"}` + "\nmore", "listen tcp 127.0.0.1:32765: bind: address already in use"},
		"full disk":   {"# k8s.io/api\ncompile: writing output: write $WORK/b1/_pkg_.a: no space left on device\ngo: failed\n", "$WORK/b1/_pkg_.a: no space left on device"},
		"full disk 2": {`{"level":"panic","msg":"failed to create WAL","error":"/x/wal/0.tmp: no space left on device"}` + "\ngoroutine 1 [running]:\n", "/x/wal/0.tmp: no space left on device"},
		"full disk 3": {`{"level":"panic","msg":"failed to create WAL","error":"no space left on device"}` + "\npanic: failed\n\ngoroutine 1 [running]:\n\tmain.go:31 +0x28\n", "no space left on device"},
		"panic":       {"starting\npanic: a bug\n\ngoroutine 1 [running]:\n\tmain.go:31 +0x28\n", "panic: a bug"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := cause(test.output); got != test.want {
				t.Errorf("cause is %q, want %q", got, test.want)
			}
		})
	}
}

// small makes build compile small programs instead of the real ones, which take
// minutes: the modules have the same paths, but their sources are in a temporary folder.
func small(t *testing.T, source string) (root string) {
	t.Helper()
	dir := t.TempDir()
	mod := "module small\n\ngo 1.26.0\n"
	for module, pkgs := range map[string][]string{
		"go.etcd.io/etcd/server/v3": {""}, "k8s.io/kubernetes": {"/cmd/kubectl"}, "sigs.k8s.io/kwok": {"/cmd/kwok", "/cmd/kwokctl"},
	} {
		_, major, _ := strings.Cut(module, "/v")
		version := "v" + strings.TrimPrefix(major+".0.0", ".")
		if major == "" {
			version = "v1.0.0"
		}
		at := filepath.Join(dir, filepath.Base(filepath.Dir(module)), filepath.Base(module))
		mod += fmt.Sprintf("require %s %s\nreplace %s => %s\n", module, version, module, at)
		for _, pkg := range pkgs {
			mod += fmt.Sprintf("tool %s%s\n", module, pkg)
			if err := errors.Join(
				os.MkdirAll(at+pkg, 0o700),
				os.WriteFile(filepath.Join(at, "go.mod"), []byte("module "+module+"\n\ngo 1.26.0\n"), 0o600),
				os.WriteFile(filepath.Join(at+pkg, "main.go"), []byte(source), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	realMod, realSum := goMod, goSum
	goMod, goSum = []byte(mod), nil
	t.Cleanup(func() { goMod, goSum = realMod, realSum })
	return t.TempDir()
}

func TestBuild(t *testing.T) {
	root := small(t, "package main\n\nfunc main() { print(`built`) }\n")
	leftover := filepath.Join(root, "build", "bin", "etcd")
	if err := errors.Join(os.MkdirAll(filepath.Dir(leftover), 0o700), os.WriteFile(leftover, []byte("half"), 0o700)); err != nil {
		t.Fatal(err)
	}
	bin, err := build(t.Context(), root, true, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"etcd", "kubectl", "kwok"} {
		if out, err := exec.CommandContext(t.Context(), filepath.Join(bin, program)).CombinedOutput(); string(out) != "built" {
			t.Errorf("%s prints %q, %v", program, out, err)
		}
	}
	noBuildFolder(t, root)
	t.Setenv("PATH", "") // no go command: a second build would fail
	if again, err := build(t.Context(), root, true, false); again != bin || err != nil {
		t.Errorf("the second build is %q, %v; want %q", again, err, bin)
	}
}

func TestBuildFails(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx          context.Context
		source, want string
	}{
		"compile error": {t.Context(), "package main\n\nfunc main() { undefined() }\n", "undefined: undefined"},
		"interrupted":   {canceled, "package main\n\nfunc main() {}\n", "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			root := small(t, test.source)
			_, err := build(test.ctx, root, true, false)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("build: %v; want one line with %q", err, test.want)
			}
			noBuildFolder(t, root)
			if _, err := os.Stat(filepath.Join(root, "bin")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a failed build leaves programs behind: %v", err)
			}
		})
	}
}

func noBuildFolder(t *testing.T, root string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, "build")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the build leaves its folder behind: %v", err)
	}
}

func TestNoModuleProxy(t *testing.T) {
	u := newUser(t)
	if err := os.Remove(filepath.Join(u.root, "bin")); err != nil {
		t.Fatal(err)
	}
	// Port 9 of this machine refuses connections, like an unreachable proxy.
	u.env = append(u.env, "GOMODCACHE="+t.TempDir(), "GOPROXY=http://127.0.0.1:9", "GOFLAGS=-modcacherw")
	u.fails("127.0.0.1:9: connect: connection refused", "up --build")
	if _, err := os.Stat(u.root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("up leaves its folder behind: %v", err)
	}
}
