package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// A proxy passes connections on to an API server until it is cut, or ends them in another way.
type proxy struct {
	address string

	mu       sync.Mutex
	listener net.Listener
	accepted int
	down, up []*net.TCPConn // to the programs, and to the API server
	flow     *sync.RWMutex  // of new connections: locked while they hang
	hanging  *sync.RWMutex  // of those that hang, if any
}

// A flow is one direction of a connection: what is written waits while it hangs.
type flow struct {
	to   io.Writer
	hang *sync.RWMutex
}

func (f flow) Write(b []byte) (int, error) {
	f.hang.RLock()
	defer f.hang.RUnlock()
	return f.to.Write(b)
}

func newProxy(t *testing.T, upstream string) *proxy {
	t.Helper()
	p := &proxy{address: freeAddress(t), flow: new(sync.RWMutex)}
	p.connect(t, upstream)
	t.Cleanup(p.cut)
	return p
}

// freeAddress is one that stays free while the proxy is cut: the kernel gives ports
// from 32768 on to outgoing connections, also to those that try to reach the proxy.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000)))
		if err == nil {
			defer func() { _ = l.Close() }()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port between 20000 and 30000")
	return ""
}

// cut ends all connections and refuses new ones. A connection that is accepted and
// closed would not do: a reflector resumes its watch only after a refused one
// (client-go's reflector.go, isWatchErrorRetriable).
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.listener.Close()
	for _, c := range append(p.down, p.up...) {
		_ = c.Close()
	}
	p.down, p.up = nil, nil
	p.release()
}

// hang makes connections pass nothing on. Nothing ends, so neither side notices.
func (p *proxy) hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flow.Lock()
	p.hanging = p.flow
}

// goOn passes on what was held back.
func (p *proxy) goOn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release()
}

func (p *proxy) release() {
	if p.hanging != nil {
		p.hanging.Unlock()
		p.hanging = nil
	}
}

// abandon leaves the connections that hang as they are, and lets new ones pass.
func (p *proxy) abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flow = new(sync.RWMutex)
}

// end ends the programs' connections, as finish or reset does. What hangs is lost.
func (p *proxy) end(t *testing.T, how func(*net.TCPConn) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.down {
		if err := how(c); err != nil {
			t.Error(err)
		}
	}
}

// finish sends a FIN.
func finish(c *net.TCPConn) error { return c.CloseWrite() }

// reset sends an RST.
func reset(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) }

// connections is how many connections the proxy has accepted so far.
func (p *proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// connect passes new connections on to upstream.
func (p *proxy) connect(t *testing.T, upstream string) {
	t.Helper()
	var l net.Listener
	// A listener that was closed while another goroutine started a program stays open for a
	// moment longer: in the new process, which closes it with its exec.
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, timeout, true, func(context.Context) (_ bool, err error) {
		if l, err = net.Listen("tcp", p.address); errors.Is(err, syscall.EADDRINUSE) {
			return false, nil
		}
		return true, err
	}); err != nil {
		t.Fatalf("listen on %s: %v", p.address, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener = l
	go func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return // cut
			}
			up, err := net.Dial("tcp", upstream)
			if err != nil {
				_ = down.Close()
				continue
			}
			p.pass(down.(*net.TCPConn), up.(*net.TCPConn))
		}
	}()
}

// pass passes bytes on in both directions until one side ends.
func (p *proxy) pass(down, up *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted++
	p.down, p.up = append(p.down, down), append(p.up, up)
	pass := func(to, from *net.TCPConn, hang *sync.RWMutex) {
		_, _ = io.Copy(flow{to, hang}, from)
		_ = to.Close()
	}
	go pass(up, down, p.flow)
	go pass(down, up, p.flow)
}
