package replica

import (
	"context"
	"sync"
	"testing"
	"time"

	"qianma/cluster/machine"
)

// Goal: a leader that hangs (it is stopped, not dead) costs writers the time of
// an election, not the time of a call. Method: calls to it never return, and a
// call may last longer than this test; the writes that were sent to it get
// through by the next leader.
func TestAHungLeaderIsDeserted(t *testing.T) {
	t.Parallel()
	w := three(t, func(c *Config) { c.Tuning.RPCTimeout = 5 * time.Minute })
	w.hang = true
	lead := w.leader()
	f := w.node(w.besides(lead)[0])
	f.put(t, toyCommand(1, "x"))
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	w.kill(lead)
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range 8 {
		wg.Go(func() {
			key := [16]byte{byte(i), 1}
			if _, err := f.Propose(ctx, 0, machine.Proposal{Key: key, Body: key, Commands: [][]byte{toyCommand(uint64(i)+2, "x")}}); err != nil {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
}
