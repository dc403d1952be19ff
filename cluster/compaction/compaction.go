// Package compaction has a Pebble store do its own work beside everybody
// else's: it says when the store may compact, and how fast tables are written.
// A machine holds some sixty of these stores, where Pebble supposes one.
//
// When: scheduler grants what the store itself allows, as Pebble's own does, and
// is woken by what changes that; only while a compaction runs, or somebody was
// refused, does it look again by itself. Pebble's own looks ten times a second for as long as the
// store is open, which was half of all wake-ups of an idle province.
//
// How fast: tables are written at a walk (pace.go) until the store falls behind.
// Replicas of one log fill their memtables at the same moment, and Pebble writes
// as fast as it can: all processors did nothing else meanwhile, and every
// answer waited. loadtest/BASELINE.md has what it is worth.
package compaction

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// lookAgain is between two looks while a compaction waits: what a store allows
// also grows without a word, with the compactions that are owed.
const lookAgain = 100 * time.Millisecond

// scheduler is for one store, and for one life of it. It implements
// pebble.CompactionScheduler, and the handle of every grant.
//
// Pebble calls it with its own locks held. It is asked what it allows with ours
// held, which it permits, and for nothing else.
type scheduler struct {
	pace  Pace
	db    pebble.DBForCompaction // set by Register, before any other call
	poke  chan struct{}          // holds one: there may be something to grant
	stop  chan struct{}
	ended chan struct{}

	mu      sync.Mutex // protects the fields below
	running int        // compactions that were granted and are not done
	stopped bool
}

var (
	_ pebble.CompactionScheduler   = (*scheduler)(nil)
	_ pebble.CompactionGrantHandle = (*scheduler)(nil)
)

// Open is pebble.Open for a store that works beside others. It sets the file
// system, the listener and the scheduler in the options, from what is in them,
// so they are for one opening. One compaction runs at a time, but for those that
// only delete, and the first when the store is open: Pebble's Open waits for what
// runs, which at a walk is minutes for a large store.
func Open(dir string, o *pebble.Options) (*pebble.DB, *Pace, error) {
	s := calm(o)
	s.pace.opening.Store(true)
	db, err := pebble.Open(dir, o)
	if err != nil {
		return nil, nil, err
	}
	s.pace.opening.Store(false)
	s.wake() // for who was refused meanwhile
	return db, &s.pace, nil
}

func calm(o *pebble.Options) *scheduler {
	s := newScheduler()
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.L0CompactionThreshold == 0 {
		o.L0CompactionThreshold = 4 // as Pebble would
	}
	s.pace.limit = int32(o.L0CompactionThreshold)
	o.Experimental.CompactionScheduler = s
	o.CompactionConcurrencyRange = func() (int, int) { return 1, 1 }
	o.FS = paced{o.FS, &s.pace}
	listener := s.pace.listener()
	if o.EventListener != nil {
		listener = pebble.TeeEventListener(*o.EventListener, listener)
	}
	o.EventListener = &listener
	return s
}

// newScheduler returns the scheduler of one store.
func newScheduler() *scheduler {
	return &scheduler{poke: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{})}
}

// Register implements pebble.CompactionScheduler.
func (s *scheduler) Register(_ int, db pebble.DBForCompaction) {
	s.db = db
	go s.run()
}

// Unregister implements pebble.CompactionScheduler. The store is not called
// any more when it returns.
func (s *scheduler) Unregister() {
	s.pace.closing.Store(true)
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	close(s.stop)
	<-s.ended
}

// TrySchedule implements pebble.CompactionScheduler. Who is refused waits, and
// is remembered by the store, not here.
func (s *scheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if s.take() {
		return true, s
	}
	s.wake() // to look again until nobody waits
	return false, nil
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler.
func (s *scheduler) UpdateGetAllowedWithoutPermission() { s.wake() }

// Done implements pebble.CompactionGrantHandle.
func (s *scheduler) Done() {
	s.giveBack()
	s.wake()
}

// Started implements pebble.CompactionGrantHandle.
func (s *scheduler) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (s *scheduler) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (s *scheduler) CumulativeStats(pebble.CompactionGrantHandleStats) {}

func (s *scheduler) wake() {
	select {
	case s.poke <- struct{}{}:
	default: // it will look anyway
	}
}

func (s *scheduler) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || s.pace.opening.Load() || s.running >= s.db.GetAllowedWithoutPermission() {
		return false
	}
	s.running++
	return true
}

func (s *scheduler) giveBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
}

// run grants what was refused before.
func (s *scheduler) run() {
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
func (s *scheduler) grant() (waits bool) {
	for s.take() {
		waiting, _ := s.db.GetWaitingCompaction()
		if !waiting || !s.db.Schedule(s) {
			s.giveBack()
			return waiting
		}
	}
	return true
}
