// Package provider gives the demo and the e2e suite a cluster: one created by kind,
// one created by cluster/, or the one that the user's kubeconfig names.
package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"example.com/informers/internal/provider/choice"
)

// Options choose the cluster that Open returns.
type Options struct {
	// Which is one of the kinds of clusters that choice.Which takes.
	Which string

	// Prefix starts the cluster's name. The rest is random, so that any number
	// of runs can have clusters at the same time.
	Prefix string

	// Kubeconfig and Context choose the current cluster instead of the one that
	// kubectl's rules find. They have no effect on kind and local.
	Kubeconfig, Context string

	// APIOnly makes a local cluster that has only etcd and the API server: nothing schedules, runs,
	// or deletes pods.
	APIOnly bool

	// Keep makes Close keep a kind or local cluster, and write to Log how to use
	// it and how to remove it.
	Keep bool

	// Log gets a line for each step that takes long, and what choice.Which says.
	// If it is nil there is no log.
	Log io.Writer
}

// A Cluster can be used until Close.
type Cluster struct {
	Which      string   // "kind", "local" or "current"
	Name       string   // of the cluster, or of the context if it is the current one
	Kubeconfig string   // path of a separate kubeconfig, which may be changed
	Env        []string // the environment for kubectl: KUBECONFIG and PATH
	Nginx      string   // an nginx image that its nodes have, or can pull

	dir  string   // all files of this run
	lock *os.File // on dir, while a cluster that Open created exists
	keep bool
	log  io.Writer
}

// Open creates a cluster, or finds the current one. Before it creates one, it removes
// those of the same kind that killed runs left behind, as Sweep does. If it fails, or
// ctx is canceled, it removes what it created.
//
// Open reads the user's kubeconfig only for current, and never writes it.
// KIND_NODE_IMAGE and NGINX_IMAGE in the environment replace kind's own image and
// nginx:1.22.
func Open(ctx context.Context, o Options) (*Cluster, error) {
	c := &Cluster{Env: os.Environ(), Nginx: cmp.Or(os.Getenv("NGINX_IMAGE"), nginxImage), keep: o.Keep, log: o.Log}
	if c.log == nil {
		c.log = io.Discard
	}
	var err error
	if c.Which, err = choice.Which(ctx, o.Which, c.log); err != nil {
		return nil, err
	}
	if err := c.open(ctx, o); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		c.keep = false
		return nil, errors.Join(fmt.Errorf("%s cluster: %w", c.Which, err), c.Close(context.WithoutCancel(ctx)))
	}
	c.Env = append(c.Env, "KUBECONFIG="+c.Kubeconfig)
	return c, nil
}

func (c *Cluster) open(ctx context.Context, o Options) error {
	if c.Which == "current" {
		return c.openCurrent(o)
	}
	if err := Sweep(ctx, c.Which, "", c.log); err != nil {
		fmt.Fprintln(c.log, oneLine(err))
	}
	c.Name = o.Prefix + "-" + rand.String(5)
	if err := c.begin(); err != nil {
		return err
	}
	if c.Which == "kind" {
		return c.createKind(ctx)
	}
	return c.createLocal(ctx, o.APIOnly)
}

// Close takes down what Open started. If it fails, call it again, or leave it to the
// next run that calls Open or Sweep. After a Close that succeeds, another one does
// nothing.
func (c *Cluster) Close(ctx context.Context) (err error) {
	switch {
	case c.dir == "":
		return nil
	case c.Which == "current":
	case c.keep:
		err = c.leave()
	case c.Which == "kind":
		err = c.removeKind(ctx)
	default:
		err = c.local(ctx, nil, nil, "down")
	}
	if err == nil {
		err = os.RemoveAll(c.dir)
	}
	if err != nil {
		return fmt.Errorf("removing the %s cluster %s: %w", c.Which, c.Name, err)
	}
	c.dir = ""
	_ = c.lock.Close()
	return nil
}

// Config returns the configuration of a client for the cluster, without a
// client-side rate limit.
func (c *Cluster) Config() (*rest.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: c.Kubeconfig}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("load kubeconfig: %w", err)
	}
	config.QPS = -1
	return config, nil
}

// Client returns a client with Config.
func (c *Cluster) Client() (kubernetes.Interface, error) {
	config, err := c.Config()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// Logs copies the logs of the control plane into dir, which it creates; dir must not
// have any of them yet. If it fails, dir may have some of them. It cannot read the
// logs of a current cluster and returns errors.ErrUnsupported.
func (c *Cluster) Logs(ctx context.Context, dir string) error {
	switch c.Which {
	case "kind":
		return c.kind(ctx, "export", "logs", dir, "--name", c.Name)
	case "local":
		return os.CopyFS(dir, os.DirFS(c.file("logs")))
	}
	return fmt.Errorf("the logs of the current cluster: %w", errors.ErrUnsupported)
}

// openCurrent copies the part of a kubeconfig that belongs to one context, of a given
// kubeconfig or of the ones that kubectl's rules find, into a separate file.
func (c *Cluster) openCurrent(o Options) (err error) {
	if c.dir, err = os.MkdirTemp("", o.Prefix); err != nil {
		return err
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	config, err := rules.Load()
	if err != nil {
		return fmt.Errorf("load kubeconfig: %w", err)
	}
	config.CurrentContext = cmp.Or(o.Context, config.CurrentContext)
	switch {
	case config.CurrentContext == "":
		return errors.New("the kubeconfig has no current context: set one with kubectl config use-context")
	case config.Contexts[config.CurrentContext] == nil:
		return fmt.Errorf("the kubeconfig has no context %q: kubectl config get-contexts lists them", config.CurrentContext)
	}
	if err := clientcmdapi.MinifyConfig(config); err != nil {
		return fmt.Errorf("load kubeconfig: %w", err)
	}
	c.Name, c.Kubeconfig = config.CurrentContext, filepath.Join(c.dir, "kubeconfig")
	return clientcmd.WriteToFile(*config, c.Kubeconfig)
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
