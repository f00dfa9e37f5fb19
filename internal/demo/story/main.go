// Command story shows chapter 05 at work: what a learner would type and see. It
// creates a cluster or uses the current one (CLUSTER=auto, kind, local or current),
// works in a separate namespace, and takes down what it started. Exit code 0 means
// that it saw every step of the story, in order.
//
// Its argument is a folder with the built chapter, which it removes at the end.
package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"example.com/informers/internal/provider"
)

// limit is for the story itself. It takes at most two resync periods, if the first
// resync comes before the delete, and the delete can take 30 s on a busy kubelet.
const limit = 2 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first ^C cleans up, the second one kills
	err := errors.New("story needs the folder of a built chapter; make demo gives it one")
	if len(os.Args) == 2 {
		err = demo(ctx, os.Args[1])
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context, dir string) (err error) {
	clean := func(f func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, f(ctx))
	}

	defer clean(func(context.Context) error { return os.RemoveAll(dir) })
	c, err := provider.Open(ctx, provider.Options{Which: os.Getenv("CLUSTER"), Prefix: "informers-demo", Log: os.Stderr})
	if err != nil {
		return err
	}
	defer clean(c.Close)
	client, err := c.Client()
	if err != nil {
		return err
	}
	namespaces := client.CoreV1().Namespaces()
	ns, err := namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "demo-"}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create a namespace: %w", err)
	}
	defer clean(func(ctx context.Context) error {
		if c.Which != "current" {
			return nil // removed with its cluster
		}
		return namespaces.Delete(ctx, ns.Name, metav1.DeleteOptions{})
	})
	if err := createWeb(ctx, c, ns.Name); err != nil {
		return fmt.Errorf("create the pod web: %w", err)
	}

	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done in %s", limit))
	defer cancel()
	return story(ctx, c, filepath.Join(dir, "05-resync"), ns.Name)
}

// createWeb creates the pod web and returns when it is ready. An error has the last
// line that the failed command printed.
func createWeb(ctx context.Context, c *provider.Cluster, namespace string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("not ready after 5 minutes"))
	defer cancel()
	for _, command := range []string{
		// kubectl's default, so that its commands are the ones that a learner types.
		"kubectl config set-context --current --namespace " + namespace,
		// The API server rejects a pod until its namespace has this service account.
		"kubectl wait --for create --timeout 1h serviceaccount/default",
		"kubectl run web --image " + c.Nginx,
		"kubectl wait --for condition=Ready --timeout 1h pod/web",
	} {
		output, err := run(ctx, c, command)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, output[strings.LastIndex(output, "\n")+1:])
		}
	}
	return nil
}

// run runs a command and returns what it printed.
func run(ctx context.Context, c *provider.Cluster, command string) (string, error) {
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Env = c.Env
	output, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(output)), err
}

// A step is a line that the chapter has to print, and the command to type then.
type step struct {
	what string
	line *regexp.Regexp
	then string
}

// story runs the chapter and types commands alongside it, until the first resync of
// web after the delete. Every step has to appear, in this order.
func story(ctx context.Context, c *provider.Cluster, chapter, namespace string) error {
	line := func(format string) *regexp.Regexp {
		return regexp.MustCompile("^" + strings.ReplaceAll(format, "NAME", `is called for Pod \(key: `+namespace) + "$")
	}
	resync := line(`handleUpdate NAME/web\): resync, .*`)
	steps := []step{
		{"the initial Add of web", line(`handleAdd NAME/web\): initial, .*`), ""},
		{"cache is synced", line(`cache is synced`), ""},
		{"run", line(`run`), "kubectl run nginx --image " + c.Nginx},
		{"the Add of nginx", line(`handleAdd NAME/nginx\): new, .*`), ""},
		{"an Update of nginx to Ready", line(`handleUpdate NAME/nginx\): \d+ → \d+, .*\bReady\b.*`), "kubectl delete pod nginx"},
		{"the Update of nginx with its deletion", line(`handleUpdate NAME/nginx\): \d+ → \d+, .*\bdeletion\b.*`), ""},
		{"the Delete of nginx", line(`handleDelete NAME/nginx\): .*`), ""},
		{"the resync of web", resync, ""},
	}

	// Two goroutines print: the chapter's output, and the commands.
	out := log.New(os.Stdout, "", 0)
	out.Printf("$ go run ./05-resync --namespace %s", namespace)
	cmd := exec.CommandContext(ctx, chapter, "--namespace", namespace)
	cmd.Env = c.Env
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start 05-resync: %w", err)
	}
	defer func() { _ = cmd.Process.Kill() }()

	type result struct {
		command string
		at      time.Time
		err     error
	}
	typed := make(chan result, len(steps))
	var deleted time.Time
	for lines := bufio.NewScanner(stdout); len(steps) > 0 && lines.Scan(); {
		out.Print(lines.Text())
		select {
		case r := <-typed:
			if r.err != nil {
				return r.err
			}
			if strings.HasPrefix(r.command, "kubectl delete") {
				deleted = r.at
			}
		default:
		}
		switch {
		case steps[0].line.MatchString(lines.Text()):
			if command := steps[0].then; command != "" {
				go func() {
					out.Print("$ " + command)
					output, err := run(ctx, c, command)
					out.Print(output)
					if err != nil {
						err = fmt.Errorf("%s: %w", command, err)
					}
					typed <- result{command, time.Now(), err}
				}()
			}
			steps = steps[1:]
		case !deleted.IsZero() && time.Since(deleted) > time.Second && resync.MatchString(lines.Text()):
			return fmt.Errorf("05-resync did not print %s", steps[0].what)
		}
	}
	if len(steps) > 0 {
		return fmt.Errorf("05-resync did not print %s: %w", steps[0].what, cmp.Or(context.Cause(ctx), errors.New("it exited")))
	}

	out.Print("^C")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, stdout)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("05-resync: %w", err)
	}
	return nil
}
