package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"time"

	"qianma/cluster/fact"
	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

// marks of every origin in the state. The map is shared and never changed.
func (g *group) marks() map[fact.Origin]fact.Mark {
	g.fsm.mu.RLock()
	defer g.fsm.mu.RUnlock()
	return g.fsm.marks
}

// blocks reads a range of one origin.
func (g *group) blocks(o fact.Origin, after uint64, maxBytes int) ([]fact.Block, error) {
	if at, ok := g.marks()[o]; !ok || at.Seq <= after {
		return nil, nil
	}
	gen := g.store.acquire()
	if gen == nil {
		return nil, errClosing
	}
	defer gen.release()
	snap := gen.db.NewSnapshot()
	defer snap.Close()
	id, ok, err := findOrigin(snap, o)
	if err != nil || !ok {
		return nil, err
	}
	return readBlocks(snap, id, after, maxBytes)
}

// ingest commits blocks of other origins here. Repeats are dropped before they
// reach the log; gaps and contradictions are refused, and what came before them is
// committed: whoever sent it may have nothing else to send.
func (g *group) ingest(ctx context.Context, blocks []fact.Block) error {
	at := maps.Clone(g.marks())
	payload := make([]byte, 0, 64<<10)
	var refused error
	for i := range blocks {
		b := &blocks[i]
		err := follows(b, at)
		if errors.Is(err, fact.ErrRepeat) {
			continue
		}
		if err != nil {
			refused = err
			break
		}
		// The digest is proved when the entry is applied; here only the order
		// is looked at, and the next block says what it expects.
		at[b.Origin] = fact.Mark{Seq: b.Last(), Digest: nextPrev(blocks[i+1:], b)}
		if len(payload) > 0 && len(payload)+len(b.Body) > g.stride.most() {
			start := time.Now()
			if err := g.ingestEntry(ctx, payload); err != nil {
				return err
			}
			g.makeWay(time.Since(start))
			payload = payload[:0:0]
		}
		payload = b.Append(payload)
	}
	if len(payload) == 0 {
		return refused
	}
	return errors.Join(refused, g.ingestEntry(ctx, payload))
}

// makeWay rests between two entries of others' facts for as long as the last one
// was under way, if a write waits or is under way: what an entry costs in disk
// and processor goes on after it, at the other replicas too.
func (g *group) makeWay(took time.Duration) {
	if g.queue.depth() > 0 || len(g.slots) > 0 {
		g.r.metrics.madeWay.Inc()
		pause(g.ctx, min(took, strideTime))
	}
}

func follows(b *fact.Block, at map[fact.Origin]fact.Mark) error {
	return b.Follows(at[b.Origin])
}

// nextPrev is the digest that the next block of the same origin claims for b.
func nextPrev(rest []fact.Block, b *fact.Block) fact.Digest {
	for i := range rest {
		if rest[i].Origin == b.Origin {
			return rest[i].Prev
		}
	}
	return fact.Digest{}
}

func (g *group) ingestEntry(ctx context.Context, payload []byte) error {
	if g.ready.Load() == 0 {
		return errNotLeader
	}
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		return problem.Wrap(ctx.Err(), problem.Overloaded, "too much is being written", "try again").After(millis(200))
	case <-g.ctx.Done():
		return errClosing
	}
	defer func() { <-g.slots }()
	start := time.Now()
	answer, err := g.apply(kindIngest, payload)
	switch {
	case err == nil:
	case surelyNot(err):
		return errNotLeader
	default:
		return outcomeUnknown(err)
	}
	if refused, ok := answer.(error); ok {
		return refused
	}
	g.stride.took(len(payload), time.Since(start))
	return nil
}

// peerMark takes in what the other carrier has committed. A mark ahead of ours
// in our own living origin means that we have forgotten facts that others
// remember: this store was restored from a backup. Its next addresses are
// taken, so the origin must end and a new one begin.
func (g *group) peerMark(marks map[fact.Origin]fact.Mark) {
	g.mu.Lock()
	changed := false
	for o, m := range marks {
		if old := g.peers[o]; m.Seq > old.Seq {
			g.peers[o] = m
			changed = true
		}
	}
	if changed {
		g.peersV++
	}
	g.mu.Unlock()
	if changed {
		g.bell.ring()
	}
	if own, ok := g.own(); ok && g.forgot(own, marks[own]) {
		g.spawn(func() {
			g.reincarnate(own)
			g.listened()
		})
		return
	}
	g.listened()
}

func (g *group) listened() {
	if g.heard.CompareAndSwap(false, true) {
		g.bell.ring()
	}
}

// forgot reports whether somebody else's mark of our living origin is ahead of
// ours, or contradicts it.
func (g *group) forgot(own fact.Origin, there fact.Mark) bool {
	if there.Seq == 0 {
		return false
	}
	same, known := g.remembers(own, there)
	return known && !same // what is not known now will be told again
}

// remembers reports whether somebody else's mark of an origin is one that our own
// history of it has gone through; known is false where that cannot be read now.
func (g *group) remembers(o fact.Origin, there fact.Mark) (same, known bool) {
	here := g.marks()[o]
	if there == here || there.Seq >= here.Seq {
		return there == here, true
	}
	if own, _ := g.own(); o == own {
		if m, ok := g.fsm.trail.at(there.Seq); ok {
			return m == there, true
		}
	}
	next, err := g.blocks(o, there.Seq, 1)
	if err != nil || len(next) == 0 {
		return false, false
	}
	return next[0].First == there.Seq+1 && next[0].Prev == there.Digest, true
}

