package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/e2e-framework/pkg/features"

	"example.com/informers/internal/logmatch"
	"example.com/informers/internal/provider"
)

// faults is the cluster for outages and load. On local it is a second one, next to that of the
// other tests, as its API server is killed: the first test that needs it opens it,
// the end of the suite closes it.
var faults struct {
	sync.Mutex
	*provider.Cluster
}

func faultCluster(t *testing.T) *provider.Cluster {
	t.Helper()
	if cluster.Which == "kind" {
		return cluster
	}
	faults.Lock()
	defer faults.Unlock()
	if faults.Cluster == nil {
		c, err := provider.Open(t.Context(), provider.Options{Which: "local", Prefix: "informers-faults", Keep: *keep, Log: os.Stderr})
		if err != nil {
			t.Fatal(err)
		}
		faults.Cluster = c
	}
	return faults.Cluster
}

// TestFaults: 05 and 07 while its API server cannot be reached, answers 503, or restarts, and
// under load. On kind it is cut off only, on another user's cluster nothing is done.
func TestFaults(t *testing.T) {
	t.Parallel()
	if cluster.Which == "current" {
		t.Skip("current: a cluster that others use is left in peace")
	}
	t.Run("apart", func(t *testing.T) {
		t.Run("cut", cutOff)
		if cluster.Which != "kind" {
			t.Run("503", unavailable)
			t.Run("load", load)
		}
		t.Run("ttl", func(t *testing.T) { t.Parallel(); ttlCut(t, false) })
	})
	if cluster.Which != "kind" {
		t.Run("many", ttlMany)
		t.Run("restart", restart)
		t.Run("ttl restart", func(t *testing.T) { ttlCut(t, true) })
	}
}

// An outage is a scene with 05 behind a proxy.
type outage struct {
	scene
	*proxy
	cluster *provider.Cluster
	server  string // the API server's address
}

// open opens the scene in a namespace of the cluster for outages.
func (o *outage) open(t *testing.T) {
	o.cluster = faultCluster(t)
	client, err := o.cluster.Client()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := newNamespace(t.Context(), t, client, "e2e")
	if err != nil {
		t.Fatal(err)
	}
	o.scene = scene{client: client, kubeconfig: o.cluster.Kubeconfig, namespace: ns}
}

// pods creates what write writes to, and one that stays as it is.
func (o *outage) pods(t *testing.T) {
	o.open(t)
	o.createGated(t, "unchanged", "changed", "deleted")
}

// behindProxy makes chapters connect to the API server through a proxy.
func (o *outage) behindProxy(t *testing.T) {
	config, err := clientcmd.LoadFromFile(o.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	current := config.Clusters[config.Contexts[config.CurrentContext].Cluster]
	server, err := url.Parse(current.Server)
	if err != nil {
		t.Fatal(err)
	}
	o.server = server.Host
	o.proxy = newProxy(t, o.server)
	current.Server = "https://" + o.address
	o.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, o.kubeconfig); err != nil {
		t.Fatal(err)
	}
}

// run starts 05, without resyncs: so every Update has something to say.
func (o *outage) run(t *testing.T) {
	o.chapter = o.start(t, "05-resync", "--resync", "0", "--run-every", "1h")
	o.awaitLine(t, "run")
}

// early creates a pod that 05 sees. A watch that ends within a second and without
// an event counts as failed, and is not resumed (client-go's reflector.go,
// handleAnyWatch, "very short watch").
func (o *outage) early(t *testing.T) {
	o.createGated(t, "early")
	o.awaitAdd(t, "early", timeout)
}

// write deletes one pod, changes one and creates one.
func (o *outage) write(t *testing.T) {
	t.Helper()
	o.delete(t, "deleted")
	o.change(t, "changed")
	o.createGated(t, "created")
}

// before are the lines until the outage.
func (o *outage) before() []logmatch.Step {
	return []logmatch.Step{
		logmatch.Like("the initial pods, and store, handler and cache synced", `.*: initial, .*|\S+ is synced`).OneOrMore(),
		logmatch.Exactly("run"),
		added(o.key("early"), ": new, .*"),
	}
}

// resumed: as if nothing had been.
func (o *outage) resumed() []logmatch.Step {
	return []logmatch.Step{
		updated(o.key("deleted"), ": .*, deletion").AnyNumber(),
		deleted(o.key("deleted"), ": tombstone=false"),
		updated(o.key("changed"), `: \d+ → \d+`),
		added(o.key("created"), ": new, .*"),
	}
}

