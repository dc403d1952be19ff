package plain

import (
	"net"
	"sync"
)

// rest is the listener of net/http: the connections that are not plain.
type rest struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	addr  net.Addr
}

// take hands a connection on. It is false after the end.
func (l *rest) take(c net.Conn) bool {
	select {
	case l.conns <- c:
		return true
	case <-l.done:
		return false
	}
}

func (l *rest) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *rest) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *rest) Addr() net.Addr { return l.addr }

// resumed is a connection of which something has been read.
type resumed struct {
	net.Conn
	ahead []byte
}

// Read gives again what has been read.
func (c *resumed) Read(p []byte) (int, error) {
	if len(c.ahead) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.ahead)
	if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
		c.ahead = nil // the buffer is free
	}
	return n, nil
}

// CloseWrite ends one direction: net/http does so before it closes a connection of
// which it has not read all, or the caller might not hear why.
func (c *resumed) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
