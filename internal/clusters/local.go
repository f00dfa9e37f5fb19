package clusters

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// openLocal runs the program in cluster/ and returns the PATH with its kubectl.
func (c *Cluster) openLocal(ctx context.Context) (path string, err error) {
	if err := c.buildLocal(ctx); err != nil {
		return "", err
	}
	var export bytes.Buffer
	if err := c.runLocal(ctx, &export, c.log, "up"); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "sh", "-c", `eval "$1" && printf '%s\n%s' "$KUBECONFIG" "$PATH"`, "sh", export.String()).Output()
	if err != nil {
		return "", fmt.Errorf("evaluate %q: %w", export.String(), err)
	}
	kubeconfig, path, _ := strings.Cut(string(out), "\n")
	c.local = filepath.Dir(kubeconfig)
	_, err = copyKubeconfig(c.Kubeconfig, kubeconfig, "")
	return path, err
}

func (c *Cluster) program() string { return filepath.Join(c.dir, "cluster") }

// buildLocal builds the program, because go run does not forward SIGTERM.
func (c *Cluster) buildLocal(ctx context.Context) error {
	module, err := module(ctx)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "-C", module, "build", "-o", c.program(), ".")
	cmd.Stderr = c.log
	return run(cmd)
}

func (c *Cluster) runLocal(ctx context.Context, stdout, stderr io.Writer, verb string) error {
	cmd := exec.CommandContext(ctx, c.program(), verb, "--name", c.Name)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return run(cmd)
}

func (c *Cluster) removeLocal(ctx context.Context) error {
	if _, err := os.Stat(c.program()); err != nil { // its run was killed before it was built
		if err := c.buildLocal(ctx); err != nil {
			return err
		}
	}
	return c.runLocal(ctx, nil, nil, "down")
}

func (c *Cluster) auditLocal() ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(c.local, "logs", "audit*.log")) // the older one first
	var log bytes.Buffer
	for _, file := range files {
		content, readErr := os.ReadFile(file)
		err = errors.Join(err, readErr)
		log.Write(content)
	}
	return log.Bytes(), err
}

// RestartAPIServer kills the API server of a local cluster, as a crash does, starts
// it again, and returns when a pod can be created.
func (c *Cluster) RestartAPIServer(ctx context.Context) error {
	if c.Which != "local" {
		return fmt.Errorf("restarting the API server of a %s cluster: %w", c.Which, errors.ErrUnsupported)
	}
	return c.runLocal(ctx, nil, nil, "restart")
}

// ServingCertificate returns the certificate and the key of a local cluster's API
// server, so that a stub can take its place.
func (c *Cluster) ServingCertificate() (tls.Certificate, error) {
	if c.Which != "local" {
		return tls.Certificate{}, fmt.Errorf("the certificate of a %s cluster: %w", c.Which, errors.ErrUnsupported)
	}
	pki := filepath.Join(c.local, "pki")
	return tls.LoadX509KeyPair(filepath.Join(pki, "admin.crt"), filepath.Join(pki, "admin.key"))
}

// module returns the folder cluster/ of this repository.
func module(ctx context.Context) (string, error) {
	gomod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Join(filepath.Dir(strings.TrimSpace(string(gomod))), "cluster"), nil
}
