package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"qianma/cluster/fact"
	"qianma/cluster/raftlog"
)

// group is one shard of the subsystem on this process: its state, its log, and
// the raft instance that keeps them equal to the other replicas'.
type group struct {
	r     *Replica
	shard int
	self  raft.ServerID
	log   *slog.Logger

	logs  *raftlog.Group
	store *store
	snaps *snapshots
	fsm   *fsm
	door  *door

	queue    *queue
	slots    chan struct{} // entries and forwarded calls that may be under way
	stride   stride        // how much of others' one entry takes in
	bell     bell          // commits, leadership, peer marks
	reads    reads
	vouching vouching
	hint     atomic.Pointer[hint]
	cool     atomic.Int64 // calls that came back are not sent again before this time

	ready    atomic.Uint64 // the term in which this replica leads and has applied what came before it; 0: none
	nonce    atomic.Uint64 // of the next entry
	stuck    atomic.Int64  // when "transfer in progress" was first answered; 0: it is not
	probing  atomic.Bool   // the leader's process is being looked at
	snapping atomic.Bool   // a snapshot or a rotation is under way
	changing atomic.Bool   // so is a change of the membership
	polling  atomic.Bool   // the leader is being asked for its peer marks
	heard    atomic.Bool   // the other carrier has said what it holds, and it was acted upon
	askedV   uint64        // their version, as of the last answer; owned by who polls
	catching atomic.Bool   // this replica is catching up, to be in touch again
	nudging  atomic.Bool   // a barrier for a lagging reader is under way

	mu       sync.Mutex
	inst     *instance
	mine     map[uint64]struct{}       // nonces of entries somebody here waits for
	peers    map[fact.Origin]fact.Mark // what the other carrier has said
	agreed   map[fact.Origin]fact.Mark // the newest of it that is ours too; see peerSeq
	peersV   uint64                    // version of peers
	installs installs
	rotating time.Time // when this process last saw keys rotate
	seenKeys uint32    // the generation of keys it saw last; 0: none

	restart  chan string // why; holds one
	touch    touch
	spawning sync.Mutex // keeps spawn and close apart
	ctx      context.Context
	cancel   context.CancelFunc
	wait     sync.WaitGroup
}

// instance is one raft.Raft with what belongs to it alone.
type instance struct {
	raft   *raft.Raft
	trans  *transport
	notify chan bool
	obs    *raft.Observer
	seen   chan raft.Observation
	done   chan struct{}
	wait   sync.WaitGroup
	uses   int           // calls that wait for an answer of raft; guarded by group.mu
	idle   chan struct{} // closed when uses has come to 0 after the instance was retired
}

