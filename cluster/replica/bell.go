package replica

import (
	"sync"
	"time"
)

// bell wakes everybody who waits for something to change. Who waits takes the
// channel first, then looks, then waits: a change in between is not missed.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

func millis(n uint64) time.Duration {
	return time.Duration(min(n, uint64(time.Hour/time.Millisecond))) * time.Millisecond
}
