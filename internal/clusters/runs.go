package clusters

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// A run that makes a cluster has a folder in runs(), named as the cluster, with
// its files and with a lock file kind.lock or local.lock. The kernel frees the
// lock when the run and its kinds have ended, however they end. A cluster is thus
// a dead run's if its lock file is there and free; one without a lock file is
// none of our business.

// begin makes the folder of a run. The lock file appears under its name only when
// it is locked, so no Sweep ever takes it for a dead run's.
func (c *Cluster) begin() error {
	runs, err := runs()
	if err != nil {
		return err
	}
	dir := filepath.Join(runs, c.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	c.dir, c.Kubeconfig = dir, filepath.Join(dir, "kubeconfig")
	temporary := c.lockFile() + ".new"
	lock, err := tryLock(temporary, os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	held.Store(lock, true)
	c.lock = lock
	return os.Rename(temporary, c.lockFile())
}

// held keeps the locks of this process from the garbage collector: a file that
// nobody refers to any more is closed, and its lock is free.
var held sync.Map

func (c *Cluster) lockFile() string { return filepath.Join(c.dir, c.Which+".lock") }

// lockAgain waits until nobody else has the lock too: what an interrupted kind
// still makes would stay. A Sweep that takes it meanwhile does what Close does.
func (c *Cluster) lockAgain(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("an interrupted kind does not end"))
	defer cancel()
	_ = c.lock.Close()
	for {
		lock, err := tryLock(c.lockFile(), 0)
		if err == nil {
			c.lock = lock
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tryLock opens and locks a file. The error is syscall.EWOULDBLOCK if it is
// locked.
func tryLock(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return file, nil
}

// leave makes the cluster nobody's: no Sweep removes it.
func (c *Cluster) leave() error {
	if c.Which == "kind" {
		fmt.Fprintf(c.log, `the kind cluster %s is kept
use it:    export KUBECONFIG=%q
remove it: go tool kind delete cluster --name %[1]s && rm -r %[3]q
`, c.Name, c.Kubeconfig, c.dir)
		return os.Remove(c.lockFile())
	}
	fmt.Fprintf(c.log, `the local cluster %s is kept
use it:    eval "$(go -C cluster run . up --name %[1]s)"
remove it: go -C cluster run . down --name %[1]s
`, c.Name)
	return os.RemoveAll(c.dir) // the kubeconfig is in the cluster's own folder too
}

// Sweep removes the clusters of one kind, "kind" or "local", that killed runs
// left, and says so on log. It touches no cluster of a run that lives, and none
// that Open did not make. Unless logs is empty, it is a folder into which the
// control plane's logs are copied before, as far as they are there.
func Sweep(ctx context.Context, which, logs string, log io.Writer) error {
	runs, err := runs()
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(runs, "*", which+".lock"))
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		lock, err := tryLock(file, 0)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
			continue // its run lives, or another Sweep was here
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		dir := filepath.Dir(file)
		dead := &Cluster{Which: which, Name: filepath.Base(dir), Kubeconfig: filepath.Join(dir, "kubeconfig"), dir: dir, lock: lock, log: log}
		dead.local = filepath.Join(filepath.Dir(runs), "clusters", dead.Name)
		if logs != "" {
			if err := dead.Logs(ctx, filepath.Join(logs, dead.Name)); err != nil {
				fmt.Fprintln(log, oneLine(err))
			}
		}
		fmt.Fprintf(log, "removing the %s cluster %s, which a killed run left\n", which, dead.Name)
		errs = append(errs, dead.Close(ctx))
	}
	return errors.Join(errs...)
}

// runs is the folder of all runs, beside what the program in cluster/ makes. Not
// a temporary one: what Sweep finds there it runs. On macOS os.UserCacheDir does
// not look at XDG_CACHE_HOME; whoever sets it means it.
func runs() (string, error) {
	cache := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(cache) {
		var err error
		if cache, err = os.UserCacheDir(); err != nil {
			return "", fmt.Errorf("finding your cache folder: %w", err)
		}
	}
	return filepath.Join(cache, "informers-cluster", "runs"), nil
}
