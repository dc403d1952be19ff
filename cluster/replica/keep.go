package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"qianma/cluster/raftlog"
)

// keep looks after the raft instance: the watchdogs for what the library gets
// stuck in, and the small duties that have their time. All of them share one
// tick, because most of what an idle process costs is being woken.
func (g *group) keep() {
	tick := time.NewTicker(g.r.cfg.Tuning.Heartbeat / 6)
	defer tick.Stop()
	routed := time.Now()
	if g.r.cfg.Tuning.Leaderless < patience {
		routed = time.Time{} // who has just started knows nobody, and callers have elsewhere to go
	}
	for n := 0; ; n++ {
		select {
		case <-g.ctx.Done():
			return
		case why := <-g.restart:
			if !g.r.dying.Load() {
				g.renew(why)
			}
		case <-tick.C:
			if g.r.dying.Load() {
				g.stopInstance() // a leader that cannot apply must not stay one until its process ends
				continue
			}
			g.watchTransfer()
			g.watchLeader()
			g.listen()
			routed = g.watchRoute(routed, time.Now())
			if n%4 == 0 {
				g.queue.expire(time.Now().Add(-patience))
				g.lookAround()
			}
			if n%8 == 0 {
				g.compact()
				g.rotate()
			}
		}
	}
}

// demand asks for a restart of the raft instance.
func (g *group) demand(why string) {
	select {
	case g.restart <- why:
	default: // one is asked for already
	}
}

// renew replaces the raft instance with a fresh one on the same log and state.
func (g *group) renew(why string) {
	g.log.Warn("raft is restarted", "guard", why)
	g.r.metrics.restarts.WithLabelValues(why).Inc()
	g.stopInstance()
	g.stuck.Store(0)
	if meta := g.store.snapshot(); meta != nil {
		if _, err := reconcile(g.logs, meta); err != nil {
			g.r.fatal(err)
			return
		}
	}
	if err := g.start(); err != nil {
		g.r.fatal(err)
	}
}

// Names of the guards, as metrics and logs show them.
const (
	guardTransfer = "stuck_transfer" // hashicorp/raft#696
	guardSnapshot = "stale_tail"     // hashicorp/raft#697
)

// watchTransfer ends a leader that has answered "leadership transfer in
// progress" for longer than a transfer can take: an interrupted transfer
// leaves the flag set, and the leader refuses every entry for ever
// (hashicorp/raft#696).
func (g *group) watchTransfer() {
	if since := g.stuck.Load(); since != 0 && time.Since(time.Unix(0, since)) > 2*g.r.cfg.Tuning.Heartbeat {
		g.renew(guardTransfer)
	}
}

// installs counts snapshots that were received without progress in between.
type installs struct {
	index, term uint64
	times       int
}

// installed hears of every received snapshot, on raft's goroutine. A tail that
// contradicts the snapshot is gone from the log now, but raft still believes
// in it: the instance must be restarted, else it refuses every entry and is
// sent the same snapshot for ever (hashicorp/raft#697). The same snapshot
// twice is that loop, whatever caused it.
func (g *group) installed(meta *raft.SnapshotMeta) {
	stale, err := reconcile(g.logs, meta)
	if err != nil {
		g.r.fatal(err)
		return
	}
	g.mu.Lock()
	if g.installs.index == meta.Index && g.installs.term == meta.Term {
		g.installs.times++
	} else {
		g.installs = installs{index: meta.Index, term: meta.Term, times: 1}
	}
	loop := g.installs.times >= 2
	if loop {
		g.installs.times = 0
	}
	g.mu.Unlock()
	if stale || loop {
		g.demand(guardSnapshot)
	}
}

// watchLeader notices a leader whose process is gone. Its port refuses, or the
// process is back and does not lead: nobody does, so waiting for the election
// timeout helps no one. Members stand in turn, so that they do not split the
// vote. A leader that is merely silent may be cut off from this member alone: it
// is left to the timeout, unless a majority has not heard from it either.
func (g *group) watchLeader() {
	quiet := g.r.cfg.Tuning.Heartbeat / 3
	ra := g.raft()
	if ra == nil || g.probing.Load() || ra.State() != raft.Follower || time.Since(ra.LastContact()) < quiet {
		return
	}
	address, id := ra.LeaderWithID()
	if address == "" || id == g.self {
		return
	}
	rank, voter := g.rank(ra, id)
	if !voter || !g.probing.CompareAndSwap(false, true) {
		return
	}
	g.wait.Go(func() {
		defer g.probing.Store(false)
		why := ""
		switch {
		case g.hung(ra, id):
			why = "a majority has not heard from it"
		case g.gone(id):
			why = "its process is gone or does not lead"
		default:
			return
		}
		pause(g.ctx, time.Duration(rank)*quiet/2+rand.N(quiet/8))
		if _, now := ra.LeaderWithID(); now == id && time.Since(ra.LastContact()) >= quiet && ra.State() == raft.Follower {
			g.log.Info("standing for election", "leader", id, "why", why)
			g.stand()
		}
	})
}

