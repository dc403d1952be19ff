package plain

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
)

// direct serves a listener of bare TCP connections, and dials it.
func direct(t *testing.T, h http.HandlerFunc) (s *Server, dial func() *caller) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = New(&http.Server{Handler: h}, "/v1/")
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return s, func() *caller { return call(t, l) }
}

// Goal: what goes past a connection's Read and Write is what went through them.
// Method: two hundred requests, cut in pieces at random, each answered with a body of
// its own that tells which request it is.
func TestASocketCarriesEveryByte(t *testing.T) {
	_, dial := direct(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(bytes.Repeat(body, 3))
	})
	c, random := dial(), rand.New(rand.NewPCG(1, 2))
	bodies := make([][]byte, 200)
	for i := range bodies {
		bodies[i] = bytes.Repeat([]byte{byte('a' + i%26)}, i)
	}
	go func() {
		var all []byte
		for i := range bodies {
			all = fmt.Appendf(all, "POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", len(bodies[i]))
			all = append(all, bodies[i]...)
		}
		for len(all) > 0 {
			n := min(1+random.IntN(700), len(all))
			if _, err := c.Write(all[:n]); err != nil {
				return // the reader says so
			}
			all = all[n:]
		}
	}()
	for i, sent := range bodies {
		res, err := http.ReadResponse(c.in, nil)
		if err != nil {
			t.Fatal(i, err)
		}
		got, err := io.ReadAll(res.Body)
		if err != nil || !bytes.Equal(got, bytes.Repeat(sent, 3)) {
			t.Fatalf("answer %d has %d bytes of %d: %v", i, len(got), 3*len(sent), err)
		}
	}
}

// Goal: an answer that the line does not take at once is sent whole. Method: eight
// times what a line holds, to a caller that reads only when the server has to wait.
func TestASocketWaitsForASlowReader(t *testing.T) {
	giant := make([]byte, 16<<20)
	for i := range giant {
		giant[i] = byte(i >> 12)
	}
	said := make(chan struct{})
	_, dial := direct(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(giant)
		close(said)
	})
	c := dial()
	if _, err := io.WriteString(c, get); err != nil {
		t.Fatal(err)
	}
	<-said
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(got, giant) {
		t.Fatalf("%d bytes of %d: %v", len(got), len(giant), err)
	}
}

// Goal: the end of a connection ends its goroutine, whoever ends it, and however.
func TestASocketEnds(t *testing.T) {
	for name, end := range map[string]func(s *Server, c *caller){
		"the caller":             func(_ *Server, c *caller) { _ = c.Close() },
		"the caller, at once":    func(_ *Server, c *caller) { _ = c.SetLinger(0); _ = c.Close() },
		"the caller's direction": func(_ *Server, c *caller) { _ = c.CloseWrite() },
		"the server":             func(s *Server, _ *caller) { _ = s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s, dial := direct(t, func(http.ResponseWriter, *http.Request) {})
			c := dial()
			if _, err := io.WriteString(c, get); err != nil {
				t.Fatal(err)
			}
			if _, err := http.ReadResponse(c.in, nil); err != nil {
				t.Fatal(err)
			}
			end(s, c)
			until(t, "it is forgotten", func() bool { return s.size() == 0 })
		})
	}
}

// Goal: an answer to a caller that has reset its connection is given up. Method: the
// caller goes while the handler is at work, and the handler answers nevertheless.
func TestASocketGivesUpWhoHasGone(t *testing.T) {
	gone := make(chan struct{})
	s, dial := direct(t, func(w http.ResponseWriter, _ *http.Request) {
		<-gone
		_, _ = w.Write(make([]byte, 16<<20))
	})
	c := dial()
	if _, err := io.WriteString(c, get); err != nil {
		t.Fatal(err)
	}
	_ = c.SetLinger(0)
	_ = c.Close()
	close(gone)
	until(t, "it is forgotten", func() bool { return s.size() == 0 })
}
