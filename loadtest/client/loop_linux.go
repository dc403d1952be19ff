package client

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"syscall"
	"time"

	"qianma/loadtest/internal/epoll"
)

// Loop owns its connections. Make one with Open; only Poll moves it.
type Loop struct {
	cfg    Config
	poller *epoll.Poller
	began  time.Time
	conns  []*conn // by slot; epoll events name slots
	free   []int   // slots to use again
	groups []*Group
	flight list // sent or connecting, oldest first
	ready  []*Call
	sweep  time.Duration // when calls are next looked over for their deadlines
	done   func(*Call)
	closed bool
}

// Group is a set of nodes that can each answer the same calls.
type Group struct {
	loop  *Loop
	nodes []*node
	turn  int
	first *node // where calls go while it has room: who leads, as answers say; nil: in turn
	wait  list  // for a free connection, oldest first
}

type node struct {
	host string
	addr syscall.Sockaddr
	ipv6 bool
	idle []*conn // last used on top: few connections stay warm
	open int
	down time.Duration // not tried before this moment
	told time.Duration // when it last answered, or was first asked after that
}

// lapse is how long a node may leave calls without a single answer before it
// is taken to hang. A busy node answers some all the time, however late each.
const lapse = 500 * time.Millisecond

// up says whether the node may be tried: it is not down, and does not hang.
func (n *node) up(now time.Duration) bool {
	asked := n.open > len(n.idle)
	return n.down <= now && !(asked && now-n.told > lapse)
}

type conn struct {
	epoll.Socket
	node *node
	up   bool
	call *Call
	out  []byte // not written yet
	buf  []byte // the request; out is its tail
	in   []byte // what has arrived of the answer
}

// Open makes a Loop without connections.
func Open(cfg Config) (*Loop, error) {
	poller, err := epoll.New()
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return &Loop{cfg: cfg.withDefaults(), poller: poller, began: time.Now()}, nil
}

// Now is the Loop's clock: monotonic time since Open.
func (l *Loop) Now() time.Duration { return time.Since(l.began) }

// Since is an instant on the Loop's clock.
func (l *Loop) Since(t time.Time) time.Duration { return t.Sub(l.began) }

// Group names the nodes of a group by their base addresses, "http://host:port".
func (l *Loop) Group(urls []string) (*Group, error) {
	g := &Group{loop: l}
	for _, raw := range urls {
		n, err := parseNode(raw)
		if err != nil {
			return nil, err
		}
		g.nodes = append(g.nodes, n)
	}
	if len(g.nodes) == 0 {
		return nil, fmt.Errorf("client: a group needs at least one node")
	}
	l.groups = append(l.groups, g)
	return g, nil
}

func parseNode(raw string) (*node, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("client: %q is not an http://host:port address", raw)
	}
	at, err := net.ResolveTCPAddr("tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("client: %s: %w", u.Host, err)
	}
	if ip4 := at.IP.To4(); ip4 != nil {
		return &node{host: u.Host, addr: &syscall.SockaddrInet4{Port: at.Port, Addr: [4]byte(ip4)}}, nil
	}
	return &node{host: u.Host, ipv6: true, addr: &syscall.SockaddrInet6{Port: at.Port, Addr: [16]byte(at.IP.To16())}}, nil
}

// Nodes is how many nodes the group has.
func (g *Group) Nodes() int { return len(g.nodes) }

// Up says whether some node of the group may be tried now.
func (g *Group) Up() bool {
	now := g.loop.Now()
	return slices.ContainsFunc(g.nodes, func(n *node) bool { return n.up(now) })
}

// Waiting is how many calls wait for a connection.
func (g *Group) Waiting() int { return g.wait.n }

// next takes who waits out: the first, as long as nobody has waited for four fifths
// of the timeout, and beyond that the newest. It is what a server does that has a
// connection for every caller (cluster/web, gate): sent in turn, each would be sent
// just when its caller gives up, and nobody would be answered in time.
func (g *Group) next(now, timeout time.Duration) *Call {
	if g.wait.head.deadline-now > timeout/5 {
		return g.wait.shift()
	}
	return g.wait.pop()
}

// InFlight is how many calls have been started and not reported, less those
// that wait.
func (l *Loop) InFlight() int { return l.flight.n + len(l.ready) }

