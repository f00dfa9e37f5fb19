package provider

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
	"strconv"
	"strings"

	"example.com/informers/internal/provider/choice"
)

// createLocal runs up of the program in cluster/, whose line has the PATH of its kubectl.
func (c *Cluster) createLocal(ctx context.Context, apiOnly bool) error {
	var flags []string
	if apiOnly {
		flags = append(flags, "--api-only")
	}
	var export bytes.Buffer
	if err := c.local(ctx, &export, c.log, "up", flags...); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "sh", "-c", `eval "$1" && printf '%s\n%s' "$KUBECONFIG" "$PATH"`, "sh", export.String()).Output()
	if err != nil {
		return fmt.Errorf("evaluate %q: %w", export.String(), err)
	}
	kubeconfig, path, _ := strings.Cut(string(out), "\n")
	c.Kubeconfig, c.Env = kubeconfig, append(c.Env, "PATH="+path)
	return nil
}

// local runs the program in cluster/.
func (c *Cluster) local(ctx context.Context, stdout, stderr io.Writer, verb string, flags ...string) error {
	program, err := choice.Local(ctx, c.dir, c.log)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, append([]string{verb, "--name", c.Name}, flags...)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return choice.Run(cmd)
}

// file returns the path of a file of a local cluster.
func (c *Cluster) file(name ...string) string {
	dir, _ := cache("informers-cluster", "clusters", c.Name) // without a cache folder there is no cluster
	return filepath.Join(append([]string{dir}, name...)...)
}

func (c *Cluster) auditLocal() ([]byte, error) {
	files, err := filepath.Glob(c.file("logs", "audit*.log")) // the older one first
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
	return c.local(ctx, nil, nil, "restart")
}

// APIServer returns the process id of a local cluster's API server.
func (c *Cluster) APIServer() (pid int, err error) {
	if c.Which != "local" {
		return 0, fmt.Errorf("the API server's process of a %s cluster: %w", c.Which, errors.ErrUnsupported)
	}
	text, err := os.ReadFile(c.file("pids", "kube-apiserver.pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// ServingCertificate returns the certificate and the key of a local cluster's API
// server, so that a stub can take its place.
func (c *Cluster) ServingCertificate() (tls.Certificate, error) {
	if c.Which != "local" {
		return tls.Certificate{}, fmt.Errorf("the certificate of a %s cluster: %w", c.Which, errors.ErrUnsupported)
	}
	return tls.LoadX509KeyPair(c.file("pki", "admin.crt"), c.file("pki", "admin.key"))
}
