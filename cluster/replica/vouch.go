package replica

import (
	"context"
	"sync"
	"time"

	"qianma/cluster/fact"
)

// The pace and patience of vouching: one question to the leader serves whoever
// asks within the pace, and nobody is kept from the marks for longer than the
// patience.
const (
	vouchPace = 250 * time.Millisecond
	vouchWait = 250 * time.Millisecond
)

// vouching is how far this replica's own knowledge reaches. It is asked for
// and never kept up: a group that nobody follows costs nothing.
type vouching struct {
	mu      sync.Mutex    // protects the fields below
	at      time.Time     // all that was acknowledged before is in the state; zero: never known
	running chan struct{} // closed at the end of the round under way; nil: none is
}

// reach is the moment up to which this replica holds all that was acknowledged
// anywhere in its group, by this process's own unstopped clock.
func (v *vouching) reach() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.at
}

// catalog says how far this replica holds each origin, and for which moment it
// vouches. A leader knows after it has asked its followers, a follower after it
// has asked its leader and applied what that one had; one that lags or is cut
// off tells its marks, and an older moment or none.
func (g *group) catalog(ctx context.Context) fact.Catalog {
	g.vouch(ctx)
	at := g.vouching.reach() // before the marks: they only grow
	marks := g.marks()
	if at.IsZero() {
		return fact.Catalog{Marks: marks}
	}
	return fact.Catalog{Marks: marks, Vouched: true, Age: time.Since(at)}
}

// vouch waits a little for a round that begins now or is under way, unless the
// last one is young. A round that takes longer serves the next question.
func (g *group) vouch(ctx context.Context) {
	done := g.vouchRound()
	if done == nil {
		return
	}
	t := time.NewTimer(vouchWait)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	case <-ctx.Done():
	case <-g.ctx.Done():
	}
}

// vouchRound is the end of a round, or nil when none is called for.
func (g *group) vouchRound() <-chan struct{} {
	v := &g.vouching
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.running != nil {
		return v.running
	}
	asked := time.Now()
	if asked.Sub(v.at) < vouchPace {
		return nil
	}
	done := make(chan struct{})
	if !g.spawn(func() { g.learn(asked, done) }) {
		return nil
	}
	v.running = done
	return done
}

// learn is one round.
func (g *group) learn(asked time.Time, done chan struct{}) {
	ctx, cancel := context.WithTimeout(g.ctx, g.r.cfg.Tuning.RPCTimeout)
	defer cancel()
	err := g.catchUp(ctx)
	v := &g.vouching
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil {
		v.at = asked
	}
	v.running = nil
	close(done)
}