// relisted: the delete itself was missed, and unchanged pods come too.
func (o *outage) relisted() []logmatch.Step {
	return []logmatch.Step{logmatch.AnyOrder(
		deleted(o.key("deleted"), ": tombstone=true"),
		updated(o.key("changed"), `: \d+ → \d+`),
		added(o.key("created"), ": new, .*"),
		updated(o.key("unchanged"), `: relist, resourceVersion \d+`),
		updated(o.key("early"), `: relist, resourceVersion \d+`),
	)}
}

func (o *outage) after() logmatch.Step { return added(o.key("after"), ": new, .*") }

// goesOn: the program has seen what was written in the outage, sees by itself what is
// written next, and agrees with the server.
func (o *outage) goesOn(t *testing.T) {
	t.Helper()
	o.awaitAdd(t, "created", 2*timeout) // back-offs are up to a minute
	o.createGated(t, "after")
	o.end(t)
}

func (o *outage) end(t *testing.T) {
	t.Helper()
	o.awaitAdd(t, "after", 2*timeout)
	o.agrees(t)
	o.interrupt(t)
	o.story(t)
}

// matchEither holds what the program printed to one of several sequences.
func (o *outage) matchEither(t *testing.T, either ...[]logmatch.Step) {
	t.Helper()
	var errs []error
	for _, steps := range either {
		errs = append(errs, logmatch.Sequence{Steps: append(o.before(), steps...)}.Match(o.chapter.Log()))
	}
	if !slices.Contains(errs, nil) {
		t.Error(errors.Join(errs...))
	}
}

func cutOff(t *testing.T) {
	t.Parallel()
	o := &outage{}
	testenv.Test(t, features.New("05-resync cut off").WithLabel("chapter", "05").WithLabel("fault", "cut").
		WithSetup("three pods", step(o.pods)).
		WithSetup("a proxy", step(o.behindProxy)).
		WithSetup("05", step(o.run)).
		WithSetup("a fourth pod", step(o.early)).
		Assess("cut off for 20 s, while pods are deleted, changed and created", step(func(t *testing.T) {
			o.cut()
			o.write(t)
			<-time.After(20 * time.Second)
			o.connect(t, o.server)
		})).
		Assess("the watch resumes, nothing is missed", step(func(t *testing.T) {
			o.goesOn(t)
			o.matchEither(t, append(o.resumed(), o.after()))
		})).
		Feature())
}

// expired asks the API server for a watch from the last version that 05 saw. Its answer
// is an event in the stream: no watch error handler is told.
func (o *outage) expired(t *testing.T) {
	pods := o.client.CoreV1().Pods(o.namespace)
	early, err := pods.Get(t.Context(), "early", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := pods.Watch(t.Context(), metav1.ListOptions{ResourceVersion: early.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	e := <-w.ResultChan()
	if err := apierrors.FromObject(e.Object); e.Type != watch.Error || !apierrors.IsResourceExpired(err) {
		t.Errorf("the watch begins with %s: %v, want an error 410", e.Type, err)
	} else {
		t.Log(err)
	}
}

// unavailable: an API server that answers 503, as one behind a load balancer may.
func unavailable(t *testing.T) {
	t.Parallel()
	o := &outage{}
	testenv.Test(t, features.New("05-resync and 503").WithLabel("chapter", "05").WithLabel("fault", "503").
		WithSetup("three pods", step(o.pods)).
		WithSetup("a proxy", step(o.behindProxy)).
		WithSetup("05", step(o.run)).
		WithSetup("a fourth pod", step(o.early)).
		Assess("503 for 5 s", step(func(t *testing.T) {
			certificate, err := o.cluster.ServingCertificate()
			if err != nil {
				t.Fatal(err)
			}
			var asked atomic.Int32
			stub := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asked.Add(1)
				http.Error(w, "no endpoints available", http.StatusServiceUnavailable)
			}))
			stub.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
			stub.StartTLS()
			defer stub.Close()
			o.cut()
			o.connect(t, stub.Listener.Addr().String())
			o.write(t)
			<-time.After(5 * time.Second)
			o.cut()
			o.connect(t, o.server)
			t.Logf("503 for %d requests", asked.Load())
			if asked.Load() == 0 {
				t.Error("05 asked nothing, so it saw no 503")
			}
		})).
		Assess("the watch resumes or the program lists again", step(func(t *testing.T) {
			o.goesOn(t)
			o.matchEither(t, append(o.resumed(), o.after()), append(o.relisted(), o.after()))
		})).
		Feature())
}

