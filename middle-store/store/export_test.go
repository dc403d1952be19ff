package store

import (
	stdctx "context"
	"crypto/sha256"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"qianma/cluster/fact"
	"qianma/middle-store/fold"
)

// Digest covers every row, key and value, in order.
func (s *Store) Digest() (d fact.Digest, rows int, err error) {
	h := sha256.New()
	it, err := s.db.NewIter(nil)
	if err != nil {
		return d, 0, err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if !fold.Rows(it.Key()) {
			continue
		}
		var size [8]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(it.Key())))
		binary.BigEndian.PutUint32(size[4:], uint32(len(it.Value())))
		h.Write(size[:])
		h.Write(it.Key())
		h.Write(it.Value())
		rows++
	}
	h.Sum(d[:0])
	return d, rows, it.Close()
}

// Compact settles all rows into the lowest level, as a long life does.
func (s *Store) Compact() error {
	return s.db.Compact(stdctx.Background(), []byte{0}, []byte{0xff}, false)
}

// SetLayout makes the store look like one of another build.
func (s *Store) SetLayout(n byte) error { return s.db.Set([]byte{tagLayout}, []byte{n}, pebble.NoSync) }

// Set writes a key as an older or newer build might have.
func (s *Store) Set(key, value []byte) error { return s.db.Set(key, value, pebble.NoSync) }

// AsideKey is where a fact that was not understood is kept.
var AsideKey = asideKey
