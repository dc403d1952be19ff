// Package store keeps a middle store's rows in Pebble: folds blocks into
// them, answers lookups from them, hands a copy to a peer and takes one.
//
// Promises. The mark of an origin and the rows of its blocks are committed
// together, so after any crash a store holds all rows of the marks it shows.
// Nothing is synced as it is folded: a crash costs what was folded since the
// last flush, which the follower brings again. A block is folded once, in
// order, and one that contradicts what is held is refused. A fact that cannot
// be understood is set aside under its address and tried again by every
// build that opens the store. What a lookup reads is never older than the
// marks it returns. A file found damaged condemns the whole store: the node
// is told, and the next Open starts empty.
//
// It refuses to know where blocks come from and who asks. A Store is safe for
// concurrent use.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/clock"
	"qianma/cluster/compaction"
	"qianma/cluster/fact"
	"qianma/cluster/mishap"
	"qianma/cluster/raftlog"
	"qianma/middle-store/fold"
	"qianma/middle-store/middlestorepb"
)

// Config says where a store lives and how much it may use.
type Config struct {
	Dir    string       // the store's own directory; made if missing
	FS     vfs.FS       // default: the operating system's
	Clock  clock.Clock  // default: the machine's
	Logger *slog.Logger // default: silent
	// Fatal is called once, with why, when the disk has failed or holds other
	// bytes than were written. It must make the process stop and must not wait
	// for the store. Default: only logged.
	Fatal func(error)
	// CacheBytes is the block cache. Default 32 MiB.
	CacheBytes int
	// MemTableBytes is how much is gathered in memory before it is written
	// out; up to four times as much is held. Default 8 MiB.
	MemTableBytes int
	// FlushInterval is the longest that a folded block stays in memory alone.
	// Default 20 s.
	FlushInterval time.Duration
	// CopyIdle is how long a copy for a peer is kept while nobody reads it.
	// Default 1 minute.
	CopyIdle time.Duration
}

func (c *Config) setDefaults() {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Clock == nil {
		c.Clock = clock.Real
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 32 << 20
	}
	if c.MemTableBytes == 0 {
		c.MemTableBytes = 8 << 20
	}
	if c.FlushInterval == 0 {
		c.FlushInterval = 20 * time.Second
	}
	if c.CopyIdle == 0 {
		c.CopyIdle = time.Minute
	}
}

// ErrClosed is returned after Close.
var ErrClosed = errors.New("middle-store: closed")

// ErrFailed is returned once the disk has failed.
var ErrFailed = errors.New("middle-store: the disk failed")

// Store is an open middle store.
type Store struct {
	cfg  Config
	home home
	db   *pebble.DB
	pace *compaction.Pace
	fail *raftlog.Failure
	live atomic.Bool // Open is over: failures are the node's, not the caller's

	inUse  sync.RWMutex // held for reading while db is in use
	closed bool

	mu     sync.Mutex // held while folding
	folder fold.Folder
	sorter sorter // rows of the parcel in the making
	dirty  bool   // folded since the last flush
	named  []uint32

	changes *changes
	held    atomic.Pointer[held]
	readers sync.Pool // of *fold.Reader
	copies  copies

	folded, repeats, aside atomic.Uint64
	complete               atomic.Bool

	stop    chan struct{}
	stopped sync.WaitGroup
	once    sync.Once
	err     error
}

// Open opens the store, or makes an empty one: where there is none, where the
// keys are of another layout, and where the last run found damage.
func Open(cfg Config) (*Store, error) {
	cfg.setDefaults()
	s := &Store{cfg: cfg, home: home{cfg.FS, cfg.Dir}, changes: newChanges(), stop: make(chan struct{})}
	s.readers.New = func() any { return new(fold.Reader) }
	s.copies.open = map[uint64]*copied{}
	current, err := s.home.prepare()
	if err != nil {
		return nil, fmt.Errorf("middle-store: %w", err)
	}
	if err := s.openCurrent(current); err != nil {
		return nil, fmt.Errorf("middle-store: %w", err)
	}
	s.live.Store(true)
	s.stopped.Go(s.tend)
	return s, nil
}

// openCurrent opens a generation; one that cannot be used is left for an empty
// one, because all of it can be had again.
func (s *Store) openCurrent(current uint64) error {
	err := s.openGeneration(current)
	if err == nil || (!errors.Is(err, errLayout) && !raftlog.IsCorruption(err)) {
		return err
	}
	s.cfg.Logger.Warn("the store cannot be used; starting an empty one", "err", err)
	if err := s.home.point(current + 1); err != nil {
		return err
	}
	return s.openGeneration(current + 1)
}