// restart: a new API server's watch cache does not reach back to where the old one was.
func restart(t *testing.T) {
	cut, uncut := &outage{}, &outage{}
	testenv.Test(t, features.New("05-resync and a restarted API server").WithLabel("chapter", "05").WithLabel("fault", "restart").
		WithSetup("three pods", step(cut.pods)).
		WithSetup("05", step(func(t *testing.T) {
			uncut.scene = cut.scene
			uncut.run(t)
		})).
		WithSetup("a proxy", step(cut.behindProxy)).
		WithSetup("another 05, behind it", step(cut.run)).
		WithSetup("a fourth pod", step(cut.early)).
		Assess("one is cut off for 20 s, and the API server restarts meanwhile", step(func(t *testing.T) {
			end := time.After(20 * time.Second)
			cut.cut()
			cut.write(t)
			uncut.awaitAdd(t, "created", timeout)
			if err := cut.cluster.RestartAPIServer(t.Context()); err != nil {
				t.Fatal(err)
			}
			<-end
		})).
		Assess("a watch cannot go on from before: 410", step(cut.expired)).
		Assess("cut off: it lists again, with a tombstone, and relists of what is unchanged", step(func(t *testing.T) {
			cut.connect(t, cut.server)
			cut.goesOn(t)
			cut.matchEither(t, append(cut.relisted(), cut.after()))
		})).
		Assess("not cut off: the watch resumes or the program lists again", step(func(t *testing.T) {
			relist := logmatch.Like("a relist", `.*: relist, resourceVersion \d+`).AnyNumber()
			uncut.end(t)
			uncut.matchEither(t, append(uncut.resumed(), logmatch.AnyOrder(relist, uncut.after())))
		})).
		Feature())
}

// load: 05 sees a crowd of pods come, change and go, as fast as the control plane takes it.
func load(t *testing.T) {
	t.Parallel()
	const count = 2000
	s := &outage{}
	name := func(i int) string { return fmt.Sprintf("pod-%d", i) }
	testenv.Test(t, features.New("05-resync under load").WithLabel("chapter", "05").WithLabel("pace", "slow").
		WithSetup("05", step(func(t *testing.T) {
			s.open(t)
			s.run(t)
		})).
		Assess(fmt.Sprintf("%d pods are created and changed, and most are deleted", count), step(func(t *testing.T) {
			begin := time.Now()
			pods := s.client.CoreV1().Pods(s.namespace)
			inParallel(t, count, func(i int) error {
				_, err := pods.Create(t.Context(), gated(name(i)), metav1.CreateOptions{})
				if err == nil {
					_, err = pods.Patch(t.Context(), name(i), types.MergePatchType, []byte(changed), metav1.PatchOptions{})
				}
				if err == nil && i%10 != 0 {
					err = pods.Delete(t.Context(), name(i), metav1.DeleteOptions{})
				}
				return err
			})
			t.Logf("done in %s", time.Since(begin).Round(time.Millisecond))
			s.createGated(t, "after")
			s.awaitAdd(t, "after", timeout)
		})).
		Assess("what is alive by the log is what the server has", step(s.agrees)).
		Assess("^C ends it", step(s.interrupt)).
		Assess("of every pod Add, Updates, Delete", step(func(t *testing.T) {
			lines := map[string][]logmatch.Line{}
			for _, line := range s.chapter.Log() {
				if e := events([]logmatch.Line{line}); len(e) > 0 {
					lines[e[0].key] = append(lines[e[0].key], line)
				}
			}
			for i := range count {
				key := s.key(name(i))
				steps := []logmatch.Step{added(key, ": new, .*"), updated(key, `: \d+ → \d+.*`).OneOrMore()}
				if i%10 != 0 {
					steps = append(steps, deleted(key, ": tombstone=false"))
				}
				if err := (logmatch.Sequence{Steps: steps}).Match(lines[key]); err != nil {
					t.Fatal(err)
				}
			}
		})).
		Feature())
}

// inParallel calls f for 0 to n-1, 32 at a time.
func inParallel(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(32)
	for i := range n {
		g.Go(func() error { return f(i) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}