// Start sends the call to a node of the group, or lets it wait for a free
// connection. A call that was tried before goes to another node if one is up.
func (l *Loop) Start(g *Group, c *Call) {
	now := l.Now()
	c.Err, c.Status, c.RetryAfter, c.Answer = nil, 0, -1, nil
	c.Sent, c.SentAt, c.EndedAt = false, 0, 0
	c.group, c.deadline = g, now+l.cfg.Timeout
	switch {
	case l.closed:
		l.fail(c, ErrClosed)
	case l.dispatch(c, now):
	case g.wait.n >= l.cfg.Queue:
		l.fail(c, ErrQueueFull)
	default:
		g.wait.push(c)
	}
}

// dispatch gives the call a connection, if there is one for it. The call's home
// comes first, and the leader of a write where answers name one, because any
// other node would hand the call on to it; else nodes take turns, so a node that
// came back is found without a probe.
func (l *Loop) dispatch(c *Call, now time.Duration) bool {
	g := c.group
	usable := g.usable(c.node, now)
	first := g.first
	if c.Home > 0 {
		first = g.nodes[int(c.Home)%len(g.nodes)]
	}
	if (c.Post || c.Home > 0) && first != nil && usable(first) && l.carry(first, c, now) {
		return true
	}
	for range g.nodes {
		n := g.nodes[g.turn%len(g.nodes)]
		g.turn++
		if usable(n) && l.carry(n, c, now) {
			return true
		}
	}
	return false
}

// carry sends the call to that node, if it has a connection or room for one.
func (l *Loop) carry(n *node, c *Call, now time.Duration) bool {
	if n.open == len(n.idle) {
		n.told = now
	}
	switch {
	case len(n.idle) > 0:
		l.send(pop(&n.idle), c, now)
	case n.open < l.cfg.PerNode:
		l.dial(n, c, now)
	default:
		return false
	}
	return true
}

// follow notes which node an answer calls the leader. One that is none of the
// group's, under that name, is nobody we can reach.
func (g *Group) follow(leader []byte) {
	at := bytes.TrimPrefix(leader, []byte("http://"))
	if g.first != nil && string(at) == g.first.host {
		return
	}
	for _, n := range g.nodes {
		if string(at) == n.host {
			g.first = n
		}
	}
}

// usable says which nodes may be tried: those that are up, without the one
// that was tried last; failing that, those that are up; failing that, all.
func (g *Group) usable(last *node, now time.Duration) func(*node) bool {
	up := func(n *node) bool { return n.up(now) }
	other := func(n *node) bool { return up(n) && n != last }
	switch {
	case last == nil && g.Up(), last != nil && !slices.ContainsFunc(g.nodes, other) && g.Up():
		return up
	case slices.ContainsFunc(g.nodes, other):
		return other
	}
	return func(*node) bool { return true }
}

func pop(s *[]*conn) *conn {
	last := len(*s) - 1
	c := (*s)[last]
	*s = (*s)[:last]
	return c
}

// dial opens a connection and puts the call on it; the request leaves once the
// connection stands.
func (l *Loop) dial(n *node, c *Call, now time.Duration) {
	c.node, c.deadline = n, now+l.cfg.Timeout
	cn, err := l.socket(n)
	if err != nil {
		n.down = now + l.cfg.Down
		l.fail(c, fmt.Errorf("%w: %s: %w", ErrConnect, n.host, err))
		return
	}
	cn.call = c
	l.flight.push(c)
	l.watch(cn, epoll.Readable|epoll.Writable)
}

