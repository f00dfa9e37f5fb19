package provider

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const kubeconfig = `{contexts: [{name: a, context: {cluster: a}}, {name: b, context: {cluster: b}}],
clusters: [{name: a, cluster: {server: "https://a"}}, {name: b, cluster: {server: "https://b"}}], current-context: a}`

// writeKubeconfig writes the user's kubeconfig and returns its path.
func writeKubeconfig(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWrongChoice(t *testing.T) {
	path := writeKubeconfig(t)
	for _, test := range []struct{ which, kubeconfig, context, want string }{
		{"minikube", "", "", `unknown cluster "minikube": choose auto, kind, local or current`},
		{"current", "none", "", "current cluster: the kubeconfig has no current context: set one with kubectl config use-context"},
		{"current", path, "c", `current cluster: the kubeconfig has no context "c": kubectl config get-contexts lists them`},
	} {
		t.Setenv("KUBECONFIG", test.kubeconfig)
		_, err := Open(t.Context(), Options{Which: test.which, Context: test.context})
		if err == nil || err.Error() != test.want {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
}

// TestOpenCurrent: one context of the user's kubeconfig is copied, without anything
// of the others.
func TestOpenCurrent(t *testing.T) {
	path := writeKubeconfig(t)
	for _, test := range []struct{ variable, file, context, name, server string }{
		{path, "", "", "a", "https://a"},
		{path, "", "b", "b", "https://b"},
		{"/none", path, "b", "b", "https://b"},
	} {
		t.Setenv("KUBECONFIG", test.variable)
		c, err := Open(t.Context(), Options{Which: "current", Prefix: "test", Kubeconfig: test.file, Context: test.context})
		if err != nil {
			t.Fatal(err)
		}
		config, err := c.Config()
		if err != nil {
			t.Fatal(err)
		}
		copied, err := os.ReadFile(c.Kubeconfig)
		if err != nil {
			t.Fatal(err)
		}
		if c.Name != test.name || config.Host != test.server || config.QPS >= 0 || strings.Count(string(copied), "https://") != 1 {
			t.Errorf("%+v: context %s, server %s, QPS %v, kubeconfig\n%s", test, c.Name, config.Host, config.QPS, copied)
		}
		for _, err := range []error{
			c.Logs(t.Context(), t.TempDir()), c.RestartAPIServer(t.Context()),
			second(c.Audit(t.Context())), second(c.ServingCertificate()),
		} {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("error %v, want %v", err, errors.ErrUnsupported)
			}
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(c.Kubeconfig); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after Close the copied kubeconfig: %v", err)
		}
	}
	if after, err := os.ReadFile(path); string(after) != kubeconfig {
		t.Errorf("the user's kubeconfig is now %q, %v", after, err)
	}
}

func second[T any](_ T, err error) error { return err }
