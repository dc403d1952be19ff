package feed

import (
	"context"
	"errors"
	"sync"

	"qianma/cluster/fact"
)

// ErrBrokerDown is what a Memory broker answers while it is stopped.
var ErrBrokerDown = errors.New("feed: the broker is down")

// Memory is a Broker inside one process, for tests and for a province that
// fits in one. It keeps a bounded tail of each topic.
type Memory struct {
	keep int // blocks kept per topic

	mu     sync.Mutex
	down   bool
	topics map[Topic]*reel
	moved  chan struct{} // closed and replaced at every change
}

// reel is one topic: the tail of what was published, and the number of the
// first block in it, so that a reader that fell behind skips.
type reel struct {
	first  uint64
	blocks []fact.Block
}

// NewMemory returns a broker that keeps the newest blocks of each topic; 0
// keeps 1024.
func NewMemory(keep int) *Memory {
	if keep <= 0 {
		keep = 1024
	}
	return &Memory{keep: keep, topics: map[Topic]*reel{}, moved: make(chan struct{})}
}

// Publish implements Broker.
func (m *Memory) Publish(ctx context.Context, blocks []fact.Block) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return ErrBrokerDown
	}
	for _, b := range blocks {
		l := m.reel(TopicOf(b.Origin))
		l.blocks = append(l.blocks, b)
		if over := len(l.blocks) - m.keep; over > 0 {
			l.blocks = append([]fact.Block(nil), l.blocks[over:]...)
			l.first += uint64(over)
		}
	}
	m.move()
	return nil
}

// Last implements Broker.
func (m *Memory) Last(_ context.Context, o fact.Origin) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return 0, ErrBrokerDown
	}
	blocks := m.reel(TopicOf(o)).blocks
	if n := len(blocks); n > 0 && blocks[n-1].Origin == o {
		return blocks[n-1].Last(), nil
	}
	return 0, nil
}

// Subscribe implements Broker. Each subscription reads at its own pace and
// skips what the tail no longer holds.
func (m *Memory) Subscribe(_ context.Context, carrier, subsystem string, shard int, fn func([]fact.Block)) (func(), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, ErrBrokerDown
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		m.deliver(Topic{carrier, subsystem, shard}, stop, fn)
	}()
	var once sync.Once
	return func() {
		once.Do(func() { close(stop) })
		<-done
	}, nil
}

func (m *Memory) deliver(t Topic, stop <-chan struct{}, fn func([]fact.Block)) {
	at := uint64(0)
	for {
		blocks, next, moved := m.read(t, at)
		if len(blocks) > 0 {
			fn(blocks)
		}
		at = next
		select {
		case <-stop:
			return
		default:
		}
		if len(blocks) > 0 {
			continue
		}
		select {
		case <-stop:
			return
		case <-moved:
		}
	}
}

// readMost bounds how many blocks one call to a subscriber carries.
const readMost = 64

func (m *Memory) read(t Topic, at uint64) ([]fact.Block, uint64, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, at, m.moved
	}
	l := m.reel(t)
	at = max(at, l.first)
	from := min(int(at-l.first), len(l.blocks))
	blocks := l.blocks[from:min(from+readMost, len(l.blocks))]
	return append([]fact.Block(nil), blocks...), at + uint64(len(blocks)), m.moved
}

// Stop makes the broker unreachable; it keeps what it holds.
func (m *Memory) Stop() { m.set(func() { m.down = true }) }

// Start makes a stopped broker reachable again.
func (m *Memory) Start() { m.set(func() { m.down = false }) }

// Wipe loses everything the broker holds. Subscribers stay subscribed.
func (m *Memory) Wipe() {
	m.set(func() {
		for _, l := range m.topics {
			l.first += uint64(len(l.blocks))
			l.blocks = nil
		}
	})
}

func (m *Memory) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
	m.move()
}

func (m *Memory) reel(t Topic) *reel {
	l := m.topics[t]
	if l == nil {
		l = new(reel)
		m.topics[t] = l
	}
	return l
}

func (m *Memory) move() {
	close(m.moved)
	m.moved = make(chan struct{})
}
