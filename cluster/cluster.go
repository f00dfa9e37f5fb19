package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shirou/gopsutil/v4/process"
	"golang.org/x/sync/errgroup"
)

// kwokYAML configures kwokctl and defines how nodes and pods behave.
//
//go:embed kwok.yaml
var kwokYAML string

// auditYAML defines what the API server writes to its audit log.
//
//go:embed audit.yaml
var auditYAML []byte

// components are the processes of a cluster, by the names that kwokctl gives
// to their programs, pid files and logs (kwok v0.8.0, pkg/consts/consts.go).
// The first two serve the API.
var components = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok-controller"}

// A cluster is a cluster of kwokctl with its files in root/clusters/name.
type cluster struct {
	root, name   string
	apiOnly      bool // only etcd and kube-apiserver
	compileAll   bool // download nothing
	downloadOnly bool // compile and start nothing
}

func (c cluster) components() []string {
	if c.apiOnly {
		return components[:2]
	}
	return components
}

func (c cluster) file(name ...string) string {
	return filepath.Join(append([]string{c.root, "clusters", c.name}, name...)...)
}

func (c cluster) kubeconfig() string { return c.file("kubeconfig.yaml") }

// start creates or repairs the cluster, and returns when a pod can be created. If
// the first start fails, start removes the cluster.
func (c cluster) start(ctx context.Context, bin string) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("not ready after 3 minutes"))
	defer cancel()
	syscall.Umask(0o077) // only the user may read keys, certificates and data

	made, apiOnly := c.madeWith()
	if made != "" && apiOnly != c.apiOnly {
		how := "without"
		if apiOnly {
			how = "with"
		}
		return fmt.Errorf("it was created %s --api-only; use up the same way, or take the cluster down first", how)
	}
	first := made != bin
	if first && made != "" {
		fmt.Fprintf(os.Stderr, "cluster %q was created with other versions: creating it again\n", c.name)
	}
	// kwokctl starts a component only once, and one can exit for a temporary reason:
	// another program took the port that kwokctl chose, or the controller manager
	// waited more than 10 s for a slow API server (k8s.io/kubernetes v1.37.2,
	// cmd/kube-controller-manager/app/controllermanager.go). So try twice.
	for range 2 {
		if first {
			if err := c.remove(ctx); err != nil {
				return err
			}
			if err := c.configure(bin); err != nil {
				return err
			}
		}
		if err = c.try(ctx, bin); !errors.As(err, new(endedError)) {
			break
		}
	}
	if err == nil {
		mark := bin
		if c.apiOnly {
			mark += apiOnlyMark
		}
		err = os.WriteFile(c.file("made-with"), []byte(mark), 0o600)
	}
	switch {
	case err != nil && first:
		return errors.Join(err, c.remove(context.WithoutCancel(ctx)))
	case err != nil:
		return fmt.Errorf("%w; to create it again, run down and then up", err)
	}
	return nil
}

// apiOnlyMark ends the file made-with of a cluster that was created with --api-only.
const apiOnlyMark = " --api-only"

// madeWith returns the programs with which a start was completed; bin is empty if none was.
func (c cluster) madeWith() (bin string, apiOnly bool) {
	mark, _ := os.ReadFile(c.file("made-with"))
	return strings.CutSuffix(string(mark), apiOnlyMark)
}

// configure writes the files that kwokctl and kwok read.
func (c cluster) configure(bin string) error {
	if err := os.MkdirAll(c.file(), 0o700); err != nil {
		return fmt.Errorf("creating its folder: %w", err)
	}
	config := strings.NewReplacer("$BIN", bin, "$DIR", c.file(), "$KUBERNETES", kubernetes()).Replace(kwokYAML)
	return errors.Join(
		os.WriteFile(c.file("config.yaml"), []byte(config), 0o600),
		os.WriteFile(c.file("audit-policy.yaml"), auditYAML, 0o600),
		os.WriteFile(c.file("pod.log"), []byte(podLog), 0o600))
}

// podLog is what kubectl logs prints for every container, in the format of
// container runtimes.
const podLog = "2026-01-01T00:00:00Z stdout F No container runs here: kwok only plays the kubelet, so there is no log.\n"

