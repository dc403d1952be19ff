package store

import (
	"math/rand/v2"
	"sync"

	"qianma/middle-store/fold"
	"qianma/middle-store/middlestorepb"
)

// changes remembers the subjects of the rows that were folded last, so that
// whoever keeps answers can ask which of them stand. It is of this run alone: a
// number of its own, the epoch, says whose positions these are.
type changes struct {
	epoch uint64

	mu    sync.Mutex
	ring  []uint32 // grows to ringMost, then the oldest make way
	count uint64   // ever; the newest stands at this position
}

// ringMost is how far back an asker may be: some ten seconds of 20,000 facts a
// second. Half of it is what is named at once.
const ringMost = 2 * middlestorepb.MaxChanges

func newChanges() *changes { return &changes{epoch: rand.Uint64() | 1} }

// add takes in the rows of one parcel, once they can be read.
func (c *changes) add(subjects []uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range subjects {
		if len(c.ring) < ringMost {
			c.ring = append(c.ring, s)
		} else {
			c.ring[c.count%ringMost] = s
		}
		c.count++
	}
}

func (c *changes) position() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// since lists what stands behind a position, up to the newest; nothing where that
// is not known, or too much.
func (c *changes) since(epoch, after uint64) (changed []uint32, position uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != c.epoch || after > c.count || c.count-after > middlestorepb.MaxChanges {
		return nil, c.count
	}
	changed = make([]uint32, 0, c.count-after)
	for at := after; at < c.count; at++ {
		changed = append(changed, c.ring[at%ringMost])
	}
	return changed, c.count
}

// subjects numbers the rows of a parcel, each subject once.
func (s *sorter) subjects(out []uint32) []uint32 {
	for i := range s.rows {
		key := s.keyOf(&s.rows[i])
		if !fold.Rows(key) {
			continue
		}
		if n := fold.Subject(key); len(out) == 0 || out[len(out)-1] != n { // rows of one subject stand together
			out = append(out, n)
		}
	}
	return out
}

// Changes says which subjects have changed since a position of an epoch. What
// is named had been folded, and can be read, before it was named; and what the
// marks of the answer cover is named, or was before.
func (s *Store) Changes(epoch, after uint64) (out middlestorepb.ChangesResponse, err error) {
	leave, err := s.enter()
	if err != nil {
		return out, err
	}
	defer leave()
	out.Head.Marks = s.held.Load().marks // before the position, so that they are not ahead of it
	out.Changed, out.Head.Position = s.changes.since(epoch, after)
	out.Head.Epoch = s.changes.epoch
	return out, nil
}
