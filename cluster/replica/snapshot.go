package replica

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"qianma/cluster/mishap"
	"qianma/cluster/raftlog"
)

// snapshots implements raft.SnapshotStore over the living state.
//
// A local snapshot is a few lines in CURRENT: the state is on disk already, so
// recording one means flushing it. Sending one means a Pebble checkpoint (hard
// links), streamed with its exact size and a checksum. Receiving one unpacks
// the stream into a fresh generation as it arrives; only Restore, when every
// byte has proved itself, makes that generation the living one.
type snapshots struct {
	store *store
	// installed is told of a received snapshot once the state stands on it.
	installed func(*raft.SnapshotMeta)

	mu      sync.Mutex
	arrived map[string]*arrival // received whole, not installed yet
}

type arrival struct {
	number uint64
	meta   *raft.SnapshotMeta
}

func newSnapshots(s *store) *snapshots {
	return &snapshots{store: s, arrived: map[string]*arrival{}}
}

// List implements raft.SnapshotStore: there is one, or none yet.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	if m := s.store.snapshot(); m != nil {
		return []*raft.SnapshotMeta{m}, nil
	}
	return nil, nil
}

// Create implements raft.SnapshotStore, for snapshots taken here and received.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	number, dir := s.store.reserve()
	meta := &raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, number),
		Index: index, Term: term, Configuration: conf, ConfigurationIndex: confIndex,
	}
	return &sink{snaps: s, number: number, dir: dir, meta: meta}, nil
}

// Open implements raft.SnapshotStore. Raft opens the living snapshot to send
// it, and one that has arrived to hand it to Restore, which needs its name.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	a := s.arrived[id]
	s.mu.Unlock()
	if a != nil {
		return a.meta, io.NopCloser(strings.NewReader(id)), nil
	}
	meta := s.store.snapshot()
	if meta == nil || meta.ID != id {
		return nil, nil, fmt.Errorf("replica: no snapshot %s", id)
	}
	out, size, err := s.store.export()
	if err != nil {
		return nil, nil, err
	}
	sized := *meta
	sized.Size = size
	return &sized, out, nil
}

// install makes an arrived snapshot the living state.
func (s *snapshots) install(id string, f *fsm) error {
	s.mu.Lock()
	a := s.arrived[id]
	delete(s.arrived, id)
	s.mu.Unlock()
	if a == nil {
		return fmt.Errorf("replica: snapshot %s has not arrived", id)
	}
	if f.led.index >= a.meta.Index {
		// What is here contains the snapshot: keep it, it may be ahead.
		err := errors.Join(f.gen.flush(), f.store.fail.Err())
		if err == nil {
			err = s.store.record(f.gen, a.meta)
		}
		err = errors.Join(err, s.store.fs.RemoveAll(s.store.path(a.number)))
		if err == nil && s.installed != nil {
			s.installed(a.meta)
		}
		return err
	}
	gen, err := s.store.swap(a.number, a.meta)
	if gen == nil {
		return err
	}
	if err := errors.Join(err, f.adopt(s.store.acquire())); err != nil {
		f.halt(err) // the old state is gone and the new one cannot be read
		return err
	}
	if f.led.index < a.meta.Index {
		err := fmt.Errorf("%w: a snapshot at %d holds a state at %d", errState, a.meta.Index, f.led.index)
		f.halt(err)
		return err
	}
	if s.installed != nil {
		s.installed(a.meta)
	}
	return nil
}

// frozen is a raft.FSMSnapshot: a promise that the generation's memtables will
// be on disk before the snapshot is recorded and the log is cut.
type frozen struct {
	gen *generation
}

// Persist implements raft.FSMSnapshot.
func (z *frozen) Persist(out raft.SnapshotSink) error {
	if err := z.gen.db.Flush(); err != nil {
		return err
	}
	if err := z.gen.store.fail.Err(); err != nil {
		return err
	}
	s, ok := out.(*sink)
	if !ok {
		return fmt.Errorf("replica: a snapshot into a %T", out)
	}
	s.local = z.gen
	mishap.MidSnapshot.Hit()
	return s.Close()
}

// Release implements raft.FSMSnapshot.
func (z *frozen) Release() { _ = z.gen.release() }

