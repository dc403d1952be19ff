// Package link is a fault proxy: a listener in front of each listener of each
// process, with rules for what happens to the bytes between two of them. It
// needs no root.
//
// Who calls is told by the local address the caller dials from, so one
// listener for each target is enough to put a fault on the way between any two
// processes, in either direction.
//
// It promises that a rule reaches the connections that are open as well as new
// ones, that bytes are never changed or reordered (a cut holds them back, as a
// network does whose packets are lost and sent again), and that every rule can
// carry a lease after which it is gone by itself: whoever put it there may
// die. It knows nothing of what the bytes mean.
package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a proxy is told; `qianma up --links proxied` writes it.
type Config struct {
	HTTP    string            `json:"http"`    // host:port of the control API
	Callers map[string]string `json:"callers"` // local IP a process dials from -> process
	Ends    map[string]End    `json:"ends"`    // process -> where it stands
	Links   []Link            `json:"links"`
}

// End is where a process stands.
type End struct {
	Carrier   string `json:"carrier"`
	Subsystem string `json:"subsystem"`
}

// Link leads to one listener of one process.
type Link struct {
	To     string `json:"to"`
	Kind   string `json:"kind"` // node, nats, leaf, etcd
	Listen string `json:"listen"`
	Target string `json:"target"`
	// From is the process that is meant when the caller's address is nobody's:
	// libraries that dial by themselves choose their own.
	From string `json:"from,omitempty"`
}

// Load reads a configuration file.
func Load(path string) (Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Config{}, err
	}
	var c Config
	if err := json.Unmarshal(raw, &c); err != nil {
		return Config{}, fmt.Errorf("links %s: %w", path, err)
	}
	return c, nil
}

// dialMax bounds the dial of a target.
const dialMax = 3 * time.Second

// Proxy is a set of open links. It is safe for concurrent use.
type Proxy struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	gates  []*gate
	rules  rules

	mu    sync.Mutex // protects conns
	conns map[*conn]bool
}

// gate is one listener and what went through it.
type gate struct {
	Link
	l           net.Listener
	connections atomic.Int64
	refused     atomic.Int64
	bytes       atomic.Int64
}

// Open listens on every link. Close stops it.
func Open(cfg Config) (*Proxy, error) {
	p := &Proxy{cfg: cfg, conns: map[*conn]bool{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.rules.changed = make(chan struct{})
	for _, l := range cfg.Links {
		listener, err := net.Listen("tcp", l.Listen)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("link to %s: %w", l.To, err), p.Close())
		}
		g := &gate{Link: l, l: listener}
		p.gates = append(p.gates, g)
		p.wg.Go(func() { p.accept(g) })
	}
	return p, nil
}

// Close hangs up everything and waits. It is safe to call twice.
func (p *Proxy) Close() error {
	p.cancel()
	for _, g := range p.gates {
		g.l.Close()
	}
	p.reset(func(*conn) bool { return true })
	p.wg.Wait()
	return nil
}

// Addr is where the link to that listener can be dialled; "" if there is none.
func (p *Proxy) Addr(to, kind string) string {
	for _, g := range p.gates {
		if g.To == to && g.Kind == kind {
			return g.l.Addr().String()
		}
	}
	return ""
}

func (p *Proxy) accept(g *gate) {
	for {
		c, err := g.l.Accept()
		if err != nil {
			if p.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			select { // too many open files: it passes
			case <-time.After(10 * time.Millisecond):
				continue
			case <-p.ctx.Done():
				return
			}
		}
		p.wg.Go(func() { p.carry(g, c) })
	}
}

// caller is the process that a connection comes from; "" for nobody we know.
func (p *Proxy) caller(g *gate, c net.Conn) string {
	if host, _, err := net.SplitHostPort(c.RemoteAddr().String()); err == nil {
		if name := p.cfg.Callers[host]; name != "" {
			return name
		}
	}
	return g.From
}

// conn is one connection through a link.
type conn struct {
	from, to, kind string
	client, server net.Conn
	ctx            context.Context // ends with the connection
	cancel         context.CancelFunc
}

// close hangs up both ends at once; hard means that the ends see a reset.
func (c *conn) close(hard bool) {
	c.cancel()
	for _, end := range []net.Conn{c.client, c.server} {
		if end == nil {
			continue
		}
		if tcp, ok := end.(*net.TCPConn); ok && hard {
			_ = tcp.SetLinger(0)
		}
		end.Close()
	}
}

