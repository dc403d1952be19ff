//go:build linux

package epoll

import (
	"io"
	"syscall"
	"testing"
	"time"
)

// pair is a socket that never blocks, and the descriptor of its other end.
func pair(t *testing.T, s *Socket) (other int) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.Open(fds[0])
	t.Cleanup(func() { syscall.Close(fds[1]) })
	return fds[1]
}

func poller(t *testing.T) *Poller {
	t.Helper()
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func wait(t *testing.T, p *Poller, n int) []syscall.EpollEvent {
	t.Helper()
	events, err := p.Wait(time.Minute, time.Microsecond)
	if err != nil || len(events) != n {
		t.Fatalf("%d events, %v; want %d", len(events), err, n)
	}
	return events
}

// Goal: what came about at a socket is told by its slot, and is not taken for
// news of the one that has the slot, and perhaps the descriptor, after it.
func TestAnEventIsMeantForOneSocket(t *testing.T) {
	p := poller(t)
	s := Socket{Slot: 7}
	other := pair(t, &s)
	if err := p.Watch(&s, Readable); err != nil {
		t.Fatal(err)
	}
	if events, err := p.Wait(0, 0); err != nil || len(events) != 0 {
		t.Fatalf("%d events, %v, before anything came", len(events), err)
	}
	if _, err := syscall.Write(other, []byte("x")); err != nil {
		t.Fatal(err)
	}
	ev := wait(t, p, 1)[0]
	if ev.Fd != 7 || ev.Events&Readable == 0 || !s.Meant(&ev) {
		t.Errorf("the event is %+v", ev)
	}
	s.Close()
	if s.Meant(&ev) {
		t.Error("the event is meant for a socket that is closed")
	}
	pair(t, &s)
	defer s.Close()
	if s.Meant(&ev) {
		t.Error("the event is meant for the next socket in its slot")
	}
}

// Goal: what a socket does not take, or does not have, it says.
func TestASocketNeverBlocks(t *testing.T) {
	p := poller(t)
	var s Socket
	other := pair(t, &s)
	defer s.Close()
	buf := make([]byte, 1<<20)
	if n, err := s.Read(buf); n != 0 || err != ErrAgain {
		t.Errorf("read %d, %v from a socket that has nothing", n, err)
	}
	n, err := s.Write(buf)
	if n == 0 || n == len(buf) || err != ErrAgain {
		t.Errorf("wrote %d, %v to a socket that nobody reads", n, err)
	}
	if err := p.Watch(&s, Readable|Writable); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < n; {
		k, err := syscall.Read(other, buf)
		if err != nil {
			t.Fatal(err)
		}
		got += k
	}
	if ev := wait(t, p, 1)[0]; ev.Events&Writable == 0 {
		t.Errorf("the event is %+v, want that there is room again", ev)
	}
	if err := syscall.Shutdown(other, syscall.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if ev := wait(t, p, 1)[0]; ev.Events&Hangup == 0 {
		t.Errorf("the event is %+v, want the end", ev)
	}
	if n, err := s.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("read %d, %v at the end", n, err)
	}
}
