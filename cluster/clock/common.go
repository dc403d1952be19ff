package clock

import (
	"slices"
	"sync/atomic"
	"time"
)

// Common is the time that a process and its peers agree on: this machine's
// clock while most of the others' confirm it, theirs when they do not. A clock
// that was set wrong makes honest swabs come from the future and a restriction
// begin tomorrow, and no process can tell from its own clock.
//
// What runs evenly is the monotonic clock, which nobody sets. Readings that
// leave it between two comparisons are not believed until the peers confirm
// them, so a jump harms nobody even for the moment until it is noticed.
//
// Fewer than PeersMin of them cannot tell who is wrong, and change nothing. Waits
// are this machine's. It is safe for concurrent use.
type Common struct {
	machine Clock
	run     func() time.Duration // the machine's Elapsed; a test puts a stop in between
	agreed  atomic.Pointer[agreement]
}

// agreement is what time it was when a majority last agreed.
type agreement struct {
	wall time.Time     // without a monotonic reading: it is compared by the wall
	run  time.Duration // then
	off  time.Duration // of the machine's clock from the majority's; 0: close enough
}

// How far two clocks that are kept in time may be apart, with what a busy
// machine adds to the comparison; and how far one may move from even running
// between two comparisons.
const (
	apart = 250 * time.Millisecond
	step  = 50 * time.Millisecond
)

// PeersMin is how many others it takes to say who is wrong.
const PeersMin = 2

// NewCommon returns a clock that is the machine's until peers were heard.
func NewCommon(machine Clock) *Common {
	return &Common{machine: machine, run: machine.Elapsed}
}

// Now is the common time.
func (c *Common) Now() time.Time {
	now := c.machine.Now()
	even, ok := c.even(c.run())
	if !ok {
		return now
	}
	if d := now.Sub(even); d > step || d < -step {
		return even
	}
	return now
}

// even is the last agreement, gone on with by the monotonic clock; false before
// there was one.
func (c *Common) even(run time.Duration) (time.Time, bool) {
	a := c.agreed.Load()
	if a == nil {
		return time.Time{}, false
	}
	return a.wall.Add(run - a.run), true
}

// Elapsed is the machine's: what peers say of the time does not change how much
// of it has passed.
func (c *Common) Elapsed() time.Duration { return c.run() }

// After is the machine's.
func (c *Common) After(d time.Duration) <-chan time.Time { return c.machine.After(d) }

// Machine is what the machine's own clock shows: this is what peers are told,
// so that a vote is one of clocks and not of opinions.
func (c *Common) Machine() time.Time { return c.machine.Now() }

// Hear takes in how far the clocks of peers are ahead of this machine's, as
// compared now. It returns how far this one is off, 0 when it is not.
func (c *Common) Hear(ahead []time.Duration) (off time.Duration) {
	if len(ahead) < PeersMin {
		return c.Off()
	}
	run := c.run()
	wall, m := c.machine.Now().Round(0), middle(ahead)
	if c.run()-run > step {
		return c.Off() // stopped in between: the two readings are not of one moment
	}
	common := wall.Add(m)
	if m.Abs() > apart {
		wall, off = common, -m
	} else if even, ok := c.even(run); ok && even.Sub(common).Abs() < m.Abs() {
		wall = even // one that drifts away is not followed while it is still near
	}
	c.agreed.Store(&agreement{wall, run, off})
	return off
}

// Off is how far this machine's clock was off at the last comparison.
func (c *Common) Off() time.Duration {
	if a := c.agreed.Load(); a != nil {
		return a.off
	}
	return 0
}

// middle is the median of all clocks, our own among them; of the two in the
// middle of an even number, the one nearer to ours.
func middle(ahead []time.Duration) time.Duration {
	all := slices.Sorted(slices.Values(append([]time.Duration{0}, ahead...)))
	low, high := all[(len(all)-1)/2], all[len(all)/2]
	if low.Abs() < high.Abs() {
		return low
	}
	return high
}
