package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// Keys of a group: its id, a space, and the index or name.
const (
	spaceLog    = 'l'
	spaceStable = 's'
)

// MaxGroup is the largest id of a group: one below the store's own space.
const MaxGroup = 0xfeff

var (
	keyVoteTerm = []byte("LastVoteTerm")
	keyVoteCand = []byte("LastVoteCand")
	keyTerm     = []byte("CurrentTerm")
)

// errNotFound has the text that hashicorp/raft compares with.
var errNotFound = errors.New("not found")

var (
	_ raft.LogStore    = (*Group)(nil)
	_ raft.StableStore = (*Group)(nil)
)

// Group is the raft log and the votes of one group.
type Group struct {
	store *Store
	id    uint16

	mu          sync.RWMutex
	first, last uint64 // 0: the log is empty
	window      window
	stagedTerm  []byte // LastVoteTerm, waiting for its candidate
	volatile    []byte // CurrentTerm since the disk failed; see SetUint64
}

func (g *Group) logKey(index uint64) []byte {
	return binary.BigEndian.AppendUint64(groupKey(g.id, spaceLog, 8), index)
}

func (g *Group) stableKey(key []byte) []byte {
	return append(groupKey(g.id, spaceStable, len(key)), key...)
}

func (g *Group) load() error {
	it, err := g.store.db.NewIter(&pebble.IterOptions{
		LowerBound: groupKey(g.id, spaceLog, 0),
		UpperBound: groupKey(g.id, spaceLog+1, 0),
	})
	if err != nil {
		return err
	}
	if it.First() {
		g.first = binary.BigEndian.Uint64(it.Key()[3:])
	}
	if it.Last() {
		g.last = binary.BigEndian.Uint64(it.Key()[3:])
	}
	return errors.Join(it.Error(), it.Close())
}

// FirstIndex implements raft.LogStore.
func (g *Group) FirstIndex() (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.first, nil
}

// LastIndex implements raft.LogStore.
func (g *Group) LastIndex() (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.last, nil
}

// GetLog implements raft.LogStore.
func (g *Group) GetLog(index uint64, out *raft.Log) error {
	g.mu.RLock()
	cached := g.window.get(index)
	inside := g.first != 0 && index >= g.first && index <= g.last
	g.mu.RUnlock()
	if cached != nil {
		*out = *cached
		return nil
	}
	if !inside {
		return raft.ErrLogNotFound
	}
	v, ok, err := g.store.read(g.logKey(index))
	switch {
	case err != nil:
		return err
	case !ok:
		return raft.ErrLogNotFound
	}
	return decodeLog(index, v, out)
}

// StoreLog implements raft.LogStore.
func (g *Group) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore: one batch, one fsync, shared with other
// groups that write now.
func (g *Group) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	g.mu.RLock()
	first, last := g.first, g.last
	g.mu.RUnlock()
	from, to := logs[0].Index, logs[len(logs)-1].Index
	// A gap means that a snapshot stands for what is missing, and what lies
	// before the gap is out of use. An overlap replaces the tail.
	gap, overlap := last != 0 && from > last+1, last != 0 && from <= last
	err := g.store.write(func(b *pebble.Batch) error {
		var err error
		switch {
		case gap:
			err = b.DeleteRange(g.logKey(first), g.logKey(last+1), nil)
		case overlap:
			err = b.DeleteRange(g.logKey(from), g.logKey(last+1), nil)
		}
		for _, l := range logs {
			g.putLog(b, l)
		}
		return err
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if gap || overlap {
		g.window.clear()
	}
	if gap || g.first == 0 || from < g.first {
		g.first = from
	}
	g.last = to
	g.window.add(logs)
	return nil
}

// putLog encodes straight into the batch: the entry's bytes are copied once.
func (g *Group) putLog(b *pebble.Batch, l *raft.Log) {
	op := b.SetDeferred(3+8, logSize(l))
	copy(op.Key, groupKey(g.id, spaceLog, 0))
	binary.BigEndian.PutUint64(op.Key[3:], l.Index)
	encodeLog(op.Value, l)
	_ = op.Finish()
}

// DeleteRange implements raft.LogStore. It is not synced: a truncation that a
// crash undoes leaves entries that were there before it, which is safe.
func (g *Group) DeleteRange(lo, hi uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.first == 0 || hi < g.first || lo > g.last {
		return nil
	}
	lo, hi = max(lo, g.first), min(hi, g.last)
	if lo > g.first && hi < g.last {
		return fmt.Errorf("raftlog: [%d, %d] is in the middle of [%d, %d]", lo, hi, g.first, g.last)
	}
	if err := g.store.deleteRange(g.logKey(lo), g.logKey(hi+1)); err != nil {
		return err
	}
	switch {
	case lo == g.first && hi == g.last:
		g.first, g.last = 0, 0
	case lo == g.first:
		g.first = hi + 1
	default:
		g.last = lo - 1
	}
	g.window.cut(lo, hi)
	return nil
}

func (s *Store) deleteRange(from, to []byte) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.closed:
		return ErrClosed
	case s.fail.Err() != nil:
		return ErrFailed
	}
	return s.db.DeleteRange(from, to, pebble.NoSync)
}

