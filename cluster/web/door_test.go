package web

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// phone is a client that keeps its connection.
type phone struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func newPhone(t *testing.T, s *Server) *phone {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(idleTimeout / 2)); err != nil { // or the server's patience would look like the door's
		t.Fatal(err)
	}
	return &phone{t, c, bufio.NewReader(c)}
}

func (p *phone) ask() {
	p.t.Helper()
	if _, err := fmt.Fprint(p, "GET /v1/code HTTP/1.1\r\nHost: code.example\r\n\r\n"); err != nil {
		p.t.Fatal(err)
	}
}

func (p *phone) hear() error {
	res, err := http.ReadResponse(p.in, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// resting is how many connections are idle.
func (d *door) resting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.idle.Len()
}

// Goal: who has an answer and keeps the connection keeps nobody out. Method: of
// three connections that a server takes all are idle when a fourth phone asks, and a
// fifth; those that have been idle for longest are closed, and no others.
func TestTheLongestIdleConnectionMakesRoom(t *testing.T) {
	s := newServer(t, Config{Connections: 3})
	s.HandleClass(Vital, "GET /v1/code", func(http.ResponseWriter, *http.Request) error { return nil })
	serve(t, s)
	var phones []*phone
	for i := range 3 {
		phones = append(phones, newPhone(t, s))
		phones[i].ask()
		if err := phones[i].hear(); err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			until(t, func() bool { return s.lis.resting() == i+1 })
		}
	}
	if err := phones[0].hear(); err != io.EOF && err != io.ErrUnexpectedEOF {
		t.Errorf("the first to be idle is not closed for who may come: %v", err)
	}
	until(t, func() bool { return s.lis.resting() == 2 })
	phones[1].ask() // and is not the one that has been idle for longest any more
	if err := phones[1].hear(); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return s.lis.resting() == 2 })
	fourth := newPhone(t, s)
	fourth.ask()
	if err := fourth.hear(); err != nil {
		t.Fatal(err)
	}
	if err := phones[2].hear(); err != io.EOF && err != io.ErrUnexpectedEOF {
		t.Errorf("the third had been idle for longest, and is not closed: %v", err)
	}
	phones[1].ask()
	if err := phones[1].hear(); err != nil {
		t.Errorf("the second was closed: %v", err)
	}
}

// Goal: where nobody is idle, whoever becomes it makes room. Method: both places are
// taken by questions under way when a third phone asks.
func TestWhoBecomesIdleMakesRoomForWhoWaits(t *testing.T) {
	s := newServer(t, Config{Connections: 2})
	h := newHeld()
	s.HandleClass(Vital, "GET /v1/code", h.handle)
	serve(t, s)
	first, second, third := newPhone(t, s), newPhone(t, s), newPhone(t, s)
	first.ask()
	<-h.began
	second.ask()
	<-h.began
	until(t, func() bool { s.lis.mu.Lock(); defer s.lis.mu.Unlock(); return s.lis.starved })
	third.ask()
	close(h.free)
	for _, p := range []*phone{first, second, third} {
		if err := p.hear(); err != nil {
			t.Fatal(err)
		}
	}
	<-h.began
}

// Goal: a place is given back once, whoever closes the connection and however often.
func TestAPlaceIsGivenBackOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDoor(l, 2)
	defer d.Close()
	for range 2 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	a, err := d.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	d.note(a, http.StateIdle)
	a.Close()
	a.Close()
	d.note(a, http.StateIdle) // the server finds out later
	if n := d.resting(); n != 0 || len(d.slots) != 1 {
		t.Errorf("%d idle and %d taken; one is there and at work", n, len(d.slots))
	}
}
