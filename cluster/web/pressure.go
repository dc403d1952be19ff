package web

import (
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"qianma/cluster/clock"
)

// pressure tells from the runtime's own record whether goroutines that could
// run wait for a processor: the one sign of overload that does not depend on
// what a request costs. It is sampled by requests, so an idle process pays
// nothing.
type pressure struct {
	clock clock.Clock
	next  atomic.Int64 // when to sample again, in nanoseconds that have elapsed
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

// sheds reports whether a class that has a level in shedAt is to be turned away.
func (p *pressure) sheds(c Class) bool {
	now := int64(p.clock.Elapsed())
	if next := p.next.Load(); now >= next && p.next.CompareAndSwap(next, now+int64(pressureEvery)) {
		p.look()
	}
	return p.level.Load() >= shedAt[c]
}

// shedAt is the level of pressure at which a class is turned away; those that
// are not here never ask.
var shedAt = [numClasses]int32{Normal: 2, Optional: 1}

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
