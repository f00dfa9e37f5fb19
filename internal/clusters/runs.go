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

// A run that creates a cluster has a folder in runs(), named after the cluster, with
// its files and with a lock file, kind.lock or local.lock. The kernel releases the
// lock when the run and its kind processes have exited, however they exit. So if a
// lock file exists and is not locked, the cluster belongs to a dead run. A cluster
// without a lock file is never removed.

// begin creates the folder of a run. The lock file gets its name only after it is
// locked, so a Sweep never mistakes it for a dead run's.
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

// held protects the locks of this process from the garbage collector: it closes a
// file that is no longer referenced, and that releases its lock.
var held sync.Map

func (c *Cluster) lockFile() string { return filepath.Join(c.dir, c.Which+".lock") }

// lockAgain waits until no other process shares the lock: otherwise a container that
// an interrupted kind still creates would stay. If a Sweep takes the lock in the
// meantime, it does the work of Close.
func (c *Cluster) lockAgain(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("an interrupted kind still runs"))
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

// leave keeps the cluster: after it no Sweep removes the cluster.
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

// Sweep removes the clusters of one kind, "kind" or "local", that killed runs left
// behind, and writes a line for each to log. It does not touch a cluster whose run is
// alive, or one that Open did not create. If logs is not empty, Sweep first copies the
// control plane's logs into that folder, as far as they exist.
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
			continue // its run is alive, or another Sweep was faster
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
		fmt.Fprintf(log, "removing the %s cluster %s, left behind by a killed run\n", which, dead.Name)
		errs = append(errs, dead.Close(ctx))
	}
	return errors.Join(errs...)
}

// runs returns the folder of all runs, next to the files of the program in cluster/.
// It is not a temporary folder, because Sweep runs a program that it finds there. On
// macOS os.UserCacheDir ignores XDG_CACHE_HOME, so read it here: a user who sets it
// wants it used.
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
