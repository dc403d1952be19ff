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
// that from never, with seconds between.
func TestLeaderlessWritesAreRefusedSoon(t *testing.T) {
	w := three(t, func(c *Config) { c.Tuning.Leaderless = 6 * time.Second })
	last := w.follower()
	last.put(t, toyCommand(1, "x"))
	var others []string
	for _, n := range w.up() {
		if n != last {
			others = append(others, n.name)
		}
	}
	w.split([]string{last.name}, others)
	refused := func(most time.Duration) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
		defer cancel()
		began := time.Now()
		_, err := last.Propose(ctx, 0, machine.Proposal{Key: [16]byte{1}, Commands: [][]byte{toyCommand(2, "x")}})
		if !problem.Is(err, problem.Unavailable) && !problem.Is(err, problem.Unknown) {
			t.Errorf("a write that nobody can take: %v", err)
		}
		if took := time.Since(began); took > most {
			t.Errorf("refused after %s", took)
		}
	}
	refused(25 * time.Second) // who led is called for until it is known to be gone
	refused(4 * time.Second)
	w.split(others[:1], others[1:]) // nobody has a majority
	last.shut()
	last = w.start(last.name)
	refused(4 * time.Second)
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
// does that waits for the other carrier's word first.
func TestLeadersThatTakeNothingAreNoLeaders(t *testing.T) {
	w := three(t, func(c *Config) { c.Tuning.Leaderless, c.Calls = time.Second, notYet{c.Calls} })
	f := w.follower()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	began := time.Now()
	if _, err := f.Propose(ctx, 0, machine.Proposal{Key: [16]byte{1}, Commands: [][]byte{toyCommand(1, "x")}}); !problem.Is(err, problem.Unavailable) {
		t.Errorf("%v, want unavailable", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("refused after %s", took)
	}
}
