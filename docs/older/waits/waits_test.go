package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"testing"
)

// The program compiles with each version. With v0.37 the factory's wait is early at least once, and
// the registration's wait never is. How often the others are early is chance, so it is not asserted.
func TestVersions(t *testing.T) {
	for _, version := range []string{"v0.34.13", "v0.35.10", "v0.36.6", "v0.37.2"} {
		t.Run(version, func(t *testing.T) {
			cmd := exec.Command("go", "run", "./with", version, "run", "./waits", "-pods", "1000", "-runs", "10")
			cmd.Dir = ".."
			var printed, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &printed, &stderr
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s", err, &stderr)
			}
			early := map[string]int{}
			for rows := json.NewDecoder(&printed); rows.More(); {
				var row Row
				if err := rows.Decode(&row); err != nil {
					t.Fatal(err)
				}
				if row.ClientGo != version {
					t.Errorf("it has client-go %s, want %s", row.ClientGo, version)
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
