package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// sorter gathers the rows of a parcel and hands them on in key order. Facts
// come in the order people queued, their keys are scattered over everybody;
// in order each finds its place in the memtable next to the one before.
type sorter struct {
	arena []byte
	rows  []sorted
}

// sorted is one row: where its key and value stand in the arena. The first
// bytes of the key decide nearly every comparison.
type sorted struct {
	head           uint64
	at, key, value uint32
}

// sorterKept is the most scratch space kept between parcels.
const sorterKept = 16 << 20

func (s *sorter) reset() {
	if cap(s.arena) > sorterKept {
		*s = sorter{}
	}
	s.arena, s.rows = s.arena[:0], s.rows[:0]
}

func (s *sorter) add(key, value []byte) {
	r := sorted{head: head(key), at: uint32(len(s.arena)), key: uint32(len(key)), value: uint32(len(value))}
	s.arena = append(append(s.arena, key...), value...)
	s.rows = append(s.rows, r)
}

// cut forgets the rows behind the first n.
func (s *sorter) cut(n int) { s.rows = s.rows[:n] }

// head is the first eight bytes of a key; equal heads say nothing.
func head(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

func (s *sorter) keyOf(r *sorted) []byte { return s.arena[r.at : r.at+r.key] }

// write puts the rows into a batch. A row that was added twice is written
// once.
func (s *sorter) write(b *pebble.Batch) error {
	slices.SortFunc(s.rows, func(x, y sorted) int {
		if x.head != y.head {
			return cmp.Compare(x.head, y.head)
		}
		return cmp.Or(bytes.Compare(s.keyOf(&x), s.keyOf(&y)), cmp.Compare(x.at, y.at))
	})
	for i := range s.rows {
		r := &s.rows[i]
		if i+1 < len(s.rows) && r.head == s.rows[i+1].head && bytes.Equal(s.keyOf(r), s.keyOf(&s.rows[i+1])) {
			continue // the later one says the same, or is the mark that counts
		}
		op := b.SetDeferred(int(r.key), int(r.value))
		copy(op.Key, s.keyOf(r))
		copy(op.Value, s.arena[r.at+r.key:r.at+r.key+r.value])
		if err := op.Finish(); err != nil {
			return err
		}
	}
	return nil
}
