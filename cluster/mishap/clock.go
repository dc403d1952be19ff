package mishap

import (
	"time"

	"qianma/cluster/clock"
)

// Clock is the process's clock: the machine's, unless an order makes it wrong.
// Waits and what has elapsed are never wrong, as a machine's monotonic clock is
// not set. A duration between two readings of Now does show a jump that fell
// between them, which the machine's own readings would not: what holds under this
// holds under those.
func (k *Kit) Clock() clock.Clock {
	if k == nil {
		return clock.Real
	}
	return wrongClock{k}
}

type wrongClock struct{ k *Kit }

func (c wrongClock) Now() time.Time {
	now := clock.Real.Now()
	if f := c.k.force.Load(); f != nil {
		return now.Add(f.skew(now))
	}
	return now
}

func (c wrongClock) Elapsed() time.Duration { return clock.Real.Elapsed() }

func (c wrongClock) After(d time.Duration) <-chan time.Time { return clock.Real.After(d) }

// skew is how far the clock is ahead.
func (f *force) skew(now time.Time) (d time.Duration) {
	for _, o := range f.orders {
		switch o.Kind {
		case ClockJump:
			d += time.Duration(o.Jump)
		case ClockDrift:
			d += time.Duration(o.Rate * float64(now.Sub(o.At)))
		}
	}
	return d
}
