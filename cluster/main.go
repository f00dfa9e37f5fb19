// Command cluster starts a real Kubernetes control plane on this machine with
// nothing but Go: etcd, kube-apiserver, kube-controller-manager and
// kube-scheduler, compiled from their released modules, and kwok instead of
// kubelets. kwokctl sets it up. This program builds what kwokctl needs, keeps
// everything in one private folder, and waits until a pod can be created.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"al.essio.dev/pkg/shellescape"
	"github.com/gofrs/flock"
	"golang.org/x/term"
)

const usage = `usage: go -C cluster run . VERB [--name NAME] [--api-only] [--build] [--download]

  up      get what is missing, start the cluster, print the export line:
          eval "$(go -C cluster run . up)"
  down    stop the cluster and remove its files; the built programs stay
  restart kill the API server, as a crash does, and start it again
  status  show the cluster's processes; exit code 0 if it is ready, 1 if not
  clean   take every cluster down and remove the built programs too

--name NAME creates another cluster alongside the one named "default".
--api-only, for up, starts only etcd and kube-apiserver: pods can be written
          and watched, but they are not scheduled or run.
--build,  for up, compiles all programs instead of downloading those that
          their projects publish.
--download, for up, only downloads what the next up needs: programs, or the
          modules to compile them from. It starts nothing.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted; run the same command again to continue")
		}
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// names are valid names of a cluster: a name becomes a folder and a context.
var names = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

func run(ctx context.Context, args []string) error {
	const help = "; `go -C cluster run . help` lists the verbs and flags"
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	name := flags.String("name", "default", "")
	apiOnly := flags.Bool("api-only", false, "")
	compileAll := flags.Bool("build", false, "")
	downloadOnly := flags.Bool("download", false, "")
	err := flags.Parse(args)
	switch {
	case verb == "help" || verb == "-h" || verb == "--help" || errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
		return nil
	case err != nil:
		return fmt.Errorf("%w%s", err, help)
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q%s", flags.Arg(0), help)
	case *apiOnly && verb != "up":
		return fmt.Errorf("--api-only is only for up%s", help)
	case *compileAll && verb != "up":
		return fmt.Errorf("--build is only for up%s", help)
	case *downloadOnly && verb != "up":
		return fmt.Errorf("--download is only for up%s", help)
	case !names.MatchString(*name):
		return fmt.Errorf("a cluster cannot be named %q: use at most 40 of a-z, 0-9 and -, no - at either end", *name)
	}

	root, err := folder()
	if err != nil {
		return err
	}
	c := cluster{root: root, name: *name, apiOnly: *apiOnly, compileAll: *compileAll, downloadOnly: *downloadOnly}
	switch verb {
	case "up", "down", "restart", "clean":
		unlock, err := lock(ctx, root)
		if err != nil {
			return err
		}
		defer unlock()
	}
	switch verb {
	case "up":
		return up(ctx, c)
	case "down":
		return c.remove(ctx)
	case "restart":
		// Under one lock, because another cluster's up could take the free port.
		if err := c.killAPIServer(ctx); err != nil {
			return err
		}
		_, c.apiOnly = c.madeWith()
		return up(ctx, c)
	case "status":
		return c.status(ctx)
	case "clean":
		return clean(ctx, root)
	}
	return fmt.Errorf("unknown verb %q%s", verb, help)
}

// up prints only the one line that a shell evaluates on stdout.
func up(ctx context.Context, c cluster) error {
	bin, err := build(ctx, c.root, c.compileAll, c.downloadOnly)
	if err != nil || c.downloadOnly {
		return err
	}
	begin := time.Now()
	if err := c.start(ctx, bin); err != nil {
		return fmt.Errorf("cluster %q: %w", c.name, err)
	}
	fmt.Fprintf(os.Stderr, "cluster %q is ready after %.1f s\n", c.name, time.Since(begin).Seconds())
	if term.IsTerminal(int(os.Stdout.Fd())) {
		fmt.Fprintln(os.Stderr, `To use it, evaluate this line in your shell; eval "$(go -C cluster run . up)" does both.`)
	}
	_, err = fmt.Printf("export KUBECONFIG=%s PATH=%s:\"$PATH\"\n", shellescape.Quote(c.kubeconfig()), shellescape.Quote(bin))
	return err
}

func clean(ctx context.Context, root string) error {
	dirs, err := filepath.Glob(filepath.Join(root, "clusters", "*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := (cluster{root: root, name: filepath.Base(dir)}).remove(ctx); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(root); err != nil {
		return fmt.Errorf("removing the built programs: %w", err)
	}
	return nil
}

// folder returns the folder for all files of this program. On macOS
// os.UserCacheDir ignores XDG_CACHE_HOME, so read it here: a user who sets it wants
// it used.
func folder() (string, error) {
	cache := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(cache) {
		var err error
		if cache, err = os.UserCacheDir(); err != nil {
			return "", fmt.Errorf("finding your cache folder: %w", err)
		}
	}
	return filepath.Join(cache, "informers-cluster"), nil
}

// lock waits until no other run of up, down, restart or clean uses root, and creates
// it, private to the user. It locks the folder around root, so that no lock file is
// left behind and clean can remove root. All clusters share the lock: two kwokctl at
// once would choose the same ports.
func lock(ctx context.Context, root string) (unlock func(), err error) {
	cache := filepath.Dir(root)
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return nil, fmt.Errorf("creating the folder for the clusters: %w", err)
	}
	l := flock.New(cache, flock.SetFlag(os.O_RDONLY))
	locked, err := l.TryLock()
	if err == nil && !locked {
		fmt.Fprintln(os.Stderr, "waiting for another run of this program to finish")
		_, err = l.TryLockContext(ctx, 100*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", cache, err)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		_ = l.Unlock()
		return nil, fmt.Errorf("creating the folder for the clusters: %w", err)
	}
	return func() {
		_ = os.Remove(root) // stays unless it is empty
		_ = l.Unlock()
	}, nil
}
