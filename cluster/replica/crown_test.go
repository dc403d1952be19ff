package replica

import (
	"context"
	"testing"
)

// Goal: a lead that is over leaves ready as it is, or a leader that raft has
// elected again in the same term would never be ready. Method: the end of the one
// lead is late, behind the next one's.
func TestALateLeadLeavesTheNextOneReady(t *testing.T) {
	g := &group{}
	first, stop := context.WithCancel(t.Context())
	g.depose(stop)
	if !g.crown(t.Context(), 7) || g.crown(first, 7) || g.ready.Load() != 7 {
		t.Fatalf("ready in term %d, want 7", g.ready.Load())
	}
}

// asked is a context that has something happen when it has said whether it is over.
type asked struct {
	context.Context
	then func()
}

func (a asked) Err() error {
	err := a.Context.Err()
	a.then()
	return err
}

// Goal: whoever was deposed is not ready afterwards. Method: it is deposed between
// its look at whether it was and its becoming ready, or when that can be had no
// earlier.
func TestNobodyIsReadyWhoWasDeposed(t *testing.T) {
	g := &group{}
	ctx, stop := context.WithCancel(t.Context())
	g.crown(asked{ctx, func() {
		if g.mu.TryLock() { // nothing keeps the watch out
			g.mu.Unlock()
			g.depose(stop)
		}
	}}, 7)
	if ctx.Err() == nil {
		g.depose(stop)
	}
	if g.ready.Load() != 0 {
		t.Fatal("deposed, and ready")
	}
}
