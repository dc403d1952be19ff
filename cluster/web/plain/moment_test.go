package plain

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// moments is a listener of connections that call back between their steps.
type moments struct {
	*counted
	read  func() // something was read, and is not yet returned
	wrote func()
}

type momentConn struct {
	net.Conn
	at *moments
}

func (m *moments) Accept() (net.Conn, error) {
	c, err := m.counted.Accept()
	if err != nil {
		return nil, err
	}
	return &momentConn{c, m}, nil
}

func (c *momentConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.at.read != nil {
		c.at.read()
	}
	return n, err
}

func (c *momentConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.at.wrote != nil {
		c.at.wrote()
	}
	return n, err
}

func (c *momentConn) SyscallConn() (syscall.RawConn, error) {
	return c.Conn.(syscall.Conn).SyscallConn()
}

// states records what is told of the connections of a listener.
type states struct {
	mu   sync.Mutex
	told []http.ConnState
	odd  net.Conn // one that is not the listener's
}

func (s *states) note(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, state)
	switch c.(type) {
	case *countedConn, *momentConn:
	default:
		s.odd = c
	}
}

func (s *states) so(want ...http.ConnState) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Equal(s.told, want) && s.odd == nil
}

func (s *states) some() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.told) > 0
}

// startAt serves with a listener of moments.
func startAt(t *testing.T, m *moments, hs *http.Server) *Server {
	s := New(hs, "/v1/")
	m.counted = listen(t)
	done := make(chan error)
	go func() { done <- s.Serve(m) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return s
}

// Goal: whatever ends a connection in whatever moment, it is closed once, is told so
// last, and its handler does not begin afterwards. Method: it is ended between what
// was read or written and what comes of it.
func TestAConnectionEndsOnce(t *testing.T) {
	never := func(http.ResponseWriter, *http.Request) { panic("asked after the end") }
	once := func(http.ResponseWriter, *http.Request) {}
	is := []http.ConnState{http.StateNew, http.StateActive, http.StateIdle, http.StateClosed}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		said    []string
		reads   int // the end comes after so many
		writes  int
		stop    func(*Server)
		told    []http.ConnState
	}{
		{"when a first request comes", never, []string{get}, 1, 0, cutAll, []http.ConnState{is[0], is[3]}},
		{"when half a request comes", never, []string{get[:30], get[30:]}, 2, 0, cutAll, []http.ConnState{is[0], is[1], is[3]}},
		{"when half a body comes", never, []string{post[:len(post)-3], post[len(post)-3:]}, 2, 0, cutAll, []http.ConnState{is[0], is[1], is[3]}},
		{"when more of half a body comes", never, []string{post[:len(post)-6], "a\": "}, 2, 0, cutAll, []http.ConnState{is[0], is[1], is[3]}},
		{"when what is not plain comes", never, []string{"HEAD", " /v1/ HTTP/1.1\r\n"}, 2, 0, cutAll, []http.ConnState{is[0], is[1], is[3]}},
		{"when another request comes", once, []string{get, get}, 2, 0, cutAll, []http.ConnState{is[0], is[1], is[2], is[3]}},
		{"when another comes to who is idle", once, []string{get, get}, 2, 0, cutIdle, []http.ConnState{is[0], is[1], is[2], is[3]}},
		{"when an answer has left", once, []string{get}, 0, 1, cutAll, []http.ConnState{is[0], is[1], is[3]}},
		{"when one of two answers has left", once, []string{get + get}, 0, 1, cutAll, []http.ConnState{is[0], is[1], is[3]}},
		{"when an answer has left that was not the last", once, []string{get}, 0, 1, closeIdle, []http.ConnState{is[0], is[1], is[2], is[3]}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m moments
			var told states
			hs := &http.Server{Handler: c.handler, ConnState: told.note}
			s := startAt(t, &m, hs)
			reads, writes := 0, 0
			m.read = func() {
				if reads++; reads == c.reads {
					c.stop(s)
				}
			}
			m.wrote = func() {
				if writes++; writes == c.writes {
					c.stop(s)
				}
			}
			p := call(t, m.counted)
			for i, said := range c.said {
				before := m.counted.read.Load()
				p.say(said)
				if i < len(c.said)-1 {
					until(t, "it was read", func() bool { return m.counted.read.Load() > before })
					if c.reads == 2 && len(c.told) == 4 {
						if _, err := p.hear(""); err != nil {
							t.Fatal(err)
						}
						until(t, "it is idle", func() bool { return s.at(idle) == 1 })
					}
				}
			}
			if c.writes > 0 {
				if _, err := p.hear(""); err != nil {
					t.Fatal(err)
				}
			}
			p.cut()
			until(t, "it is forgotten", func() bool { return s.size() == 0 })
			until(t, "it is told so", func() bool { return told.so(c.told...) })
		})
	}
}

