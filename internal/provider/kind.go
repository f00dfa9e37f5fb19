package provider

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.com/informers/internal/provider/choice"
)

// nginxImage is the image that the chapters' READMEs use too.
const nginxImage = "nginx:1.22"

//go:embed kind.yaml
var kindYAML string

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
	err = choice.Run(cmd)
	_ = inherited.Close()
	_ = exited.SetReadDeadline(time.Now().Add(time.Minute))
	if _, end := exited.Read(make([]byte, 1)); !errors.Is(end, io.EOF) {
		err = errors.Join(err, errors.New("an interrupted kind still runs"))
	}
	return err
}

// createKind makes kind write to a separate kubeconfig, not to the user's.
func (c *Cluster) createKind(ctx context.Context) error {
	module, err := choice.Module(ctx)
	if err != nil {
		return err
	}
	config := filepath.Join(c.dir, "kind.yaml")
	policy := strconv.Quote(filepath.Join(module, "audit.yaml"))
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(kindYAML, "$POLICY", policy)), 0o600); err != nil {
		return err
	}
	if err := c.kind(ctx, "create", "cluster", "--name", c.Name, "--config", config,
		"--kubeconfig", c.Kubeconfig, "--image", choice.NodeImage(), "--wait", "3m"); err != nil {
		return err
	}
	if err := choice.Pull(ctx, c.Nginx, c.log); err != nil {
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
	err := choice.Run(cmd)
	return log.Bytes(), err
}
