package replica

import (
	"context"
	"sync"
	"time"
)

// Heard is when this process last knew that it held what the group's majority
// had committed: how old what a non-linearizable View shows may be. The zero
// time means never since it started: a state that was left by a crash lacks
// what only its log has, and a word from the leader does not fill it.
func (r *Replica) Heard(shard int) time.Time {
	g, err := r.group(shard)
	if err != nil {
		return time.Time{}
	}
	return g.touch.heard(time.Now(), g.contact())
}

// contact is when this replica last knew that it follows, or leads, a majority.
func (g *group) contact() time.Time {
	ra := g.raft()
	if ra == nil {
		return time.Time{}
	}
	if _, self := g.leader(); self {
		return time.Now() // a leader without a majority steps down within its lease
	}
	return ra.LastContact()
}

// outOfTouch is the silence after which a replica may have missed something and
// has to catch up before it counts what it hears.
const outOfTouch = time.Second

// touch tells contact from knowledge: whoever was away, by its own fault or
// another's, hears its leader again before it has what it missed.
type touch struct {
	mu     sync.Mutex // protects the fields below
	level  bool       // holds, but for what is under way, what the leader has committed
	at     time.Time  // last in touch while level
	looked time.Time
}

// heard is how far knowledge reaches.
func (t *touch) heard(now, contact time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.level || now.Sub(t.looked) > outOfTouch { // nobody has looked: this process was stopped
		return t.at
	}
	return contact
}

// look notes the contact, and reports whether catching up is called for.
func (t *touch) look(now, contact time.Time) (behind bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(contact) > outOfTouch || !t.looked.IsZero() && now.Sub(t.looked) > outOfTouch {
		t.level = false
	}
	t.looked = now
	if t.level {
		t.at = contact
	}
	return !t.level
}

// caughtUp notes that all was held that had been committed at a moment.
func (t *touch) caughtUp(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.level, t.at, t.looked = true, at, time.Now()
}

// listen keeps touch, at keep's pace. Catching up takes as long as a majority
// lets it, and holds nothing else up.
func (g *group) listen() {
	asked := time.Now()
	if !g.touch.look(asked, g.contact()) || !g.catching.CompareAndSwap(false, true) {
		return
	}
	g.wait.Go(func() {
		defer g.catching.Store(false)
		ctx, cancel := context.WithTimeout(g.ctx, g.r.cfg.Tuning.RPCTimeout)
		defer cancel()
		if g.catchUp(ctx) == nil {
			g.touch.caughtUp(asked)
		}
	})
}