func (s *Store) openGeneration(n uint64) error {
	s.fail = raftlog.NewFailure(s.cfg.Logger, func(err error) { s.failed(n, err) })
	opts := options(s.cfg)
	opts.Logger, opts.EventListener = s.fail, s.fail.Listener()
	opts.Cache = pebble.NewCache(int64(s.cfg.CacheBytes))
	defer opts.Cache.Unref()
	db, pace, err := raftlog.OpenDB(s.home.path(n), opts)
	if err != nil {
		return err
	}
	s.db, s.pace = db, pace
	if err := s.load(); err != nil {
		return errors.Join(err, db.Close())
	}
	return nil
}

func options(cfg Config) *pebble.Options {
	o := &pebble.Options{
		FS:                          cfg.FS,
		FormatMajorVersion:          pebble.FormatNewest,
		Comparer:                    fold.Comparer,
		DisableWAL:                  true,
		MemTableSize:                uint64(cfg.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                512,
		L0CompactionThreshold:       16, // Pebble begins at half of it
		L0StopWritesThreshold:       64,
		BytesPerSync:                1 << 20,
	}
	for i := range len(o.Levels) - 1 {
		// Most lookups are of prefixes that most tables do not hold. The last level
		// holds nearly all of them: a filter there says yes, and takes the cache of
		// what is then read.
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	o.Levels[len(o.Levels)-1].FilterPolicy = pebble.NoFilterPolicy
	return o
}

// failed is told once that the disk cannot be trusted. Damage condemns the
// generation, so that the next start fetches a sound one.
func (s *Store) failed(generation uint64, err error) {
	if raftlog.IsCorruption(err) {
		s.home.condemn(generation)
	}
	if s.cfg.Fatal != nil && s.live.Load() {
		s.cfg.Fatal(err)
	}
}

// tend flushes and lets forgotten copies go, until Close.
func (s *Store) tend() {
	for {
		select {
		case <-s.stop:
			return
		case <-s.cfg.Clock.After(s.cfg.FlushInterval):
		}
		if err := s.Flush(); err != nil && !errors.Is(err, ErrClosed) {
			s.fail.Report(err)
		}
		s.copies.expire(s.cfg.Clock.Elapsed()-s.cfg.CopyIdle, s.dropCopy)
	}
}

// Flush puts all that has been folded on disk.
func (s *Store) Flush() error { return s.flush(func() error { return s.db.Flush() }) }

// flushNow is Flush for somebody who waits.
func (s *Store) flushNow() error { return s.flush(func() error { return s.pace.Flush(s.db) }) }

func (s *Store) flush(put func() error) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	s.mu.Lock()
	dirty := s.dirty
	s.dirty = false
	s.mu.Unlock()
	if !dirty {
		return nil
	}
	return put()
}

// enter keeps the database open until leave is called.
func (s *Store) enter() (leave func(), err error) {
	s.inUse.RLock()
	if s.closed {
		s.inUse.RUnlock()
		return nil, ErrClosed
	}
	if s.fail.Err() != nil {
		s.inUse.RUnlock()
		return nil, ErrFailed
	}
	return s.inUse.RUnlock, nil
}

// Close flushes and releases the store. It is safe to call twice.
func (s *Store) Close() error {
	s.once.Do(func() {
		close(s.stop)
		s.stopped.Wait()
		s.copies.expire(s.cfg.Clock.Elapsed()+time.Hour, s.dropCopy)
		err := s.flushNow()
		if errors.Is(err, ErrFailed) {
			err = nil // told already
		}
		s.inUse.Lock()
		s.closed = true
		s.inUse.Unlock()
		s.err = errors.Join(err, s.db.Close())
	})
	return s.err
}

// Marks says how far each origin is folded; it is part of feed.Sink.
func (s *Store) Marks() map[fact.Origin]fact.Mark {
	out := map[fact.Origin]fact.Mark{}
	for o, h := range s.held.Load().origins {
		out[o] = h.mark
	}
	return out
}

// Newest is when the newest folded block of each origin was committed there.
func (s *Store) Newest() map[fact.Origin]time.Time {
	out := map[fact.Origin]time.Time{}
	for o, h := range s.held.Load().origins {
		out[o] = time.Unix(0, h.stamp)
	}
	return out
}

// Facts is how many facts are folded, over all origins.
func (s *Store) Facts() uint64 { return s.held.Load().facts() }

// Status is how a store is doing.
type Status struct {
	Facts   uint64 `json:"facts"`   // folded, over all origins
	Folded  uint64 `json:"folded"`  // since this start
	Repeats uint64 `json:"repeats"` // blocks that were held already
	Aside   uint64 `json:"aside"`   // facts this build does not understand
	Disk    uint64 `json:"disk_bytes"`
	Copies  int    `json:"copies"` // held still for peers
	// Complete: it has once held all there was.
	Complete bool `json:"complete"`
}

// Status reports how the store is doing.
func (s *Store) Status() Status {
	st := Status{Facts: s.Facts(), Folded: s.folded.Load(), Repeats: s.repeats.Load(), Aside: s.aside.Load(), Copies: s.copies.len(), Complete: s.Complete()}
	if leave, err := s.enter(); err == nil {
		st.Disk = s.db.Metrics().DiskSpaceUsage()
		leave()
	}
	return st
}

// Fold implements feed.Sink: it takes blocks in order per origin and drops
// those it holds. Blocks before one that does not fit are folded.
func (s *Store) Fold(ctx context.Context, blocks []fact.Block) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.begin()
	defer p.batch.Close()
	for i := range blocks {
		if err = p.fold(&blocks[i]); err != nil {
			break
		}
	}
	return errors.Join(err, s.commit(p))
}

