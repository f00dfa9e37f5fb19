// Package choice decides which kind of cluster there will be. It imports no client-go, so that
// what it downloads arrives while client-go is compiled.
package choice

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/kind/pkg/apis/config/defaults"
)

// Which returns "kind", "local" or "current": the kind of cluster that is asked for. Asked for
// "auto", or "", it returns kind if Docker and kubectl are available and the node image exists or
// can be pulled, otherwise local, and writes to log which it is, and why. It pulls the node
// image for kind.
func Which(ctx context.Context, asked string, log io.Writer) (which string, err error) {
	switch asked {
	case "local", "current":
		return asked, nil
	case "kind":
		if err := kindMisses(ctx, log); err != nil {
			return "", fmt.Errorf("kind cluster: %w", err)
		}
		return asked, nil
	case "auto", "":
		err := kindMisses(ctx, log)
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if err != nil {
			fmt.Fprintf(log, "cluster: local (kind is not available: %v)\n", err)
			return "local", nil
		}
		fmt.Fprintln(log, "cluster: kind (Docker and the node image are available)")
		return "kind", nil
	}
	return "", fmt.Errorf("unknown cluster %q: choose auto, kind, local or current", asked)
}

// kindMisses returns an error that says what kind needs and this machine lacks.
func kindMisses(ctx context.Context, log io.Writer) error {
	for _, tool := range []string{"docker", "kubectl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is not on PATH", tool)
		}
	}
	if err := docker(ctx, "version"); err != nil {
		return errors.New("the Docker daemon does not answer")
	}
	return Pull(ctx, NodeImage(), log)
}

// NodeImage returns the image of kind's nodes: KIND_NODE_IMAGE in the environment, or kind's own.
func NodeImage() string { return cmp.Or(os.Getenv("KIND_NODE_IMAGE"), defaults.Image) }

// Pull makes sure that Docker has an image.
func Pull(ctx context.Context, image string, log io.Writer) error {
	if docker(ctx, "image", "inspect", image) == nil {
		return nil
	}
	fmt.Fprintf(log, "pulling %s\n", image)
	if err := docker(ctx, "pull", "--quiet", image); err != nil {
		return fmt.Errorf("the image %s does not exist here and cannot be pulled", image)
	}
	return nil
}

func docker(ctx context.Context, args ...string) error {
	return Run(exec.CommandContext(ctx, "docker", args...))
}

// Local builds the program in cluster/ of this repository in a folder, and returns its path. go run
// would not forward SIGTERM.
func Local(ctx context.Context, dir string, log io.Writer) (program string, err error) {
	module, err := Module(ctx)
	if err != nil {
		return "", err
	}
	program = filepath.Join(dir, "cluster")
	build := exec.CommandContext(ctx, "go", "-C", module, "build", "-o", program, ".")
	build.Stderr = log
	return program, Run(build)
}

// Module returns the folder cluster/ of this repository.
func Module(ctx context.Context) (string, error) {
	gomod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Join(filepath.Dir(strings.TrimSpace(string(gomod))), "cluster"), nil
}

// Run runs cmd, and interrupts it when its context is canceled. The error holds the
// last line of stderr.
func Run(cmd *exec.Cmd) error {
	var said bytes.Buffer
	if cmd.Stderr == nil {
		cmd.Stderr = io.Discard
	}
	cmd.Stderr = io.MultiWriter(cmd.Stderr, &said)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, lines[len(lines)-1])
	}
	return nil
}
