package plain

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"
)

// room is the buffer of a connection, and so the largest plain request.
const room = 4 << 10

// What a connection is at. Its own goroutine moves it on, anybody to over.
const (
	idle    int32 = iota // nothing has come since the last answer
	reading              // a request has begun to come
	filling              // its head has come, and not all of its body
	serving              // a handler is at work, or its answer on its way
	over                 // closed, or handed on
)

// conn is one connection. Its goroutine has all of it but what is atomic.
type conn struct {
	net.Conn
	s   *Server
	raw syscall.RawConn
	io  io.ReadWriter // its bytes

	state atomic.Int32
	since atomic.Int64 // when it came to be at that; Unix nanoseconds

	ctx    context.Context
	cancel context.CancelFunc

	buf    []byte
	held   int  // bytes of buf
	posted bool // the last request was a POST
	blank  *http.Request
	r      http.Request
	m      message
	a      answer
}

// Direct is a connection whose bytes are those of its socket, and may be read and
// written there, past its Read and Write. A *net.TCPConn is one anyhow.
type Direct interface {
	syscall.Conn
	Direct()
}

// newConn is nil for a connection that is not a socket: nobody could look whether
// its caller has gone.
func newConn(s *Server, base context.Context, nc net.Conn) *conn {
	socket, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	c := &conn{Conn: nc, s: s, raw: raw, io: through(nc, raw), buf: make([]byte, room)}
	c.ctx, c.cancel = context.WithCancel(context.WithValue(base, http.LocalAddrContextKey, nc.LocalAddr()))
	c.blank = (&http.Request{RemoteAddr: nc.RemoteAddr().String()}).WithContext(c.ctx)
	c.state.Store(reading) // who comes and says nothing is not idle: it has less time
	c.since.Store(time.Now().UnixNano())
	c.told(http.StateNew)
	return c
}

// serve answers one request after another.
func (c *conn) serve() {
	defer func() {
		if v := recover(); v != nil && v != http.ErrAbortHandler {
			c.logf("plain: a handler panicked with a %T\n%s", v, debug.Stack())
		}
		c.end()
		c.s.forget(c)
	}()
	for c.next() && c.answer() {
	}
}

// next waits for a whole request and takes it apart. It is false at the end of the
// connection, and after it was handed on.
func (c *conn) next() bool {
	for {
		if c.held > 0 {
			c.r = *c.blank
			switch v, size := c.m.parse(c.buf[:c.held], c.s.prefix, &c.r); {
			case v == plain:
				return c.state.CompareAndSwap(reading, serving) || c.state.CompareAndSwap(filling, serving)
			case v == other, size > room, c.held == room:
				c.hand()
				return false
			case size > 0:
				c.state.CompareAndSwap(reading, filling)
			}
		} else if c.s.closing.Load() {
			return false
		}
		n, err := c.io.Read(c.buf[c.held:])
		if err != nil {
			return false
		}
		if c.held > 0 {
			c.held += n
		} else if c.held = c.keep(c.buf[:n]); c.held > 0 && !c.wake() {
			return false
		}
	}
}

// keep has what follows a request at the front of the buffer. Old callers send an
// empty line after the body of a POST, and net/http overlooks it there.
func (c *conn) keep(rest []byte) int {
	if c.posted {
		rest = bytes.TrimLeft(rest, "\r\n")
	}
	return copy(c.buf, rest)
}

// wake notes that a request begins; false when the connection was closed in that
// moment. The warden looks at any: what since says is of no earlier state than state.
func (c *conn) wake() bool {
	if c.state.Load() == idle {
		c.since.Store(time.Now().UnixNano())
		c.state.CompareAndSwap(idle, reading)
	}
	if c.state.Load() != reading {
		return false
	}
	c.told(http.StateActive)
	return true
}

// answer has the handler answer the request, sends what it said, and is ready for
// the next. It is false at the end of the connection.
func (c *conn) answer() bool {
	c.a.begin()
	c.posted = c.r.Method == http.MethodPost
	c.s.http.Handler.ServeHTTP(&c.a, &c.r)
	if c.a.status == 0 {
		c.a.WriteHeader(http.StatusOK)
	}
	now, last := time.Now(), c.a.last() || c.s.closing.Load()
	out := c.a.end(now, last)
	_, err := c.io.Write(*out)
	putBack(out)
	if err != nil || last {
		return false
	}
	c.held = c.keep(c.buf[c.m.size:c.held])
	c.since.Store(now.UnixNano())
	if c.held > 0 {
		return c.state.CompareAndSwap(serving, reading)
	}
	if !c.state.CompareAndSwap(serving, idle) {
		return false
	}
	c.told(http.StateIdle)
	return true
}

// hand gives the connection to net/http, with what has been read of it.
func (c *conn) hand() {
	if c.state.Swap(over) == over {
		return
	}
	c.cancel()
	if !c.s.rest.take(&resumed{Conn: c.Conn, ahead: c.buf[:c.held]}) {
		c.close()
	}
}

// end closes the connection, once.
func (c *conn) end() {
	if c.state.Swap(over) != over {
		c.close()
	}
}

// endIdle closes it if nothing is asked.
func (c *conn) endIdle() {
	if c.state.CompareAndSwap(idle, over) {
		c.close()
	}
}

func (c *conn) close() {
	_ = c.Conn.Close() // first, or a handler that hears of it might still answer
	c.cancel()
	c.told(http.StateClosed)
}

func (c *conn) told(state http.ConnState) {
	if hook := c.s.http.ConnState; hook != nil {
		hook(c.Conn, state)
	}
}

func (c *conn) logf(format string, args ...any) {
	if l := c.s.http.ErrorLog; l != nil {
		l.Printf(format, args...)
		return
	}
	log.Printf(format, args...)
}
