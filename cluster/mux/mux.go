// Package mux lets the raft groups and the RPC server of a process share one
// TCP port.
//
// Promises: a caller is told apart by the first bytes it sends, after TLS; it
// has a bounded time to do so, and a bounded number may be at it at once, so
// callers who say nothing delay the others by no more than that time; a caller
// that asks for what is not here is hung up on; Close waits for everything
// that was started.
//
// It refuses to know what flows through a connection once that has been
// handed over. All types are safe for concurrent use.
package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// A caller opens with one of these bytes. HTTP/2 (RPC) always opens with "PRI *".
const (
	openRPC   = 'P'
	openGroup = 0x01 // then one byte of length and the id of the group
)

// Bounds; at each the caller is hung up on and may dial again.
const (
	MaxGroupID     = 255              // bytes of a group's id
	HelloTimeout   = 5 * time.Second  // from accept to the first bytes after TLS
	maxHandshakes  = 256              // callers that have not opened yet
	backlog        = 128              // connections waiting for one Accept
	acceptPauseMax = 1 * time.Second  // between two failing accepts
	keepIdle       = 10 * time.Second // TCP keepalive: find peers that vanished
	keepInterval   = 3 * time.Second
	keepCount      = 3
)

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepInterval, Count: keepCount}

// Mux is one listening port.
type Mux struct {
	inner net.Listener
	tls   *tls.Config
	hello time.Duration

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	slots  chan struct{}
	wait   sync.WaitGroup
	rpc    *door

	mu     sync.Mutex
	closed bool
	groups map[string]*door
	young  map[net.Conn]struct{} // accepted, not handed over yet
}

// Listen opens the port. A nil config means plain text, for tests alone.
func Listen(addr string, cfg *tls.Config) (*Mux, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return serve(l, cfg, HelloTimeout), nil
}

func serve(l net.Listener, cfg *tls.Config, hello time.Duration) *Mux {
	m := &Mux{
		inner: l, tls: cfg, hello: hello,
		slots:  make(chan struct{}, maxHandshakes),
		groups: map[string]*door{}, young: map[net.Conn]struct{}{},
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.rpc = m.newDoor(nil)
	m.wait.Go(m.accept)
	return m
}

// Addr is where the port really is, when port 0 was asked for.
func (m *Mux) Addr() net.Addr { return m.inner.Addr() }

// RPC is the listener of the RPC server.
func (m *Mux) RPC() net.Listener { return m.rpc }

// Group is the listener of one raft group. Asking again for the same group
// returns the same listener until that is closed. Closing it forgets the
// group: callers who ask for it are hung up on.
func (m *Mux) Group(id string) net.Listener {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d, ok := m.groups[id]; ok {
		return d
	}
	var d *door
	d = m.newDoor(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.groups[id] == d {
			delete(m.groups, id)
		}
	})
	if m.closed || len(id) > MaxGroupID {
		d.shut()
		return d
	}
	m.groups[id] = d
	return d
}

// Close closes the port and every listener, hangs up on callers that were not
// handed over yet, and waits. Connections that were handed over belong to who
// accepted them and stay up.
func (m *Mux) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		m.wait.Wait()
		return nil
	}
	m.closed = true
	doors := []*door{m.rpc}
	for _, d := range m.groups {
		doors = append(doors, d)
	}
	for c := range m.young {
		c.Close()
	}
	m.mu.Unlock()

	m.cancel()
	err := m.inner.Close()
	m.wait.Wait()
	for _, d := range doors { // after the wait: nobody can put a connection in any more
		d.Close()
	}
	return err
}

// accept hands each caller to a goroutine of its own, as many as there are slots.
func (m *Mux) accept() {
	pause := time.Duration(0)
	for {
		select {
		case m.slots <- struct{}{}:
		case <-m.ctx.Done():
			return
		}
		c, err := m.inner.Accept()
		if err != nil {
			<-m.slots
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, most likely: wait for some to come back.
			pause = min(max(2*pause, time.Millisecond), acceptPauseMax)
			select {
			case <-time.After(pause):
				continue
			case <-m.ctx.Done():
				return
			}
		}
		pause = 0
		if !m.adopt(c) {
			<-m.slots
			c.Close()
			return
		}
		m.wait.Go(func() {
			m.open(c)
			<-m.slots
		})
	}
}

