//go:build unix

package plain

import (
	"context"
	"errors"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// Goal: a caller's going away ends the request, and its connection is forgotten.
// Method: a handler waits for nothing else; the caller ends the connection in both
// ways. It is looked once before its time.
func TestWhoGoesEndsItsRequest(t *testing.T) {
	for name, leave := range map[string]func(*caller){
		"FIN":  func(p *caller) { p.Close() },
		"half": func(p *caller) { _ = p.CloseWrite() },
		"RST":  func(p *caller) { _ = p.SetLinger(0); p.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice()
			s := start(t, &http.Server{Handler: o})
			p := call(t, s.lis)
			c := s.only(t)
			p.say(post)
			r := <-o.began
			c.since.Store(time.Now().Add(bound).UnixNano()) // the warden that looks by itself is early
			leave(p)
			until(t, "it is gone", func() bool { return gone(c.raw) })
			c.lookAfter(goneAfter)
			if err := r.Context().Err(); err != nil {
				t.Errorf("looked too early: %v", err)
			}
			c.lookAfter(goneAfter + 1)
			if err := <-o.ended; !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			until(t, "it is forgotten", func() bool { return s.size() == 0 })
		})
	}
}

// Goal: nobody need look for who has gone. Method: as above, and the test does not.
func TestTheWardenLooksByItself(t *testing.T) {
	o := newOffice()
	s := start(t, &http.Server{Handler: o})
	p := call(t, s.lis)
	p.say(get)
	<-o.began
	p.Close()
	<-o.ended
	until(t, "it is forgotten", func() bool { return s.size() == 0 })
}

// waiting reports whether bytes wait to be read.
func waiting(socket syscall.RawConn) (some bool) {
	_ = socket.Control(func(fd uintptr) {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		some = n == 1 && err == nil
	})
	return some
}

// Goal: who waits, and who asks for more meanwhile, has not gone. Method: the warden
// looks late at a request under way, before and after another one has come.
func TestWhoStaysHasNotGone(t *testing.T) {
	o := newOffice()
	s := start(t, &http.Server{Handler: o})
	p := call(t, s.lis)
	c := s.only(t)
	p.say(post)
	r := <-o.began
	c.lookAfter(bound)
	p.say(get)
	until(t, "another waits", func() bool { return waiting(c.raw) })
	c.lookAfter(bound)
	if err := r.Context().Err(); err != nil {
		t.Error(err)
	}
	close(o.free)
	p.hears("done")
	p.hears("done")
	if err := <-o.ended; err != nil {
		t.Error(err)
	}
}

// Goal: who has asked for two things and ends its direction hears both, as from
// net/http. Method: both are played to; the handlers wait for the caller's end.
func TestWhoEndsItsDirectionHearsAll(t *testing.T) {
	o, other := newOffice(), listen(t)
	s := start(t, &http.Server{Handler: o})
	alone := &http.Server{Handler: o}
	done := make(chan error)
	go func() { done <- alone.Serve(other) }()
	for name, l := range map[string]*counted{"net/http": other, "plain": s.lis} {
		t.Run(name, func(t *testing.T) {
			p := call(t, l)
			p.say(get + get)
			<-o.began
			if err := p.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			p.hears("done")
			p.hears("done")
			p.cut()
			for range 2 {
				if err := <-o.ended; err == nil {
					t.Error("a handler was not told")
				}
			}
			<-o.began
		})
	}
	_ = alone.Close()
	<-done
}
