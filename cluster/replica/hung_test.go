package replica

import (
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Goal: another stands for a leader that hangs once a majority has not heard
// from it, without waiting for raft's own timeouts. Method: the followers' are an
// hour, and the leader is cut off from both, which agree. An election that a busy
// machine began right before the cut leaves them without a leader to desert, and
// without anything that this is about: then another carrier is tried.
func TestAHungLeaderIsFollowedSoon(t *testing.T) {
	for range 10 {
		w := three(t, func(c *Config) { c.Tuning.Heartbeat = 2 * time.Second })
		lead := w.leader()
		var rest []*raft.Raft
		for _, name := range w.besides(lead) {
			rest = append(rest, raftOf(w.node(name)))
			patient(t, rest[len(rest)-1])
		}
		w.split([]string{lead.name}, w.besides(lead))
		stands := func(ra *raft.Raft) bool { return ra.State() != raft.Follower }
		believes := func(ra *raft.Raft) bool {
			_, id := ra.LeaderWithID()
			return id == lead.group0().self || stands(ra) // who stands has let go of its leader before
		}
		followed := false
		until(t, "another stands", func() bool { // and is elected, unless both stood and split the vote
			followed = slices.ContainsFunc(rest, stands)
			return followed || !believes(rest[0]) || !believes(rest[1])
		})
		if followed {
			return
		}
		w.stop()
	}
	t.Fatal("no carrier had two followers of the leader that was cut off")
}

// patient has raft itself never call an election.
func patient(t *testing.T, ra *raft.Raft) {
	t.Helper()
	c := ra.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = time.Hour, time.Hour
	if err := ra.ReloadConfig(c); err != nil {
		t.Fatal(err)
	}
}

// Goal: a follower that alone does not hear the leader does not depose it. Method:
// it is asked, and seen not to stand, while the other follower has heard from the
// leader at every moment; where a busy machine kept that one from hearing it,
// another carrier is tried.
func TestAFollowerAloneDoesNotCallItsLeaderHung(t *testing.T) {
	for range 10 {
		if aloneInSilence(t) {
			return
		}
	}
	t.Fatal("no carrier had a follower that heard its leader all the time")
}

// aloneInSilence is false when one member's silence was not the only one.
func aloneInSilence(t *testing.T) bool {
	w := three(t, func(c *Config) { c.Tuning.Heartbeat = 4 * time.Second })
	defer w.stop()
	lead := w.leader()
	last, other := w.node(w.besides(lead)[0]), w.node(w.besides(lead)[1])
	g, ra, hears := last.group0(), raftOf(last), raftOf(other)
	until(t, "both followers to be members", func() bool { return g.isMember() && other.group0().isMember() })
	silence := g.r.cfg.Tuning.Heartbeat
	patient(t, ra)
	stood := make(chan raft.Observation, 1)
	ra.RegisterObserver(raft.NewObserver(stood, false, func(o *raft.Observation) bool { return o.Data == raft.Candidate }))
	w.split([]string{last.name}, []string{lead.name})
	heard, asked := hears.LastContact(), 0
	for asked < 20 {
		hung := false
		if time.Since(ra.LastContact()) >= silence {
			hung, asked = g.hung(ra, lead.group0().self), asked+1
		}
		if time.Since(heard) >= silence/2 {
			return false
		}
		if hung || len(stood) > 0 {
			t.Fatal("one member's silence was called a majority's")
		}
		heard = hears.LastContact()
		pause(t.Context(), 5*time.Millisecond)
	}
	return true
}

// Goal: who is in no group yet, and has never heard a leader, is no majority by
// itself. Method: one of three starts alone, and is asked.
func TestWhoIsInNoGroupCallsNobodyHung(t *testing.T) {
	w := newWorld(t, abc...)
	w.start(abc[1])
	n := w.node(abc[1])
	if n.group0().hung(raftOf(n), serverID(abc[0], "another")) {
		t.Fatal("a process that is in no group called a leader hung")
	}
}
