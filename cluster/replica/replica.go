package replica

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"qianma/cluster/fact"
	"qianma/cluster/machine"
	"qianma/cluster/mishap"
	"qianma/cluster/problem"
	"qianma/cluster/raftlog"
)

// Replica is this process's part of a subsystem: one group for each shard.
// It is safe for concurrent use.
type Replica struct {
	cfg     Config
	life    string // of Dir
	started time.Time
	logs    *raftlog.Store
	fail    *raftlog.Failure
	cache   *pebble.Cache
	metrics *metrics
	groups  []*group

	dying     atomic.Bool // Fatal was called
	closeOnce sync.Once
	closeErr  error
}

var _ machine.Proposer = (*Replica)(nil)

// Open starts the replica and returns; joining its groups goes on behind it
// until Leader names one. A directory whose data is damaged is set aside and
// the replica starts empty, to be filled by its peers as a new life.
func Open(cfg Config) (*Replica, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r, err := open(cfg)
	if err == nil || !damaged(err) || len(cfg.Peers) < 2 {
		return r, err
	}
	cfg.Logger.Error("this replica's data is damaged; it is set aside and fetched from the peers", "error", err)
	if err := setAside(&cfg); err != nil {
		return nil, err
	}
	return open(cfg)
}

func open(cfg Config) (*Replica, error) {
	r := &Replica{cfg: cfg, metrics: newMetrics(cfg.Metrics), started: time.Now()}
	t := &cfg.Tuning
	var err error
	// Pebble counts its memtables against its cache.
	r.logs, err = raftlog.Open(raftlog.Config{
		Dir: cfg.FS.PathJoin(cfg.Dir, "log"), FS: cfg.FS, Logger: cfg.Logger, Fatal: r.fatal,
		MemTableBytes: t.LogMemTable << 20, CacheBytes: (2*t.LogMemTable + 4) << 20,
	})
	if err != nil {
		return nil, err
	}
	r.fail = raftlog.NewFailure(cfg.Logger.With("store", "state"), r.fatal)
	r.cache = pebble.NewCache(int64(t.StateCache+2*t.StateMemTable*cfg.Shards) << 20)
	if err := r.openGroups(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Replica) openGroups() error {
	if err := r.born(); err != nil {
		return err
	}
	for shard := range r.cfg.Shards {
		g, err := r.openGroup(shard)
		if err != nil {
			return fmt.Errorf("shard %d: %w", shard, err)
		}
		r.groups = append(r.groups, g)
	}
	return nil
}

// born reads the life of the directory, or gives it one.
func (r *Replica) born() error {
	raw, ok, err := r.logs.Get("life")
	if err != nil {
		return err
	}
	if !ok {
		var b [8]byte
		rand.Read(b[:])
		raw = []byte(hex.EncodeToString(b[:]))
		if err := r.logs.Set("life", raw); err != nil {
			return err
		}
	}
	r.life = string(raw)
	return nil
}

// seed makes the nonces of this process unlike those of any other.
func (r *Replica) seed() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// setAside moves damaged data out of the way; one such copy is kept, for those
// who want to look. The new directory will have a new life, so nothing this
// replica promised in its old one can be held against the group.
func setAside(cfg *Config) error {
	fs := cfg.FS
	aside := fs.PathJoin(cfg.Dir, "damaged")
	if err := fs.RemoveAll(aside); err != nil {
		return err
	}
	if err := raftlog.MakeDir(fs, aside); err != nil {
		return err
	}
	names, err := fs.List(cfg.Dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if n == "damaged" {
			continue
		}
		if err := fs.Rename(fs.PathJoin(cfg.Dir, n), fs.PathJoin(aside, n)); err != nil {
			return err
		}
	}
	return errors.Join(raftlog.SyncDir(fs, aside), raftlog.SyncDir(fs, cfg.Dir))
}

// fatal ends this node, once. What is under way is answered with "unknown".
func (r *Replica) fatal(err error) {
	if !r.dying.CompareAndSwap(false, true) {
		return
	}
	if r.fail != nil {
		r.fail.Report(err) // comes back here, to find that it is known
	}
	go r.cfg.Fatal(fmt.Errorf("replica: this node must stop: %w", err))
}

// Close stops the replica: no new callers, then leadership is handed over,
// then raft, then the disks. It may be called twice.
func (r *Replica) Close() error {
	r.closeOnce.Do(func() {
		errs := make([]error, len(r.groups))
		var wait sync.WaitGroup
		for i, g := range r.groups {
			wait.Go(func() { errs[i] = g.close() })
		}
		wait.Wait()
		r.closeErr = errors.Join(append(errs, r.logs.Close())...)
		if r.cache != nil {
			r.cache.Unref()
		}
	})
	return r.closeErr
}

func (r *Replica) group(shard int) (*group, error) {
	if shard < 0 || shard >= len(r.groups) {
		return nil, problem.New(problem.NotFound, "there is no such shard", "ask for the number of shards")
	}
	return r.groups[shard], nil
}

// Shards implements machine.Proposer.
func (r *Replica) Shards() int { return r.cfg.Shards }

// Propose implements machine.Proposer, at the leader and everywhere else.
func (r *Replica) Propose(ctx context.Context, shard int, p machine.Proposal) (machine.Receipt, error) {
	g, err := r.group(shard)
	if err != nil {
		return machine.Receipt{}, err
	}
	return g.propose(ctx, p)
}

// Claim implements machine.Proposer.
func (r *Replica) Claim(ctx context.Context, key, body [16]byte) error {
	if key == ([16]byte{}) {
		return problem.New(problem.Invalid, "the idempotency key is empty", "send a key")
	}
	_, err := r.Propose(ctx, machine.ShardOfRequest(key, r.cfg.Shards), machine.Proposal{Key: key, Body: body})
	return err
}

// Await implements machine.Proposer.
func (r *Replica) Await(ctx context.Context, rc machine.Receipt, level machine.Level) machine.Level {
	o, err := fact.ParseOrigin(rc.Origin)
	if err != nil {
		return machine.None
	}
	g, err := r.group(int(o.Shard))
	if err != nil {
		return machine.None
	}
	return g.await(ctx, rc, level)
}

// View implements machine.Proposer.
func (r *Replica) View(ctx context.Context, shard int, linearizable bool) (machine.View, error) {
	g, err := r.group(shard)
	if err != nil {
		return nil, err
	}
	return g.view(ctx, linearizable)
}

// Peek implements machine.Proposer.
func (r *Replica) Peek(shard int, key []byte) (value []byte, found bool, err error) {
	g, err := r.group(shard)
	if err != nil {
		return nil, false, err
	}
	return g.peek(key)
}

// Own returns the shard's own living origin; ok is false before the group has
// one.
func (r *Replica) Own(shard int) (o fact.Origin, ok bool) {
	if g, err := r.group(shard); err == nil {
		return g.own()
	}
	return fact.Origin{}, false
}

// Marks says how far this replica holds each origin of the shard. The map is
// shared: it must not be changed.
func (r *Replica) Marks(shard int) map[fact.Origin]fact.Mark {
	if g, err := r.group(shard); err == nil {
		return g.marks()
	}
	return nil
}

// Blocks returns the blocks of an origin behind a sequence number, up to about
// maxBytes and at least one if there is one. The first holds after+1.
func (r *Replica) Blocks(shard int, o fact.Origin, after uint64, maxBytes int) ([]fact.Block, error) {
	g, err := r.group(shard)
	if err != nil {
		return nil, err
	}
	return g.blocks(o, after, maxBytes)
}

// Ingest commits blocks of other origins in the shard. It works on the leader
// alone (problem.Unavailable elsewhere). Repeats are dropped; fact.ErrGap and
// fact.ErrDivergent refuse the first block that does not follow and all after
// it. It may be repeated whatever it returned.
func (r *Replica) Ingest(ctx context.Context, shard int, blocks []fact.Block) error {
	g, err := r.group(shard)
	if err != nil {
		return err
	}
	mishap.BeforeIngest.Hit()
	err = g.ingest(ctx, blocks)
	mishap.AfterIngest.Hit()
	return err
}

// PeerMark tells what the other carrier has committed: this is what makes a
// receipt Replicated. Every replica is told; one that was not asks the leader.
func (r *Replica) PeerMark(shard int, marks map[fact.Origin]fact.Mark) {
	mishap.BeforePeerMark.Hit()
	if g, err := r.group(shard); err == nil {
		g.peerMark(marks)
	}
}

// Leader names the process that leads the shard; "" while none is known. self
// is true when it is this one and it is ready.
func (r *Replica) Leader(shard int) (name string, self bool) {
	g, err := r.group(shard)
	if err != nil {
		return "", false
	}
	name, _ = g.leader()
	return name, g.ready.Load() != 0
}

// Changed returns a channel that is closed when next something is applied,
// leadership changes, or the other carrier reports. Take it, look, then wait.
func (r *Replica) Changed(shard int) <-chan struct{} {
	if g, err := r.group(shard); err == nil {
		return g.bell.wait()
	}
	return nil
}

// AddMember takes a process into the shard's group while it runs. The process
// must be up, with this subsystem and shard. It returns when the process has a
// vote; a ctx that ends before leaves it following without one.
func (r *Replica) AddMember(ctx context.Context, shard int, name string) error {
	return r.membership(ctx, shard, name, true)
}

// RemoveMember takes a process out of the shard's group.
func (r *Replica) RemoveMember(ctx context.Context, shard int, name string) error {
	return r.membership(ctx, shard, name, false)
}

func (r *Replica) membership(ctx context.Context, shard int, name string, add bool) error {
	g, err := r.group(shard)
	if err != nil {
		return err
	}
	switch to, self := g.leader(); {
	case self && add:
		return g.add(ctx, name)
	case self:
		return g.remove(name)
	case to == "":
		return errNotLeader
	default:
		e := newEnc()
		e.num(uint64(shard))
		e.str(name)
		e.flag(add)
		_, err := r.cfg.Calls.Call(ctx, to, methodMember, e.b)
		return err
	}
}

// Status is what operators see of a group on this process.
type Status struct {
	Shard       int
	Role        string // leader, follower, candidate, stopped
	Leader      string // process; "" while none is known
	Term        uint64
	Commit      uint64
	Applied     uint64
	Snapshot    uint64    // index of the last recorded one
	AsOf        time.Time // proposer's time of the newest entry applied
	Queue       int       // callers that wait
	Quarantined uint64    // facts that this build did not understand
	Members     []Member
	Failed      string // why this node must stop; "" while it is well
}

// Status returns the state of every group.
func (r *Replica) Status() []Status {
	out := make([]Status, 0, len(r.groups))
	for _, g := range r.groups {
		out = append(out, g.status())
	}
	return out
}

func (g *group) status() Status {
	g.fsm.mu.RLock()
	m := g.fsm.shown
	g.fsm.mu.RUnlock()
	s := Status{Shard: g.shard, Role: "stopped", Applied: m.index, Quarantined: m.aside, Queue: g.queue.depth(), Members: g.members()}
	if m.stamp != 0 {
		s.AsOf = time.Unix(0, m.stamp)
	}
	s.Leader, _ = g.leader()
	if ra := g.raft(); ra != nil {
		s.Term, s.Commit = ra.CurrentTerm(), ra.CommitIndex()
		s.Role = roles[ra.State().String()]
	}
	if meta := g.store.snapshot(); meta != nil {
		s.Snapshot = meta.Index
	}
	if err := g.r.failed(); err != nil {
		s.Role, s.Failed = "stopped", err.Error()
	}
	return s
}

var roles = map[string]string{"Leader": "leader", "Follower": "follower", "Candidate": "candidate", "Shutdown": "stopped"}

func (r *Replica) failed() error {
	if err := r.logs.Failed(); err != nil {
		return err
	}
	return r.fail.Err()
}
