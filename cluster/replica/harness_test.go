package replica

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"qianma/cluster/clock"
	"qianma/cluster/fact"
	"qianma/cluster/machine"
	"qianma/cluster/mux"
	"qianma/cluster/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a carrier's worth of processes in this one, over loopback TCP.
type world struct {
	t      testing.TB
	names  []string
	shards int
	disks  map[string]vfs.FS
	tune   func(*Config)
	hang   bool // a call across a cut link waits for its end, in place of being refused
	log    *slog.Logger

	mu    sync.Mutex
	addrs map[string]string
	cut   map[[2]string]bool // from, to: no new connections and none kept
	nodes map[string]*node
}

// node is one process.
type node struct {
	*Replica
	w      *world
	name   string
	mux    *mux.Mux
	server *rpc.Server
	pool   *rpc.Pool
	conns  *connSet
	fatal  atomic.Pointer[error]
	doomed bool // the test wants it to stop by itself
	served sync.WaitGroup
	down   bool
}

func newWorld(t testing.TB, names ...string) *world {
	w := &world{t: t, names: names, shards: 1, disks: map[string]vfs.FS{}, addrs: map[string]string{},
		cut: map[[2]string]bool{}, nodes: map[string]*node{}, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if os.Getenv("REPLICA_LOG") != "" {
		w.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, n := range names {
		w.disks[n] = vfs.NewCrashableMem()
	}
	t.Cleanup(w.stop)
	return w
}

var abc = []string{"a", "b", "c"}

// three starts a carrier of three and waits for a leader.
func three(t testing.TB, tune func(*Config)) *world {
	t.Helper()
	w := newWorld(t, abc...)
	w.tune = tune
	w.startAll()
	w.leader()
	return w
}

func (w *world) startAll() {
	w.t.Helper()
	for _, n := range w.names {
		w.start(n)
	}
}

// dialFrom is a network dialer that obeys the world's cuts.
func (w *world) dialer(from string, conns *connSet) *mux.Dialer {
	return &mux.Dialer{Resolve: func(name string) (string, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.cut[[2]string{from, name}] {
			return "", fmt.Errorf("cut off from %s", name)
		}
		addr, ok := w.addrs[name]
		if !ok {
			return "", fmt.Errorf("%s was never up", name)
		}
		return addr, nil
	}}
}

// cutDialer hangs up on connections when their link is cut.
type cutDialer struct {
	*mux.Dialer
	conns *connSet
}

func (d cutDialer) Group(ctx context.Context, name, group string) (net.Conn, error) {
	c, err := d.Dialer.Group(ctx, name, group)
	if err != nil {
		return nil, err
	}
	return d.conns.add(name, c), nil
}

type connSet struct {
	mu    sync.Mutex
	conns map[net.Conn]string
}

type setConn struct {
	net.Conn
	set *connSet
}

func (c setConn) Close() error {
	c.set.mu.Lock()
	delete(c.set.conns, c.Conn)
	c.set.mu.Unlock()
	return c.Conn.Close()
}

func (s *connSet) add(to string, c net.Conn) net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[net.Conn]string{}
	}
	s.conns[c] = to
	return setConn{c, s}
}

func (s *connSet) hangUp(to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, name := range s.conns {
		if name == to {
			c.Close()
		}
	}
}

// gated refuses calls across a cut link, whatever connection exists.
type gated struct {
	w    *world
	from string
	pool *rpc.Pool
}

func (g gated) Call(ctx context.Context, to, method string, req []byte) ([]byte, error) {
	g.w.mu.Lock()
	cut := g.w.cut[[2]string{g.from, to}] || g.w.cut[[2]string{to, g.from}]
	g.w.mu.Unlock()
	if cut && g.w.hang {
		<-ctx.Done()
		return nil, outcomeUnknown(ctx.Err())
	}
	if cut {
		return nil, errNotLeader
	}
	return g.pool.Call(ctx, to, method, req)
}

func (w *world) config(name string, n *node) Config {
	c := Config{
		Name: name, Carrier: "unicom", Subsystem: "toy", Peers: abc, Shards: w.shards,
		Dir: "data/" + name, FS: w.disks[name], Machine: func(int) machine.Machine { return &toy{} },
		Mux: n.mux, Dialer: cutDialer{w.dialer(name, n.conns), n.conns}, Calls: gated{w, name, n.pool}, Clock: clock.Real, Logger: w.log.With("node", name),
		Fatal: func(err error) { n.fatal.CompareAndSwap(nil, &err) },
		Tuning: Tuning{
			Heartbeat: 400 * time.Millisecond, CommitTimeout: 30 * time.Millisecond, RPCTimeout: time.Second,
			LogMemTable: 1, StateMemTable: 1, StateCache: 4,
		},
	}
	if w.tune != nil {
		w.tune(&c)
	}
	return c
}

func (w *world) start(name string) *node {
	w.t.Helper()
	n, err := w.tryStart(name)
	if err != nil {
		w.t.Fatalf("start %s: %v", name, err)
	}
	return n
}

func (w *world) tryStart(name string) (*node, error) {
	w.mu.Lock()
	addr := w.addrs[name]
	w.mu.Unlock()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	n := &node{w: w, name: name, conns: &connSet{}}
	var err error
	for range 50 { // a port that was just closed may take a moment
		if n.mux, err = mux.Listen(addr, nil); err == nil {
			break
		}
		pause(context.Background(), 20*time.Millisecond)
	}
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.addrs[name] = n.mux.Addr().String()
	for link := range w.cut {
		if link[0] == name {
			delete(w.cut, link)
		}
	}
	w.mu.Unlock()
	n.pool = rpc.NewPool(w.dialer(name, n.conns), rpc.PoolConfig{})
	n.server = rpc.NewServer(rpc.ServerConfig{Drain: 50 * time.Millisecond})
	if n.Replica, err = Open(w.config(name, n)); err != nil {
		n.server.Close()
		n.pool.Close()
		n.mux.Close()
		return nil, err
	}
	n.Register(n.server)
	n.served.Go(func() { n.server.Serve(n.mux.RPC()) })
	w.mu.Lock()
	w.nodes[name] = n
	w.mu.Unlock()
	return n, nil
}

