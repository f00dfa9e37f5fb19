package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
)

// The program compiles with each version. With v0.37 the factory's wait is early at least once, and
// the registration's wait never is. How often the others are early is chance, so it is not asserted.
func TestVersions(t *testing.T) {
	for mod, version := range map[string]string{
		"go.v0.34.mod": "v0.34.13", "go.v0.35.mod": "v0.35.10", "go.v0.36.mod": "v0.36.6", "go.mod": "v0.37.2",
	} {
		t.Run(version, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "versions")
			if out, err := exec.Command("go", "build", "-modfile", mod, "-o", program, ".").CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			printed, err := exec.Command(program, "-pods", "1000", "-runs", "10").Output()
			if err != nil {
				t.Fatal(err)
			}
			early := map[string]int{}
			for lines := bufio.NewScanner(bytes.NewReader(printed)); lines.Scan(); {
				var row Row
				if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
					t.Fatal(err)
				}
				if row.ClientGo != version {
					t.Errorf("%s has client-go %s, want %s", mod, row.ClientGo, version)
				}
				early[row.Wait] = row.Early
			}
			t.Logf("early, of 10 runs: %v", early)
			if count, ok := early["registration"]; !ok || count > 0 {
				t.Errorf("the registration was early %d times (measured: %t), want never", count, ok)
			}
			if version == "v0.37.2" && early["factory"] == 0 {
				t.Error("the factory's wait was never early, want at least once")
			}
		})
	}
}
