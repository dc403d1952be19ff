package node

import (
	"testing"
	"time"

	"qianma/cluster/replica"
	"qianma/cluster/topology"
	"qianma/cluster/web"
)

// Goal: nobody gives up leading before its followers give it up, but where its
// word is taken for how old a code may be. Method: what replica is opened with.
func TestWhoWritesLeadsForAsLongAsItsFollowersWait(t *testing.T) {
	lease := func(subsystem string) time.Duration {
		n := Node{Base: &Base{Config: Config{Subsystem: subsystem}, Topology: &topology.Topology{}, Web: &web.Server{}}}
		return n.replicaConfig(nil).Tuning.Lease
	}
	for _, subsystem := range []string{"nucleic", "vaccine"} {
		if got := lease(subsystem); got != replica.Heartbeat {
			t.Errorf("%s: a leader steps down after %s, its followers stand after %s", subsystem, got, replica.Heartbeat)
		}
	}
	if got := lease("display"); got == replica.Heartbeat {
		t.Errorf("display: a leader that is cut off counts as in touch for %s, as long as its followers wait", got)
	}
}
