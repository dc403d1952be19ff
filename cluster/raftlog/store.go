// Package raftlog keeps the raft logs and votes of every group of a process in
// one Pebble store.
//
// Promises: what StoreLogs and Set have returned for is on disk (fsynced);
// groups that write at the same moment share one fsync; a vote's term and its
// candidate become durable together or not at all; a store whose disk failed
// once never acknowledges anything again.
//
// It refuses to know what entries mean, who leads, and how to recover from a
// failed disk: Config.Fatal is told once, and the process must stop. An fsync
// that failed is never tried again, because its second success would prove
// nothing about the pages the first one lost.
//
// A Store is safe for concurrent use. A Group is used by one raft instance.
package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/compaction"
	"qianma/cluster/mishap"
)

// Config says where a Store lives and whom it tells when its disk fails.
type Config struct {
	Dir    string       // the store's own directory; made if missing
	FS     vfs.FS       // default: the operating system's
	Logger *slog.Logger // default: slog.Default()
	// Fatal is called once, with why, when the disk has failed. It must make
	// the process stop and must not wait for the Store. Default: only logged.
	Fatal func(error)
	// MemTableBytes is how much log is held in memory before it is written out
	// as a table. The larger, the more entries are truncated before they are
	// ever written a second time. Default 16 MiB.
	MemTableBytes int
	// CacheBytes is the block cache. Default 4 MiB: recent entries are served
	// from the groups' own windows.
	CacheBytes int
	// WindowBytes is how much of each group's newest entries is kept in memory
	// for the followers that are keeping up. Default 8 MiB.
	WindowBytes int
}

func (c *Config) setDefaults() {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.MemTableBytes == 0 {
		c.MemTableBytes = 16 << 20
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 4 << 20
	}
	if c.WindowBytes == 0 {
		c.WindowBytes = 8 << 20
	}
}

// ErrFailed is returned by every write after the disk has failed.
var ErrFailed = errors.New("raftlog: the disk failed; nothing more is acknowledged")

// ErrClosed is returned after Close.
var ErrClosed = errors.New("raftlog: closed")

// Store is one Pebble with the logs and votes of all groups.
type Store struct {
	cfg  Config
	db   *pebble.DB
	fail *Failure

	mu     sync.RWMutex // held for reading while db is in use
	closed bool
	groups map[uint16]*Group
	once   sync.Once
	err    error
}

// Open opens or makes the store.
func Open(cfg Config) (*Store, error) {
	cfg.setDefaults()
	s := &Store{cfg: cfg, groups: map[uint16]*Group{}}
	s.fail = NewFailure(cfg.Logger.With("store", "raftlog"), cfg.Fatal)
	if err := MakeDir(cfg.FS, cfg.Dir); err != nil {
		return nil, fmt.Errorf("raftlog: %w", err)
	}
	if err := checkTail(cfg.FS, cfg.Dir); err != nil {
		return nil, fmt.Errorf("raftlog: %w", err)
	}
	opts := &pebble.Options{
		FS:                          cfg.FS,
		Logger:                      s.fail,
		EventListener:               s.fail.Listener(),
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                uint64(cfg.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		CacheSize:                   int64(cfg.CacheBytes),
		MaxOpenFiles:                256,
		L0CompactionThreshold:       16,   // most of it is cut before it would pay to be sorted
		L0StopWritesThreshold:       1000, // entries die by truncation; never stall the log for compactions
		BytesPerSync:                1 << 20,
	}
	opts.Levels[0].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	found, err := pebble.Peek(cfg.Dir, cfg.FS)
	if err != nil {
		return nil, fmt.Errorf("raftlog: %w", err)
	}
	if s.db, _, err = OpenDB(cfg.Dir, opts); err != nil {
		return nil, fmt.Errorf("raftlog: open: %w", err)
	}
	if !found.Exists {
		// Pebble begins its first log before it takes up the newest format, in
		// which chunks vouch for what was synced before them: begin another.
		if err := s.db.Flush(); err != nil {
			return nil, errors.Join(err, s.db.Close())
		}
	}
	return s, nil
}

// MakeDir makes a directory that is still there after a power cut: every
// parent that may be new is synced too.
func MakeDir(fs vfs.FS, dir string) error {
	at, fresh := dir, []string{}
	for {
		if _, err := fs.Stat(at); err == nil {
			break
		}
		fresh = append(fresh, at)
		parent := fs.PathDir(at)
		if parent == at {
			break
		}
		at = parent
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, d := range fresh {
		if err := SyncDir(fs, fs.PathDir(d)); err != nil {
			return err
		}
	}
	return nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close releases the store. Raft instances must have been shut down before.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.err = s.db.Close()
	})
	return s.err
}

// Failed says why the disk is out of use; nil while it is well.
func (s *Store) Failed() error { return s.fail.Err() }

// Group returns the log and votes of one group. The same id gives the same
// Group.
func (s *Store) Group(id uint16) (*Group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if g, ok := s.groups[id]; ok {
		return g, nil
	}
	g := &Group{store: s, id: id, window: window{limit: s.cfg.WindowBytes}}
	if err := g.load(); err != nil {
		return nil, err
	}
	s.groups[id] = g
	return g, nil
}

