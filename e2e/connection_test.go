package e2e

import (
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/e2e-framework/pkg/features"

	"example.com/informers/internal/chapters"
	"example.com/informers/internal/logmatch"
	"example.com/informers/internal/readmes"
)

// A way is one in which 05 loses the connection of its watch. Nothing that was written
// shortly before has reached 05 then.
type way struct {
	name   string
	end    func(*testing.T, *connection)
	env    []string
	front  bool // a front stands before the API server,
	goaway bool // and sends GOAWAY with each answer
	relist bool // else the watch is resumed
}

// quickPing finds a connection without a sign of life in 3 s. The default is 45 s.
var quickPing = []string{"HTTP2_READ_IDLE_TIMEOUT_SECONDS=2", "HTTP2_PING_TIMEOUT_SECONDS=1"}

var ways = []way{
	{name: "silent for a moment", end: func(t *testing.T, c *connection) {
		before := c.connections()
		c.goOn()
		c.awaitAdd(t, "created", timeout)
		if after := c.connections(); after != before {
			t.Errorf("05 connected again, %d times", after-before)
		}
	}},
	{name: "closed (FIN)", end: func(t *testing.T, c *connection) {
		c.abandon()
		c.proxy.end(t, finish)
	}},
	{name: "reset (RST)", end: func(t *testing.T, c *connection) {
		c.abandon()
		c.proxy.end(t, reset)
	}},
	{name: "closed, new ones refused for 2 s", end: func(t *testing.T, c *connection) {
		c.cut()
		<-time.After(2 * time.Second)
		c.connect(t, c.server)
	}},
	{name: "closed after GOAWAY", front: true, goaway: true, end: func(_ *testing.T, c *connection) {
		c.front.CloseClientConnections()
		c.goOn()
	}},
	{name: "stream ended by the server", front: true, end: func(t *testing.T, c *connection) {
		c.front.end(t, nil, nil)
		c.goOn()
	}},
	{name: "stream reset (RST_STREAM)", front: true, relist: true, end: func(t *testing.T, c *connection) {
		c.front.end(t, nil, errors.New("the test ends the watch"))
		c.goOn()
	}},
	{name: "sent what cannot be decoded", front: true, relist: true, end: func(t *testing.T, c *connection) {
		c.front.end(t, noPod(t), nil)
		c.goOn()
	}},
	{name: "silent, ping not answered", env: quickPing, relist: true, end: func(_ *testing.T, c *connection) {
		c.abandon()
	}},
}

// A connection is an outage of one connection, while the API server is well.
type connection struct {
	outage
	way
	front *front
}

