package clusters

import (
	"bytes"
	"crypto/tls"
	"errors"
	"flag"
	"io/fs"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

var realCluster = flag.String("cluster", "", "the kind of clusters for TestRealCluster: kind or local")

// TestRealCluster creates two clusters at once, one of them in a run that is killed:
//
//	go test ./internal/clusters -args -cluster local
func TestRealCluster(t *testing.T) {
	which := *realCluster
	if which == "" {
		t.Skip("no -cluster")
	}
	type run struct {
		name string
		kill func()
	}
	other := make(chan run, 1)
	go func() {
		defer close(other)
		name, kill := startRun(t, which)
		other <- run{name, kill}
	}()
	c, err := Open(t.Context(), Options{Which: which, Prefix: "informers-test", Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if slices.Contains(clustersOf(t, which), c.Name) {
			t.Errorf("Close leaves %s behind", c.Name)
		}
	}()
	dead, ok := <-other
	if !ok {
		t.Fatal("no second cluster")
	}
	dead.kill()

	t.Run("audit", func(t *testing.T) { audit(t, c) })
	t.Run("logs", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "logs")
		// A custom node image may lack crictl; then only the list of images is missing.
		if err := c.Logs(t.Context(), dir); err != nil && !strings.Contains(err.Error(), `"crictl": executable file not found`) {
			t.Error(err)
		}
		var files []string
		if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			files = append(files, path)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"kube-apiserver", "kube-controller-manager", "audit.log"} {
			if !slices.ContainsFunc(files, func(file string) bool { return strings.Contains(filepath.Base(file), want) }) {
				t.Errorf("no log of %s in %q", want, files)
			}
		}
	})
	t.Run("restart", func(t *testing.T) { restart(t, c) })
	t.Run("sweep", func(t *testing.T) {
		if names := clustersOf(t, which); !slices.Contains(names, dead.name) || !slices.Contains(names, c.Name) {
			t.Fatalf("clusters %q, want %s and %s", names, dead.name, c.Name)
		}
		if err := Sweep(t.Context(), which, "", t.Output()); err != nil {
			t.Error(err)
		}
		if names := clustersOf(t, which); slices.Contains(names, dead.name) || !slices.Contains(names, c.Name) {
			t.Errorf("clusters %q, want %s, but not %s", names, c.Name, dead.name)
		}
	})
}

// clustersOf lists all existing clusters, no matter what created them.
func clustersOf(t *testing.T, which string) []string {
	t.Helper()
	runs, err := runs()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ls", filepath.Join(filepath.Dir(runs), "clusters"))
	if which == "kind" {
		cmd = exec.Command("go", "tool", "kind", "get", "clusters")
	}
	out, _ := cmd.Output() // ls fails if there are none
	return strings.Fields(string(out))
}

func audit(t *testing.T, c *Cluster) {
	config, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	config.UserAgent = "auditor"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	kubectl := exec.CommandContext(t.Context(), "sh", "-c", "kubectl get pods") // sh finds kubectl in the cluster's PATH
	kubectl.Env = c.Env
	if out, err := kubectl.CombinedOutput(); err != nil {
		t.Fatalf("kubectl get pods: %v: %s", err, out)
	}
	pods, err := client.CoreV1().Pods("default").Watch(t.Context(), metav1.ListOptions{TimeoutSeconds: new(int64(1))})
	if err != nil {
		t.Fatal(err)
	}
	defer pods.Stop()
	check := func(stage string) {
		t.Helper()
		all, err := c.Audit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ours := slices.DeleteFunc(all, func(r Request) bool {
			return !strings.HasPrefix(r.UserAgent, "kubectl/") && r.UserAgent != "auditor"
		})
		if len(ours) != 2 || ours[0].Verb != "list" || ours[0].Namespace != "default" || ours[0].Code != http.StatusOK ||
			ours[1].Verb != "watch" || !strings.Contains(ours[1].URI, "timeoutSeconds=1") || ours[1].Stage != stage {
			t.Errorf("requests %+v, want a list and a watch, %s", ours, stage)
		}
	}
	check("ResponseStarted")
	for range pods.ResultChan() { // until it ends after a second
	}
	check("ResponseComplete")
}

func restart(t *testing.T, c *Cluster) {
	if c.Which == "kind" {
		if err := c.RestartAPIServer(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v, want %v", err, errors.ErrUnsupported)
		}
		return
	}
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := c.ServingCertificate()
	if err != nil {
		t.Fatal(err)
	}
	config, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	server, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", server.Host, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if shown := conn.ConnectionState().PeerCertificates[0].Raw; !bytes.Equal(shown, certificate.Certificate[0]) {
		t.Error("the API server presents a different certificate")
	}

	if err := c.RestartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection to the killed API server still works")
	}
	if _, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}