// try starts the components that do not run, creates the node if it does not exist,
// and waits until the node is ready and the service account "default" exists: then a
// pod can be created. It fails with an endedError if a component exits.
func (c cluster) try(ctx context.Context, bin string) error {
	if err := c.correctPIDs(ctx); err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	go func() { fail(c.firstEnd(ctx)) }()

	config := c.file("config.yaml")
	// Without --kubeconfig "" kwokctl would write to the user's kubeconfig.
	create := []string{"create", "cluster", "--name", c.name, "--config", config, "--kubeconfig", ""}
	if c.apiOnly {
		// Nothing creates service accounts, so a pod must not need one.
		create = append(create, "--disable", strings.Join(components[2:], ","),
			"--extra-args", "kube-apiserver=disable-admission-plugins=ServiceAccount")
	}
	if err := c.run(ctx, nil, bin, "kwokctl", create...); err != nil {
		return err
	}
	if c.apiOnly {
		return c.awaitDefault(ctx, bin, "namespaces")
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := c.run(ctx, nil, bin, "kwokctl", "scale", "node", "--name", c.name, "--config", config, "--serial-length", "1"); err != nil {
			return err
		}
		return c.run(ctx, nil, bin, "kubectl", "wait", "node/node-0", "--for", "condition=Ready", "--timeout", "-1s")
	})
	g.Go(func() error { return c.awaitDefault(ctx, bin, "serviceaccounts") })
	return g.Wait()
}

// awaitDefault returns when the object "default" of a resource exists. kubectl
// wait --for=create polls twice a second; this watches.
func (c cluster) awaitDefault(ctx context.Context, bin, resource string) error {
	watch, stop := context.WithCancel(ctx)
	defer stop()
	found := false
	err := c.run(watch, func(line string) {
		if strings.HasSuffix(line, "/default") {
			found = true
			stop()
		}
	}, bin, "kubectl", "get", resource, "--namespace", "default", "--field-selector", "metadata.name=default", "--watch", "--output", "name")
	if found {
		return nil
	}
	return err
}

// run runs one of the built programs on the cluster and calls line, if given,
// with each line of its output.
func (c cluster) run(ctx context.Context, line func(string), bin, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, program), args...)
	// The method processes finds it by this name, if it outlives a killed up.
	cmd.Args[0] = c.file("bin", program)
	// Not the user's environment, which the components would inherit. kwokctl and
	// kubectl keep files in HOME.
	cmd.Env = []string{"PATH=" + bin, "HOME=" + c.file(), "KUBECONFIG=" + c.kubeconfig(), "KWOK_WORKDIR=" + c.root}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	err := lines(cmd, line)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// A proc is a process of a cluster.
type proc struct {
	*process.Process
	program string
}

// processes finds the cluster's processes by the path that they were started with,
// which is in the cluster's own folder. kwokctl's pid files are not enough: they can
// name processes that have exited, or unrelated processes that reuse their pids.
func (c cluster) processes(ctx context.Context) ([]proc, error) {
	all, err := process.ProcessesWithContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the processes of this machine: %w", err)
	}
	var ours []proc
	for _, p := range all {
		// It has no command line if it has exited, or if this user may not see it.
		args, _ := p.CmdlineSliceWithContext(ctx)
		if len(args) > 0 && filepath.Dir(args[0]) == c.file("bin") {
			ours = append(ours, proc{p, filepath.Base(args[0])})
		}
	}
	return ours, nil
}

// kill kills the processes of the cluster that match, and returns when they and their
// ports are gone. They are not children of this program, so it has to poll.
func (c cluster) kill(ctx context.Context, match func(proc) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("they are still there after 10 s"))
	defer cancel()
	var dying []proc
	for {
		running, err := c.processes(ctx)
		if err != nil {
			return err
		}
		running = slices.DeleteFunc(running, func(p proc) bool { return !match(p) })
		for _, p := range running {
			err = errors.Join(err, p.KillWithContext(ctx))
		}
		// A process loses its command line before its ports and files. These are
		// released when the process is gone, or is a zombie without other threads.
		// A zombie stays forever if process 1 does not wait for its children.
		dying = slices.DeleteFunc(append(dying, running...), func(p proc) bool {
			status, err := p.StatusWithContext(ctx)
			threads, _ := p.NumThreadsWithContext(ctx)
			return err != nil || slices.Contains(status, process.Zombie) && threads <= 1
		})
		if len(dying) == 0 {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("killing its processes: %w", errors.Join(context.Cause(ctx), err))
		}
	}
}