// rank is this member's place among the voters that remain.
func (g *group) rank(ra *raft.Raft, leader raft.ServerID) (rank int, voter bool) {
	var ids []raft.ServerID
	for _, s := range ra.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter && s.ID != leader {
			ids = append(ids, s.ID)
		}
	}
	slices.Sort(ids)
	rank = slices.Index(ids, g.self)
	return rank, rank >= 0
}

// gone reports whether the leader's process surely does not lead any more.
func (g *group) gone(id raft.ServerID) bool {
	name, life := splitID(id)
	ctx, cancel := context.WithTimeout(g.ctx, g.r.cfg.Tuning.Heartbeat/3)
	defer cancel()
	c, err := g.r.cfg.Dialer.Group(ctx, name, groupID(g.r.cfg.Subsystem, g.shard, life))
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	c.Close()
	h, err := g.askHello(ctx, name)
	return err == nil && (h.life != life || h.leader != name)
}

// hung reports whether a majority has heard nothing from the leader for about
// the shortest time after which one of them would stand by itself. To wait for
// raft's own timeouts takes up to twice as long and longer: they are random,
// and who still believes in a leader refuses its vote.
func (g *group) hung(ra *raft.Raft, id raft.ServerID) bool {
	silence := g.r.cfg.Tuning.Heartbeat
	if time.Since(ra.LastContact()) < silence {
		return false
	}
	ctx, cancel := context.WithTimeout(g.ctx, silence/3)
	defer cancel()
	voters, agree := 0, 0
	for _, s := range ra.GetConfiguration().Configuration().Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		switch name, life := splitID(s.ID); s.ID {
		case id:
		case g.self: // counts as a voter only: who is in no group yet has heard nobody and is no majority
			agree++
		default:
			h, err := g.askHello(ctx, name)
			if err == nil && h.life == life && !h.leads && h.silent >= silence*2/3 {
				agree++
			}
		}
	}
	return agree > voters/2
}

// stand makes this follower a candidate at once, the way a leader hands over:
// raft has no other door for it. The message goes through the group's own port.
func (g *group) stand() {
	g.mu.Lock()
	in := g.inst
	g.mu.Unlock()
	if in == nil {
		return
	}
	var resp raft.TimeoutNowResponse
	req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
	if err := in.trans.TimeoutNow(g.self, raft.ServerAddress(g.self), req, &resp); err != nil {
		g.log.Debug("could not stand", "error", err)
	}
}

// compact records a snapshot once enough bytes have been applied, and keeps
// fewer entries behind it the larger they are: both the log on disk and the
// replay at the next start stay bounded in bytes.
func (g *group) compact() {
	t := &g.r.cfg.Tuning
	g.fsm.mu.RLock()
	bytes := g.fsm.bytes
	g.fsm.mu.RUnlock()
	if bytes < t.SnapshotBytes || !g.snapping.CompareAndSwap(false, true) {
		return
	}
	g.wait.Go(func() {
		defer g.snapping.Store(false)
		ra, done, err := g.use()
		if err != nil {
			return
		}
		defer done()
		before := uint64(0)
		if meta := g.store.snapshot(); meta != nil {
			before = meta.Index
		}
		mean := uint64(bytes)/max(1, g.applied()-min(before, g.applied())) + 1
		conf := ra.ReloadableConfig()
		conf.TrailingLogs = min(t.TrailingLogs, max(uint64(t.TrailingBytes)/mean, min(t.TrailingLogs, 256)))
		err = ra.ReloadConfig(conf)
		if err = errors.Join(err, ra.Snapshot().Error()); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			g.log.Debug("no snapshot was recorded", "error", err)
		}
	})
}

// minRotation keeps a clock that jumps there and back from ending two
// generations of keys at once.
const minRotation = time.Hour

// rotate begins a new generation of idempotency keys when the living one has
// its age. One that was begun by a clock that ran ahead of ours gets its whole
// age by this process's own timers: were it ended at once, one wrong clock and
// one right one would take turns and forget every key between them.
func (g *group) rotate() {
	age := g.r.cfg.Tuning.KeyAge
	g.fsm.mu.RLock()
	m := g.fsm.shown
	g.fsm.mu.RUnlock()
	g.mu.Lock()
	if m.generation != g.seenKeys {
		if g.seenKeys != 0 {
			g.rotating = time.Now()
		}
		g.seenKeys = m.generation
	}
	lived := time.Since(g.rotating)
	g.mu.Unlock()
	since := g.r.cfg.Clock.Now().Sub(time.Unix(0, m.rotated))
	old := since >= age && (m.generation == 1 || lived >= min(minRotation, age)) || since < 0 && lived >= age
	if !old || m.generation == 0 || g.ready.Load() == 0 || !g.snapping.CompareAndSwap(false, true) {
		return
	}
	g.wait.Go(func() {
		defer g.snapping.Store(false)
		if _, err := g.apply(kindRotate, binary.BigEndian.AppendUint32(nil, m.generation)); err == nil {
			g.mu.Lock()
			g.rotating = time.Now()
			g.mu.Unlock()
		}
	})
}

// damaged reports whether an error at Open says that this replica's data
// cannot be used any more.
func damaged(err error) bool {
	return raftlog.IsCorruption(err) || errors.Is(err, errState)
}
