//go:build cluster

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Level 3: a real API server, for what only it has: UIDs, resourceVersions, conflicts.
//
// Between the controller's look at its cache and its delete, somebody deletes the pod and
// creates another one under its name. That one has to stay.
func TestAnotherPodOfThatName(t *testing.T) {
	config := apiServer(t)
	client := kubernetes.NewForConfigOrDie(config)
	ctx, pods := t.Context(), client.CoreV1().Pods(metav1.NamespaceDefault)
	create := func(ttl string) *corev1.Pod {
		t.Helper()
		pod, err := pods.Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: map[string]string{ttlAnnotation: ttl}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "nginx", Image: "nginx:1.22"}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Error(err)
		}
		return pod
	}
	var stays *corev1.Pod
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &beforeDelete{RoundTripper: next, do: func() {
			if err := pods.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
			stays = create("1h")
		}}
	})

	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, printed := io.Pipe()
	ended := make(chan error, 1) // it may end before somebody asks
	go func() {
		ended <- run(ctx, kubernetes.NewForConfigOrDie(config), printed)
		_ = printed.Close()
	}()
	lines := bufio.NewScanner(out)
	await := func(want string) {
		t.Helper()
		for lines.Scan() {
			t.Log(lines.Text())
			if strings.HasPrefix(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("ended before it printed %q: %v", want, <-ended)
	}
	await("cache is synced")
	create("0s")
	await("default/web is ") // it says what it did of which pod
	if now, err := pods.Get(ctx, "web", metav1.GetOptions{}); err != nil || now.UID != stays.UID {
		t.Fatal("the pod with an hour to live was deleted")
	}

	// Its cache has caught up: that pod's time may end now, too.
	stays.Annotations[ttlAnnotation] = "0s"
	if _, err := pods.Update(ctx, stays, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	await("default/web is deleted: its 0s are over")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// apiServer starts etcd and an API server for the time of the test. No scheduler and no
// kubelet are there: nobody but this test writes to its pods.
func apiServer(t *testing.T) *rest.Config {
	t.Helper()
	begin := time.Now()
	t.Cleanup(func() { t.Logf("%s in all", time.Since(begin).Round(time.Millisecond)) })
	shell := func(command string) string {
		t.Helper()
		var stderr bytes.Buffer
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir, cmd.Stderr = "../cluster", io.MultiWriter(os.Stderr, &stderr) // the first time it tells how far it is
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, &stderr)
		}
		return strings.TrimSpace(string(out))
	}
	// A new name each time, because client-go caches transports by the paths of key and CA.
	name := "informers-08-" + rand.String(8)
	t.Cleanup(func() { shell("go run . down --name " + name) })
	kubeconfig := shell(`eval "$(go run . up --api-only --name ` + name + `)" && echo "$KUBECONFIG"`)
	t.Logf("the API server is ready after %s", time.Since(begin).Round(time.Millisecond))
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// beforeDelete does something before the first delete reaches the API server.
type beforeDelete struct {
	http.RoundTripper
	once sync.Once
	do   func()
}

func (b *beforeDelete) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method == http.MethodDelete {
		b.once.Do(b.do)
	}
	return b.RoundTripper.RoundTrip(request)
}