// parcel is one batch in the making.
type parcel struct {
	s       *Store
	batch   *pebble.Batch
	origins map[fact.Origin]origin // as they will be
	moved   map[fact.Origin]bool
	facts   uint64
	aside   uint64
}

func (s *Store) begin() *parcel {
	s.sorter.reset()
	return &parcel{s: s, batch: s.db.NewBatch(), origins: maps.Clone(s.held.Load().origins), moved: map[fact.Origin]bool{}}
}

// Set implements fold.Writer.
func (p *parcel) Set(key, value []byte) { p.s.sorter.add(key, value) }

func (p *parcel) fold(b *fact.Block) error {
	at := p.origins[b.Origin]
	switch err := b.Follows(at.mark); {
	case errors.Is(err, fact.ErrRepeat):
		p.s.repeats.Add(1)
		return nil
	case err != nil:
		return fmt.Errorf("middle-store: %s, block %d after %d: %w", b.Origin, b.First, at.mark.Seq, err)
	}
	rows, aside := len(p.s.sorter.rows), uint64(0)
	err := b.Facts(func(seq uint64, f []byte) bool {
		if mishap.FoldFact.Omitted() {
			return true
		}
		if p.s.folder.Fold(p, b.Origin.Subsystem, f) != nil {
			p.Set(asideKey(b.Origin, seq), f)
			aside++
		}
		return true
	})
	if err != nil { // half a block is no block
		p.s.sorter.cut(rows)
		return err
	}
	p.aside += aside
	p.facts += uint64(b.Count)
	p.origins[b.Origin] = origin{b.Mark(), max(at.stamp, b.Stamp)}
	p.moved[b.Origin] = true
	return nil
}

// commit writes the batch, names what has changed, and lets lookups see the new
// marks, in this order.
func (s *Store) commit(p *parcel) error {
	if len(p.moved) == 0 {
		return nil
	}
	for o := range p.moved {
		p.Set(markKey(o), p.origins[o].append(nil))
	}
	if err := s.sorter.write(p.batch); err != nil {
		return err
	}
	mishap.MidFold.Hit()
	if err := p.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	if s.fail.Err() != nil {
		return ErrFailed
	}
	s.dirty = true
	s.named = s.sorter.subjects(s.named[:0])
	s.changes.add(s.named)
	s.held.Store(newHeld(p.origins))
	s.folded.Add(p.facts)
	s.aside.Add(p.aside)
	return nil
}

// State is what an answer is not older than.
type State struct {
	Marks           middlestorepb.Marks
	Epoch, Position uint64 // of Changes
}

// Read works out persons for emit, in the order asked, and returns the state that
// what was read is not older than. What emit is given is valid only during the
// call.
func (s *Store) Read(persons []middlestorepb.PersonID, tubes int, emit func(i int, p *middlestorepb.Person)) (State, error) {
	leave, err := s.enter()
	if err != nil {
		return State{}, err
	}
	defer leave()
	// Before the iterator, so that it can only be newer.
	state := State{s.held.Load().marks, s.changes.epoch, s.changes.position()}
	it, err := s.db.NewIter(nil)
	if err != nil {
		return State{}, err
	}
	r := s.readers.Get().(*fold.Reader)
	r.Read(rows{it}, persons, tubes, emit)
	s.readers.Put(r)
	err = errors.Join(it.Error(), it.Close())
	if err != nil && raftlog.IsCorruption(err) {
		s.fail.Report(err)
	}
	return state, err
}

// SeenMarks says how far this store is, in the form readers keep.
func (s *Store) SeenMarks() middlestorepb.Marks { return s.held.Load().marks }

// rows is a Pebble iterator as fold walks it.
type rows struct{ it *pebble.Iterator }

func (r rows) Seek(prefix []byte) bool { return r.it.SeekPrefixGE(prefix) }
func (r rows) Next() bool              { return r.it.Next() }
func (r rows) Key() []byte             { return r.it.Key() }

func (r rows) Value() []byte {
	v, _ := r.it.ValueAndErr() // the iterator keeps the error
	return v
}
