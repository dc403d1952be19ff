package store

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/problem"
	"qianma/cluster/raftlog"
	"qianma/middle-store/fold"
	"qianma/middle-store/middlestorepb"
)

// Bounds of copying.
const (
	copiesMax = 2       // held still at a time
	copyChunk = 1 << 20 // bytes of one read
	copyFiles = 1 << 16 // files of a copy
)

// copies are held still for peers: checkpoints made of hard links, so they
// cost disk only for what is compacted away meanwhile.
type copies struct {
	mu   sync.Mutex
	open map[uint64]*copied
	last uint64
}

type copied struct {
	dir     string
	files   []middlestorepb.File
	touched time.Duration // as elapsed: a copy is no older for a clock that is set
	reads   sync.WaitGroup
}

func (c *copies) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// expire drops the copies that nobody has read since then.
func (c *copies) expire(since time.Duration, drop func(*copied)) {
	c.mu.Lock()
	var gone []*copied
	for id, x := range c.open {
		if x.touched < since {
			gone = append(gone, x)
			delete(c.open, id)
		}
	}
	c.mu.Unlock()
	for _, x := range gone {
		drop(x)
	}
}

func (s *Store) dropCopy(x *copied) {
	x.reads.Wait()
	if err := s.cfg.FS.RemoveAll(x.dir); err != nil {
		s.cfg.Logger.Warn("a peer's copy could not be removed; the next start will", "err", err)
	}
}

// OpenCopy holds a copy of the whole store still, for a peer to read. A store
// that is not complete has nothing worth copying.
func (s *Store) OpenCopy() (middlestorepb.CheckpointOpenResponse, error) {
	leave, err := s.enter()
	if err != nil {
		return middlestorepb.CheckpointOpenResponse{}, err
	}
	defer leave()
	out := middlestorepb.CheckpointOpenResponse{Layout: fold.Layout}
	if !s.Complete() {
		return out, nil
	}
	if out.Facts = s.Facts(); out.Facts == 0 {
		return out, nil
	}
	s.copies.expire(s.cfg.Clock.Elapsed()-s.cfg.CopyIdle, s.dropCopy)
	x, id, err := s.reserveCopy()
	if err != nil {
		return out, err
	}
	if err := s.fillCopy(x); err != nil {
		s.copies.remove(id)
		s.dropCopy(x)
		return out, err
	}
	out.ID, out.Files = id, slices.Clone(x.files)
	return out, nil
}

func (s *Store) reserveCopy() (*copied, uint64, error) {
	c := &s.copies
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= copiesMax {
		return nil, 0, problem.New(problem.Overloaded, "as many peers as can be served are copying this store", "ask another replica, or wait").After(5 * time.Second)
	}
	c.last++
	x := &copied{dir: s.cfg.FS.PathJoin(s.cfg.Dir, fmt.Sprintf("copy-%06d", c.last)), touched: s.cfg.Clock.Elapsed()}
	c.open[c.last] = x
	return x, c.last, nil
}

// fillCopy puts what is in memory on disk and links the files.
func (s *Store) fillCopy(x *copied) error {
	if err := s.pace.Flush(s.db); err != nil {
		return err
	}
	if err := s.db.Checkpoint(x.dir); err != nil {
		return err
	}
	names, err := s.cfg.FS.List(x.dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		info, err := s.cfg.FS.Stat(s.cfg.FS.PathJoin(x.dir, name))
		if err != nil {
			return err
		}
		x.files = append(x.files, middlestorepb.File{Name: name, Size: uint64(info.Size())})
	}
	return nil
}

func (c *copies) remove(id uint64) *copied {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.open[id]
	delete(c.open, id)
	return x
}

// use keeps a copy from being dropped until done is called.
func (c *copies) use(id uint64, now time.Duration) (x *copied, done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x = c.open[id]
	if x == nil {
		return nil, nil, problem.New(problem.NotFound, "this copy has ended", "open a new one and begin again")
	}
	x.touched = now
	x.reads.Add(1)
	return x, x.reads.Done, nil
}