// The store's own values live outside every group.
const storeSpace = byte(0xff)

// Get returns a value that belongs to the process rather than to a group; ok
// is false where there is none.
func (s *Store) Get(key string) (value []byte, ok bool, err error) {
	return s.read(append([]byte{storeSpace}, key...))
}

// Set stores such a value durably.
func (s *Store) Set(key string, value []byte) error {
	return s.write(func(b *pebble.Batch) error {
		return b.Set(append([]byte{storeSpace}, key...), value, nil)
	})
}

// DestroyGroups removes every group's log and votes and keeps the store's own
// values. It is for a replica that starts over; no Group may be in use.
func (s *Store) DestroyGroups() error {
	return s.write(func(b *pebble.Batch) error {
		return b.DeleteRange([]byte{0}, []byte{storeSpace}, nil)
	})
}

func (s *Store) read(key []byte) ([]byte, bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, false, ErrClosed
	}
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	out := append([]byte{}, v...)
	return out, true, closer.Close()
}

// write commits one batch and returns when it is on disk. Pebble reports a
// failed commit to its logger and then returns as if all were well, so the
// failure is asked afterwards: this is where an acknowledgement is refused.
func (s *Store) write(fill func(*pebble.Batch) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	if s.fail.Err() != nil {
		return ErrFailed
	}
	b := s.db.NewBatch()
	defer b.Close()
	if err := fill(b); err != nil {
		return err
	}
	mishap.BeforeLogSync.Hit()
	if err := b.Commit(pebble.Sync); err != nil {
		s.fail.Report(err)
		return err
	}
	if s.fail.Err() != nil {
		return ErrFailed
	}
	mishap.AfterLogSync.Hit()
	return nil
}

// Failure is a Pebble logger that turns a fatal error into one call of a
// function and a flag, instead of the end of the process. Whoever writes
// through a Pebble that has this logger must look at Err before it
// acknowledges, because Pebble itself goes on after Fatalf.
type Failure struct {
	log   *slog.Logger
	fatal func(error)
	first atomic.Pointer[error]
}

// NewFailure returns a logger that calls fatal (may be nil) once.
func NewFailure(log *slog.Logger, fatal func(error)) *Failure {
	return &Failure{log: log, fatal: fatal}
}

// Err is the first fatal error; nil while all is well.
func (f *Failure) Err() error {
	if p := f.first.Load(); p != nil {
		return *p
	}
	return nil
}

// Report declares the disk failed.
func (f *Failure) Report(err error) {
	if err == nil || !f.first.CompareAndSwap(nil, &err) {
		return
	}
	f.log.Error("disk failed", "error", err)
	if f.fatal != nil {
		f.fatal(err)
	}
}

// Infof implements pebble.Logger. What Pebble says while it is well is noise.
func (f *Failure) Infof(string, ...any) {}

// Errorf implements pebble.Logger.
func (f *Failure) Errorf(format string, args ...any) {
	f.log.Warn("store", "message", fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger.
func (f *Failure) Fatalf(format string, args ...any) {
	f.Report(fmt.Errorf(format, args...))
}

// Listener hears of failures in the background. Pebble would try a failed
// flush again; a disk that has refused once is not asked twice.
func (f *Failure) Listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			if !errors.Is(err, pebble.ErrCancelledCompaction) {
				f.Report(fmt.Errorf("background write: %w", err))
			}
		},
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			f.Report(&CorruptError{Path: info.Path, Err: info.Details})
		},
		DiskSlow: func(info pebble.DiskSlowInfo) {
			f.log.Warn("disk is slow", "operation", info.OpType.String(), "duration", info.Duration)
		},
	}
}

// CorruptError says that a file holds other bytes than were written.
type CorruptError struct {
	Path string
	Err  error
}

// Error implements error.
func (e *CorruptError) Error() string { return fmt.Sprintf("corrupt file %s: %v", e.Path, e.Err) }

// Unwrap implements error.
func (e *CorruptError) Unwrap() error { return e.Err }

// IsCorruption reports whether err says that stored bytes cannot be trusted.
func IsCorruption(err error) bool {
	var c *CorruptError
	return errors.As(err, &c) || pebble.IsCorruptionError(err)
}

// OpenDB is compaction.Open, and so Pebble's, which says only in words that a table is gone or cut
// short: here that is a CorruptError, as a wrong bit in it would be. Whoever
// could do without the file would not have written it.
func OpenDB(dir string, opts *pebble.Options) (*pebble.DB, *compaction.Pace, error) {
	db, pace, err := compaction.Open(dir, opts)
	if errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "object size mismatch") {
		err = &CorruptError{Path: dir, Err: err}
	}
	return db, pace, err
}

func groupKey(id uint16, space byte, tail int) []byte {
	k := make([]byte, 3, 3+tail)
	binary.BigEndian.PutUint16(k, id)
	k[2] = space
	return k
}
