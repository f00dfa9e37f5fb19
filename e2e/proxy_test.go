package e2e

import (
	"io"
	"net"
	"sync"
	"testing"
)

// A proxy passes connections on to an API server until it is cut.
type proxy struct {
	address string

	mu       sync.Mutex
	upstream string
	listener net.Listener
	conns    []net.Conn
}

func newProxy(t *testing.T, upstream string) *proxy {
	t.Helper()
	p := &proxy{address: "127.0.0.1:0"}
	p.connect(t, upstream)
	t.Cleanup(p.cut)
	return p
}

// cut ends all connections. New ones are refused.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.listener.Close()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// connect passes new connections on to upstream.
func (p *proxy) connect(t *testing.T, upstream string) {
	t.Helper()
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener, p.upstream, p.address = l, upstream, l.Addr().String()
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
			p.mu.Lock()
			p.conns = append(p.conns, up, down)
			p.mu.Unlock()
			pass := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				_ = to.Close()
			}
			go pass(up, down)
			go pass(down, up)
		}
	}()
}
