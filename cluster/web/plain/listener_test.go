package plain

import (
	"bytes"
	"errors"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// scripted is a listener that gives what it is told to.
type scripted struct {
	next chan any // a net.Conn or an error
	done chan struct{}
	once sync.Once
}

func newScripted() *scripted { return &scripted{next: make(chan any), done: make(chan struct{})} }

func (l *scripted) Accept() (net.Conn, error) {
	select {
	case v := <-l.next:
		if err, ok := v.(error); ok {
			return nil, err
		}
		return v.(net.Conn), nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *scripted) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *scripted) Addr() net.Addr { return &net.TCPAddr{} }

// Goal: what is no socket is served by net/http, and a listener that fails for a
// moment goes on; one that fails for good ends the server. Method: a listener that
// does one after the other.
func TestListenersOfOtherKinds(t *testing.T) {
	l, s := newScripted(), New(desk(), "/v1/")
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	l.next <- error(syscall.EMFILE)
	l.next <- error(&net.OpError{Op: "accept", Err: syscall.ECONNABORTED})
	near, far := net.Pipe()
	defer near.Close()
	l.next <- far
	go func() { _, _ = near.Write([]byte(strings.Replace(get, "/v1/code", "/readyz", 1))) }()
	heard := make([]byte, 12)
	if _, err := near.Read(heard); err != nil || string(heard) != "HTTP/1.1 200" {
		t.Errorf("%q, %v", heard, err)
	}
	broken := errors.New("broken")
	l.next <- broken
	if err := <-done; !errors.Is(err, broken) || errors.Is(err, http.ErrServerClosed) {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Goal: a server ends while its listener fails.
func TestAServerEndsBetweenFailures(t *testing.T) {
	l, s := newScripted(), New(desk(), "/v1/")
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	for range 3 {
		l.next <- error(syscall.EMFILE)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("%v", err)
	}
}

// written is a log that may be read.
type written struct {
	mu sync.Mutex
	bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Buffer.Write(p)
}

func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Buffer.String()
}

// Goal: a handler that panics costs its connection alone, and nothing of its answer
// is sent; the log has where, and not what, and nothing of one that was cut on
// purpose. Method: one of each kind, and another connection.
func TestAPanicCostsItsConnection(t *testing.T) {
	var said written
	hs := &http.Server{ErrorLog: log.New(&said, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("half"))
		switch r.URL.RawQuery {
		case "panic":
			panic(errors.New("a person's name"))
		case "abort":
			panic(http.ErrAbortHandler)
		}
	})}
	s := start(t, hs)
	other := call(t, s.lis)
	for _, how := range []string{"abort", "panic"} {
		p := call(t, s.lis)
		p.say(asked("/v1/code?"+how) + get)
		p.cut()
		until(t, "it is forgotten", func() bool { return s.size() == 1 })
		if logged := said.String(); (how == "panic") != strings.Contains(logged, "*errors.errorString") ||
			(how == "panic") != strings.Contains(logged, "listener_test.go") || strings.Contains(logged, "person") {
			t.Errorf("%s: %q", how, logged)
		}
		other.say(get)
		other.hears("half")
	}
}