// ReadCopy returns a part of a file of a copy; less than was there to read
// only at the end of the file.
func (s *Store) ReadCopy(r middlestorepb.CheckpointReadRequest) (out middlestorepb.CheckpointReadResponse, err error) {
	x, done, err := s.copies.use(r.ID, s.cfg.Clock.Elapsed())
	if err != nil {
		return out, err
	}
	defer done()
	if uint64(r.File) >= uint64(len(x.files)) || r.Offset > x.files[r.File].Size {
		return out, problem.New(problem.Invalid, "no such part of this copy", "read within the sizes that were told")
	}
	file := x.files[r.File]
	out.Data = make([]byte, min(copyChunk, file.Size-r.Offset))
	f, err := s.cfg.FS.Open(s.cfg.FS.PathJoin(x.dir, file.Name))
	if err != nil {
		return out, err
	}
	_, err = f.ReadAt(out.Data, int64(r.Offset))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	out.CRC = crc32.Checksum(out.Data, castagnoli)
	return out, errors.Join(err, f.Close())
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CloseCopy lets a copy go. One that has ended already is no error.
func (s *Store) CloseCopy(id uint64) {
	if x := s.copies.remove(id); x != nil {
		s.dropCopy(x)
	}
}

// Peer is a middle store whose copy can be taken.
type Peer interface {
	OpenCopy(ctx context.Context) (middlestorepb.CheckpointOpenResponse, error)
	ReadCopy(ctx context.Context, r middlestorepb.CheckpointReadRequest) (middlestorepb.CheckpointReadResponse, error)
	CloseCopy(ctx context.Context, id uint64) error
}

// ErrNothing says that a peer has nothing worth copying.
var ErrNothing = errors.New("middle-store: the peer has nothing worth copying")

// Take replaces the store in cfg.Dir, which must not be open, with a copy of a
// peer's. After an error, and after a crash, the store is as it was. It
// returns how many facts the copy holds.
func Take(ctx context.Context, cfg Config, peer Peer) (facts uint64, err error) {
	cfg.setDefaults()
	h := home{cfg.FS, cfg.Dir}
	current, err := h.prepare()
	if err != nil {
		return 0, err
	}
	told, err := peer.OpenCopy(ctx)
	if err != nil {
		return 0, err
	}
	if told.Facts == 0 || told.Layout != fold.Layout {
		return 0, ErrNothing
	}
	defer func() { _ = peer.CloseCopy(context.WithoutCancel(ctx), told.ID) }()
	if err := checkFiles(told.Files); err != nil {
		return 0, err
	}
	dir := h.path(current + 1)
	if err := cfg.FS.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	for i, file := range told.Files {
		if err := takeFile(ctx, cfg.FS, cfg.FS.PathJoin(dir, file.Name), peer, told.ID, uint32(i), file.Size); err != nil {
			return 0, fmt.Errorf("middle-store: copy of file %d of %d: %w", i+1, len(told.Files), err)
		}
	}
	if err := errors.Join(raftlog.SyncDir(cfg.FS, dir), raftlog.SyncDir(cfg.FS, cfg.Dir)); err != nil {
		return 0, err
	}
	return told.Facts, h.point(current + 1)
}

// checkFiles refuses names that would lead out of the directory.
func checkFiles(files []middlestorepb.File) error {
	if len(files) == 0 || len(files) > copyFiles {
		return fmt.Errorf("middle-store: a copy of %d files", len(files))
	}
	seen := map[string]bool{}
	for _, f := range files {
		if f.Name == "" || f.Name == "." || f.Name == ".." || strings.ContainsAny(f.Name, `/\:`) || seen[f.Name] {
			return errors.New("middle-store: a copy with a file name that must not be")
		}
		seen[f.Name] = true
	}
	return nil
}

func takeFile(ctx context.Context, fs vfs.FS, path string, peer Peer, id uint64, index uint32, size uint64) (err error) {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for at := uint64(0); at < size; {
		part, err := peer.ReadCopy(ctx, middlestorepb.CheckpointReadRequest{ID: id, File: index, Offset: at})
		switch {
		case err != nil:
			return err
		case len(part.Data) == 0 || uint64(len(part.Data)) > size-at:
			return errors.New("a part of the wrong size")
		case crc32.Checksum(part.Data, castagnoli) != part.CRC:
			return errors.New("a part was damaged on the way")
		}
		if _, err := f.Write(part.Data); err != nil {
			return err
		}
		at += uint64(len(part.Data))
	}
	return f.Sync()
}
