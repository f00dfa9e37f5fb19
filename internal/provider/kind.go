package provider

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/kind/pkg/apis/config/defaults"
)

// nginxImage is the image that the chapters' READMEs use too.
const nginxImage = "nginx:1.22"

//go:embed kind.yaml
var kindYAML string

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
	return pull(ctx, nodeImage(), log)
}

// pull makes sure that Docker has an image.
func pull(ctx context.Context, image string, log io.Writer) error {
	if docker(ctx, "image", "inspect", image) == nil {
		return nil
	}
	fmt.Fprintf(log, "pulling %s\n", image)
	if err := docker(ctx, "pull", "--quiet", image); err != nil {
		return fmt.Errorf("the image %s does not exist here and cannot be pulled", image)
	}
	return nil
}

func nodeImage() string { return env("KIND_NODE_IMAGE", defaults.Image) }

func docker(ctx context.Context, args ...string) error {
	return run(exec.CommandContext(ctx, "docker", args...))
}

// kind runs the kind of go.mod, never one from PATH. An interrupted kind leaves
// behind a docker run that continues to create its container. These processes
// therefore inherit a pipe, whose end says that the last one has exited, and the lock,
// in case this process is killed. Their own process group keeps ^C in a terminal from
// them.
func (c *Cluster) kind(ctx context.Context, args ...string) error {
	exited, inherited, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = exited.Close() }()
	cmd := exec.CommandContext(ctx, "go", append([]string{"tool", "kind"}, args...)...)
	cmd.ExtraFiles = []*os.File{c.lock, inherited}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = run(cmd)
	_ = inherited.Close()
	_ = exited.SetReadDeadline(time.Now().Add(time.Minute))
	if _, end := exited.Read(make([]byte, 1)); !errors.Is(end, io.EOF) {
		err = errors.Join(err, errors.New("an interrupted kind still runs"))
	}
	return err
}

// createKind makes kind write to a separate kubeconfig, not to the user's.
func (c *Cluster) createKind(ctx context.Context) error {
	module, err := module(ctx)
	if err != nil {
		return err
	}
	config := filepath.Join(c.dir, "kind.yaml")
	policy := strconv.Quote(filepath.Join(module, "audit.yaml"))
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(kindYAML, "$POLICY", policy)), 0o600); err != nil {
		return err
	}
	if err := c.kind(ctx, "create", "cluster", "--name", c.Name, "--config", config,
		"--kubeconfig", c.Kubeconfig, "--image", nodeImage(), "--wait", "3m"); err != nil {
		return err
	}
	if err := pull(ctx, c.Nginx, c.log); err != nil {
		return err
	}
	return c.kind(ctx, "load", "docker-image", c.Nginx, "--name", c.Name)
}

func (c *Cluster) removeKind(ctx context.Context) error {
	// A killed kind leaves this file behind, and the next kind would fail because of it.
	_ = os.Remove(c.Kubeconfig + ".lock")
	return c.kind(ctx, "delete", "cluster", "--name", c.Name, "--kubeconfig", c.Kubeconfig)
}

func (c *Cluster) auditKind(ctx context.Context) ([]byte, error) {
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, "docker", "exec", c.Name+"-control-plane", "sh", "-c", "cat /var/log/kubernetes/audit*.log")
	cmd.Stdout = &log
	err := run(cmd)
	return log.Bytes(), err
}