// sink implements raft.SnapshotSink. Raft makes one for a local snapshot,
// which writes nothing, and for one that is received, which is unpacked.
type sink struct {
	snaps  *snapshots
	number uint64
	dir    string
	meta   *raft.SnapshotMeta
	local  *generation

	pipe *io.PipeWriter
	done chan error
	over bool
}

// ID implements raft.SnapshotSink.
func (s *sink) ID() string { return s.meta.ID }

// Write implements raft.SnapshotSink.
func (s *sink) Write(p []byte) (int, error) {
	if s.pipe == nil {
		var r *io.PipeReader
		r, s.pipe = io.Pipe()
		s.done = make(chan error, 1)
		go func() {
			err := unpack(s.snaps.store.fs, s.dir, r)
			if !errors.Is(err, errArchive) {
				s.snaps.store.fail.Report(err) // what came was well: it is our disk that refused
			}
			r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
			s.done <- err
		}()
	}
	n, err := s.pipe.Write(p)
	s.meta.Size += int64(n)
	return n, err
}

// Close implements raft.SnapshotSink: a received snapshot has arrived, a local
// one is recorded.
func (s *sink) Close() error {
	if s.over {
		return nil
	}
	s.over = true
	if s.local != nil {
		return s.snaps.store.record(s.local, s.meta)
	}
	if s.pipe == nil {
		return errArchive
	}
	s.pipe.Close()
	if err := <-s.done; err != nil {
		return errors.Join(err, s.snaps.store.fs.RemoveAll(s.dir))
	}
	s.snaps.mu.Lock()
	defer s.snaps.mu.Unlock()
	for id, old := range s.snaps.arrived { // one that raft gave up on
		delete(s.snaps.arrived, id)
		_ = s.snaps.store.fs.RemoveAll(s.snaps.store.path(old.number))
	}
	s.snaps.arrived[s.meta.ID] = &arrival{number: s.number, meta: s.meta}
	return nil
}

// Cancel implements raft.SnapshotSink.
func (s *sink) Cancel() error {
	if s.over {
		return nil
	}
	s.over = true
	if s.pipe == nil {
		return nil
	}
	s.pipe.CloseWithError(errArchive)
	<-s.done
	return s.snaps.store.fs.RemoveAll(s.dir)
}

// export returns a stream of the living state as it is now, or a little later
// than the snapshot it is sent for: whoever receives it skips what it holds.
func (s *store) export() (io.ReadCloser, int64, error) {
	gen := s.acquire()
	if gen == nil {
		return nil, 0, errStopped
	}
	_, dir := s.reserve()
	err := gen.flush() // without a WAL, a checkpoint holds only what was flushed
	if err == nil {
		err = gen.db.Checkpoint(dir)
	}
	if err = errors.Join(err, gen.release()); err != nil {
		return nil, 0, errors.Join(err, s.fs.RemoveAll(dir))
	}
	out, size, err := pack(s.fs, dir)
	if err != nil {
		return nil, 0, errors.Join(err, s.fs.RemoveAll(dir))
	}
	return &exported{ReadCloser: out, fs: s.fs, dir: dir}, size, nil
}

// exported removes its checkpoint when it has been sent.
type exported struct {
	io.ReadCloser
	fs  vfs.FS
	dir string
}

// Close implements io.Closer.
func (e *exported) Close() error {
	return errors.Join(e.ReadCloser.Close(), e.fs.RemoveAll(e.dir))
}

// reconcile makes a log agree with the snapshot the state stands on. Raft
// keeps whatever a follower has behind an installed snapshot; when that tail
// contradicts the snapshot, the follower can never append to it and is sent
// the same snapshot for ever (hashicorp/raft#697). The rule of the paper: the
// tail stays if the log has the snapshot's last entry with its term, else the
// whole log goes. stale says that a running raft instance still believes in a
// tail that is gone, and must be restarted.
func reconcile(log *raftlog.Group, meta *raft.SnapshotMeta) (stale bool, err error) {
	first, _ := log.FirstIndex()
	last, _ := log.LastIndex()
	if last == 0 || first > meta.Index {
		return false, nil // empty, or cut at the snapshot
	}
	var at raft.Log
	if last >= meta.Index {
		if err := log.GetLog(meta.Index, &at); err != nil {
			return false, err
		}
		if at.Term == meta.Term {
			return false, nil
		}
	}
	return last >= meta.Index, log.DeleteRange(first, last)
}
