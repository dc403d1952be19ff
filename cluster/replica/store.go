package replica

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"qianma/cluster/compaction"
	"qianma/cluster/mishap"
	"qianma/cluster/raftlog"
)

// store is where one group keeps its state: a directory with a file CURRENT
// that names the living generation, and one directory for each generation. A
// snapshot that is received becomes a new generation beside the living one,
// and CURRENT is swapped atomically.
type store struct {
	fs    vfs.FS
	dir   string
	fail  *raftlog.Failure
	cache *pebble.Cache
	mem   int // bytes of a memtable

	mu   sync.Mutex
	next uint64 // number of the next generation
	head current
	gen  *generation
	open sync.WaitGroup // generations that are not closed yet
}

// current is what the file CURRENT says: which generation lives, and the raft
// snapshot it stands for. They change together, because raft believes that the
// state is at least as new as the newest snapshot it is told of.
type current struct {
	Generation uint64             `json:"generation"`
	Snapshot   *raft.SnapshotMeta `json:"snapshot,omitempty"`
}

const currentFile = "CURRENT"

var errCurrent = errors.New("replica: CURRENT is damaged")

func openStore(fs vfs.FS, dir string, fail *raftlog.Failure, cache *pebble.Cache, mem int) (*store, error) {
	s := &store{fs: fs, dir: dir, fail: fail, cache: cache, mem: mem}
	if err := raftlog.MakeDir(fs, dir); err != nil {
		return nil, err
	}
	head, err := s.readCurrent()
	if err != nil {
		return nil, err
	}
	s.head, s.next = head, head.Generation+1
	if err := s.sweep(); err != nil {
		return nil, err
	}
	if s.gen, err = s.openGeneration(head.Generation); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *store) path(number uint64) string {
	return s.fs.PathJoin(s.dir, fmt.Sprintf("state-%06d", number))
}

// readCurrent returns the zero generation where there is no file yet.
func (s *store) readCurrent() (current, error) {
	f, err := s.fs.Open(s.fs.PathJoin(s.dir, currentFile))
	if errors.Is(err, os.ErrNotExist) {
		return current{}, nil
	}
	if err != nil {
		return current{}, err
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	if err != nil {
		return current{}, err
	}
	sum, body, ok := strings.Cut(string(raw), "\n")
	want, err := strconv.ParseUint(sum, 16, 32)
	if !ok || err != nil || uint32(want) != crc32.ChecksumIEEE([]byte(body)) {
		return current{}, &raftlog.CorruptError{Path: currentFile, Err: errCurrent}
	}
	var c current
	return c, json.Unmarshal([]byte(body), &c)
}

// writeCurrent leaves the old file or the new one, whatever happens. A disk
// that refuses it has failed.
func (s *store) writeCurrent(c current) error {
	err := s.replaceCurrent(c)
	s.fail.Report(err)
	return err
}

func (s *store) replaceCurrent(c current) error {
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	tmp := s.fs.PathJoin(s.dir, currentFile+".tmp")
	f, err := s.fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%08x\n%s", crc32.ChecksumIEEE(body), body)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := s.fs.Rename(tmp, s.fs.PathJoin(s.dir, currentFile)); err != nil {
		return err
	}
	return raftlog.SyncDir(s.fs, s.dir)
}

