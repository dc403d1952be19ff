package web

import (
	"context"
	"runtime/metrics"
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
	// showing a code. Only memory and connections bound it.
	Vital
	// Optional is shed first.
	Optional
	numClasses
)

// String is the class as metrics show it.
func (c Class) String() string { return [...]string{"normal", "vital", "optional"}[c] }

// Limit bounds one class.
type Limit struct {
	Concurrent int           // requests at work at a time
	Queue      int           // requests that wait for a place
	Wait       time.Duration // how long one waits before it is shed
}

var limits = [numClasses]Limit{
	// Writes wait for their commit here, some for the other carrier: that
	// takes places, not processor time. Nobody waits long for a place: a
	// caller that is told so at once can go to another process.
	Normal:   {Concurrent: 2048, Queue: 256, Wait: 8 * time.Millisecond},
	Vital:    {Concurrent: 16384},
	Optional: {Concurrent: 64, Queue: 64, Wait: 5 * time.Millisecond},
}

func (c *Config) limit(class Class) Limit {
	if l, ok := c.Limits[class]; ok {
		return l
	}
	return limits[class]
}

// gate lets a bounded number of requests of one class through.
type gate struct {
	limit   Limit
	clock   clock.Clock
	places  chan struct{}
	waiting atomic.Int64
}

func newGate(l Limit, c clock.Clock) *gate {
	return &gate{limit: l, clock: c, places: make(chan struct{}, max(1, l.Concurrent))}
}

// enter takes a place, or says that there is none.
func (g *gate) enter(ctx context.Context) bool {
	select {
	case g.places <- struct{}{}:
		return true
	default:
	}
	if g.waiting.Add(1) > int64(g.limit.Queue) {
		g.waiting.Add(-1)
		return false
	}
	defer g.waiting.Add(-1)
	select {
	case g.places <- struct{}{}:
		return true
	case <-g.clock.After(g.limit.Wait):
		return false
	case <-ctx.Done():
		return false
	}
}

func (g *gate) leave() { <-g.places }

// busy is what a shed request is told. The pause grows with the class's
// distance from the vital, so that those who may come back first do.
func busy(c Class) *problem.Problem {
	pause := time.Second
	if c == Optional {
		pause = 3 * time.Second
	}
	return problem.New(problem.Overloaded, "more is being asked than can be answered right now", "wait as long as Retry-After says, then repeat").After(pause)
}

// pressure tells from the runtime's own record whether goroutines that could
// run wait for a processor: the one sign of overload that does not depend on
// what a request costs. It is sampled by requests, so an idle process pays
// nothing.
type pressure struct {
	clock clock.Clock
	next  atomic.Int64 // when to sample again, Unix nanoseconds
	level atomic.Int32

	mu     sync.Mutex
	sample []metrics.Sample
	before []uint64
}

// How long runnable goroutines may wait before requests are shed, and how
// often it is looked at. One in twenty waiting that long is enough.
const (
	pressureEvery  = 100 * time.Millisecond
	optionalAt     = 0.050 // seconds
	normalAt       = 0.250
	pressureTail   = 20
	pressureSample = 50 // events below which a window says nothing
)

// sheds reports whether the class is to be turned away.
func (p *pressure) sheds(c Class) bool {
	if c == Vital {
		return false
	}
	now := p.clock.Now().UnixNano()
	if next := p.next.Load(); now >= next && p.next.CompareAndSwap(next, now+int64(pressureEvery)) {
		p.look()
	}
	return p.level.Load() >= int32(shedAt[c])
}

// shedAt is the level of pressure at which a class is turned away.
var shedAt = [numClasses]int{Normal: 2, Optional: 1, Vital: 3}

func (p *pressure) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sample == nil {
		p.sample = []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	}
	metrics.Read(p.sample)
	if p.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return
	}
	h := p.sample[0].Value.Float64Histogram()
	p.level.Store(judge(h.Buckets, h.Counts, p.before))
	p.before = append(p.before[:0], h.Counts...)
}

// judge finds how long the slowest twentieth of the events since before waited.
func judge(buckets []float64, counts, before []uint64) int32 {
	if len(before) != len(counts) {
		return 0 // the first look: everything since the start is no window
	}
	var total, slow uint64
	for i := range counts {
		total += counts[i] - before[i]
	}
	if total < pressureSample {
		return 0
	}
	for i := len(counts) - 1; i >= 0; i-- {
		if slow += counts[i] - before[i]; slow*pressureTail >= total {
			switch at := buckets[i]; {
			case at >= normalAt:
				return 2
			case at >= optionalAt:
				return 1
			}
			return 0
		}
	}
	return 0
}
