package e2e

import (
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"example.com/informers/internal/program"
)

// TestDemoFails: the demo is no show. With a chapter that says nothing of a
// delete it fails, and says what was missing.
func TestDemoFails(t *testing.T) {
	t.Parallel()
	flag := program.Overlay(t, root, t.TempDir(), "05-resync",
		"UpdateFunc: handleUpdate, DeleteFunc: handleDelete,", "UpdateFunc: handleUpdate,",
		"	handleDelete := func", "	_ = func")
	output, err := demo(t, "GOFLAGS="+flag)
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) || string(exit.Stderr) != "cluster: current (asked for)\ndemo: 05-resync did not print the Delete of nginx\n" {
		t.Errorf("%v, stderr:\n%s\nstdout:\n%s", err, exit.Stderr, output)
	}
}

// demo runs make demo's program as a whole, on the suite's cluster.
func demo(t *testing.T, env ...string) (stdout string, err error) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "demo") // go run hides the exit code
	build := exec.Command("go", "build", "-o", binary, "./internal/demo")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Dir = root
	cmd.Env = slices.Concat(cluster.Env, []string{"CLUSTER=current"}, env)
	out, err := cmd.Output()
	return string(out), err
}
