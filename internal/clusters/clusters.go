// Package clusters gives the demo and the e2e suite a cluster: one that kind
// makes, one that cluster/ makes, or the one that the user's kubeconfig names.
package clusters

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kind/pkg/apis/config/defaults"
)

// nginxImage is what the chapters' READMEs use too.
const nginxImage = "nginx:1.22"

// A Cluster is one that can be used until Close.
type Cluster struct {
	Which      string   // "kind", "local" or "current"
	Kubeconfig string   // path of a kubeconfig of its own, which may be changed
	Env        []string // the environment for kubectl on it: KUBECONFIG and PATH
	Nginx      string   // an nginx image that its nodes have, or can pull

	dir   string
	close []func(context.Context) error
}

// Open makes a cluster called name and says on log which one and why.
//
// which is "kind", "local", "current", or "auto" (or ""): kind where Docker and
// kubectl are there and the node image is, or can be pulled, else local. The
// user's kubeconfig is read for current alone, and never written.
//
// KIND_NODE_IMAGE and NGINX_IMAGE in the environment name other images than
// kind's own and nginx:1.22.
func Open(ctx context.Context, which, name string, log io.Writer) (_ *Cluster, err error) {
	c := &Cluster{Which: which, Nginx: env("NGINX_IMAGE", nginxImage)}
	why := "CLUSTER says so"
	switch which {
	case "kind", "local", "current":
	case "auto", "":
		c.Which, why = "kind", "Docker and the node image are there"
		if err := kindMisses(ctx, log); err != nil {
			c.Which, why = "local", "kind is passed over: "+err.Error()
		}
	default:
		return nil, fmt.Errorf("no such cluster %q: CLUSTER is auto, kind, local or current", which)
	}
	fmt.Fprintf(log, "cluster: %s (%s)\n", c.Which, why)

	if c.dir, err = os.MkdirTemp("", name); err != nil {
		return nil, err
	}
	c.Kubeconfig = filepath.Join(c.dir, "kubeconfig")
	c.onClose(func(context.Context) error { return os.RemoveAll(c.dir) })
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close(context.WithoutCancel(ctx)))
		}
	}()

	path := os.Getenv("PATH")
	switch c.Which {
	case "kind":
		err = c.openKind(ctx, name, log)
	case "local":
		path, err = c.openLocal(ctx, name, log)
	case "current":
		err = c.copyKubeconfig("")
	}
	if err != nil {
		return nil, fmt.Errorf("%s cluster: %w", c.Which, err)
	}
	c.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, "PATH="+path)
	return c, nil
}

// Close takes down what Open started.
func (c *Cluster) Close(ctx context.Context) error {
	var errs []error
	for i := len(c.close) - 1; i >= 0; i-- {
		errs = append(errs, c.close[i](ctx))
	}
	c.close = nil
	return errors.Join(errs...)
}

func (c *Cluster) onClose(f func(context.Context) error) { c.close = append(c.close, f) }

// kindMisses says what kind lacks on this machine.
func kindMisses(ctx context.Context, log io.Writer) error {
	for _, tool := range []string{"docker", "kubectl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is not on PATH", tool)
		}
	}
	if err := command(ctx, io.Discard, "docker", "version"); err != nil {
		return errors.New("no Docker daemon answers")
	}
	return pull(ctx, nodeImage(), log)
}

// pull makes sure that Docker has an image.
func pull(ctx context.Context, image string, log io.Writer) error {
	if command(ctx, io.Discard, "docker", "image", "inspect", image) == nil {
		return nil
	}
	fmt.Fprintf(log, "pulling %s\n", image)
	if err := command(ctx, io.Discard, "docker", "pull", "--quiet", image); err != nil {
		return fmt.Errorf("the image %s is not there and cannot be pulled", image)
	}
	return nil
}

func nodeImage() string { return env("KIND_NODE_IMAGE", defaults.Image) }

// openKind runs the kind of go.mod, never one from PATH. kind writes to a
// kubeconfig of its own: the user's stays as it is.
func (c *Cluster) openKind(ctx context.Context, name string, log io.Writer) error {
	if err := kindMisses(ctx, log); err != nil {
		return err
	}
	remove := func(ctx context.Context) error {
		return command(ctx, io.Discard, "go", "tool", "kind", "delete", "cluster", "--name", name, "--kubeconfig", c.Kubeconfig)
	}
	if err := remove(ctx); err != nil { // left by a run that was killed
		return err
	}
	c.onClose(remove)
	if err := command(ctx, io.Discard, "go", "tool", "kind", "create", "cluster", "--name", name,
		"--kubeconfig", c.Kubeconfig, "--image", nodeImage(), "--wait", "3m"); err != nil {
		return err
	}
	if err := pull(ctx, c.Nginx, log); err != nil {
		return err
	}
	return command(ctx, io.Discard, "go", "tool", "kind", "load", "docker-image", c.Nginx, "--name", name)
}

// openLocal runs the program in cluster/ and returns the PATH with its kubectl.
func (c *Cluster) openLocal(ctx context.Context, name string, log io.Writer) (path string, err error) {
	gomod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	module := filepath.Join(filepath.Dir(strings.TrimSpace(string(gomod))), "cluster")
	program := filepath.Join(c.dir, "cluster") // go run would forward no SIGTERM
	if err := command(ctx, log, "go", "-C", module, "build", "-o", program, "."); err != nil {
		return "", err
	}
	c.onClose(func(ctx context.Context) error { return command(ctx, io.Discard, program, "down", "--name", name) })

	var export bytes.Buffer
	up := exec.CommandContext(ctx, program, "up", "--name", name)
	up.Stdout, up.Stderr = &export, log
	up.Cancel = func() error { return up.Process.Signal(os.Interrupt) }
	up.WaitDelay = time.Minute
	if err := up.Run(); err != nil {
		return "", fmt.Errorf("up: %w", err)
	}
	out, err := exec.CommandContext(ctx, "sh", "-c", `eval "$1" && printf '%s\n%s' "$KUBECONFIG" "$PATH"`, "sh", export.String()).Output()
	if err != nil {
		return "", fmt.Errorf("evaluate %q: %w", export.String(), err)
	}
	kubeconfig, path, _ := strings.Cut(string(out), "\n")
	return path, c.copyKubeconfig(kubeconfig)
}

// copyKubeconfig writes what a kubeconfig, or what kubectl's rules find, says of
// the current context into a file of our own.
func (c *Cluster) copyKubeconfig(path string) error {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	config, err := rules.Load()
	if err != nil {
		return fmt.Errorf("load kubeconfig: %w", err)
	}
	if config.CurrentContext == "" {
		return errors.New("the kubeconfig has no current context: set one with kubectl config use-context")
	}
	return clientcmd.WriteToFile(*config, c.Kubeconfig)
}

// command runs a program. Its error holds the last line of what it said.
func command(ctx context.Context, log io.Writer, program string, args ...string) error {
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(log, &output), io.MultiWriter(log, &output)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Run(); err != nil {
		said := strings.Split(strings.TrimSpace(output.String()), "\n")
		return fmt.Errorf("%s: %w: %s", strings.Join(append([]string{program}, args...), " "), err, said[len(said)-1])
	}
	return nil
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
