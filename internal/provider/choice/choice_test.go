package choice

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

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
