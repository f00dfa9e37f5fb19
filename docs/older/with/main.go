// With runs a command of go with another version of client-go than the one in go.mod. The build tag
// is its minor version:
//
//	go run ./with v0.22.17 test .
//	go run ./with v0.35.10 run ./waits
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// mod names what the module imports. The go command adds what that version of client-go requires.
const mod = `module example.com/informers/docs/older

go 1.26.0

require (
	k8s.io/api %[1]s
	k8s.io/apimachinery %[1]s
	k8s.io/client-go %[1]s
	k8s.io/klog v1.0.0
)
`

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: go run ./with VERSION COMMAND [ARGUMENT...]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintf(os.Stderr, "go %s with client-go %s: %v\n", os.Args[2], os.Args[1], err)
		os.Exit(1)
	}
}

func run(version, command string, args []string) (err error) {
	dir, err := os.MkdirTemp("", "client-go-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "go.mod")
	if err := os.WriteFile(file, fmt.Appendf(nil, mod, version), 0o600); err != nil {
		return err
	}
	minor := version[:max(0, strings.LastIndex(version, "."))]
	flags := []string{command, "-mod=mod", "-modfile=" + file, "-tags=" + minor}
	cmd := exec.Command("go", slices.Concat(flags, args)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