// sweep removes generations that nothing points at: received halfway, or
// replaced before a crash.
func (s *store) sweep() error {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if p := s.fs.PathJoin(s.dir, n); n != currentFile && p != s.path(s.head.Generation) {
			if err := s.fs.RemoveAll(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// reserve names a directory for a generation that is being received, or for a
// checkpoint that is being sent.
func (s *store) reserve() (number uint64, dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	number = s.next
	s.next++
	return number, s.path(number)
}

func (s *store) options() *pebble.Options {
	o := &pebble.Options{
		FS:                          s.fs,
		Logger:                      s.fail,
		EventListener:               s.fail.Listener(),
		FormatMajorVersion:          pebble.FormatNewest,
		DisableWAL:                  true, // the raft log is the log
		MemTableSize:                uint64(s.mem),
		MemTableStopWritesThreshold: 4,
		Cache:                       s.cache,
		MaxOpenFiles:                512,
		L0CompactionThreshold:       16, // Pebble begins at half of it
		L0StopWritesThreshold:       64,
		BytesPerSync:                1 << 20,
	}
	o.Experimental.SpanPolicyFunc = blocksApart
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		// Keys are digests and facts are dense: compressing them costs more of
		// the two cores than it saves of the disk.
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	}
	return o
}

// blocksApart has a table end where a chain of blocks begins or ends. Blocks come
// in the order of their keys and are never changed, so tables of one chain alone
// do not overlap, and need not be merged with one another when the rows beside
// them are.
func blocksApart(start []byte) (policy pebble.SpanPolicy, end []byte, err error) {
	var key [blockKeySize]byte // a range that is deleted may start with less
	copy(key[:], start)
	switch id := binary.BigEndian.Uint32(key[1:]); {
	case key[0] < spaceBlock:
		end = []byte{spaceBlock}
	case key[0] == spaceBlock:
		end = seqKey(spaceBlock, id+1, 0)
	}
	return policy, end, nil
}

func (s *store) openGeneration(number uint64) (*generation, error) {
	dir := s.path(number)
	if err := raftlog.MakeDir(s.fs, dir); err != nil {
		return nil, err
	}
	db, pace, err := raftlog.OpenDB(dir, s.options())
	if err != nil {
		return nil, err
	}
	s.open.Add(1)
	return &generation{store: s, number: number, db: db, pace: pace, refs: 1}, nil
}

// acquire returns the living generation; the caller must release it. It is nil
// after close.
func (s *store) acquire() *generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen == nil {
		return nil
	}
	s.gen.refs++
	return s.gen
}

// snapshot returns what raft may be told of; nil before the first.
func (s *store) snapshot() *raft.SnapshotMeta {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head.Snapshot
}

// record writes down a snapshot that the given generation stands for. It does
// nothing when that generation has been replaced meanwhile.
func (s *store) record(gen *generation, meta *raft.SnapshotMeta) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen != gen {
		return nil
	}
	head := current{Generation: gen.number, Snapshot: meta}
	if err := s.writeCurrent(head); err != nil {
		return err
	}
	s.head = head
	return nil
}

// swap makes a received generation the living one. Views on the old one stay
// valid; its files go when the last of them is closed.
func (s *store) swap(number uint64, meta *raft.SnapshotMeta) (*generation, error) {
	gen, err := s.openGeneration(number)
	if err != nil {
		return nil, err
	}
	mishap.MidInstall.Hit()
	s.mu.Lock()
	head := current{Generation: number, Snapshot: meta}
	if err := s.writeCurrent(head); err != nil {
		s.mu.Unlock()
		return nil, errors.Join(err, gen.release())
	}
	old := s.gen
	s.head, s.gen = head, gen
	old.doomed = true
	s.mu.Unlock()
	return gen, old.release()
}

// close lets go of the living generation and waits until no view holds one,
// but not for ever.
func (s *store) close(patience time.Duration) error {
	s.mu.Lock()
	gen := s.gen
	s.gen = nil
	s.mu.Unlock()
	var err error
	if gen != nil {
		err = gen.release()
	}
	done := make(chan struct{})
	go func() {
		s.open.Wait()
		close(done)
	}()
	select {
	case <-done:
		return err
	case <-time.After(patience):
		return errors.Join(err, errors.New("replica: a view was not closed"))
	}
}

// generation is one Pebble. It is closed when the last holder releases it.
type generation struct {
	store  *store
	number uint64
	db     *pebble.DB
	pace   *compaction.Pace

	// Guarded by store.mu.
	refs   int
	doomed bool // replaced: its directory goes with it
}

// flush puts what is in memory on disk, for somebody who waits.
func (g *generation) flush() error { return g.pace.Flush(g.db) }

// share is one more reference for somebody who holds one.
func (g *generation) share() *generation {
	g.store.mu.Lock()
	g.refs++
	g.store.mu.Unlock()
	return g
}

func (g *generation) release() error {
	g.store.mu.Lock()
	g.refs--
	last, doomed := g.refs == 0, g.doomed
	g.store.mu.Unlock()
	if !last {
		return nil
	}
	defer g.store.open.Done()
	err := g.db.Close()
	if doomed {
		err = errors.Join(err, g.store.fs.RemoveAll(g.store.path(g.number)))
	}
	return err
}
