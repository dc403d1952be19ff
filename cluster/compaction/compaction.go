// Package compaction says when a Pebble store may compact. It grants what the
// store itself allows, as Pebble's own scheduler does, and is woken by what
// changes that; only while somebody was refused does it look again by itself.
//
// Pebble's own looks ten times a second for as long as the store is open. That
// is nothing for a database server, and was half of all wake-ups of a province
// in which nothing happened: some sixty stores on one machine.
package compaction

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// lookAgain is between two looks while a compaction waits: what a store allows
// also grows without a word, with the compactions that are owed.
const lookAgain = 100 * time.Millisecond

// Scheduler is for one store, and for one life of it. It implements
// pebble.CompactionScheduler, and the handle of every grant.
//
// Pebble calls it with its own locks held, and is called back without ours.
type Scheduler struct {
	db    pebble.DBForCompaction // set by Register, before any other call
	poke  chan struct{}          // holds one: there may be something to grant
	stop  chan struct{}
	ended chan struct{}

	mu      sync.Mutex // protects the fields below
	running int        // compactions that were granted and are not done
	stopped bool
}

var (
	_ pebble.CompactionScheduler   = (*Scheduler)(nil)
	_ pebble.CompactionGrantHandle = (*Scheduler)(nil)
)

// NewScheduler returns the scheduler of one store.
func NewScheduler() *Scheduler {
	return &Scheduler{poke: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{})}
}

// Register implements pebble.CompactionScheduler.
func (s *Scheduler) Register(_ int, db pebble.DBForCompaction) {
	s.db = db
	go s.run()
}

// Unregister implements pebble.CompactionScheduler. The store is not called
// any more when it returns.
func (s *Scheduler) Unregister() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	close(s.stop)
	<-s.ended
}

// TrySchedule implements pebble.CompactionScheduler. Who is refused waits, and
// is remembered by the store, not here.
func (s *Scheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if s.take() {
		return true, s
	}
	s.wake() // to look again until nobody waits
	return false, nil
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler.
func (s *Scheduler) UpdateGetAllowedWithoutPermission() { s.wake() }

// Done implements pebble.CompactionGrantHandle.
func (s *Scheduler) Done() {
	s.giveBack()
	s.wake()
}

// Started implements pebble.CompactionGrantHandle.
func (s *Scheduler) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (s *Scheduler) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (s *Scheduler) CumulativeStats(pebble.CompactionGrantHandleStats) {}

func (s *Scheduler) wake() {
	select {
	case s.poke <- struct{}{}:
	default: // it will look anyway
	}
}

func (s *Scheduler) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || s.running >= s.db.GetAllowedWithoutPermission() {
		return false
	}
	s.running++
	return true
}

func (s *Scheduler) giveBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
}

// run grants what was refused before.
func (s *Scheduler) run() {
	defer close(s.ended)
	var again <-chan time.Time
	for {
		select {
		case <-s.poke:
		case <-again:
		case <-s.stop:
			return
		}
		again = nil
		if s.grant() {
			again = time.After(lookAgain)
		}
	}
}

// grant hands out what is allowed now, and reports whether somebody may still
// wait. A place is taken before the store is asked; whoever is refused for its
// sake while it turns out to be for nobody has poked, and is asked next.
func (s *Scheduler) grant() (waits bool) {
	for s.take() {
		waiting, _ := s.db.GetWaitingCompaction()
		if !waiting || !s.db.Schedule(s) {
			s.giveBack()
			return waiting
		}
	}
	return true
}
