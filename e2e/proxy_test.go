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

// A proxy passes connections on to an API server until it is cut.
type proxy struct {
	address string

	mu       sync.Mutex
	listener net.Listener
	conns    []net.Conn
}

func newProxy(t *testing.T, upstream string) *proxy {
	t.Helper()
	p := &proxy{address: freeAddress(t)}
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
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// connect passes new connections on to upstream.
func (p *proxy) connect(t *testing.T, upstream string) {
	t.Helper()
	var l net.Listener
	// A listener that was closed while another goroutine started a program is open for a
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
