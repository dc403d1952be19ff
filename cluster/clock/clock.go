// Package clock is the floor's notion of time, so that a test can own it.
//
// State machines never read a clock: whoever proposes stamps the time. Code
// around them takes a Clock and asks it, never the time package.
//
// There are two questions. What time it is, for stamps and ages that people or
// other processes see, is Now: it may be set, there and back. How long something
// has taken or has still to wait is Elapsed: it only ever goes on.
package clock

import (
	"sync"
	"time"
)

// Clock tells the time and waits. Implementations are safe for concurrent use.
type Clock interface {
	Now() time.Time
	// Elapsed is how long the process has run, by a clock that nobody sets: a
	// deadline or an age kept by Now lasts for hours when the time is put back.
	// It is above zero, so that a zero can stand for never.
	Elapsed() time.Duration
	// After behaves as time.After.
	After(d time.Duration) <-chan time.Time
}

// Real is the machine's clock.
var Real Clock = real{}

type real struct{}

var began = time.Now()

func (real) Now() time.Time                         { return time.Now() }
func (real) Elapsed() time.Duration                 { return time.Since(began) + 1 }
func (real) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Manual is a clock that a test moves by hand.
type Manual struct {
	mu      sync.Mutex
	now     time.Time
	elapsed time.Duration
	waiters []waiter
}

type waiter struct {
	at time.Duration // of Elapsed: a wait is not shortened by setting the clock
	c  chan time.Time
}

// NewManual returns a clock that stands at now until it is moved.
func NewManual(now time.Time) *Manual { return &Manual{now: now, elapsed: 1} }

// Now returns where the clock stands.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Elapsed is by how much the clock has been advanced.
func (m *Manual) Elapsed() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.elapsed
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
	m.waiters = append(m.waiters, waiter{m.elapsed + d, c})
	return c
}

// Advance moves the clock and fires every wait that has come due.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now, m.elapsed = m.now.Add(d), m.elapsed+d
	left := m.waiters[:0]
	for _, w := range m.waiters {
		if w.at > m.elapsed {
			left = append(left, w)
			continue
		}
		w.c <- m.now
	}
	m.waiters = left
}

// Set puts the clock to another time, as somebody at the machine does: no time
// passes by it.
func (m *Manual) Set(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = now
}

// Waiting reports how many waits have not come due yet, so that a test can
// advance only once the code under test has begun to wait.
func (m *Manual) Waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.waiters)
}
