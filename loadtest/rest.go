package loadtest

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"qianma/loadtest/cost"
)

// Between two tries of a search the system gets time for what the last one left
// behind (compaction, checkpoints, what is owed to the other carrier): else a
// rate is judged by the overload that was tried before it. Ours and the peers
// get the same, and both may use it up: the wait is bounded.
const (
	restMost  = 30 * time.Second
	restLook  = time.Second
	idleShare = .2 // of the machine; an idle province of 25 processes uses up to .14 of two cores
)

// rest waits until the system's own processes have been nearly idle for one
// look, and returns a note for the next try if they never were. What others load
// too is never idle.
func rest(ctx context.Context, system System, shared bool) (note string, err error) {
	if system.Processes == nil || shared {
		return "", nil
	}
	meter, err := cost.Begin(system.Processes)
	if err != nil {
		return "", fmt.Errorf("cannot meter the processes: %w", err)
	}
	return untilIdle(ctx, int(restMost/restLook), func() (share float64, err error) {
		before := used(meter)
		start := time.Now()
		sleep(ctx, restLook)
		if err := meter.Sample(); err != nil {
			return 0, err
		}
		return (used(meter) - before) / time.Since(start).Seconds() / float64(runtime.NumCPU()), nil
	})
}

func used(m *cost.Meter) (seconds float64) {
	for _, u := range m.Usage() {
		seconds += u.CPU
	}
	return seconds
}

// untilIdle looks until the share is small, but not for ever.
func untilIdle(ctx context.Context, looks int, look func() (share float64, err error)) (note string, err error) {
	var share float64
	for range looks {
		if share, err = look(); err != nil || share < idleShare || ctx.Err() != nil {
			return "", err
		}
	}
	return fmt.Sprintf("the try before had left the system with work for more than %v: it still used %.0f%% of the machine when this run began", restMost, 100*share), nil
}