// shut stops a process in good order.
func (n *node) shut() {
	n.w.mu.Lock()
	gone := n.down
	n.down = true
	n.w.mu.Unlock()
	if gone {
		return
	}
	if why := n.fatal.Load(); why != nil && !n.doomed {
		n.w.t.Errorf("%s stopped by itself: %v", n.name, *why)
	}
	n.server.Close()
	if err := n.Replica.Close(); err != nil && n.fatal.Load() == nil {
		n.w.t.Errorf("close %s: %v", n.name, err)
	}
	n.pool.Close()
	n.mux.Close()
	n.served.Wait()
}

// crash takes the power from a process: its disk keeps what was synced.
func (n *node) crash() {
	fs := n.w.disks[n.name].(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
	n.mux.Close() // from now on nobody hears it
	n.shut()
	n.w.mu.Lock()
	n.w.disks[n.name] = fs
	n.w.mu.Unlock()
}

// kill makes a process look dead to the others: its port refuses, its
// connections are gone, and it reaches nobody.
func (w *world) kill(n *node) {
	n.mux.Close()
	w.mu.Lock()
	var others []*node
	for _, o := range w.nodes {
		if o != n {
			w.cut[[2]string{n.name, o.name}] = true
			others = append(others, o)
		}
	}
	w.mu.Unlock()
	for _, o := range others {
		n.conns.hangUp(o.name)
		o.conns.hangUp(n.name)
	}
}

func (w *world) stop() {
	w.mu.Lock()
	var all []*node
	for _, n := range w.nodes {
		all = append(all, n)
	}
	w.mu.Unlock()
	for _, n := range all {
		n.shut()
	}
}

func (w *world) up() (out []*node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range w.names {
		if n := w.nodes[name]; n != nil && !n.down {
			out = append(out, n)
		}
	}
	return out
}

func (w *world) node(name string) *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[name]
}

// split cuts every link between two sides.
func (w *world) split(one, other []string) {
	w.mu.Lock()
	for _, a := range one {
		for _, b := range other {
			w.cut[[2]string{a, b}], w.cut[[2]string{b, a}] = true, true
		}
	}
	w.mu.Unlock()
	for _, a := range one {
		for _, b := range other {
			w.node(a).conns.hangUp(b)
			w.node(b).conns.hangUp(a)
		}
	}
}

func (w *world) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cut)
}

// until polls a condition; the deadline is far beyond what any should take.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		pause(context.Background(), 5*time.Millisecond)
	}
}

// leader waits until one of the running nodes leads every shard's group.
func (w *world) leader() *node {
	w.t.Helper()
	var found *node
	until(w.t, "a ready leader", func() bool {
		for _, n := range w.up() {
			if _, self := n.Leader(0); self {
				found = n
				return true
			}
		}
		return false
	})
	return found
}

func (w *world) follower() *node {
	w.t.Helper()
	lead := w.leader()
	for _, n := range w.up() {
		if n != lead {
			return n
		}
	}
	w.t.Fatal("no follower")
	return nil
}

func ctxFor(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (n *node) put(t testing.TB, commands ...[]byte) machine.Receipt {
	t.Helper()
	r, err := n.Propose(ctxFor(t), 0, machine.Proposal{Commands: commands})
	if err != nil {
		t.Fatalf("propose at %s: %v", n.name, err)
	}
	return r
}

func (n *node) dump(t testing.TB, linearizable bool) string {
	t.Helper()
	v, err := n.View(ctxFor(t), 0, linearizable)
	if err != nil {
		t.Fatalf("view at %s: %v", n.name, err)
	}
	defer v.Close()
	return toyDump(v)
}

// equal waits until all running replicas hold the same marks and keys.
func (w *world) equal() {
	w.t.Helper()
	up := w.up()
	until(w.t, "equal marks on all replicas", func() bool {
		want := up[0].Marks(0)
		for _, n := range up {
			got := n.Marks(0)
			if len(got) != len(want) || len(got) == 0 {
				return false
			}
			for o, m := range want {
				if got[o] != m {
					return false
				}
			}
		}
		return true
	})
	want := up[0].dump(w.t, false)
	for _, n := range up[1:] {
		if got := n.dump(w.t, false); got != want {
			w.t.Fatalf("%s and %s hold equal facts and different keys", up[0].name, n.name)
		}
	}
}

// history reads a replica's own facts back and proves the chain.
func (n *node) history(t testing.TB) []string {
	t.Helper()
	o, ok := n.Own(0)
	if !ok {
		return nil
	}
	var out []string
	var at fact.Mark
	for at != n.Marks(0)[o] {
		blocks, err := n.Blocks(0, o, at.Seq, 1<<20)
		if err != nil || len(blocks) == 0 {
			t.Fatalf("blocks of %s after %d: %d, %v", o, at.Seq, len(blocks), err)
		}
		for i := range blocks {
			b := &blocks[i]
			if err := b.Follows(at); err != nil {
				t.Fatalf("block at %d: %v", b.First, err)
			}
			b.Facts(func(seq uint64, f []byte) bool { out = append(out, string(f)); return true })
			at = b.Mark()
		}
	}
	return out
}

func (n *node) group0() *group { return n.Replica.groups[0] }

func leaderRaft(n *node) *raft.Raft { return n.group0().raft() }