func (m *Mux) adopt(c net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.young[c] = struct{}{}
	return true
}

func (m *Mux) release(c net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.young, c)
}

// open learns what the caller wants and hands the connection over, or hangs up.
func (m *Mux) open(raw net.Conn) {
	d, c := m.greet(raw)
	// From here on the connection is not ours to cut any more: whoever accepts
	// it may already be reading.
	m.release(raw)
	if d == nil || c.SetDeadline(time.Time{}) != nil || !d.offer(c) {
		c.Close()
	}
}

// greet finds the door the caller wants within the time it has.
func (m *Mux) greet(raw net.Conn) (*door, net.Conn) {
	_ = raw.SetDeadline(time.Now().Add(m.hello))
	if m.tls == nil {
		return m.sniff(raw)
	}
	t := tls.Server(raw, m.tls)
	if t.HandshakeContext(m.ctx) != nil {
		return nil, raw
	}
	return m.sniff(t)
}

// sniff reads no further than it must: what follows belongs to the next reader.
func (m *Mux) sniff(c net.Conn) (*door, net.Conn) {
	var head [1 + MaxGroupID]byte
	if _, err := io.ReadFull(c, head[:1]); err != nil {
		return nil, c
	}
	switch head[0] {
	case openRPC:
		return m.rpc, &unread{Conn: c, first: openRPC, full: true}
	case openGroup:
		if _, err := io.ReadFull(c, head[:1]); err != nil {
			return nil, c
		}
		id := head[1 : 1+int(head[0])]
		if _, err := io.ReadFull(c, id); err != nil {
			return nil, c
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.groups[string(id)], c
	}
	return nil, c
}

// unread is a connection whose first byte was looked at.
type unread struct {
	net.Conn
	first byte
	full  bool
}

func (u *unread) Read(p []byte) (int, error) {
	if u.full && len(p) > 0 {
		p[0], u.full = u.first, false
		return 1, nil
	}
	return u.Conn.Read(p)
}

// ConnectionState is what the peer of a connection made by this package
// proved; ok is false where there is no TLS.
func ConnectionState(c net.Conn) (cs tls.ConnectionState, ok bool) {
	if u, is := c.(*unread); is {
		c = u.Conn
	}
	t, is := c.(*tls.Conn)
	if !is {
		return cs, false
	}
	return t.ConnectionState(), true
}

// door is a listener fed by the mux.
type door struct {
	addr   net.Addr
	conns  chan net.Conn
	done   chan struct{}
	once   sync.Once
	forget func()
}

func (m *Mux) newDoor(forget func()) *door {
	return &door{addr: m.inner.Addr(), conns: make(chan net.Conn, backlog), done: make(chan struct{}), forget: forget}
}

// offer never waits: when nobody accepts, the caller is better off elsewhere.
func (d *door) offer(c net.Conn) bool {
	select {
	case <-d.done:
		return false
	default:
	}
	select {
	case d.conns <- c:
	default:
		return false
	}
	// Close may have drained the queue between the look and the send; whoever
	// comes second empties it.
	select {
	case <-d.done:
		d.drain()
	default:
	}
	return true
}

// Accept returns the next connection.
func (d *door) Accept() (net.Conn, error) {
	select {
	case <-d.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-d.conns:
		return c, nil
	case <-d.done:
		return nil, net.ErrClosed
	}
}

// Close hangs up on who was not accepted yet. It may be called twice.
func (d *door) Close() error {
	if d.forget != nil {
		d.forget()
	}
	d.shut()
	return nil
}

func (d *door) shut() {
	d.once.Do(func() { close(d.done) })
	d.drain()
}

func (d *door) drain() {
	for {
		select {
		case c := <-d.conns:
			c.Close()
		default:
			return
		}
	}
}

// Addr is the port's address.
func (d *door) Addr() net.Addr { return d.addr }
