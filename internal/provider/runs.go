package provider

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
)

// A run that creates a cluster has a folder with its files, and holds a lock on it:
// informers-runs/NAME.kind or NAME.local in the user's cache. The kernel releases the
// lock when the run and its kind processes have exited, however they exit. So such a
// folder that is not locked belongs to a dead run. Without the ending, a folder is
// still being made, or its cluster is kept: it is never removed.

// begin creates the folder of a run, and names it only after it is locked, so that a
// Sweep never mistakes it for a dead run's.
func (c *Cluster) begin() (err error) {
	runs, err := cache("informers-runs")
	if err != nil {
		return err
	}
	dir := filepath.Join(runs, c.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	c.dir = dir
	if c.lock, err = tryLock(dir); err != nil {
		return err
	}
	held.Store(c.lock, true)
	return c.move(dir + "." + c.Which)
}

// held protects the locks of this process from the garbage collector: it closes a
// file that is no longer referenced, and that releases its lock.
var held sync.Map

func (c *Cluster) move(dir string) error {
	if err := os.Rename(c.dir, dir); err != nil {
		return err
	}
	c.dir, c.Kubeconfig = dir, filepath.Join(dir, "kubeconfig")
	return nil
}

// tryLock opens and locks a folder. The error is syscall.EWOULDBLOCK if it is locked.
func tryLock(dir string) (*os.File, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, &fs.PathError{Op: "lock", Path: dir, Err: err}
	}
	return file, nil
}

// leave says how to use and remove a cluster that is kept. No Sweep removes it: a kind
// cluster's folder loses its ending; a local one's files are in cluster/'s own folder.
func (c *Cluster) leave() error {
	if c.Which == "local" {
		fmt.Fprintf(c.log, `the local cluster %s is kept
use it:    eval "$(go -C cluster run . up --name %[1]s)"
remove it: go -C cluster run . down --name %[1]s
`, c.Name)
		return nil
	}
	if err := c.move(filepath.Join(filepath.Dir(c.dir), c.Name)); err != nil {
		return err
	}
	fmt.Fprintf(c.log, `the kind cluster %s is kept
use it:    export KUBECONFIG=%q
remove it: go tool kind delete cluster --name %[1]s && rm -r %[3]q
`, c.Name, c.Kubeconfig, c.dir)
	c.dir = "" // Close does not remove it
	return nil
}

// Sweep removes the clusters of one kind, "kind" or "local", that killed runs left
// behind, and writes a line for each to log. It does not touch a cluster whose run is
// alive, or one that Open did not create. If logs is not empty, Sweep first copies the
// control plane's logs into that folder, as far as they exist.
func Sweep(ctx context.Context, which, logs string, log io.Writer) error {
	runs, err := cache("informers-runs")
	if err != nil {
		return err
	}
	dirs, err := filepath.Glob(filepath.Join(runs, "*."+which))
	for _, dir := range dirs {
		lock, lockErr := tryLock(dir)
		if errors.Is(lockErr, syscall.EWOULDBLOCK) || errors.Is(lockErr, fs.ErrNotExist) {
			continue // its run is alive, or another Sweep was faster
		}
		if lockErr != nil {
			err = errors.Join(err, lockErr)
			continue
		}
		name := filepath.Base(dir[:len(dir)-len("."+which)])
		dead := &Cluster{Which: which, Name: name, dir: dir, lock: lock, log: log}
		dead.Kubeconfig = filepath.Join(dir, "kubeconfig")
		if logs != "" {
			if err := dead.Logs(ctx, filepath.Join(logs, name)); err != nil {
				fmt.Fprintln(log, oneLine(err))
			}
		}
		fmt.Fprintf(log, "removing the %s cluster %s, left behind by a killed run\n", which, name)
		err = errors.Join(err, dead.Close(ctx))
		_ = lock.Close()
	}
	return err
}

// cache returns the path of a file in the user's cache folder. It is not a temporary
// folder, because Sweep acts on what it finds there. On macOS os.UserCacheDir ignores
// XDG_CACHE_HOME, so read it here, as the program in cluster/ does.
func cache(name ...string) (string, error) {
	dir := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(dir) {
		var err error
		if dir, err = os.UserCacheDir(); err != nil {
			return "", fmt.Errorf("finding your cache folder: %w", err)
		}
	}
	return filepath.Join(append([]string{dir}, name...)...), nil
}
