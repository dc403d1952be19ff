package replica

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"qianma/cluster/clock"
	"qianma/cluster/fact"
	"qianma/cluster/leaktest"
	"qianma/cluster/machine"
	"qianma/cluster/mux"
	"qianma/cluster/problem"
	"qianma/cluster/rpc"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

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
	dead  map[string]bool    // it reaches nobody, until it is started again
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
		cut: map[[2]string]bool{}, dead: map[string]bool{}, nodes: map[string]*node{}, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
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

// three starts a carrier of three and waits for a leader, which stands as soon as
// the group is formed: the silence before it would by itself may be long.
func three(t testing.TB, tune func(*Config)) *world {
	t.Helper()
	w := newWorld(t, abc...)
	w.tune = tune
	w.startAll()
	first := w.node(abc[0]).group0()
	until(t, "the group to be formed", first.isMember)
	if first.raft().State() == raft.Follower {
		first.stand()
	}
	w.leader()
	return w
}

func (w *world) startAll() {
	w.t.Helper()
	for _, n := range w.names {
		w.start(n)
	}
}

// severed reports whether nothing passes between two processes.
func (w *world) severed(one, other string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[[2]string{one, other}] || w.cut[[2]string{other, one}] || w.dead[one] || w.dead[other]
}

// dialer is a network dialer that obeys the world's cuts. The port of a process
// that is dead refuses by itself.
func (w *world) dialer(from string) *mux.Dialer {
	return &mux.Dialer{Resolve: func(name string) (string, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.cut[[2]string{from, name}] || w.dead[from] {
			return "", fmt.Errorf("cut off from %s", name)
		}
		addr, ok := w.addrs[name]
		if !ok {
			return "", fmt.Errorf("%s was never up", name)
		}
		return addr, nil
	}}
}

// cutDialer hangs up on connections when their link is cut, and on one that was
// being made meanwhile.
type cutDialer struct {
	*mux.Dialer
	w     *world
	from  string
	conns *connSet
}

func (d cutDialer) Group(ctx context.Context, name, group string) (net.Conn, error) {
	c, err := d.Dialer.Group(ctx, name, group)
	if err != nil {
		return nil, err
	}
	c = d.conns.add(name, c)
	if d.w.severed(d.from, name) {
		c.Close()
		return nil, fmt.Errorf("cut off from %s", name)
	}
	return c, nil
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
	cut := g.w.severed(g.from, to)
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
		Mux: n.mux, Dialer: cutDialer{w.dialer(name), w, name, n.conns}, Calls: gated{w, name, n.pool}, Clock: clock.Real, Logger: w.log.With("node", name),
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
	if n.mux, err = listen(addr); err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.addrs[name] = n.mux.Addr().String()
	delete(w.dead, name)
	w.mu.Unlock()
	n.pool = rpc.NewPool(w.dialer(name), rpc.PoolConfig{})
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

// listen opens the port that a process had, or another one if somebody took
// that while it was down.
func listen(addr string) (m *mux.Mux, err error) {
	for range 50 { // a port that was just closed may take a moment
		if m, err = mux.Listen(addr, nil); err == nil {
			return m, nil
		}
		pause(context.Background(), 20*time.Millisecond)
	}
	return mux.Listen("127.0.0.1:0", nil)
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
	w.dead[n.name] = true
	var others []*node
	for _, o := range w.nodes {
		if o != n {
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
	deadline := time.Now().Add(3 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		pause(context.Background(), 5*time.Millisecond)
	}
}

// leader waits until one of the running nodes leads every shard's group. It may
// stop doing so at any moment: on a busy machine nobody has to ask for that.
func (w *world) leader() *node {
	w.t.Helper()
	return w.leaderOf(w.names...)
}

// leaderOf waits until one of some nodes leads.
func (w *world) leaderOf(names ...string) *node {
	w.t.Helper()
	var found *node
	until(w.t, "a ready leader", func() bool {
		for _, n := range w.up() {
			if _, self := n.Leader(0); self && slices.Contains(names, n.name) {
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

// besides names the other processes.
func (w *world) besides(n *node) []string {
	return slices.DeleteFunc(slices.Clone(w.names), func(name string) bool { return name == n.name })
}

// ctxFor is for as long as any test may take.
func ctxFor(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// newKey is an idempotency key that nobody has used.
func newKey() (k [16]byte) {
	binary.BigEndian.PutUint64(k[:], rand.Uint64())
	binary.BigEndian.PutUint64(k[8:], rand.Uint64())
	return k
}

// put writes, under a key: should an election come between, the write is sent
// again, and the receipt of then is as good.
func (n *node) put(t testing.TB, commands ...[]byte) machine.Receipt {
	t.Helper()
	r, err := n.Propose(ctxFor(t), 0, machine.Proposal{Key: newKey(), Commands: commands})
	if err != nil {
		t.Fatalf("propose at %s: %v", n.name, err)
	}
	r.Replayed = false
	return r
}

// settle repeats what an election may interrupt until it is done, or refused for
// good.
func (w *world) settle(what string, do func() error) error {
	w.t.Helper()
	var err error
	until(w.t, what, func() bool {
		err = do()
		return !problem.Is(err, problem.Unavailable) && !problem.Is(err, problem.Unknown) && !problem.Is(err, problem.Overloaded)
	})
	return err
}

func (w *world) ingest(blocks []fact.Block) error {
	w.t.Helper()
	return w.settle("blocks to be taken in", func() error { return w.leader().Ingest(ctxFor(w.t), 0, blocks) })
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

// equal waits until all running replicas hold the same marks and, where they do,
// the same keys. A write whose caller has left may still be on its way, so that
// one replica shows it a moment before another.
func (w *world) equal() {
	w.t.Helper()
	up := w.up()
	until(w.t, "equal marks on all replicas, and equal keys", func() bool {
		want := up[0].Marks(0)
		for _, n := range up {
			if got := n.Marks(0); len(got) == 0 || !maps.Equal(got, want) {
				return false
			}
		}
		keys := up[0].dump(w.t, false)
		return !slices.ContainsFunc(up[1:], func(n *node) bool { return n.dump(w.t, false) != keys })
	})
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

// raftOf is a node's raft, once a guard that replaces it is done.
func raftOf(n *node) (ra *raft.Raft) {
	n.w.t.Helper()
	until(n.w.t, "a raft instance", func() bool {
		ra = n.group0().raft()
		return ra != nil
	})
	return ra
}