// reincarnate ends the life of an origin, if this replica leads. A mark that
// was read while an entry was being applied may be ahead of us for a moment:
// what counts is that it still is when everything committed has been applied.
func (g *group) reincarnate(from fact.Origin) {
	if _, self := g.leader(); !self || g.barrier() != nil {
		return
	}
	g.mu.Lock()
	there := g.peers[from]
	g.mu.Unlock()
	if own, _ := g.own(); own != from || !g.forgot(from, there) {
		return
	}
	to := max(uint64(g.r.cfg.Clock.Now().UnixNano()), from.Incarnation+1)
	p := binary.BigEndian.AppendUint64(nil, from.Incarnation)
	if _, err := g.apply(kindReincarnate, binary.BigEndian.AppendUint64(p, to)); err == nil {
		g.log.Warn("the other carrier remembers facts of ours that we do not; this origin has ended and a new one begun",
			"ended", from.String(), "ours", g.marks()[from].Seq, "theirs", there.Seq)
	}
}

// peerSeq is how far the other carrier has committed what we hold of an origin. Of
// one that was given other facts there (this store was restored from a backup) no
// larger number means ours: only a mark that our history has gone through counts.
func (g *group) peerSeq(o fact.Origin) uint64 {
	g.mu.Lock()
	told, agreed := g.peers[o], g.agreed[o]
	g.mu.Unlock()
	if told == agreed {
		return agreed.Seq
	}
	if same, _ := g.remembers(o, told); !same {
		return agreed.Seq
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if told.Seq > g.agreed[o].Seq {
		g.agreed[o] = told
	}
	return told.Seq
}

// mirrored reports whether the other carrier has all that we hold of our own
// carrier's origins, those also that have ended.
func (g *group) mirrored(held map[fact.Origin]fact.Mark) bool {
	for o, m := range held {
		if o.Carrier == g.r.cfg.Carrier && g.peerSeq(o) < m.Seq {
			return false
		}
	}
	return true
}

// level is what is known of a fresh receipt, without waiting.
func (g *group) level(r *machine.Receipt) machine.Level {
	g.mu.Lock()
	peers := g.peersV
	g.mu.Unlock()
	if peers == 0 || r.Last == 0 {
		return machine.Committed
	}
	if o, err := fact.ParseOrigin(r.Origin); err == nil && g.peerSeq(o) >= r.Last {
		return machine.Replicated
	}
	return machine.Committed
}

// await waits until the other carrier has what the receipt names. A receipt
// without facts of its own says that its rows were held already; where, it
// does not say, so all that is held now has to be over there.
func (g *group) await(ctx context.Context, r machine.Receipt, want machine.Level) machine.Level {
	o, err := fact.ParseOrigin(r.Origin)
	if err != nil {
		return machine.None
	}
	if r.Level >= want || want <= machine.Committed {
		return max(r.Level, machine.Committed)
	}
	there := func() bool { return g.peerSeq(o) >= r.Last }
	if r.Last == 0 {
		if g.catchUp(ctx) != nil {
			return machine.Committed
		}
		held := g.marks()
		there = func() bool { return g.mirrored(held) }
	}
	for {
		change := g.bell.wait()
		if there() {
			return machine.Replicated
		}
		if ctx.Err() != nil || g.ctx.Err() != nil {
			return machine.Committed
		}
		g.followPeers()
		select {
		case <-change:
		case <-ctx.Done():
		case <-g.ctx.Done():
		}
	}
}

// peersPoll is how long one question after the leader's peer marks may hang.
const peersPoll = 1 * time.Second

// followPeers asks the leader what the other carrier has, as long as somebody
// here waits for it: each replica is told, and a word that was lost here may have
// reached the leader.
func (g *group) followPeers() {
	if to, self := g.leader(); self || to == "" || !g.polling.CompareAndSwap(false, true) {
		return
	}
	if !g.spawn(func() {
		defer g.bell.ring() // who still waits asks again
		defer g.polling.Store(false)
		g.pollPeers()
	}) {
		g.polling.Store(false)
	}
}

func (g *group) pollPeers() {
	to, self := g.leader()
	if self || to == "" {
		pause(g.ctx, 50*time.Millisecond)
		return
	}
	ctx, cancel := context.WithTimeout(g.ctx, 2*peersPoll)
	defer cancel()
	e := newEnc()
	e.num(uint64(g.shard))
	e.num(g.askedV)
	raw, err := g.r.cfg.Calls.Call(ctx, to, methodPeers, e.b)
	if err != nil {
		g.askedV = 0 // another leader counts anew
		pause(g.ctx, 100*time.Millisecond)
		return
	}
	d := newDec(raw)
	version, marks := d.num(), d.marks()
	if d.err() == nil {
		g.askedV = version
		g.peerMark(marks)
	}
}

// servePeers answers such a question as soon as there is something new.
func (g *group) servePeers(ctx context.Context, since uint64) (uint64, map[fact.Origin]fact.Mark) {
	ctx, cancel := context.WithTimeout(ctx, peersPoll)
	defer cancel()
	for {
		change := g.bell.wait()
		g.mu.Lock()
		version, marks := g.peersV, maps.Clone(g.peers)
		g.mu.Unlock()
		if version != since || ctx.Err() != nil || g.ctx.Err() != nil {
			return version, marks
		}
		select {
		case <-change:
		case <-ctx.Done():
		case <-g.ctx.Done():
		}
	}
}
