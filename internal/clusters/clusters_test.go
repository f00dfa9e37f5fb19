package clusters

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestOpenUnknown(t *testing.T) {
	_, err := Open(t.Context(), Options{Which: "minikube"})
	if want := `no such cluster "minikube": choose auto, kind, local or current`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestOpenCurrentWithoutContext(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	_, err := Open(t.Context(), Options{Which: "current"})
	if want := `current cluster: the kubeconfig has no current context: set one with kubectl config use-context`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

// TestKindMisses: what auto says when it passes kind over. The docker of the
// test is a script.
func TestKindMisses(t *testing.T) {
	t.Setenv("KIND_NODE_IMAGE", "node:test")
	for name, test := range map[string]struct {
		docker, kubectl string
		want            string
	}{
		"no docker":        {"", "exit 0", "docker is not on PATH"},
		"no kubectl":       {"exit 0", "", "kubectl is not on PATH"},
		"no daemon":        {`[ "$1" != version ]`, "exit 0", "no Docker daemon answers"},
		"no image":         {`[ "$1" = version ]`, "exit 0", "the image node:test is not there and cannot be pulled"},
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