// Set implements raft.StableStore. A candidate carries the staged term of its
// vote with it, in one synced batch: a vote is durable whole or not at all
// (hashicorp/raft#661).
func (g *Group) Set(key, value []byte) error {
	g.mu.Lock()
	staged := g.stagedTerm
	vote := string(key) == string(keyVoteCand)
	g.mu.Unlock()
	err := g.store.write(func(b *pebble.Batch) error {
		if vote && staged != nil {
			if err := b.Set(g.stableKey(keyVoteTerm), staged, nil); err != nil {
				return err
			}
		}
		return b.Set(g.stableKey(key), value, nil)
	})
	if err == nil && vote {
		g.mu.Lock()
		g.stagedTerm = nil
		g.mu.Unlock()
	}
	return err
}

// Get implements raft.StableStore. It sees what is durable, never what is
// staged.
func (g *Group) Get(key []byte) ([]byte, error) {
	v, ok, err := g.store.read(g.stableKey(key))
	if err == nil && !ok {
		err = errNotFound
	}
	return v, err
}

// SetUint64 implements raft.StableStore.
//
// hashicorp/raft panics when it cannot store its current term. After the disk
// has failed the term is kept in memory until the process stops: nothing that
// could make it matter (a vote, an entry) is acknowledged any more.
func (g *Group) SetUint64(key []byte, v uint64) error {
	value := binary.BigEndian.AppendUint64(nil, v)
	if string(key) == string(keyVoteTerm) {
		g.mu.Lock()
		g.stagedTerm = value
		g.mu.Unlock()
		return nil
	}
	err := g.Set(key, value)
	if err != nil && string(key) == string(keyTerm) && g.store.fail.Err() != nil {
		g.mu.Lock()
		g.volatile = value
		g.mu.Unlock()
		return nil
	}
	return err
}

// GetUint64 implements raft.StableStore.
func (g *Group) GetUint64(key []byte) (uint64, error) {
	if string(key) == string(keyTerm) {
		g.mu.RLock()
		v := g.volatile
		g.mu.RUnlock()
		if v != nil {
			return binary.BigEndian.Uint64(v), nil
		}
	}
	v, err := g.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("raftlog: %s is not a number", key)
	}
	return binary.BigEndian.Uint64(v), nil
}

// An entry is its term, its type, when it was appended, and its two byte
// strings; the index is the key.
const logHead = 8 + 1 + 8 + 4

func logSize(l *raft.Log) int { return logHead + len(l.Extensions) + len(l.Data) }

func encodeLog(dst []byte, l *raft.Log) {
	binary.BigEndian.PutUint64(dst, l.Term)
	dst[8] = byte(l.Type)
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	binary.BigEndian.PutUint64(dst[9:], uint64(at))
	binary.BigEndian.PutUint32(dst[17:], uint32(len(l.Extensions)))
	n := copy(dst[logHead:], l.Extensions)
	copy(dst[logHead+n:], l.Data)
}

func decodeLog(index uint64, v []byte, out *raft.Log) error {
	if len(v) < logHead {
		return fmt.Errorf("raftlog: entry %d is cut short", index)
	}
	ext := int(binary.BigEndian.Uint32(v[17:]))
	if ext > len(v)-logHead {
		return fmt.Errorf("raftlog: entry %d is malformed", index)
	}
	*out = raft.Log{Index: index, Term: binary.BigEndian.Uint64(v), Type: raft.LogType(v[8])}
	if at := int64(binary.BigEndian.Uint64(v[9:])); at != 0 {
		out.AppendedAt = time.Unix(0, at)
	}
	if ext > 0 {
		out.Extensions = v[logHead : logHead+ext]
	}
	if rest := v[logHead+ext:]; len(rest) > 0 {
		out.Data = rest
	}
	return nil
}

// window holds the newest entries, up to a number of bytes, so that followers
// that keep up and the state machine never read the store.
type window struct {
	limit int
	bytes int
	logs  []*raft.Log // consecutive
}

func (w *window) get(index uint64) *raft.Log {
	if len(w.logs) == 0 || index < w.logs[0].Index || index > w.logs[len(w.logs)-1].Index {
		return nil
	}
	return w.logs[index-w.logs[0].Index]
}

func (w *window) add(logs []*raft.Log) {
	for _, l := range logs {
		// The caller's Log lives inside a future that outlives its use; keep
		// only the entry.
		kept := *l
		w.logs = append(w.logs, &kept)
		w.bytes += logSize(l)
	}
	drop := 0
	for w.bytes > w.limit && drop < len(w.logs)-1 {
		w.bytes -= logSize(w.logs[drop])
		w.logs[drop] = nil
		drop++
	}
	w.logs = w.logs[drop:]
}

func (w *window) clear() { w.logs, w.bytes = nil, 0 }

// cut forgets a prefix or a suffix.
func (w *window) cut(lo, hi uint64) {
	kept := w.logs[:0]
	w.bytes = 0
	for _, l := range w.logs {
		if l.Index < lo || l.Index > hi {
			kept = append(kept, l)
			w.bytes += logSize(l)
		}
	}
	clear(w.logs[len(kept):])
	w.logs = kept
}
