// Package feedtest holds what every feed must pass: one conformance suite for
// brokers, and a store that plays source, sink and outbox and is merciless
// about order, gaps and repeats.
package feedtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"testing"
	"time"

	"qianma/cluster/fact"
)

// Origin makes an origin of the "ledger" subsystem.
func Origin(carrier string, shard uint16, incarnation uint64) fact.Origin {
	return fact.Origin{Carrier: carrier, Subsystem: "ledger", Shard: shard, Incarnation: incarnation}
}

// Next builds the block of count facts that follows m. The facts are made
// from their address, so that two builders of one chain agree; size is the
// length of each.
func Next(o fact.Origin, m fact.Mark, count uint32, size int) fact.Block {
	b := fact.Block{Origin: o, First: m.Seq + 1, Count: count, Stamp: time.Now().UnixNano(), Prev: m.Digest}
	one := make([]byte, max(size, 8))
	for i := range uint64(count) {
		binary.BigEndian.PutUint64(one, b.First+i)
		b.Body = fact.AppendFact(b.Body, one)
	}
	return b
}

// ErrInjected is what a store told to fail answers.
var ErrInjected = errors.New("feedtest: injected failure")

// Store holds blocks in memory. It is a feed.Source, a feed.Sink and, for the
// origin it leads, a feed.Outbox. It is safe for concurrent use.
type Store struct {
	// Fail is asked before each call ("fold", "torn", "catalog", "pull"); an
	// answer of true makes the call fail. "torn" is asked per block inside a
	// fold, so that a part of it is taken. Set it before use.
	Fail func(call string) bool
	// Vouches is the age of what the store says of itself in a catalog; 0 is
	// that of a leader. A negative one is that of a replica which cannot tell
	// whether it lacks something. Set it before use.
	Vouches time.Duration

	mu      sync.Mutex
	chains  map[fact.Origin][]fact.Block
	marks   map[fact.Origin]fact.Mark
	own     fact.Origin
	leads   bool
	changed chan struct{}
	folds   int
	faults  []error
}

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{
		chains: map[fact.Origin][]fact.Block{}, marks: map[fact.Origin]fact.Mark{},
		changed: make(chan struct{}), Fail: func(string) bool { return false },
	}
}

// Grow commits a block of count facts to o and returns it.
func (s *Store) Grow(o fact.Origin, count uint32, size int) fact.Block {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := Next(o, s.marks[o], count, size)
	s.append(b)
	return b
}

// Give commits a ready block as it is.
func (s *Store) Give(b fact.Block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.append(b)
}

func (s *Store) append(b fact.Block) {
	s.chains[b.Origin] = append(s.chains[b.Origin], b)
	s.marks[b.Origin] = b.Mark()
	s.wake()
}

func (s *Store) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Lead makes the store the leader for o, or (false) a follower.
func (s *Store) Lead(o fact.Origin, leads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own, s.leads = o, leads
	s.wake()
}

// Own implements feed.Outbox.
func (s *Store) Own() (fact.Origin, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own, s.leads
}

// Changed implements feed.Outbox.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Marks implements feed.Sink and feed.Outbox.
func (s *Store) Marks() map[fact.Origin]fact.Mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.marks)
}

// Blocks implements feed.Outbox.
func (s *Store) Blocks(o fact.Origin, after uint64, maxBytes int) ([]fact.Block, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []fact.Block
	for _, b := range s.chains[o] {
		if b.First <= after {
			continue
		}
		if maxBytes -= len(b.Body); len(out) > 0 && maxBytes < 0 {
			break
		}
		out = append(out, b)
	}
	return out, nil
}

// Catalog implements feed.Source.
func (s *Store) Catalog(ctx context.Context) (fact.Catalog, error) {
	if s.Fail("catalog") {
		return fact.Catalog{}, ErrInjected
	}
	return fact.Catalog{Marks: s.Marks(), Vouched: s.Vouches >= 0, Age: s.Vouches}, ctx.Err()
}

// Pull implements feed.Source.
func (s *Store) Pull(ctx context.Context, o fact.Origin, after uint64, maxBytes int) ([]fact.Block, error) {
	if s.Fail("pull") {
		return nil, ErrInjected
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.Blocks(o, after, maxBytes)
}

// Fold implements feed.Sink. A block that does not follow what is held is a
// fault: a follower owes its sink order, no gaps and no repeats.
func (s *Store) Fold(_ context.Context, blocks []fact.Block) error {
	if s.Fail("fold") {
		return ErrInjected
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.folds++
	for _, b := range blocks {
		if s.Fail("torn") {
			return ErrInjected
		}
		if err := b.Follows(s.marks[b.Origin]); err != nil {
			err = fmt.Errorf("%s block %d+%d at %d: %w", b.Origin, b.First, b.Count, s.marks[b.Origin].Seq, err)
			s.faults = append(s.faults, err)
			return err
		}
		s.append(b)
	}
	return nil
}

// Forget cuts an origin back to its first n blocks, as a sink restored from
// an older state would.
func (s *Store) Forget(o fact.Origin, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chains[o] = s.chains[o][:n]
	delete(s.marks, o)
	if n > 0 {
		s.marks[o] = s.chains[o][n-1].Mark()
	}
}

// Folds is how many folds the store took.
func (s *Store) Folds() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.folds
}

// Faults is every block that was folded out of order, twice, or over a gap.
func (s *Store) Faults() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}

// Eventually waits until cond holds and fails the test if it never does.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Dir is a directory for a server whose last file may appear after it has
// stopped: it is removed until it is gone.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "feedtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Remove(t, dir) })
	return dir
}

// Remove removes what a stopped server has left.
func Remove(t testing.TB, dir string) {
	t.Helper()
	Eventually(t, dir+" is removed", func() bool { return os.RemoveAll(dir) == nil })
}

// Level waits until sink holds exactly what source holds, and fails the test
// if the sink was ever given a block it should not have been given.
func Level(t testing.TB, source, sink *Store) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("the source holds %v, the sink %v", source.Marks(), sink.Marks())
		}
	}()
	Eventually(t, "the sink holds what the source holds", func() bool { return maps.Equal(source.Marks(), sink.Marks()) })
	for _, err := range sink.Faults() {
		t.Errorf("the follower broke its promise: %v", err)
	}
}
