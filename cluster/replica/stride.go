package replica

import (
	"sync"
	"time"
)

// stride is how much of other origins one entry takes in. A write that is
// proposed meanwhile waits behind the entry, because a log has one order: so an
// entry may hold what three replicas, as busy as they are, take in within a
// moment, and not what a carrier that was cut off for an hour has to catch up on.
// Only one such entry is under way, and writes go between two.
type stride struct {
	mu    sync.Mutex
	bytes int // 0: strideMin
}

// The least is enough for a carrier's own pace even where each entry waits for a
// slow disk; the most is what one entry may hold at all.
const (
	strideTime = 100 * time.Millisecond
	strideMin  = 128 << 10
	strideMax  = 1 << 20
)

// most bounds the next entry.
func (s *stride) most() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.bytes, strideMin)
}

// took notes how long an entry was under way. One that was not nearly full says
// nothing about a larger one; one that was quick lets the next be larger, but not
// by much at once.
func (s *stride) took(bytes int, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := max(s.bytes, strideMin)
	if bytes < now/2 {
		return
	}
	fits := float64(bytes) * float64(strideTime) / float64(max(d, time.Microsecond))
	s.bytes = int(min(max(fits, strideMin), float64(2*now), strideMax))
}
