package replica

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Goal: another stands for a leader that hangs once a majority has not heard
// from it, without waiting for raft's own timeouts. Method: the followers' are an
// hour, and the leader is cut off from both, which agree.
func TestAHungLeaderIsFollowedSoon(t *testing.T) {
	w := three(t, nil)
	lead := w.leader()
	var others []string
	for _, n := range w.up() {
		if n != lead {
			others = append(others, n.name)
			patient(t, n)
		}
	}
	w.split([]string{lead.name}, others)
	until(t, "another stands", func() bool { // and is elected, unless both stood and split the vote
		for _, name := range others {
			if g, err := w.node(name).group(0); err == nil && g.raft().State() != raft.Follower {
				return true
			}
		}
		return false
	})
}

// patient has raft itself never call an election.
func patient(t *testing.T, n *node) {
	t.Helper()
	g, err := n.group(0)
	if err != nil {
		t.Fatal(err)
	}
	c := g.raft().ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = time.Hour, time.Hour
	if err := g.raft().ReloadConfig(c); err != nil {
		t.Fatal(err)
	}
}

// Goal: a follower that alone does not hear the leader does not depose it.
// Method: silences so long that a busy machine is no reason for the other's.
func TestAFollowerAloneDoesNotCallItsLeaderHung(t *testing.T) {
	w := three(t, func(c *Config) { c.Tuning.Heartbeat = 4 * time.Second })
	lead, last := w.leader(), w.follower()
	g, err := last.group(0)
	if err != nil {
		t.Fatal(err)
	}
	ra := g.raft()
	_, id := ra.LeaderWithID()
	silent := func() bool { return time.Since(ra.LastContact()) >= g.r.cfg.Tuning.Heartbeat }
	w.split([]string{last.name}, []string{lead.name})
	until(t, "silence", silent)
	for range 20 {
		if g.hung(ra, id) {
			t.Fatal("one member's silence was called a majority's")
		}
	}
	if now := w.leader(); now != lead {
		t.Errorf("%s leads, %s led", now.name, lead.name)
	}
}