func (r *Replica) openGroup(shard int) (*group, error) {
	g := &group{
		r: r, shard: shard, self: serverID(r.cfg.Name, r.life),
		log:   r.cfg.Logger.With("subsystem", r.cfg.Subsystem, "shard", shard),
		queue: newQueue(r.cfg.Tuning.QueueCalls, r.cfg.Tuning.QueueBytes),
		slots: make(chan struct{}, r.cfg.Tuning.Inflight),
		mine:  map[uint64]struct{}{}, peers: map[fact.Origin]fact.Mark{}, agreed: map[fact.Origin]fact.Mark{},
		restart: make(chan string, 1), rotating: time.Now(),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.nonce.Store(r.seed())
	if err := g.openState(); err != nil {
		return nil, errors.Join(err, g.closeState())
	}
	g.door = newDoor(r.cfg.Mux.Group(groupID(r.cfg.Subsystem, shard, r.life)))
	if err := g.start(); err != nil {
		g.door.close()
		return nil, errors.Join(err, g.closeState())
	}
	g.wait.Go(g.dispatch)
	g.wait.Go(g.keep)
	g.wait.Go(g.form)
	return g, nil
}

func (g *group) openState() (err error) {
	c := &g.r.cfg
	if g.logs, err = g.r.logs.Group(uint16(g.shard)); err != nil {
		return err
	}
	dir := c.FS.PathJoin(c.Dir, fmt.Sprintf("shard-%d", g.shard))
	if g.store, err = openStore(c.FS, dir, g.r.fail, g.r.cache, c.Tuning.StateMemTable<<20); err != nil {
		return err
	}
	g.snaps = newSnapshots(g.store)
	g.snaps.installed = g.installed
	g.fsm = &fsm{
		cfg: c, shard: g.shard, machine: c.Machine(g.shard), store: g.store, snaps: g.snaps, log: g.log,
		isLocal: g.isMine, changed: g.bell.ring, stop: g.r.fatal, metrics: g.r.metrics,
	}
	if err := g.fsm.open(); err != nil {
		return err
	}
	return g.checkLog()
}

// checkLog demands that log and state fit together: raft must be able to go on
// from the state with the entries the log has.
func (g *group) checkLog() error {
	if meta := g.store.snapshot(); meta != nil {
		if _, err := reconcile(g.logs, meta); err != nil {
			return err
		}
		if g.fsm.led.index < meta.Index {
			return fmt.Errorf("%w: state at %d, snapshot at %d", errState, g.fsm.led.index, meta.Index)
		}
	}
	from := uint64(1)
	if meta := g.store.snapshot(); meta != nil {
		from = meta.Index + 1
	}
	if first, _ := g.logs.FirstIndex(); first > from {
		return fmt.Errorf("%w: the log begins at %d, the state needs %d", errState, first, from)
	}
	return nil
}

func (g *group) closeState() error {
	var err error
	if g.fsm != nil {
		err = g.fsm.close()
	}
	if g.store != nil {
		err = errors.Join(err, g.store.close(5*time.Second))
	}
	return err
}

// start begins a raft instance.
func (g *group) start() error {
	c := &g.r.cfg
	t := &c.Tuning
	conf := raft.DefaultConfig()
	conf.LocalID = g.self
	conf.HeartbeatTimeout, conf.ElectionTimeout = t.Heartbeat, t.Heartbeat
	conf.LeaderLeaseTimeout = t.Lease
	conf.CommitTimeout = t.CommitTimeout
	conf.MaxAppendEntries = 64
	conf.BatchApplyCh = true
	conf.ShutdownOnRemove = false
	conf.TrailingLogs = t.TrailingLogs
	conf.SnapshotThreshold = t.SnapshotEntries
	conf.SnapshotInterval = 30 * time.Second
	conf.NoSnapshotRestoreOnStart = true // the state is on disk
	conf.NoLegacyTelemetry = true
	conf.Logger = newQuietLog(g.log)

	in := &instance{notify: make(chan bool, 64), seen: make(chan raft.Observation, 16),
		done: make(chan struct{}), idle: make(chan struct{})}
	conf.NotifyCh = in.notify
	l := newLayer(g.door, g.self, c.Dialer, func(life string) string { return groupID(c.Subsystem, g.shard, life) })
	in.trans = newTransport(l, t.RPCTimeout, conf.Logger)
	var err error
	in.raft, err = raft.NewRaft(conf, g.fsm, g.logs, g.logs, g.snaps, in.trans)
	if err != nil {
		in.trans.Close()
		return fmt.Errorf("replica: start raft: %w", err)
	}
	in.obs = raft.NewObserver(in.seen, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	in.raft.RegisterObserver(in.obs)
	g.mu.Lock()
	g.inst = in
	g.mu.Unlock()
	in.wait.Go(func() { g.watch(in) })
	return nil
}

// stopInstance ends the raft instance and waits for everything it started.
//
// Raft forgets to answer calls that it is shut down under. So the instance is
// retired first: no new calls, and those under way get their answer, which
// takes at most a lease when there is no majority.
func (g *group) stopInstance() {
	g.mu.Lock()
	in := g.inst
	g.inst = nil
	if in != nil && in.uses == 0 {
		close(in.idle)
	}
	g.mu.Unlock()
	if in == nil {
		return
	}
	g.ready.Store(0)
	g.bell.ring()
	select {
	case <-in.idle:
	case <-time.After(8 * g.r.cfg.Tuning.Heartbeat):
		g.log.Warn("raft did not answer before it was stopped")
	}
	in.raft.DeregisterObserver(in.obs)
	if err := in.raft.Shutdown().Error(); err != nil {
		g.log.Warn("raft did not stop cleanly", "error", err)
	}
	in.trans.Close()
	close(in.done)
	in.wait.Wait()
	g.ready.Store(0)
	g.bell.ring()
}

// use hands out the living raft for a call that waits for its answer.
func (g *group) use() (ra *raft.Raft, done func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	in := g.inst
	if in == nil {
		return nil, nil, errNotLeader
	}
	in.uses++
	return in.raft, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if in.uses--; in.uses == 0 && g.inst != in {
			close(in.idle)
		}
	}, nil
}

// raft returns the living raft for looking at; nil while there is none.
func (g *group) raft() *raft.Raft {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inst == nil {
		return nil
	}
	return g.inst.raft
}

// spawn starts a goroutine that close waits for; false when it is too late.
func (g *group) spawn(fn func()) bool {
	g.spawning.Lock()
	defer g.spawning.Unlock()
	if g.ctx.Err() != nil {
		return false
	}
	g.wait.Go(fn)
	return true
}

// watch follows an instance's leadership. Raft writes to notify from its main
// loop, so nothing here may take long.
func (g *group) watch(in *instance) {
	var stop context.CancelFunc = func() {}
	var lead sync.WaitGroup
	defer func() {
		stop()
		lead.Wait()
	}()
	for {
		select {
		case leads := <-in.notify:
			g.depose(stop)
			if leads {
				ctx, cancel := context.WithCancel(g.ctx)
				stop = cancel
				lead.Go(func() { g.lead(ctx, in) })
			}
			g.bell.ring()
		case <-in.seen:
			g.bell.ring()
		case <-in.done:
			return
		}
	}
}

// lead makes a new leader ready: everything committed before it is applied
// here, and the group has an incarnation.
func (g *group) lead(ctx context.Context, in *instance) {
	for ctx.Err() == nil {
		term := in.raft.CurrentTerm()
		err := g.prepare()
		if err == nil {
			g.awaitWord(ctx)
		}
		if err == nil && in.raft.CurrentTerm() == term && g.crown(ctx, term) {
			g.bell.ring()
			return
		}
		g.log.Debug("not ready to lead", "error", err)
		pause(ctx, 20*time.Millisecond)
	}
}

// crown makes this replica ready, unless it was deposed meanwhile: who comes too
// late must leave ready as it is, which by then may be the next lead's.
func (g *group) crown(ctx context.Context, term uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	g.ready.Store(term)
	return true
}

// depose ends a lead. It is ready no more, and will not be.
func (g *group) depose(stop context.CancelFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	stop()
	g.ready.Store(0)
}

func (g *group) prepare() error {
	if err := g.barrier(); err != nil {
		return err
	}
	if _, ok := g.own(); ok {
		return nil
	}
	inc := binary.BigEndian.AppendUint64(nil, uint64(g.r.cfg.Clock.Now().UnixNano()))
	_, err := g.apply(kindGenesis, inc)
	return err
}

// awaitWord gives the other carrier a moment to say what it remembers, when
// this process has only just started and there is another carrier. If the data
// came from a backup, that word ends the old origin before anything is written
// to addresses that were taken.
func (g *group) awaitWord(ctx context.Context) {
	t := time.NewTimer(g.r.cfg.Tuning.AwaitWord)
	defer t.Stop()
	for time.Since(g.r.started) < coldStart && g.knowsOthers() && !g.heard.Load() {
		change := g.bell.wait()
		if g.heard.Load() {
			return
		}
		select {
		case <-change:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// coldStart is how long after its start a process still counts as fresh.
const coldStart = 10 * time.Second

// knowsOthers reports whether facts of another carrier were ever taken in.
func (g *group) knowsOthers() bool {
	for o := range g.marks() {
		if o.Carrier != g.r.cfg.Carrier {
			return true
		}
	}
	return false
}

// barrier returns when everything committed before it is applied here. It is an
// entry that changes nothing (it ends generation 0 of the keys, which is none)
// and not raft's own barrier: that one raft counts as applied without showing it
// to the state, so a snapshot taken right then would stand one entry beyond the
// state it is of, and the next start would call the state damaged.
func (g *group) barrier() error {
	h := g.header(kindRotate)
	h.held = fact.Mark{} // what is held here may be old: that is why one waits
	_, err := g.applyEntry(h.nonce, append(h.append(make([]byte, 0, headerSize+4)), 0, 0, 0, 0))
	return err
}

// pause waits a little, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// own is the group's own living origin.
func (g *group) own() (fact.Origin, bool) {
	g.fsm.mu.RLock()
	defer g.fsm.mu.RUnlock()
	return g.fsm.own, g.fsm.own.Incarnation != 0
}

// applied is the index of the last entry in the state.
func (g *group) applied() uint64 {
	g.fsm.mu.RLock()
	defer g.fsm.mu.RUnlock()
	return g.fsm.shown.index
}

// header stamps a new entry.
func (g *group) header(k kind) header {
	h := header{kind: k, stamp: g.r.cfg.Clock.Now().UnixNano(), nonce: g.nonce.Add(1)}
	g.fsm.mu.RLock()
	defer g.fsm.mu.RUnlock()
	if g.fsm.own.Incarnation != 0 {
		h.incarnation, h.held = g.fsm.own.Incarnation, g.fsm.marks[g.fsm.own]
	}
	return h
}

// apply puts one entry into the log and waits until it is applied here. Its
// answer is what the state machine said.
func (g *group) apply(k kind, payload []byte) (any, error) {
	h := g.header(k)
	data := append(h.append(make([]byte, 0, headerSize+len(payload))), payload...)
	return g.applyEntry(h.nonce, data)
}

func (g *group) applyEntry(nonce uint64, data []byte) (any, error) {
	ra, done, err := g.use()
	if err != nil {
		return nil, err
	}
	defer done()
	g.mu.Lock()
	g.mine[nonce] = struct{}{}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.mine, nonce)
		g.mu.Unlock()
	}()
	f := ra.Apply(data, g.r.cfg.Tuning.RPCTimeout)
	err = f.Error()
	if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		g.stuck.CompareAndSwap(0, time.Now().UnixNano())
	} else {
		g.stuck.Store(0)
	}
	if err != nil {
		return nil, err
	}
	if err, ok := f.Response().(error); ok && errors.Is(err, errStopped) {
		return nil, err
	}
	return f.Response(), nil
}

func (g *group) isMine(nonce uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.mine[nonce]
	return ok
}

// surelyNot reports whether err says that the entry was never written.
func surelyNot(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) ||
		errors.Is(err, raft.ErrEnqueueTimeout) || errors.Is(err, errNotLeader)
}

// leader is who leads, as far as this replica knows; "" when it does not.
func (g *group) leader() (name string, self bool) {
	ra := g.raft()
	if ra == nil {
		return "", false
	}
	_, id := ra.LeaderWithID()
	name, _ = splitID(id)
	return name, id == g.self
}

// close stops the group: callers first, then raft, then the disk.
func (g *group) close() error {
	g.queue.close()
	g.yield()
	g.spawning.Lock()
	g.cancel()
	g.spawning.Unlock()
	g.wait.Wait()
	g.stopInstance()
	g.door.close()
	return g.closeState()
}

// yield hands leadership over before this node goes, so that writers wait for
// milliseconds instead of an election. The instance is at its end, so a
// transfer that hangs (hashicorp/raft#696) harms nobody.
func (g *group) yield() {
	ra := g.raft()
	if ra == nil || g.ready.Load() == 0 || g.r.fail.Err() != nil || len(ra.GetConfiguration().Configuration().Servers) < 2 {
		return
	}
	done := make(chan struct{})
	f := ra.LeadershipTransfer()
	go func() {
		defer close(done)
		_ = f.Error()
	}()
	select {
	case <-done:
	case <-time.After(g.r.cfg.Tuning.Heartbeat):
	}
}
