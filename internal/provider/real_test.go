package provider

import (
	"flag"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var realCluster = flag.String("cluster", "", "the kind of clusters for TestRealCluster: kind or local")

// TestRealCluster creates two clusters at once, one of them in a run that is killed:
//
//	go test ./internal/provider -args -cluster local
//
// The e2e suite shows that Audit, RestartAPIServer and ServingCertificate work.
func TestRealCluster(t *testing.T) {
	which := *realCluster
	if which == "" {
		t.Skip("no -cluster")
	}
	dead := make(chan string, 1)
	go func() {
		defer close(dead)
		name, kill := startRun(t, which)
		kill()
		dead <- name
	}()
	c, err := Open(t.Context(), Options{Which: which, Prefix: "informers-test", Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	killed := <-dead

	logs := t.TempDir()
	expect := func(when string, want ...string) {
		t.Helper()
		for _, name := range []string{c.Name, killed} {
			if exists := slices.Contains(clustersOf(t, which), name); exists != slices.Contains(want, name) {
				t.Errorf("%s: cluster %s exists: %t", when, name, exists)
			}
		}
	}
	expect("before the sweep", c.Name, killed)
	if err := Sweep(t.Context(), which, logs, t.Output()); err != nil {
		t.Error(err)
	}
	expect("after the sweep", c.Name)
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	expect("after Close")

	out, err := exec.Command("find", filepath.Join(logs, killed)).Output()
	for _, want := range []string{"kube-apiserver", "kube-controller-manager", "audit.log"} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("no log of %s in what Sweep copied: %v\n%s", want, err, out)
		}
	}
}

// clustersOf lists all existing clusters, no matter what created them.
func clustersOf(t *testing.T, which string) []string {
	t.Helper()
	dir, err := cache("informers-cluster", "clusters")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ls", dir)
	if which == "kind" {
		cmd = exec.Command("go", "tool", "kind", "get", "clusters")
	}
	out, _ := cmd.Output() // ls fails if there are none
	return strings.Fields(string(out))
}