func cutAll(s *Server) { s.each((*conn).end) }

// cutIdle ends who is idle, as the warden does.
func cutIdle(s *Server) { s.each((*conn).endIdle) }

// closeIdle is what Shutdown does first.
func closeIdle(s *Server) { _ = s.stop((*conn).endIdle) }

func (s *Server) each(do func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		do(c)
	}
}

// Goal: the hook hears of each of the listener's connections what net/http would tell
// it. Method: one that is plain, one that is not, and one that comes to be not.
func TestTheHookHearsOfEachConnection(t *testing.T) {
	const created, active, rests, closed = http.StateNew, http.StateActive, http.StateIdle, http.StateClosed
	for _, c := range []struct {
		name string
		said []string
		told []http.ConnState
	}{
		{"silent", nil, []http.ConnState{created, closed}},
		{"plain", []string{probe, probe}, []http.ConnState{created, active, rests, active, rests, closed}},
		{"other", []string{asked("/readyz")}, []http.ConnState{created, active, active, rests, closed}},
		{"both", []string{probe, asked("/readyz")}, []http.ConnState{created, active, rests, active, active, rests, closed}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var told states
			hs := desk()
			hs.ConnState = told.note
			s := start(t, hs)
			p := call(t, s.lis)
			for _, said := range c.said {
				p.say(said)
				p.hears("map[] map[] \n")
				until(t, "it rests", func() bool {
					told.mu.Lock()
					defer told.mu.Unlock()
					return told.told[len(told.told)-1] == rests
				})
			}
			until(t, "it is there", told.some)
			p.Close()
			until(t, "it is told", func() bool { return told.so(c.told...) })
		})
	}
}

// Goal: the empty line that an old caller sends after a POST does not wake anybody.
func TestAnEmptyLineIsNoRequest(t *testing.T) {
	var told states
	hs := desk()
	hs.ConnState = told.note
	s := start(t, hs)
	p := call(t, s.lis)
	c := s.only(t)
	p.say(toEcho(post))
	p.hears("42}")
	c.is(t, idle)
	before := s.lis.read.Load()
	p.say("\r\n")
	until(t, "it was read", func() bool { return s.lis.read.Load() == before+2 })
	p.say(probe)
	p.hears("map[] map[] \n")
	until(t, "it is told", func() bool {
		return told.so(http.StateNew, http.StateActive, http.StateIdle, http.StateActive, http.StateIdle)
	})
}

// Goal: one that is handed on when nobody takes it is told as closed.
func TestWhatNobodyTakesIsClosed(t *testing.T) {
	var told states
	hs := desk()
	hs.ConnState = told.note
	s := start(t, hs)
	p := call(t, s.lis)
	p.say("HE")
	until(t, "it was read", func() bool { return s.lis.read.Load() == 2 })
	_ = s.rest.Close()
	p.say("AD / HTTP/1.1\r\n\r\n")
	p.cut()
	until(t, "it is told", func() bool { return told.so(http.StateNew, http.StateActive, http.StateClosed) })
}
