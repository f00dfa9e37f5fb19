package clusters

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpenUnknown(t *testing.T) {
	_, err := Open(t.Context(), Options{Which: "minikube"})
	if want := `unknown cluster "minikube": choose auto, kind, local or current`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestOpenCurrentFails(t *testing.T) {
	m := newMachine(t, "current", "", "")
	for _, test := range []struct{ file, context, want string }{
		{"none", "", "the kubeconfig has no current context: set one with kubectl config use-context"},
		{"kubeconfig", "c", `the kubeconfig has no context "c": kubectl config get-contexts lists them`},
	} {
		t.Setenv("KUBECONFIG", filepath.Join(m.dir, test.file))
		_, err := Open(t.Context(), Options{Which: "current", Context: test.context})
		if want := "current cluster: " + test.want; err == nil || err.Error() != want {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// TestOpenCurrent: one context of the user's kubeconfig is copied, without anything
// of the others.
func TestOpenCurrent(t *testing.T) {
	m := newMachine(t, "current", "", "")
	path := filepath.Join(m.dir, "kubeconfig")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
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
	if after, err := os.ReadFile(path); string(after) != string(before) {
		t.Errorf("the user's kubeconfig is now %q, %v", after, err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestKindMisses: the reason that auto gives when kind is not available. In the test
// docker is a script.
func TestKindMisses(t *testing.T) {
	t.Setenv("KIND_NODE_IMAGE", "node:test")
	for name, test := range map[string]struct {
		docker, kubectl string
		want            string
	}{
		"no docker":        {"", "exit 0", "docker is not on PATH"},
		"no kubectl":       {"exit 0", "", "kubectl is not on PATH"},
		"no daemon":        {`[ "$1" != version ]`, "exit 0", "the Docker daemon does not answer"},
		"no image":         {`[ "$1" = version ]`, "exit 0", "the image node:test does not exist here and cannot be pulled"},
		"an image to pull": {`[ "$1" != image ]`, "exit 0", ""},
		"an image":         {`[ "$1" != pull ]`, "exit 0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("PATH", dir)
			for program, script := range map[string]string{"docker": test.docker, "kubectl": test.kubectl} {
				if script == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			got := ""
			if err := kindMisses(t.Context(), io.Discard); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("kind misses %q, want %q", got, test.want)
			}
		})
	}
}
