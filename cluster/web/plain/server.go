// Package plain answers plain HTTP/1.1 requests for a fraction of what net/http
// takes, and leaves every other to net/http.
//
// A province's load is millions of small requests alike: a GET with a query, a POST
// of a few hundred bytes. net/http is made for all that HTTP can be: a second
// goroutine for each request that looks whether the caller has gone, its own
// deadlines, headers and bodies made anew. Of a booth's registration that was a
// third of what its process did. Here one goroutine has one connection, one buffer
// and one request that is used again and again.
//
// It promises that whoever asks sees no difference: what is not plain (parse.go
// says what is) is read again from its first byte by net/http, which keeps that
// connection. It refuses nothing and answers nothing by itself, so there is nothing
// in which it could differ from net/http but what it takes; a fuzz test holds that
// against http.ReadRequest.
//
// A handler sees more. The request and its header and body are its own until it
// returns, and not a moment longer. Its answer leaves when it returns, in one piece,
// with the length that it has, whatever was declared: there is nothing to flush or to
// hijack, no status of 1xx, no trailer. So what streams belongs under a path that is
// not taken. Its context is the connection's: it ends, within a second, when the
// caller has gone, and not when the handler returns. Nobody asks ConnContext.
package plain

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server serves the connections of a listener. It is safe for concurrent use.
type Server struct {
	http   *http.Server
	prefix string
	rest   *rest

	closing atomic.Bool
	emptied sync.Once
	empty   chan struct{} // closed once nothing is open and nothing will be

	mu       sync.Mutex // protects the fields below, and that closing comes to be set
	listener net.Listener
	open     map[*conn]struct{}
	watched  bool // a warden is at work
}

// New makes a server of the paths that begin with prefix. Everything else, the
// handler, the bounds of time and the hooks ConnState and BaseContext are those of
// hs, which belongs to it from here on.
func New(hs *http.Server, prefix string) *Server {
	s := &Server{http: hs, prefix: prefix, open: map[*conn]struct{}{}, empty: make(chan struct{})}
	s.rest = &rest{conns: make(chan net.Conn), done: make(chan struct{})}
	if told := hs.ConnState; told != nil {
		hs.ConnState = func(c net.Conn, state http.ConnState) {
			switch r, again := c.(*resumed); {
			case !again:
				told(c, state)
			case state != http.StateNew: // it was new before it was handed on
				told(r.Conn, state)
			}
		}
	}
	return s
}

// Serve answers requests until Shutdown or Close, and then returns
// http.ErrServerClosed. It closes l. It is called once.
func (s *Server) Serve(l net.Listener) error {
	if !supported {
		return s.http.Serve(l)
	}
	s.rest.addr = l.Addr()
	if !s.listens(l) {
		_ = l.Close()
		return http.ErrServerClosed
	}
	others := make(chan error, 1)
	go func() { others <- s.http.Serve(s.rest) }()
	err := errors.Join(s.accept(l), l.Close(), s.rest.Close(), <-others)
	if s.closing.Load() {
		return http.ErrServerClosed
	}
	return err
}

func (s *Server) listens(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listener = l
	return !s.closing.Load()
}

func (s *Server) accept(l net.Listener) error {
	base := context.Background()
	if s.http.BaseContext != nil {
		base = s.http.BaseContext(l)
	}
	base = context.WithValue(base, http.ServerContextKey, s.http)
	for pause := time.Duration(0); ; {
		c, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.admit(base, c)
		case !passes(err):
			return err
		default:
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-s.rest.done:
			}
		}
	}
}

// passes reports whether Accept may work again in a moment: too many open files,
// usually.
func passes(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// admit begins to serve a connection.
func (s *Server) admit(base context.Context, nc net.Conn) {
	c := newConn(s, base, nc)
	if c == nil {
		if !s.rest.take(nc) {
			_ = nc.Close()
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		c.end()
		return
	}
	s.open[c] = struct{}{}
	if !s.watched {
		s.watched = true
		go s.watch()
	}
	go c.serve()
}

// forget is told that a connection is no longer served here.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	s.mayBeEmpty()
}

func (s *Server) mayBeEmpty() {
	if s.closing.Load() && len(s.open) == 0 {
		s.emptied.Do(func() { close(s.empty) })
	}
}

// Shutdown closes the port and the connections on which nothing is asked, and
// waits until what is asked has been answered, or ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.stop((*conn).endIdle)
	err = errors.Join(err, s.http.Shutdown(ctx))
	select {
	case <-s.empty:
		return err
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}

// Close cuts every connection.
func (s *Server) Close() error {
	return errors.Join(s.stop((*conn).end), s.http.Close())
}

// stop closes the port and does something to every connection.
func (s *Server) stop(each func(*conn)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing.Store(true)
	var err error
	if s.listener != nil {
		if err = s.listener.Close(); errors.Is(err, net.ErrClosed) {
			err = nil
		}
	}
	for c := range s.open {
		each(c)
	}
	s.mayBeEmpty()
	return err
}
