// Package promises holds the chapters to what the tutorial promises of all of
// them: how they answer bad input, how they end, how long they are, and that
// what their READMEs say of a changed chapter is so.
package promises

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"example.com/informers/internal/chapters"
)

const root = "../.."

var (
	all    []string // the chapters
	binDir string   // and where they are built
)

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "16") // the programs wait most of the time
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "chapters")
		if err == nil {
			defer func() { _ = os.RemoveAll(dir) }()
			binDir = dir
			if all, err = chapters.Names(root); err == nil {
				err = chapters.Build(root, dir, all)
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// start runs a chapter.
func start(t *testing.T, chapter string, env []string, args ...string) *chapters.Program {
	t.Helper()
	return chapters.Start(t, filepath.Join(binDir, chapter), env, args...)
}
