// Package clock is the floor's notion of time, so that a test can own it.
//
// State machines never read a clock: whoever proposes stamps the time. Code
// around them takes a Clock and asks it, never the time package.
package clock

import (
	"sync"
	"time"
)

// Clock tells the time and waits. Implementations are safe for concurrent use.
type Clock interface {
	Now() time.Time
	// After behaves as time.After.
	After(d time.Duration) <-chan time.Time
}

// Real is the machine's clock.
var Real Clock = real{}

type real struct{}

func (real) Now() time.Time                         { return time.Now() }
func (real) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Manual is a clock that a test moves by hand.
type Manual struct {
	mu      sync.Mutex
	now     time.Time
	waiters []waiter
}

type waiter struct {
	at time.Time
	c  chan time.Time
}

// NewManual returns a clock that stands at now until it is moved.
func NewManual(now time.Time) *Manual { return &Manual{now: now} }

// Now returns where the clock stands.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// After fires once the clock has been advanced by d.
func (m *Manual) After(d time.Duration) <-chan time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := make(chan time.Time, 1)
	if d <= 0 {
		c <- m.now
		return c
	}
	m.waiters = append(m.waiters, waiter{m.now.Add(d), c})
	return c
}

// Advance moves the clock and fires every wait that has come due.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
	left := m.waiters[:0]
	for _, w := range m.waiters {
		if w.at.After(m.now) {
			left = append(left, w)
			continue
		}
		w.c <- m.now
	}
	m.waiters = left
}

// Waiting reports how many waits have not come due yet, so that a test can
// advance only once the code under test has begun to wait.
func (m *Manual) Waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.waiters)
}
