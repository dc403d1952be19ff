package replica

import (
	"context"
	"testing"
	"time"

	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

// Goal: a replica that knows of nobody who leads refuses a write soon and
// clearly, so that its caller goes to another carrier, and takes it again when
// somebody does. Method: one of three is cut off; a call may wait for longer
// than this test allows, and the bounds tell at once from after Leaderless, and
// that from never, with so many seconds between that a busy machine blurs nothing.
func TestLeaderlessWritesAreRefusedSoon(t *testing.T) {
	leaderless := 10 * time.Second
	w := three(t, func(c *Config) { c.Tuning.Leaderless = leaderless })
	last := w.follower()
	last.put(t, toyCommand(1, "x"))
	others := w.besides(last)
	w.split([]string{last.name}, others)
	refused := func(most time.Duration) {
		t.Helper()
		began := time.Now()
		_, err := last.Propose(ctxFor(t), 0, machine.Proposal{Key: [16]byte{1}, Commands: [][]byte{toyCommand(2, "x")}})
		if !problem.Is(err, problem.Unavailable) && !problem.Is(err, problem.Unknown) {
			t.Errorf("a write that nobody can take: %v", err)
		}
		if took := time.Since(began); took > most {
			t.Errorf("refused after %s", took)
		}
	}
	refused(patience) // who led is called for until it is known to be gone
	refused(leaderless * 4 / 5)
	w.split(others[:1], others[1:]) // nobody has a majority
	last.shut()
	leaderless = patience - time.Second
	last = w.start(last.name)
	refused(leaderless * 4 / 5)
	w.heal()
	until(t, "the leader is known again", func() bool { name, _ := last.Leader(0); return name != "" })
	last.put(t, toyCommand(3, "x"))
}

// notYet are calls to a leader that is elected and takes no write yet.
type notYet struct{ Calls }

func (c notYet) Call(ctx context.Context, to, method string, req []byte) ([]byte, error) {
	if method == methodPropose {
		return nil, errNotLeader
	}
	return c.Calls.Call(ctx, to, method, req)
}

// Goal: the same where somebody is said to lead and refuses every write, as one
// does that waits for the other carrier's word first. A write is only taken if
// whom it was given to has come to lead; then another one is asked.
func TestLeadersThatTakeNothingAreNoLeaders(t *testing.T) {
	w := three(t, func(c *Config) { c.Tuning.Leaderless, c.Calls = time.Second, notYet{c.Calls} })
	until(t, "a follower to be asked", func() bool {
		began := time.Now()
		_, err := w.follower().Propose(ctxFor(t), 0, machine.Proposal{Key: newKey(), Commands: [][]byte{toyCommand(1, "x")}})
		if took := time.Since(began); took > patience*4/5 {
			t.Errorf("refused after %s", took)
		}
		if err != nil && !problem.Is(err, problem.Unavailable) {
			t.Errorf("%v, want unavailable", err)
		}
		return err != nil
	})
}
