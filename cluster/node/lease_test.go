package node

import (
	"testing"

	"qianma/cluster/replica"
)

// Goal: nobody gives up leading before its followers give it up, but where its
// word is taken for how old a code may be.
func TestWhoWritesLeadsForAsLongAsItsFollowersWait(t *testing.T) {
	for _, subsystem := range []string{"nucleic", "vaccine"} {
		if got := lease(subsystem); got != replica.Heartbeat {
			t.Errorf("%s: a leader steps down after %s, its followers stand after %s", subsystem, got, replica.Heartbeat)
		}
	}
	if got := lease("display"); got != 0 {
		t.Errorf("display: a leader cut off counts as in touch for %s; want replica's half of what its followers wait", got)
	}
}