func (l *Loop) socket(n *node) (*conn, error) {
	family := syscall.AF_INET
	if n.ipv6 {
		family = syscall.AF_INET6
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	if err := syscall.Connect(fd, n.addr); err != nil && err != syscall.EINPROGRESS {
		_ = syscall.Close(fd)
		return nil, err
	}
	cn := l.slot()
	cn.Open(fd)
	cn.node, cn.up = n, false
	cn.in, cn.out = cn.in[:0], nil
	n.open++
	return cn, nil
}

func (l *Loop) slot() *conn {
	if k := len(l.free); k > 0 {
		cn := l.conns[l.free[k-1]]
		l.free = l.free[:k-1]
		return cn
	}
	cn := &conn{Socket: epoll.Socket{Slot: len(l.conns)}}
	l.conns = append(l.conns, cn)
	return cn
}

func (l *Loop) watch(cn *conn, wants uint32) {
	if err := l.poller.Watch(&cn.Socket, wants); err != nil {
		l.drop(cn, fmt.Errorf("%w: %w", ErrLost, err))
	}
}

// send writes the call on a connection that stands.
func (l *Loop) send(cn *conn, c *Call, now time.Duration) {
	c.node, c.Sent, c.SentAt, c.deadline = cn.node, true, now, now+l.cfg.Timeout
	cn.call = c
	cn.buf = appendRequest(cn.buf[:0], cn.node.host, c)
	cn.out = cn.buf
	l.flight.push(c)
	l.flush(cn)
}

func (l *Loop) flush(cn *conn) {
	n, err := cn.Write(cn.out)
	cn.out = cn.out[n:]
	switch err {
	case nil:
		l.watch(cn, epoll.Readable)
	case epoll.ErrAgain:
		l.watch(cn, epoll.Readable|epoll.Writable)
	default:
		l.drop(cn, fmt.Errorf("%w: write: %w", ErrLost, err))
	}
}

// drop closes a connection; the call on it, if any, ends with err.
func (l *Loop) drop(cn *conn, err error) {
	if cn.FD < 0 {
		return
	}
	cn.Close()
	cn.node.open--
	if i := slices.Index(cn.node.idle, cn); i >= 0 {
		cn.node.idle = slices.Delete(cn.node.idle, i, i+1)
	}
	l.free = append(l.free, cn.Slot)
	if c := cn.call; c != nil {
		cn.call = nil
		l.flight.remove(c)
		l.fail(c, err)
	}
}

func (l *Loop) fail(c *Call, err error) {
	c.Err, c.EndedAt = err, l.Now()
	l.ready = append(l.ready, c)
}

// Poll waits for at most the given time until something ends, and calls done
// with each call that has ended. done may call Start.
func (l *Loop) Poll(wait time.Duration, done func(*Call)) error {
	l.done = done
	if l.deliver() {
		wait = 0
	}
	events, err := l.poller.Wait(wait, l.cfg.Gather)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	for i := range events {
		ev := &events[i]
		if cn := l.conns[ev.Fd]; cn.Meant(ev) {
			l.handle(cn, ev.Events)
		}
	}
	if now := l.Now(); now >= l.sweep {
		l.expire(now)
		l.sweep = now + 20*time.Millisecond
	}
	l.deliver()
	return nil
}

// deliver reports what ended outside handle. done may add to ready again.
func (l *Loop) deliver() bool {
	any := len(l.ready) > 0
	for len(l.ready) > 0 {
		batch := l.ready
		l.ready = nil
		for _, c := range batch {
			l.done(c)
		}
		if len(l.ready) == 0 {
			l.ready = batch[:0]
		}
	}
	return any
}

func (l *Loop) handle(cn *conn, events uint32) {
	if !cn.up {
		if !l.connected(cn) {
			return
		}
	} else if events&epoll.Writable != 0 {
		l.flush(cn)
	}
	if cn.FD >= 0 && events&(epoll.Readable|epoll.Hangup) != 0 {
		l.receive(cn)
	}
}

// connected finishes a dial: the kernel says how it went.
func (l *Loop) connected(cn *conn) bool {
	errno, err := syscall.GetsockoptInt(cn.FD, syscall.SOL_SOCKET, syscall.SO_ERROR)
	if err == nil && errno != 0 {
		err = syscall.Errno(errno)
	}
	now := l.Now()
	if err != nil {
		cn.node.down = now + l.cfg.Down
		l.drop(cn, fmt.Errorf("%w: %s: %w", ErrConnect, cn.node.host, err))
		return false
	}
	cn.up, cn.node.down = true, 0
	l.flight.remove(cn.call)
	l.send(cn, cn.call, now)
	return true
}

func (l *Loop) receive(cn *conn) {
	if len(cn.in) == cap(cn.in) {
		cn.in = slices.Grow(cn.in, max(4096, len(cn.in)))
	}
	n, err := cn.Read(cn.in[len(cn.in):cap(cn.in)])
	if err == epoll.ErrAgain {
		return
	}
	if err != nil && err != io.EOF {
		l.drop(cn, fmt.Errorf("%w: read: %w", ErrLost, err))
		return
	}
	cn.in = cn.in[:len(cn.in)+n]
	l.understand(cn, err == io.EOF)
}

func (l *Loop) understand(cn *conn, ended bool) {
	if cn.call == nil { // an idle connection was closed, or speaks unasked
		l.drop(cn, nil)
		return
	}
	if ended && len(cn.in) == 0 {
		l.drop(cn, ErrLost)
		return
	}
	var a answer
	switch parse(cn.in, ended, &a) {
	case more:
		if len(cn.in) > l.cfg.MaxAnswer {
			l.drop(cn, fmt.Errorf("%w: longer than %d bytes", ErrBadAnswer, l.cfg.MaxAnswer))
		}
		return
	case bad:
		l.drop(cn, ErrBadAnswer)
		return
	}
	l.finish(cn, &a, ended || a.last || len(cn.out) > 0)
}

// finish reports the answer and gives the connection to the next call. The
// answer aliases the connection's buffer, which is not read into again before
// done has returned.
func (l *Loop) finish(cn *conn, a *answer, last bool) {
	c, now := cn.call, l.Now()
	cn.call = nil
	l.flight.remove(c)
	c.Status, c.RetryAfter, c.Answer, c.EndedAt = a.status, a.retryAfter, a.body, now
	cn.node.told = now
	if len(a.leader) > 0 && !l.cfg.Spread {
		c.group.follow(a.leader)
	}
	cn.in = cn.in[:0]
	if last {
		l.drop(cn, nil)
	} else {
		l.rest(cn, now)
	}
	l.done(c)
}

// rest puts a connection to its next call, or to sleep.
func (l *Loop) rest(cn *conn, now time.Duration) {
	for _, g := range l.groups {
		if g.wait.n > 0 && slices.Contains(g.nodes, cn.node) {
			l.send(cn, g.next(now, l.cfg.Timeout), now)
			return
		}
	}
	l.watch(cn, epoll.Readable)
	if cn.FD >= 0 {
		cn.node.idle = append(cn.node.idle, cn)
	}
}

// expire ends what has waited too long. Calls in flight are in the order in
// which they were sent, and all have the same time, so the first one that is
// still young ends the walk.
func (l *Loop) expire(now time.Duration) {
	for c := l.flight.head; c != nil && c.deadline <= now; c = l.flight.head {
		cn := l.carrying(c)
		cn.node.down = now + l.cfg.Down
		if cn.up {
			l.drop(cn, ErrTimeout)
			continue
		}
		l.drop(cn, fmt.Errorf("%w: %s: no answer to the connect", ErrConnect, cn.node.host))
	}
	for _, g := range l.groups {
		for c := g.wait.head; c != nil && (c.deadline <= now || l.dispatchable(g, now)); c = g.wait.head {
			g.wait.remove(c)
			if c.deadline <= now {
				l.fail(c, ErrExpired)
			} else if !l.dispatch(c, now) {
				g.wait.push(c) // its own node is the only one with room
				break
			}
		}
	}
}

// dispatchable says whether a waiting call could have a connection: one that
// was lost leaves room that no answer will announce.
func (l *Loop) dispatchable(g *Group, now time.Duration) bool {
	return slices.ContainsFunc(g.nodes, func(n *node) bool {
		return n.down <= now && (len(n.idle) > 0 || n.open < l.cfg.PerNode)
	})
}

func (l *Loop) carrying(c *Call) *conn {
	i := slices.IndexFunc(l.conns, func(cn *conn) bool { return cn.call == c })
	return l.conns[i]
}

// Close ends every call with ErrClosed, reported to the function last given to
// Poll, and closes the connections.
func (l *Loop) Close() error {
	if l.closed {
		return nil
	}
	l.closed = true
	for _, cn := range l.conns {
		l.drop(cn, ErrClosed)
	}
	for _, g := range l.groups {
		for g.wait.n > 0 {
			l.fail(g.wait.shift(), ErrClosed)
		}
	}
	if l.done != nil {
		l.deliver()
	}
	return l.poller.Close()
}
