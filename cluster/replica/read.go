package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

// reads gathers linearizable readers into rounds: who comes while a round is
// under way waits for the next, and one question to the members serves all.
type reads struct {
	mu      sync.Mutex
	next    *round
	running bool
}

type round struct {
	done  chan struct{}
	index uint64
	err   error
}

// readIndex returns an index such that a state at it contains every write that
// was acknowledged before the call.
func (g *group) readIndex(ctx context.Context) (uint64, error) {
	g.reads.mu.Lock()
	if g.reads.next == nil {
		g.reads.next = &round{done: make(chan struct{})}
	}
	mine := g.reads.next
	if !g.reads.running {
		g.reads.running = g.spawn(g.rounds)
	}
	g.reads.mu.Unlock()
	select {
	case <-mine.done:
		return mine.index, mine.err
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-g.ctx.Done():
		return 0, errClosing
	}
}

func (g *group) rounds() {
	for {
		g.reads.mu.Lock()
		r := g.reads.next
		g.reads.next = nil
		g.reads.running = r != nil
		g.reads.mu.Unlock()
		if r == nil {
			return
		}
		r.index, r.err = g.ask()
		close(r.done)
	}
}

// ask is one round. A leader that was ready in this term has applied all that
// it ever acknowledged, and all that leaders before it did; if a majority still
// follows it now, nobody else acknowledges anything. So what it has applied
// when asked is the index.
func (g *group) ask() (uint64, error) {
	if term := g.ready.Load(); term != 0 {
		ra, done, err := g.use()
		if err != nil {
			return 0, err
		}
		defer done()
		index := g.applied()
		if err := ra.VerifyLeader().Error(); err != nil || ra.CurrentTerm() != term || g.ready.Load() != term {
			return 0, errNotLeader
		}
		return index, nil
	}
	to, self := g.leader()
	if to == "" || self {
		return 0, errNotLeader
	}
	ctx, cancel := context.WithTimeout(g.ctx, g.r.cfg.Tuning.RPCTimeout)
	defer cancel()
	e := newEnc()
	e.num(uint64(g.shard))
	e.num(g.applied())
	raw, err := g.r.cfg.Calls.Call(ctx, to, methodReadIndex, e.b)
	if err != nil {
		return 0, err
	}
	d := newDec(raw)
	index := d.num()
	return index, d.err()
}

// serveReadIndex answers a follower. One that lags is sent a barrier at once:
// it would else hear of the last commit only with the next message, and its
// reader would wait for that.
func (g *group) serveReadIndex(ctx context.Context, has uint64) (uint64, error) {
	if g.ready.Load() == 0 {
		return 0, errNotLeader
	}
	index, err := g.readIndex(ctx)
	if err == nil && index > has && g.nudging.CompareAndSwap(false, true) {
		if !g.spawn(func() {
			defer g.nudging.Store(false)
			_ = g.barrier()
		}) {
			g.nudging.Store(false)
		}
	}
	return index, err
}

// awaitApplied waits until the state has reached an index.
func (g *group) awaitApplied(ctx context.Context, index uint64) error {
	for {
		change := g.bell.wait()
		if g.applied() >= index {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		case <-g.ctx.Done():
			return errClosing
		}
	}
}

// view opens a reader. A linearizable one asks again until it has an answer or
// the caller's time is up.
func (g *group) view(ctx context.Context, linearizable bool) (machine.View, error) {
	if linearizable {
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, 2*g.r.cfg.Tuning.RPCTimeout)
			defer cancel()
		}
		if err := g.catchUp(ctx); err != nil {
			return nil, problem.Wrap(err, problem.Unavailable, "no majority answered in time, so the newest state is not known here",
				"try again, or ask without demanding the newest").After(millis(500))
		}
	}
	gen := g.store.acquire()
	if gen == nil {
		return nil, errClosing
	}
	snap := gen.db.NewSnapshot()
	return &view{gen: gen, from: snap, snap: snap}, nil
}

// peek reads one key. A read by itself is of one moment without a snapshot, and
// closing a snapshot has Pebble look for compactions: half of what a reader of one
// key cost.
func (g *group) peek(key []byte) (value []byte, found bool, err error) {
	gen := g.store.acquire()
	if gen == nil {
		return nil, false, errClosing
	}
	v := view{gen: gen, from: gen.db}
	value, found = v.Get(key)
	return value, found, errors.Join(v.err, gen.release())
}

func (g *group) catchUp(ctx context.Context) error {
	for {
		change := g.bell.wait()
		index, err := g.readIndex(ctx)
		if err == nil {
			return g.awaitApplied(ctx, index)
		}
		if ctx.Err() != nil || g.ctx.Err() != nil {
			return err
		}
		select { // a new leader rings; a stale answer is worth asking again soon
		case <-change:
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// view is a consistent reader on one generation. It stays valid when that
// generation is replaced, until it is closed.
type view struct {
	gen  *generation
	from pebble.Reader // snap, or the store as it is
	snap *pebble.Snapshot
	key  []byte
	err  error
}

var _ machine.View = (*view)(nil)

// Get implements machine.Reader.
func (v *view) Get(key []byte) ([]byte, bool) {
	v.key = append(append(v.key[:0], spaceUser), key...)
	value, closer, err := v.from.Get(v.key)
	if err != nil {
		v.fail(err)
		return nil, false
	}
	out := append([]byte{}, value...)
	v.fail(closer.Close())
	return out, true
}

// Scan implements machine.Reader.
func (v *view) Scan(start, end []byte, fn func(key, value []byte) bool) {
	o := pebble.IterOptions{LowerBound: append([]byte{spaceUser}, start...), UpperBound: []byte{spaceUser + 1}}
	if end != nil {
		o.UpperBound = append([]byte{spaceUser}, end...)
	}
	it, err := v.from.NewIter(&o)
	if err != nil {
		v.fail(err)
		return
	}
	for ok := it.First(); ok && fn(it.Key()[1:], it.Value()); ok = it.Next() {
	}
	v.fail(errors.Join(it.Error(), it.Close()))
}

// AsOf implements machine.View.
func (v *view) AsOf() int64 {
	raw, closer, err := v.from.Get([]byte{spaceMeta})
	if err != nil {
		v.fail(err)
		return 0
	}
	var m meta
	v.fail(errors.Join(m.decode(raw), closer.Close()))
	return m.stamp
}

// fail keeps the first error for Close. A reader has no way to return one, and
// a store that cannot be read has told its owner already.
func (v *view) fail(err error) {
	if err != nil && !errors.Is(err, pebble.ErrNotFound) && v.err == nil {
		v.err = fmt.Errorf("replica: read: %w", err)
		v.gen.store.fail.Report(v.err)
	}
}

// Close implements machine.View.
func (v *view) Close() error {
	if v.snap == nil {
		return v.err
	}
	err := errors.Join(v.err, v.snap.Close(), v.gen.release())
	v.snap = nil
	return err
}
