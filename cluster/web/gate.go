package web

import (
	"container/list"
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"qianma/cluster/clock"
	"qianma/cluster/problem"
)

// Class says what a request is worth when there is not room for all.
type Class uint8

// The classes.
const (
	// Normal is every request that is neither of the others.
	Normal Class = iota
	// Vital is never shed for the sake of others: binding a swab to a person,
	// showing a code. It waits for a place as long as its caller does.
	Vital
	// Optional is shed first.
	Optional
	// Operations is what those ask who look after the province: few, and the more
	// needed the busier it is. It is shed for nobody and waits behind nobody.
	Operations
	numClasses
)

// String is the class as metrics show it.
func (c Class) String() string { return [...]string{"normal", "vital", "optional", "operations"}[c] }

// Limit bounds one class.
type Limit struct {
	Concurrent int           // requests at work at a time
	Queue      int           // requests that wait for a place
	Wait       time.Duration // how long one waits before it is shed
}

// limits are for each processor that the process may use. What is at work is
// bounded because everything a process has to do shares them: a replica with
// ten thousand requests at work gets round to its heartbeat so late that it is
// taken for dead. A request that only waits for the other carrier needs no place
// (Options.Rest).
var limits = [numClasses]Limit{
	// Nobody waits long for a place: a caller that is told so at once can go to
	// another process.
	Normal: {Concurrent: 512, Queue: 256, Wait: 8 * time.Millisecond},
	// Longer than a phone or a booth waits for its answer.
	Vital:      {Concurrent: 512, Queue: 16384, Wait: 15 * time.Second},
	Optional:   {Concurrent: 64, Queue: 64, Wait: 5 * time.Millisecond},
	Operations: {Concurrent: 32, Queue: 256, Wait: 5 * time.Second},
}

// Bound sets how many requests of a class may be at work for each processor,
// where the subsystem knows better. It is called before Serve.
func (s *Server) Bound(c Class, perProcessor int) {
	s.gates[c].limit.Concurrent = perProcessor * runtime.GOMAXPROCS(0)
}

func (c *Config) limit(class Class) Limit {
	if l, ok := c.Limits[class]; ok {
		return l
	}
	l := limits[class]
	l.Concurrent *= runtime.GOMAXPROCS(0)
	return l
}

const (
	// inTurn is how long the first may have waited and still be served first:
	// less than phones and booths wait. Beyond it the newest is, whose caller is
	// still there; served in turn, everybody would get an answer just after
	// giving up.
	inTurn = 4 * time.Second
	// lateAfter is how long a vital request may wait before others are turned away.
	lateAfter = 100 * time.Millisecond
)

// gate lets a bounded number of requests of one class through.
type gate struct {
	limit Limit
	clock clock.Clock

	mu      sync.Mutex
	taken   int
	waiting list.List // of *waiter, the oldest in front
}

// waiter is a request without a place.
type waiter struct {
	since time.Duration // as elapsed
	come  chan struct{} // closed once it has one
}

func newGate(l Limit, c clock.Clock) *gate {
	l.Concurrent = max(1, l.Concurrent)
	return &gate{limit: l, clock: c}
}

// enter takes a place, or says that there is none.
func (g *gate) enter(ctx context.Context) bool {
	g.mu.Lock()
	if g.taken < g.limit.Concurrent {
		g.taken++
		g.mu.Unlock()
		return true
	}
	if g.waiting.Len() >= g.limit.Queue {
		g.mu.Unlock()
		return false
	}
	w := &waiter{since: g.clock.Elapsed(), come: make(chan struct{})}
	at := g.waiting.PushBack(w)
	g.mu.Unlock()
	select {
	case <-w.come:
		return true
	case <-g.clock.After(g.limit.Wait):
	case <-ctx.Done():
	}
	return !g.giveUp(at, w)
}

// giveUp takes a waiter out; false when it was given a place in this very moment.
func (g *gate) giveUp(at *list.Element, w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-w.come:
		return false
	default:
		g.waiting.Remove(at)
		return true
	}
}

// leave hands a place on, or back when nobody waits for it.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := g.waiting.Front()
	if next == nil {
		g.taken--
		return
	}
	if g.clock.Elapsed()-next.Value.(*waiter).since > inTurn {
		next = g.waiting.Back()
	}
	close(g.waiting.Remove(next).(*waiter).come)
}

// late reports whether somebody has waited for long.
func (g *gate) late() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := g.waiting.Front()
	return first != nil && g.clock.Elapsed()-first.Value.(*waiter).since > lateAfter
}

// full is how many are at work, and how many wait.
func (g *gate) full() (taken, waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.taken, g.waiting.Len()
}

// place is what a request that was let through holds until it is done, or has
// nothing left to do but wait.
type place struct {
	gate *gate
	left atomic.Bool
}

func (p *place) leave() {
	if p.gate != nil && p.left.CompareAndSwap(false, true) {
		p.gate.leave()
	}
}

// busy is what a shed request is told. The pause grows with the class's
// distance from the vital, so that those who may come back first do.
func busy(c Class) *problem.Problem {
	pause := time.Second
	if c == Optional {
		pause = 3 * time.Second
	}
	return problem.New(problem.Overloaded, "more is being asked than can be answered right now", "wait as long as Retry-After says, then repeat").After(pause)
}
