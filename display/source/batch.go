package source

import (
	"context"
	"sync"
	"time"

	"qianma/cluster/clock"
	pb "qianma/middle-store/middlestorepb"
)

// batcher gathers requests that come together into one question.
//
// A request that comes when none has left for linger is asked at once. Else it
// leaves when that has passed, with whatever has come meanwhile: a call costs the
// two processes some twenty times what a person in it does. Requests about one
// person in one batch are one.
type batcher struct {
	ctx   context.Context
	clock clock.Clock
	met   *meters
	ask   func([]pb.PersonID) (*pb.LookupResponse, Kind)

	kick  chan struct{} // something waits
	full  chan struct{} // a whole batch waits
	slots chan struct{} // batches under way
	wg    sync.WaitGroup

	mu      sync.Mutex
	waiting []*flight
	index   map[pb.PersonID]*flight
}

// flight is one person's question on its way.
type flight struct {
	person pb.PersonID
	done   chan struct{}
	answer Answer // set before done is closed
}

func newBatcher(ctx context.Context, c clock.Clock, met *meters, ask func([]pb.PersonID) (*pb.LookupResponse, Kind)) *batcher {
	b := &batcher{
		ctx: ctx, clock: c, met: met, ask: ask, index: map[pb.PersonID]*flight{},
		kick: make(chan struct{}, 1), full: make(chan struct{}, 1), slots: make(chan struct{}, inFlight),
	}
	b.wg.Go(b.run)
	return b
}

func (b *batcher) wait() { b.wg.Wait() }

// get waits for the answer; the zero Answer when ctx or the batcher ends first
// or too many wait already.
func (b *batcher) get(ctx context.Context, person pb.PersonID) Answer {
	f := b.join(person)
	if f == nil {
		return Answer{}
	}
	select {
	case <-f.done:
		return f.answer
	case <-ctx.Done():
	case <-b.ctx.Done():
	}
	return Answer{}
}

func (b *batcher) join(person pb.PersonID) *flight {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f, ok := b.index[person]; ok {
		return f
	}
	if len(b.waiting) >= maxWait {
		return nil
	}
	f := &flight{person: person, done: make(chan struct{})}
	b.index[person] = f
	b.waiting = append(b.waiting, f)
	switch len(b.waiting) {
	case 1:
		signal(b.kick)
	case Batch:
		signal(b.full)
	}
	return f
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take cuts the next batch; what is left kicks again.
func (b *batcher) take() []*flight {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(b.waiting), Batch)
	batch := b.waiting[:n:n]
	b.waiting = b.waiting[n:]
	for _, f := range batch {
		delete(b.index, f.person)
	}
	if len(b.waiting) > 0 {
		signal(b.kick)
	}
	if len(b.waiting) >= Batch {
		signal(b.full)
	}
	return batch
}

func (b *batcher) run() {
	last := -linger // when the batch before left: for the first, long ago
	for {
		select {
		case <-b.kick:
		case <-b.ctx.Done():
			return
		}
		if !b.pause(last) {
			return
		}
		if !b.slot() {
			b.abandon()
			continue
		}
		batch := b.take()
		last = b.clock.Elapsed()
		b.wg.Go(func() {
			b.fly(batch)
			<-b.slots
		})
	}
}

// slot waits until another batch may leave; false when none may for too long,
// or when the batcher ends.
func (b *batcher) slot() bool {
	select {
	case b.slots <- struct{}{}:
		return true
	default:
	}
	select {
	case b.slots <- struct{}{}:
		return true
	case <-b.clock.After(slotLimit):
	case <-b.ctx.Done():
	}
	return false
}

// abandon sends everyone who waits away without an answer.
func (b *batcher) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.waiting {
		close(f.done)
	}
	b.waiting = nil
	clear(b.index)
}

// pause lets requests gather until linger after the last batch, or until a
// batch is full; false when the batcher ends.
func (b *batcher) pause(last time.Duration) bool {
	left := last + linger - b.clock.Elapsed()
	if left <= 0 {
		return true
	}
	select {
	case <-b.clock.After(left):
	case <-b.full:
	case <-b.ctx.Done():
		return false
	}
	return true
}

func (b *batcher) fly(batch []*flight) {
	if len(batch) == 0 {
		return
	}
	persons := make([]pb.PersonID, len(batch))
	for i, f := range batch {
		persons[i] = f.person
	}
	b.met.batches.Inc()
	b.met.persons.Add(float64(len(batch)))
	resp, kind := b.ask(persons)
	for i, f := range batch {
		if resp != nil {
			f.answer = Answer{Kind: kind, Person: &resp.Persons[i], Batch: resp}
		}
		close(f.done)
	}
}