// holdMax is how long a new connection waits for a cut to end. Whoever dials
// has long given up by then.
const holdMax = 10 * time.Second

// carry takes one connection from its beginning to its end.
func (p *Proxy) carry(g *gate, client net.Conn) {
	g.connections.Add(1)
	c := &conn{from: p.caller(g, client), to: g.To, kind: g.Kind, client: client}
	c.ctx, c.cancel = context.WithCancel(p.ctx)
	if !p.connect(g, c) {
		g.refused.Add(1)
		c.close(true) // what a closed port looks like
		return
	}
	defer p.leave(c)
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(g, c, c.client, c.server, c.from, c.to) })
	pumps.Go(func() { p.pump(g, c, c.server, c.client, c.to, c.from) })
	pumps.Wait()
	c.close(false)
}

// connect reaches the target as far as the rules let it.
func (p *Proxy) connect(g *gate, c *conn) bool {
	if p.rules.of(p, c.from, c.to, c.kind).refuses() || !p.handshake(c) {
		return false
	}
	server, err := (&net.Dialer{Timeout: dialMax}).DialContext(c.ctx, "tcp", g.Target)
	if err != nil {
		return false
	}
	c.server = server
	return p.enter(c)
}

// handshake waits while either way is cut: a connection needs both to begin.
func (p *Proxy) handshake(c *conn) bool {
	ctx, cancel := context.WithTimeout(c.ctx, holdMax)
	defer cancel()
	for _, way := range [][2]string{{c.from, c.to}, {c.to, c.from}} {
		if p.rules.passable(ctx, p, way[0], way[1], c.kind) != nil {
			return false
		}
	}
	return true
}

func (p *Proxy) enter(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) leave(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// reset hangs up the open connections that are picked.
func (p *Proxy) reset(pick func(*conn) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if pick(c) {
			c.close(true)
		}
	}
}

// What may be on its way in one direction of one connection: a network holds
// about as much.
const (
	pieceSize = 16 << 10
	piecesMax = 64
)

// piece is bytes on their way; no bytes: the sender has said all.
type piece struct {
	bytes []byte
	due   time.Time // not before
}

// pump moves bytes from one end to the other under the rules for that way,
// until an end hangs up. Reading and writing go on apart, so that a delay makes
// a way longer, not narrower.
func (p *Proxy) pump(g *gate, c *conn, src, dst net.Conn, from, to string) {
	way := make(chan piece, piecesMax)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(way)
		if p.read(c, src, way, from, to) != nil {
			c.close(true)
		}
	})
	defer reader.Wait()
	for x := range way {
		if p.deliver(g, c, dst, x, from, to) != nil {
			c.close(true)
			return
		}
	}
}

// read takes in what the sender says, until it has said all.
func (p *Proxy) read(c *conn, src net.Conn, way chan<- piece, from, to string) error {
	var last time.Time
	for {
		buf := make([]byte, pieceSize)
		n, err := src.Read(buf)
		if n == 0 && err != nil && err != io.EOF {
			return err
		}
		due := time.Now().Add(p.rules.of(p, from, to, c.kind).latency())
		if due.Before(last) { // jitter never overtakes
			due = last
		}
		last = due
		select {
		case way <- piece{buf[:n], due}:
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
		if err == io.EOF {
			return nil
		}
	}
}

// deliver hands a piece over when the rules let it pass.
func (p *Proxy) deliver(g *gate, c *conn, dst net.Conn, x piece, from, to string) error {
	if err := rest(c.ctx, time.Until(x.due)); err != nil {
		return err
	}
	if err := p.rules.passable(c.ctx, p, from, to, c.kind); err != nil {
		return err
	}
	if len(x.bytes) == 0 {
		return closeWrite(dst)
	}
	if err := rest(c.ctx, p.rules.of(p, from, to, c.kind).toll(len(x.bytes))); err != nil {
		return err
	}
	g.bytes.Add(int64(len(x.bytes))) // before whoever reads them can have them
	_, err := dst.Write(x.bytes)
	return err
}

func closeWrite(c net.Conn) error {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return errors.ErrUnsupported
	}
	return tcp.CloseWrite()
}
