// Command demo compiles chapter 05 and the program in story/, which shows the chapter at work, and
// runs it. Meanwhile it downloads what the cluster needs. So it must not import client-go itself:
// that takes most of the time to compile.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sync/errgroup"

	"example.com/informers/internal/provider/choice"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first ^C cleans up, the second one kills
	dir, err := os.MkdirTemp("", "informers-demo")
	if err == nil {
		var which string
		if which, err = prepare(ctx, dir); err == nil {
			story := filepath.Join(dir, "story")
			err = errors.Join(os.Setenv("CLUSTER", which), syscall.Exec(story, []string{story, dir}, os.Environ()))
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	fmt.Fprintln(os.Stderr, "demo:", err)
	os.Exit(1)
}

// prepare puts the compiled programs into a folder, and returns the kind of cluster to run them on.
func prepare(ctx context.Context, dir string) (which string, err error) {
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error {
		build := exec.CommandContext(ctx, "go", "build", "-o", dir, "./05-resync", "./internal/demo/story")
		build.Stderr = os.Stderr
		return choice.Run(build)
	})
	both.Go(func() error {
		var err error
		if which, err = choice.Which(ctx, os.Getenv("CLUSTER"), os.Stderr); err != nil || which != "local" {
			return err
		}
		program, err := choice.Local(ctx, dir, os.Stderr)
		if err != nil {
			return err
		}
		download := exec.CommandContext(ctx, program, "up", "--download")
		download.Stderr = os.Stderr
		return choice.Run(download)
	})
	err = both.Wait()
	return which, err
}
