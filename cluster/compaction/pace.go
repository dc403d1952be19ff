package compaction

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A table is written in steps: stepBytes in one call, and then a rest that is a
// multiple of what the step took by the clock, up to a bound. Where others want
// the processor a step takes longer, and so does the rest.
const (
	stepBytes = 128 << 10

	flushFactor = 10
	flushMax    = 100 * time.Millisecond

	// Those of a compaction while no flush has come since it began. The more have,
	// the shorter it rests: it takes most of the time that there is until the next
	// one is due, whatever the load, and never more.
	compactionFactor = 30
	compactionMax    = 300 * time.Millisecond
)

// Pace says whether a store's tables are written at a walk. They are until the
// store falls behind, because its writers would wait for it then and every read
// look through what was not compacted, and until somebody waits for a flush. It
// learns of the first by Pebble's events, which come with Pebble's locks held.
// It is safe for concurrent use.
type Pace struct {
	limit   int32        // flushes that one compaction may let come
	stalled atomic.Bool  // writers wait for a flush or a compaction
	opening atomic.Bool  // whoever opens the store waits for what runs
	closing atomic.Bool  // and so does who closes it
	waiting atomic.Int32 // calls of Flush
	queued  atomic.Bool  // the flush under way writes more than one memtable
	owed    atomic.Int32 // flushes since the first level was last compacted
}

// Flush is db.Flush for somebody who waits for it: nothing rests meanwhile. db
// is the store that was opened at this pace.
func (p *Pace) Flush(db *pebble.DB) error { return p.FlushUnless(db, nil) }

// FlushUnless is Flush that also ends when broken is closed: Pebble tries a flush
// that fails again for as long as the store is open.
func (p *Pace) FlushUnless(db *pebble.DB, broken <-chan struct{}) error {
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	flushed, err := db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-flushed:
	case <-broken:
	}
	return nil
}

func (p *Pace) listener() pebble.EventListener {
	return pebble.EventListener{
		WriteStallBegin: func(pebble.WriteStallBeginInfo) { p.stalled.Store(true) },
		WriteStallEnd:   func() { p.stalled.Store(false) },
		FlushBegin:      func(i pebble.FlushInfo) { p.queued.Store(i.Input > 1) },
		FlushEnd:        func(pebble.FlushInfo) { p.owed.Add(1) },
		CompactionBegin: func(i pebble.CompactionInfo) {
			if len(i.Input) > 0 && i.Input[0].Level == 0 {
				p.owed.Store(0)
			}
		},
	}
}

// rest returns how long whoever writes a table of the category rests after a
// step that took so long.
func (p *Pace) rest(category vfs.DiskWriteCategory, took time.Duration) time.Duration {
	if p.opening.Load() || p.stalled.Load() || p.closing.Load() {
		return 0
	}
	if category == categoryFlush {
		if p.queued.Load() || p.waiting.Load() > 0 {
			return 0
		}
		return min(flushFactor*took, flushMax)
	}
	left := max(0, p.limit-p.owed.Load())
	return min(compactionFactor*took, compactionMax) * time.Duration(left) / time.Duration(p.limit)
}

// Pebble's own names for what it writes tables for.
const (
	categoryFlush      vfs.DiskWriteCategory = "pebble-memtable-flush"
	categoryCompaction vfs.DiskWriteCategory = "pebble-compaction"
)

// paced is a store's file system, on which flushes and compactions write at a
// walk. What was synced or closed without an error has been written, as ever.
type paced struct {
	vfs.FS
	pace *Pace
}

// Create implements vfs.FS.
func (p paced) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := p.FS.Create(name, category)
	if err != nil || category != categoryFlush && category != categoryCompaction {
		return f, err
	}
	return &walker{File: f, pace: p.pace, category: category, buf: steps.Get().(*[stepBytes]byte), since: time.Now()}, nil
}

// Unwrap implements vfs.FS.
func (p paced) Unwrap() vfs.FS { return p.FS }

var steps = sync.Pool{New: func() any { return new([stepBytes]byte) }}

// walker is a table in the making. Like every file that Pebble writes it has
// one writer at a time.
type walker struct {
	vfs.File
	pace     *Pace
	category vfs.DiskWriteCategory
	buf      *[stepBytes]byte // nil once closed
	held     int              // bytes of buf that are not written yet
	failed   error            // of a write: some of what was taken is not there
	since    time.Time        // the end of the last rest
}

// Write implements vfs.File. An error may be about what an earlier call brought.
func (w *walker) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		took := copy(w.buf[w.held:], p[n:])
		w.held += took
		if w.held == stepBytes {
			if err := w.flush(); err != nil {
				return n, err
			}
			w.rest()
		}
		n += took
	}
	return n, nil
}

func (w *walker) flush() error {
	if w.held > 0 && w.failed == nil {
		_, w.failed = w.File.Write(w.buf[:w.held])
		w.held = 0
	}
	return w.failed
}

func (w *walker) rest() {
	if rest := w.pace.rest(w.category, time.Since(w.since)); rest > 0 {
		<-time.After(rest)
	}
	w.since = time.Now()
}

// Sync implements vfs.File.
func (w *walker) Sync() error {
	if err := w.flush(); err != nil {
		return err
	}
	return w.File.Sync()
}

// SyncData implements vfs.File.
func (w *walker) SyncData() error {
	if err := w.flush(); err != nil {
		return err
	}
	return w.File.SyncData()
}

// SyncTo implements vfs.File.
func (w *walker) SyncTo(length int64) (fullSync bool, err error) {
	if err := w.flush(); err != nil {
		return false, err
	}
	return w.File.SyncTo(length)
}

// Close implements vfs.File.
func (w *walker) Close() error {
	if w.buf == nil {
		return w.File.Close() // whatever a second close is told
	}
	err := w.flush()
	steps.Put(w.buf)
	w.buf = nil
	if closed := w.File.Close(); err == nil {
		err = closed
	}
	return err
}
