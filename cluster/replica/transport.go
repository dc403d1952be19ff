package replica

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// transport is raft's network transport with one thing taken out of it.
//
// hashicorp/raft handles heartbeats on the connection's goroutine when the
// transport offers to. There they change the term while the main loop is
// writing entries, and an old leader can stamp an entry with a term it does
// not lead (hashicorp/raft#695). A transport that does not take the handler
// sends heartbeats through the main loop like everything else. The price:
// heartbeats wait behind the follower's fsync, so the heartbeat timeout must
// be long against the slowest fsync.
//
// The concrete NetworkTransport is embedded, not the interface: pre-vote is
// found by a type assertion, and hiding it would turn pre-vote off.
type transport struct {
	*raft.NetworkTransport
}

var (
	_ raft.Transport   = (*transport)(nil)
	_ raft.WithPreVote = (*transport)(nil)
	_ raft.WithClose   = (*transport)(nil)
)

// SetHeartbeatHandler implements raft.Transport by not doing it.
func (*transport) SetHeartbeatHandler(func(raft.RPC)) {}

func newTransport(l *layer, timeout time.Duration, log hclog.Logger) *transport {
	return &transport{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: l, MaxPool: 3, Timeout: timeout, Logger: log,
	})}
}

// A raft server's id and address are the same: the process's name and the life
// of its directory. A process that comes back with an empty directory is
// another server, so votes and acknowledgements it gave in its former life
// cannot be mistaken for promises of this one.
func serverID(name, life string) raft.ServerID { return raft.ServerID(name + "/" + life) }

func splitID[T ~string](id T) (name, life string) {
	name, life, _ = strings.Cut(string(id), "/")
	return name, life
}

// door takes in raft's connections for one group. It outlives raft instances,
// which come and go when a guard restarts one.
type door struct {
	listener net.Listener
	conns    chan net.Conn
	done     chan struct{}
	once     sync.Once
	wait     sync.WaitGroup
}

func newDoor(l net.Listener) *door {
	d := &door{listener: l, conns: make(chan net.Conn), done: make(chan struct{})}
	d.wait.Go(d.accept)
	return d
}

func (d *door) accept() {
	for {
		c, err := d.listener.Accept()
		if err != nil {
			return // a listener of the mux fails only when it is closed
		}
		select {
		case d.conns <- c:
		case <-time.After(5 * time.Second): // no raft instance wants it
			c.Close()
		case <-d.done:
			c.Close()
			return
		}
	}
}

func (d *door) close() {
	d.once.Do(func() {
		close(d.done)
		d.listener.Close()
	})
	d.wait.Wait()
}

// layer is the raft.StreamLayer of one raft instance. Closing it hangs up on
// every connection the instance had, in both directions: the library leaves
// its connection goroutines to that.
type layer struct {
	door   *door
	self   raft.ServerID
	dialer Dialer
	group  func(life string) string

	mu     sync.Mutex
	closed bool
	done   chan struct{}
	conns  map[*tracked]struct{}
}

var _ raft.StreamLayer = (*layer)(nil)

func newLayer(d *door, self raft.ServerID, dialer Dialer, group func(life string) string) *layer {
	return &layer{door: d, self: self, dialer: dialer, group: group, done: make(chan struct{}), conns: map[*tracked]struct{}{}}
}

// Accept implements net.Listener.
func (l *layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.door.conns:
		return l.track(c)
	case <-l.done:
		return nil, net.ErrClosed
	case <-l.door.done:
		return nil, net.ErrClosed
	}
}

// Dial implements raft.StreamLayer.
func (l *layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	name, life := splitID(address)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := l.dialer.Group(ctx, name, l.group(life))
	if err != nil {
		return nil, err
	}
	return l.track(c)
}

func (l *layer) track(c net.Conn) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		c.Close()
		return nil, net.ErrClosed
	}
	t := &tracked{Conn: c, layer: l}
	l.conns[t] = struct{}{}
	return t, nil
}

// Close implements net.Listener.
func (l *layer) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	close(l.done)
	for c := range l.conns {
		c.Conn.Close()
	}
	l.conns = nil
	return nil
}

// Addr implements net.Listener: the name other members know this one by.
func (l *layer) Addr() net.Addr { return address(l.self) }

type address string

func (address) Network() string  { return "qianma" }
func (a address) String() string { return string(a) }

type tracked struct {
	net.Conn
	layer *layer
}

func (t *tracked) Close() error {
	t.layer.mu.Lock()
	delete(t.layer.conns, t)
	t.layer.mu.Unlock()
	return t.Conn.Close()
}

// groupID is how the port tells groups apart. It holds the life of the
// directory, so that a message for a former life finds nobody.
func groupID(subsystem string, shard int, life string) string {
	return fmt.Sprintf("%s/%d/%s", subsystem, shard, life)
}
