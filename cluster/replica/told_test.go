package replica

import (
	"context"
	"sync/atomic"
	"testing"

	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

// thenCrowded loses the first write on its way back, and finds the leader
// crowded afterwards.
type thenCrowded struct {
	Calls
	tries *atomic.Int64
}

func (c thenCrowded) Call(ctx context.Context, to, method string, req []byte) ([]byte, error) {
	switch {
	case method != methodPropose:
		return c.Calls.Call(ctx, to, method, req)
	case c.tries.Add(1) == 1:
		return nil, outcomeUnknown(errLost)
	}
	return encodeVerdicts([]verdict{{err: errCrowded}}), nil
}

// Goal: a write of which one try was lost is never called undone because a
// later try was: a caller who believes that sends it as another one, and finds
// it twice. Method: the answer to the first try is lost, the second is refused.
func TestOnceLostNeverUndone(t *testing.T) {
	var tries atomic.Int64
	w := three(t, func(c *Config) { c.Calls = thenCrowded{c.Calls, &tries} })
	until(t, "a follower to be asked", func() bool { // and to stay one
		tries.Store(0)
		_, err := w.follower().Propose(ctxFor(t), 0, machine.Proposal{Key: newKey(), Commands: [][]byte{toyCommand(1, "x")}})
		if err == nil {
			return false // it has come to lead, and needed nobody
		}
		if !problem.Is(err, problem.Unknown) || tries.Load() < 2 {
			t.Errorf("after %d tries: %v, want that the outcome is unknown", tries.Load(), err)
		}
		return true
	})
}

// Goal: the same at a leader that lost its lead with the write under way, and
// has to send back whoever sent it.
func TestOnceLostNeverRefusedAsForwarded(t *testing.T) {
	g, err := three(t, nil).follower().group(0)
	if err != nil {
		t.Fatal(err)
	}
	for maybe, want := range map[bool]problem.Code{false: problem.Unavailable, true: problem.Unknown} {
		c := &call{here: true, maybe: maybe, answer: make(chan verdict, 1)}
		if kept := g.refuseForwarded([]*call{c}); len(kept) != 0 {
			t.Fatal("a forwarded call is sent on")
		}
		if v := <-c.answer; !problem.Is(v.err, want) {
			t.Errorf("an earlier try was lost: %v; told %v, want %s", maybe, v.err, want)
		}
	}
}