// TestConnectionDies: how the connection of a watch ends decides whether the watch is
// resumed or the state is taken again. The table on the page is made from what 05 prints.
func TestConnectionDies(t *testing.T) {
	t.Parallel()
	if cluster.Which == "current" {
		t.Skip("current: a cluster that others use is left in peace")
	}
	dead := make([]*connection, len(ways))
	t.Run("ways", func(t *testing.T) {
		for i, way := range ways {
			t.Run(way.name, func(t *testing.T) {
				t.Parallel()
				c := &connection{way: way}
				c.test(t)
				if !t.Failed() && c.chapter != nil { // else --skip-labels leaves it out
					dead[i] = c
				}
			})
		}
	})
	if slices.Contains(dead, nil) {
		return // a flag chose some of them, or one has failed
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "the connection is\tthen\ttombstone\twatch ended with error")
	for _, c := range dead {
		fmt.Fprintln(w, strings.Join(c.row(), "\t"))
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	readmes.Shown(t, root, table.String(), *update)
}

func (c *connection) test(t *testing.T) {
	testenv.Test(t, features.New("05-resync, connection "+c.name).WithLabel("chapter", "05").WithLabel("fault", "connection").
		WithSetup("three pods", c.setup(func(t *testing.T) { c.createGated(t, "unchanged", "changed", "deleted") })).
		WithSetup("a proxy", step(func(t *testing.T) {
			c.behindProxy(t)
			if c.way.front {
				c.behindFront(t)
			}
		})).
		WithSetup("05", step(func(t *testing.T) {
			args := []string{"--namespace", c.namespace, "--resync", "0", "--run-every", "1h"}
			c.chapter = chapters.Start(t, filepath.Join(*built, "05-resync"), append(c.env, "KUBECONFIG="+c.kubeconfig), args...)
			c.awaitLine(t, "run")
		})).
		WithSetup("a fourth pod", step(c.early)).
		Assess("the connection dies, after pods are deleted, changed and created", step(func(t *testing.T) {
			c.hang()
			c.write(t)
			c.way.end(t, c)
		})).
		Assess("the watch is resumed, or the state taken again", step(func(t *testing.T) {
			c.goesOn(t)
			steps := c.resumed()
			if c.relist {
				steps = c.relisted()
			}
			c.match(t, logmatch.Sequence{Steps: append(append(c.before(), steps...), c.after())})
		})).
		Feature())
}

// row is what the program printed, in short: what followed, whether the delete came as a
// tombstone, and what is on stderr.
func (c *connection) row() []string {
	stdout := c.chapter.Stdout.String()
	then := "rewatch"
	if strings.Contains(stdout, ": relist,") {
		then = "relist"
	} else if c.connections() == 1 && !c.way.front {
		then = "the same watch"
	}
	tombstone := regexp.MustCompile(`tombstone=(\w+)`).FindStringSubmatch(stdout)[1]
	logged := "nothing"
	if stderr := strings.TrimSpace(c.chapter.Stderr.String()); stderr != "" {
		// Of a line like that of a watch that ended with an error only its own part, else all of it.
		logged = regexp.MustCompile(`^.*"Warning: watch ended with error" .*event from the watch stream: (.*?)(; received from peer|: provided data .*)?\\"\).*$`).
			ReplaceAllString(stderr, "$1")
	}
	return []string{c.name, then, tombstone, logged}
}

// A front stands before the API server and speaks HTTP/2, so it can end a stream and leave
// the connection.
type front struct {
	*httptest.Server

	mu   sync.Mutex
	body *io.PipeWriter // of the last answer
}

// end ends the last answer after some more bytes. With an error its stream is reset.
func (f *front) end(t *testing.T, last []byte, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.body.Write(last); err != nil {
		t.Error(err)
	}
	_ = f.body.CloseWithError(err)
}

// noPod is an event as it is sent, in protobuf after its length, whose object is none.
func noPod(t *testing.T) []byte {
	event := metav1.WatchEvent{Type: string(watch.Added), Object: runtime.RawExtension{Raw: []byte("no pod")}}
	data, err := event.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
}

// behindFront makes 05 connect to a front, which connects to the API server as 05 would.
func (c *connection) behindFront(t *testing.T) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: c.kubeconfig}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	upstream, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{}
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Header.Set("Accept-Encoding", "identity") // so that the test can add to the answer
		},
		Transport: transport,
		ErrorLog:  log.New(t.Output(), "", 0),
		ModifyResponse: func(r *http.Response) error {
			from := r.Body
			to, body := io.Pipe()
			r.Body = to
			f.mu.Lock()
			f.body = body
			f.mu.Unlock()
			go func() {
				_, err := io.Copy(body, from)
				_ = body.CloseWithError(err)
				_ = from.Close()
			}()
			return nil
		},
	}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.goaway {
			w.Header().Set("Connection", "close") // in HTTP/2 that is a GOAWAY
		}
		pass.ServeHTTP(w, r)
	}))
	f.EnableHTTP2 = true
	f.StartTLS()
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
	})
	c.front = f

	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["front"] = &clientcmdapi.Cluster{
		Server:                   f.URL,
		CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw}),
	}
	kubeconfig.Contexts["front"] = &clientcmdapi.Context{Cluster: "front"}
	kubeconfig.CurrentContext = "front"
	c.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*kubeconfig, c.kubeconfig); err != nil {
		t.Fatal(err)
	}
}
