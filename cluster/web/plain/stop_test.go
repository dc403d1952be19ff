package plain

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
)

// Goal: Shutdown refuses who comes, closes who is idle and waits for what is under
// way, whose caller hears that it is the last. Method: one idle connection and one at
// work.
func TestShutdownWaitsForWhatIsUnderWay(t *testing.T) {
	o := newOffice()
	s := start(t, &http.Server{Handler: o})
	resting, busy := call(t, s.lis), call(t, s.lis)
	resting.say(get)
	o.free <- struct{}{}
	resting.hears("done")
	busy.say(post)
	<-o.began
	<-o.began
	until(t, "one is idle", func() bool { return s.at(idle) == 1 && s.at(serving) == 1 })
	over := make(chan error)
	go func() { over <- s.Shutdown(context.Background()) }()
	resting.cut()
	if err := <-s.done; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
	s.done <- http.ErrServerClosed
	if c, err := net.Dial("tcp", s.lis.Addr().String()); err == nil {
		c.Close()
		t.Error("the port is open")
	}
	select {
	case err := <-over:
		t.Errorf("it did not wait: %v", err)
	default:
	}
	close(o.free)
	if got := busy.hears("done"); !strings.Contains(got, "Connection: close\n") {
		t.Errorf("%q", got)
	}
	busy.cut()
	if err := <-over; err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Errorf("once more: %v", err)
	}
}

// at is how many connections are at something.
func (s *Server) at(state int32) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if c.state.Load() == state {
			n++
		}
	}
	return n
}

// Goal: a connection on which nothing was asked yet does not ask while the server
// stops, and one that had begun to ask is answered.
func TestShutdownAnswersWhatHadBegun(t *testing.T) {
	s := start(t, desk())
	p := call(t, s.lis)
	p.say(probe[:20])
	until(t, "it was read", func() bool { return s.lis.read.Load() == 20 })
	over := make(chan error)
	go func() { over <- s.Shutdown(context.Background()) }()
	until(t, "it stops", s.closing.Load)
	p.say(probe[20:] + probe)
	if got := p.hears("map[] map[] \n"); !strings.Contains(got, "Connection: close\n") {
		t.Errorf("%q", got)
	}
	p.cut()
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// Goal: Shutdown ends with its context, and Close cuts what is left. Method: a
// handler that waits, on a connection of each kind.
func TestCloseCutsAll(t *testing.T) {
	for name, said := range map[string]string{"plain": get, "other": head("Pragma: x")} {
		t.Run(name, func(t *testing.T) {
			o := newOffice()
			s := start(t, &http.Server{Handler: o})
			p := call(t, s.lis)
			p.say(said)
			<-o.began
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			p.cut()
			if err := <-o.ended; err == nil {
				t.Error("the handler was not told")
			}
			if err := s.Close(); err != nil {
				t.Errorf("once more: %v", err)
			}
		})
	}
}

// Goal: a server that was stopped before it began does not begin.
func TestStoppedBeforeServe(t *testing.T) {
	for name, stop := range map[string]func(*Server) error{
		"Shutdown": func(s *Server) error { return s.Shutdown(context.Background()) },
		"Close":    (*Server).Close,
	} {
		t.Run(name, func(t *testing.T) {
			s, l := New(desk(), "/v1/"), listen(t)
			if err := stop(s); err != nil {
				t.Error(err)
			}
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				t.Errorf("%v", err)
			}
			if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
				c.Close()
				t.Error("the port is open")
			}
		})
	}
}