// correctPIDs makes kwokctl's pid files match the processes that run. kwokctl
// treats any process with the pid in such a file as its own (kwok v0.8.0,
// pkg/kwokctl/runtime/exec.go).
func (c cluster) correctPIDs(ctx context.Context) error {
	// A kwokctl that outlived its up may still be starting components.
	isComponent := func(p proc) bool { return slices.Contains(components, p.program) }
	if err := c.kill(ctx, func(p proc) bool { return !isComponent(p) }); err != nil {
		return err
	}
	running, err := c.processes(ctx)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(c.file("pids")); err != nil {
		return fmt.Errorf("removing old pid files: %w", err)
	}
	if err := os.Mkdir(c.file("pids"), 0o700); err != nil {
		return fmt.Errorf("creating the folder for pid files: %w", err)
	}
	for _, p := range running {
		if err := os.WriteFile(c.pidFile(p.program), []byte(strconv.Itoa(int(p.Pid))), 0o600); err != nil {
			return fmt.Errorf("writing a pid file: %w", err)
		}
	}
	return nil
}

func (c cluster) pidFile(component string) string { return c.file("pids", component+".pid") }

// An endedError says which component exited while it was needed, and why.
type endedError struct{ component, why string }

func (e endedError) Error() string { return e.component + " exited: " + e.why }

// firstEnd returns an endedError as soon as a component that kwokctl started stops
// running, or the context's error.
func (c cluster) firstEnd(ctx context.Context) error {
	for {
		var started []string
		for _, component := range components {
			if _, err := os.Stat(c.pidFile(component)); err == nil {
				started = append(started, component)
			}
		}
		running, err := c.processes(ctx)
		if err != nil {
			return err
		}
		for _, component := range started {
			if !slices.ContainsFunc(running, func(p proc) bool { return p.program == component }) {
				output, _ := os.ReadFile(c.file("logs", component+".log"))
				return endedError{component, cause(string(output))}
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// remove kills the cluster's processes and removes its files. It does not need
// kwokctl or the pid files, so it also removes what a killed up left behind.
func (c cluster) remove(ctx context.Context) error {
	if err := c.kill(ctx, func(proc) bool { return true }); err != nil {
		return err
	}
	if err := os.RemoveAll(c.file()); err != nil {
		return fmt.Errorf("removing its files: %w", err)
	}
	_ = os.Remove(filepath.Join(c.root, "clusters")) // stays while another cluster is in it
	return nil
}

func (c cluster) killAPIServer(ctx context.Context) error {
	found := false
	err := c.kill(ctx, func(p proc) bool {
		isServer := p.program == "kube-apiserver"
		found = found || isServer
		return isServer
	})
	if err == nil && !found {
		err = fmt.Errorf("cluster %q has no running API server", c.name)
	}
	return err
}

// status prints the processes of the cluster and fails unless it is ready.
func (c cluster) status(ctx context.Context) error {
	running, err := c.processes(ctx)
	if err != nil {
		return err
	}
	for _, p := range running {
		memory, err := p.MemoryInfoWithContext(ctx)
		if err != nil {
			continue // it exited in the meantime
		}
		fmt.Printf("%-24s pid %-8d %4d MiB\n", p.program, p.Pid, memory.RSS>>20)
	}
	bin, apiOnly := c.madeWith()
	c.apiOnly = apiOnly
	if bin == "" || len(running) < len(c.components()) {
		return fmt.Errorf("cluster %q does not run, or only in part; `up` starts what is missing", c.name)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("no answer in 5 s"))
	defer cancel()
	ready := []string{"get", "--raw", "/readyz"}
	if c.apiOnly { // up --api-only does not wait for /readyz
		ready = []string{"get", "namespaces", "default"}
	}
	if err := c.run(ctx, nil, bin, "kubectl", ready...); err != nil {
		return fmt.Errorf("cluster %q is not ready: %w", c.name, err)
	}
	fmt.Printf("cluster %q is ready: KUBECONFIG=%s\n", c.name, c.kubeconfig())
	return nil
}
