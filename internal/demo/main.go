// Command demo shows chapter 05 at work: what a learner would type and see. It
// creates a cluster or uses the current one (CLUSTER=auto, kind, local or current),
// works in a separate namespace, and takes down what it started. Exit code 0 means
// that it saw every step of the story, in order.
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
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	watchtools "k8s.io/client-go/tools/watch"

	"example.com/informers/internal/clusters"
)

// limit is for the story itself. It takes at most two resync periods, if the first
// resync comes before the delete, and the delete can take 30 s on a busy kubelet.
const limit = 2 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first ^C cleans up, the second one kills
	err := demo(ctx)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context) (err error) {
	clean := func(f func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, f(ctx))
	}

	dir, err := os.MkdirTemp("", "informers-demo")
	if err != nil {
		return err
	}
	defer clean(func(context.Context) error { return os.RemoveAll(dir) })
	chapter := filepath.Join(dir, "05-resync")
	build := exec.CommandContext(ctx, "go", "build", "-o", chapter, "./05-resync")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("go build ./05-resync: %w", err)
	}

	c, err := clusters.Open(ctx, clusters.Options{Which: os.Getenv("CLUSTER"), Prefix: "informers-demo", Log: os.Stderr})
	if err != nil {
		return err
	}
	defer clean(c.Close)
	client, err := c.Client()
	if err != nil {
		return err
	}
	ns, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "demo-"}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create a namespace: %w", err)
	}
	defer clean(func(ctx context.Context) error {
		if c.Which != "current" {
			return nil // removed with its cluster
		}
		return client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{})
	})
	if err := setNamespace(c.Kubeconfig, ns.Name); err != nil {
		return err
	}
	if err := createWeb(ctx, client, ns.Name, c.Nginx); err != nil {
		return fmt.Errorf("create the pod web: %w", err)
	}

	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done in %s", limit))
	defer cancel()
	return story(ctx, c, chapter, ns.Name)
}

// setNamespace makes the namespace kubectl's default, so that its commands are the
// ones that a learner types.
func setNamespace(kubeconfig, namespace string) error {
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return fmt.Errorf("load kubeconfig: %w", err)
	}
	config.Contexts[config.CurrentContext].Namespace = namespace
	return clientcmd.WriteToFile(*config, kubeconfig)
}

// createWeb creates the pod web and returns when it is ready. The API server rejects a
// pod until its namespace has the service account default.
func createWeb(ctx context.Context, client kubernetes.Interface, namespace, image string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("not ready after 5 minutes"))
	defer cancel()
	if err := until(ctx, client, namespace, "serviceaccounts", "default", &corev1.ServiceAccount{}, func(watch.Event) (bool, error) { return true, nil }); err != nil {
		return err
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: image}}},
	}
	if _, err := client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	return until(ctx, client, namespace, "pods", "web", &corev1.Pod{}, func(event watch.Event) (bool, error) {
		for _, condition := range event.Object.(*corev1.Pod).Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return true, nil
			}
		}
		return false, nil
	})
}

// until watches an object until condition returns true.
func until(ctx context.Context, client kubernetes.Interface, namespace, resource, name string, object runtime.Object, condition watchtools.ConditionFunc) error {
	selector := fields.OneTermEqualSelector("metadata.name", name)
	objects := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), resource, namespace, selector)
	if _, err := watchtools.UntilWithSync(ctx, objects, object, nil, condition); err != nil {
		return fmt.Errorf("wait for %s %s: %w", resource, name, errors.Join(err, context.Cause(ctx)))
	}
	return nil
}

// A step is a line that the chapter has to print, and the command to type then.
type step struct {
	what string
	line *regexp.Regexp
	then string
}

// story runs the chapter and types commands alongside it, until the first resync of
// web after the delete. Every step has to appear, in this order.
func story(ctx context.Context, c *clusters.Cluster, chapter, namespace string) error {
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
					err := run(ctx, c, out, command)
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

// run prints a command as if it were typed, and runs it.
func run(ctx context.Context, c *clusters.Cluster, out *log.Logger, command string) error {
	out.Print("$ " + command)
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Env = c.Env
	output, err := cmd.CombinedOutput()
	out.Print(strings.TrimSpace(string(output)))
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}
