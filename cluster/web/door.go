package web

import (
	"container/list"
	"errors"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// door lets no more in while as many connections are open as may be, and closes
// idle ones for those who come: phones ask once and keep their connection, so that
// else eight thousand who have their answer would keep everybody out for
// idleTimeout.
//
// A caller whose idle connection is closed in the moment in which it asks again
// sees it end without an answer, as at the end of idleTimeout. It asks again: for a
// GET its client does so by itself, for a write it has its Idempotency-Key.
type door struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once
	err   error

	mu      sync.Mutex
	idle    list.List // of *guest, the longest idle in front
	starved bool      // all are taken and none was idle: who becomes idle leaves
}

// guest is a connection that was let in.
type guest struct {
	net.Conn
	door *door
	once sync.Once

	// Guarded by the door.
	seat *list.Element // among the idle
	gone bool
}

func newDoor(l net.Listener, connections int) *door {
	return &door{Listener: l, slots: make(chan struct{}, connections), done: make(chan struct{})}
}

// Accept waits for a place and then for somebody to take it.
func (d *door) Accept() (net.Conn, error) {
	select {
	case d.slots <- struct{}{}:
	default:
		d.makeRoom()
		select {
		case d.slots <- struct{}{}:
		case <-d.done:
			return nil, net.ErrClosed
		}
		d.mu.Lock()
		d.starved = false
		d.mu.Unlock()
	}
	c, err := d.Listener.Accept()
	if err != nil {
		<-d.slots
		return nil, err
	}
	return &guest{Conn: c, door: d}, nil
}

// makeRoom closes the connection that has been idle for longest, or has the next
// one leave that becomes idle.
func (d *door) makeRoom() {
	d.mu.Lock()
	first := d.idle.Front()
	d.starved = first == nil
	d.mu.Unlock()
	if first != nil {
		_ = first.Value.(*guest).Close()
	}
}

// note is told by the server what becomes of a connection.
func (d *door) note(c net.Conn, state http.ConnState) {
	g, ok := c.(*guest)
	if !ok {
		return
	}
	if state != http.StateIdle {
		d.rise(g, false)
	} else if leaves := d.sit(g); leaves {
		_ = g.Close()
	}
}

// sit puts a connection among the idle; or it is to leave.
func (d *door) sit(g *guest) (leaves bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.starved:
		d.starved = false
		return true
	case g.seat == nil && !g.gone:
		g.seat = d.idle.PushBack(g)
	}
	return false
}

// rise takes a connection from among the idle, for good when it has gone.
func (d *door) rise(g *guest, gone bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g.gone = g.gone || gone
	if g.seat != nil {
		d.idle.Remove(g.seat)
		g.seat = nil
	}
}

// Close refuses whoever comes; those who are in stay.
func (d *door) Close() error {
	d.once.Do(func() {
		close(d.done)
		d.err = d.Listener.Close()
	})
	return d.err
}

// SyscallConn implements syscall.Conn: plain looks through it whether the caller has
// gone.
func (g *guest) SyscallConn() (syscall.RawConn, error) {
	c, ok := g.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return c.SyscallConn()
}

// Direct implements plain.Direct: a guest's bytes are its connection's.
func (g *guest) Direct() {}

// Close gives the place back.
func (g *guest) Close() error {
	err := g.Conn.Close()
	g.once.Do(func() {
		g.door.rise(g, true)
		<-g.door.slots
	})
	return err
}
