// Package clusters gives the demo and the e2e suite a cluster: one that kind
// makes, one that cluster/ makes, or the one that the user's kubeconfig names.
package clusters

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Options say which cluster Open makes.
type Options struct {
	// Which is "kind", "local", "current", or "auto" (or ""): kind where
	// Docker and kubectl are there and the node image is, or can be pulled,
	// else local.
	Which string

	// Prefix begins the cluster's name. The rest is random, so that any number
	// of runs have clusters at once.
	Prefix string

	// Kubeconfig and Context choose the current cluster in place of what
	// kubectl's rules find. They mean nothing to the others.
	Kubeconfig, Context string

	// Keep makes Close leave a kind or local cluster, and say on Log how to use
	// it and how to remove it.
	Keep bool

	// Log gets one line that says which cluster and why, and then what takes
	// its time. Nil is no log.
	Log io.Writer
}

// A Cluster is one that can be used until Close.
type Cluster struct {
	Which      string   // "kind", "local" or "current"
	Name       string   // of the cluster; of the context for current
	Kubeconfig string   // path of a kubeconfig of its own, which may be changed
	Env        []string // the environment for kubectl on it: KUBECONFIG and PATH
	Nginx      string   // an nginx image that its nodes have, or can pull

	dir   string   // all files of this run
	lock  *os.File // locked while a cluster that Open made is there
	keep  bool
	log   io.Writer
	local string // folder of the local cluster's own files
}

// Open makes a cluster, or finds the current one. Before it makes one it removes
// those of its kind that killed runs left, as Sweep does. If it fails, or ctx
// ends, it takes back what it began.
//
// The user's kubeconfig is read for current alone, and never written.
// KIND_NODE_IMAGE and NGINX_IMAGE in the environment name other images than
// kind's own and nginx:1.22.
func Open(ctx context.Context, o Options) (_ *Cluster, err error) {
	c := &Cluster{Which: o.Which, Nginx: env("NGINX_IMAGE", nginxImage), keep: o.Keep, log: o.Log}
	if c.log == nil {
		c.log = io.Discard
	}
	why := "asked for"
	switch o.Which {
	case "kind", "local", "current":
	case "auto", "":
		c.Which, why = "kind", "Docker and the node image are there"
		if err := kindMisses(ctx, c.log); err != nil {
			c.Which, why = "local", "kind is passed over: "+err.Error()
		}
	default:
		return nil, fmt.Errorf("no such cluster %q: choose auto, kind, local or current", o.Which)
	}
	fmt.Fprintf(c.log, "cluster: %s (%s)\n", c.Which, why)

	defer func() {
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			c.keep = false
			err = errors.Join(fmt.Errorf("%s cluster: %w", c.Which, err), c.Close(context.WithoutCancel(ctx)))
		}
	}()
	if o.Which == "kind" { // auto has looked
		if err := kindMisses(ctx, c.log); err != nil {
			return nil, err
		}
	}
	path := os.Getenv("PATH")
	if c.Which == "current" {
		err = c.openCurrent(o)
	} else {
		if err := Sweep(ctx, c.Which, "", c.log); err != nil {
			fmt.Fprintln(c.log, oneLine(err))
		}
		c.Name = o.Prefix + "-" + rand.String(5)
		if err := c.begin(); err != nil {
			return nil, err
		}
		if c.Which == "kind" {
			err = c.openKind(ctx)
		} else {
			path, err = c.openLocal(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	c.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, "PATH="+path)
	return c, nil
}

// Close takes down what Open started. If it fails, a next Close, Open or Sweep
// tries again. After it nothing is left for a second Close to do.
func (c *Cluster) Close(ctx context.Context) error {
	if c.lock == nil {
		return os.RemoveAll(c.dir)
	}
	err := c.takeDown(ctx)
	_ = c.lock.Close()
	if err != nil {
		return fmt.Errorf("removing the %s cluster %s: %w", c.Which, c.Name, err)
	}
	c.lock, c.dir = nil, ""
	return nil
}

func (c *Cluster) takeDown(ctx context.Context) error {
	if c.keep {
		return c.leave()
	}
	err := c.lockAgain(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // a Sweep was faster
	case err == nil && c.Which == "kind":
		err = c.removeKind(ctx)
	case err == nil:
		err = c.removeLocal(ctx)
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(c.dir)
}

// Config returns the configuration of a client for the cluster, without a rate
// limit of its own.
func (c *Cluster) Config() (*rest.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: c.Kubeconfig}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("load kubeconfig: %w", err)
	}
	config.QPS = -1
	return config, nil
}

// Client returns a client of Config.
func (c *Cluster) Client() (kubernetes.Interface, error) {
	config, err := c.Config()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// Logs copies the logs of the control plane into dir, which is made, and in
// which none of them may be yet. If it fails, the others are there all the same.
// Those of a current cluster are out of reach: errors.ErrUnsupported.
func (c *Cluster) Logs(ctx context.Context, dir string) error {
	switch c.Which {
	case "kind":
		return c.kind(ctx, "export", "logs", dir, "--name", c.Name)
	case "local":
		return os.CopyFS(dir, os.DirFS(filepath.Join(c.local, "logs")))
	}
	return fmt.Errorf("the logs of the current cluster: %w", errors.ErrUnsupported)
}

// openCurrent writes what a kubeconfig, or what kubectl's rules find, says of the
// current context into a file of our own.
func (c *Cluster) openCurrent(o Options) (err error) {
	if c.dir, err = os.MkdirTemp("", o.Prefix); err != nil {
		return err
	}
	c.Kubeconfig = filepath.Join(c.dir, "kubeconfig")
	c.Name, err = copyKubeconfig(c.Kubeconfig, o.Kubeconfig, o.Context)
	return err
}

// copyKubeconfig copies of a kubeconfig what belongs to one context, and returns
// the name of that.
func copyKubeconfig(to, from, name string) (string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = from
	config, err := rules.Load()
	if err != nil {
		return "", fmt.Errorf("load kubeconfig: %w", err)
	}
	config.CurrentContext = cmp.Or(name, config.CurrentContext)
	switch {
	case config.CurrentContext == "":
		return "", errors.New("the kubeconfig has no current context: set one with kubectl config use-context")
	case config.Contexts[config.CurrentContext] == nil:
		return "", fmt.Errorf("the kubeconfig has no context %q: kubectl config get-contexts lists them", config.CurrentContext)
	}
	if err := clientcmdapi.MinifyConfig(config); err != nil {
		return "", fmt.Errorf("load kubeconfig: %w", err)
	}
	return config.CurrentContext, clientcmd.WriteToFile(*config, to)
}

// run runs cmd, and interrupts it when its context ends. The error holds the last
// line on stderr.
func run(cmd *exec.Cmd) error {
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

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func env(name, otherwise string) string {
	return cmp.Or(os.Getenv(name), otherwise)
}
