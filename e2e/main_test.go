// Package e2e runs the chapters on a cluster as a learner would, creates and
// deletes pods meanwhile, and checks what they print against what Kubernetes
// guarantees: of one pod Add, then Updates, then Delete. It asserts nothing that
// Kubernetes leaves open, such as the number of Updates.
//
//	go test ./e2e [-v] [-run NAME] [-args FLAGS]
//
// The flags are those below and e2e-framework's own: --labels chapter=05 and
// --skip-labels pace=slow choose features; --kubeconfig and --context choose the
// current cluster; --namespace begins the names of the namespaces that are made.
package e2e

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/e2e-framework/pkg/env"
	"sigs.k8s.io/e2e-framework/pkg/envconf"

	"example.com/informers/internal/chapters"
	"example.com/informers/internal/provider"
)

const root = ".."

// timeout is for what takes seconds on an idle machine. It asserts nothing.
var timeout = time.Minute

var (
	which     = flag.String("cluster", os.Getenv("CLUSTER"), "`name` of a kind of cluster: auto, kind, local or current")
	keep      = flag.Bool("keep", false, "leave the cluster when the suite is done")
	artifacts = flag.String("artifacts", "", "`folder` for what each chapter prints, and the control plane's logs if a test fails")
	update    = flag.Bool("update", false, "write the outputs in the READMEs anew")
	built     = flag.String("bin", "", "`folder` with built chapters (default: they are built)")
	patience  = flag.Duration("patience", timeout, "how long to wait for what takes seconds on an idle machine")

	cluster *provider.Cluster
	client  kubernetes.Interface
	testenv env.Environment
)

func TestMain(m *testing.M) {
	cfg, err := envconf.NewFromFlags()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if os.Getenv(supervised) == "" {
		os.Exit(supervise())
	}
	code, err := run(m, cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M, cfg *envconf.Config) (code int, err error) {
	cfg.WithParallelTestEnabled()
	if cfg.DryRunMode() { // only the names of what would run
		cluster, testenv = &provider.Cluster{}, env.NewWithConfig(cfg)
		return testenv.Run(m), nil
	}
	timeout = *patience
	if *artifacts != "" { // go test has flags for this, which take no relative folder
		dir, absErr := filepath.Abs(*artifacts)
		err = errors.Join(absErr, flag.Set("test.artifacts", "true"), flag.Set("test.outputdir", dir), os.MkdirAll(dir, 0o755))
		if err != nil {
			return 1, err
		}
	}
	if *built == "" {
		if *built, err = os.MkdirTemp("", "informers-e2e"); err != nil {
			return 1, err
		}
		defer func() { _ = os.RemoveAll(*built) }()
		all, err := chapters.Names(root)
		if err == nil {
			err = chapters.Build(root, *built, all)
		}
		if err != nil {
			return 1, err
		}
	}

	if cfg.KubeconfigFile() != "" || cfg.KubeContext() != "" {
		if *which != "" && *which != "current" {
			return 1, fmt.Errorf("--kubeconfig and --context name a cluster that is there: use them with --cluster current, not %s", *which)
		}
		*which = "current"
	}
	ctx := context.Background()
	open := provider.Options{
		Which: *which, Prefix: "informers-e2e", Keep: *keep, Log: os.Stderr,
		Kubeconfig: cfg.KubeconfigFile(), Context: cfg.KubeContext(),
	}
	if cluster, err = provider.Open(ctx, open); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, cluster.Close(ctx)) }()
	parallel := "16" // the tests wait most of the time
	if cluster.Which == "kind" {
		parallel = "8" // a kubelet and containers need the CPUs, too
	}
	if err = flag.Set("test.parallel", parallel); err != nil {
		return 1, err
	}
	if client, err = cluster.Client(); err != nil {
		return 1, err
	}
	testenv = newEnv(cfg)
	defer func() {
		if faults.Cluster != nil {
			err = errors.Join(err, faults.Close(ctx))
		}
	}()
	go watchStalls()
	code = testenv.Run(m)
	if code != 0 && *artifacts != "" {
		for _, c := range []*provider.Cluster{cluster, faults.Cluster} {
			if c == nil || c.Which == "current" {
				continue
			}
			if err := c.Logs(ctx, filepath.Join(*artifacts, c.Name)); err != nil { // some of them
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}
	return code, nil
}

// newEnv is an environment in which each test has its own namespace.
func newEnv(cfg *envconf.Config) env.Environment {
	prefix := cmp.Or(cfg.Namespace(), "e2e")
	e := env.NewWithConfig(cfg.WithKubeconfigFile(cluster.Kubeconfig))
	e.BeforeEachTest(func(ctx context.Context, cfg *envconf.Config, t *testing.T) (context.Context, error) {
		ns, err := newNamespace(ctx, t, client, prefix)
		cfg.WithNamespace(ns)
		return ctx, err
	})
	return e
}

// newNamespace makes a namespace in which pods can be created, for the time of a test.
func newNamespace(ctx context.Context, t *testing.T, client kubernetes.Interface, prefix string) (string, error) {
	meta := metav1.ObjectMeta{Name: envconf.RandomName(prefix, len(prefix)+6)}
	if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	t.Cleanup(func() {
		if err := client.CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), meta.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("delete the namespace: %v", err)
		}
	})
	return meta.Name, serviceAccount(ctx, client, meta.Name)
}

// serviceAccount waits until a namespace has the service account default: without it pods
// are refused.
func serviceAccount(ctx context.Context, client kubernetes.Interface, ns string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	w, err := client.CoreV1().ServiceAccounts(ns).Watch(ctx, metav1.SingleObject(metav1.ObjectMeta{Name: "default"}))
	if err != nil {
		return err
	}
	defer w.Stop()
	if _, ok := <-w.ResultChan(); !ok {
		return fmt.Errorf("namespace %s has no service account default after %s", ns, timeout)
	}
	return nil
}

// supervised is in the environment of the process that runs the tests.
const supervised = "INFORMERS_E2E_SUPERVISED"

// supervise runs the tests in a separate process. However that one ends (a
// panic, -timeout, ^C, kill), what it started is removed.
func supervise() int {
	tmp, err := os.MkdirTemp("", "informers-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	tests := exec.Command(os.Args[0], os.Args[1:]...)
	tests.Env = append(os.Environ(), supervised+"=yes", "TMPDIR="+tmp)
	tests.Stdin, tests.Stdout, tests.Stderr = os.Stdin, os.Stdout, os.Stderr
	tests.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // chapters and kind are in its group too
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	if err := tests.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		for s := range signals {
			_ = syscall.Kill(-tests.Process.Pid, s.(syscall.Signal))
		}
	}()
	err = tests.Wait()
	_ = syscall.Kill(-tests.Process.Pid, syscall.SIGKILL)
	code := tests.ProcessState.ExitCode()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
	}
	if code == 0 {
		return 0
	}
	for _, which := range []string{"kind", "local"} {
		if err := provider.Sweep(context.Background(), which, *artifacts, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return max(code, 1) // -1: ended by a signal
}
