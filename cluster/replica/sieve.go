package replica

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// sieve tells keys that are surely not in the store from those that the store
// must be asked for: idempotency keys, of which nearly every one is new, and rows
// of the tables that a machine says it asks for before they are there. To learn
// that from the store means a walk through each memtable and a filter of each
// level; three replicas did so for every write. It holds what has been kept since
// it was filled, and is filled from the store in the background; until then it
// answers "perhaps" to everything.
//
// It is a stack of Bloom filters, each twice the size of the one below, so
// that a quiet group pays for little. The last one is as large as may be and
// takes the rest: beyond its capacity it only says "perhaps" more often.
//
// Nothing depends on it but speed. It is safe for concurrent use.
type sieve struct {
	mu     sync.Mutex
	young  meshes // keys of the living generation
	old    meshes // of the one before
	filled bool
}

// maybe reports whether the key may be in a living generation.
func (s *sieve) maybe(key *[16]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.filled || s.young.holds(key) || s.old.holds(key)
}

// add notes a key of the living generation.
func (s *sieve) add(key *[16]byte) {
	s.mu.Lock()
	s.young.add(key)
	s.mu.Unlock()
}

// hashed is the key of a sieve for what has been hashed to 64 bits.
func hashed(hash uint64) (key [16]byte) {
	binary.BigEndian.PutUint64(key[:], hash)
	return key
}

// rotate follows the ledger: the generation before the last is forgotten.
func (s *sieve) rotate() {
	s.mu.Lock()
	s.old, s.young = s.young, nil
	s.mu.Unlock()
}

// fillChunk is how many keys are noted between two looks at stop.
const fillChunk = 4096

// fill notes every key that the store holds in the given ranges, as keyOf names
// it. All go into the younger generation: one of the older is then remembered a
// rotation too long, which costs a look at the store; the other way round one
// would be forgotten. Of more keys than a sieve can tell apart it notes no more:
// then it is never filled, and each key is looked up.
func (s *sieve) fill(db *pebble.DB, ranges []pebble.KeyRange, keyOf func(stored []byte) ([16]byte, bool), stop <-chan struct{}) error {
	for _, r := range ranges {
		if done, err := s.fillRange(db, r, keyOf, stop); !done || err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.filled = true
	s.mu.Unlock()
	return nil
}

// fillRange reports whether all of the range has been noted.
func (s *sieve) fillRange(db *pebble.DB, r pebble.KeyRange, keyOf func(stored []byte) ([16]byte, bool), stop <-chan struct{}) (done bool, err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: r.Start, UpperBound: r.End})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var some [fillChunk][16]byte
	for more := it.First(); more; {
		n := 0
		for ; more && n < fillChunk; more = it.Next() {
			if k, ok := keyOf(it.Key()); ok {
				some[n] = k
				n++
			}
		}
		if s.addAll(some[:n]); s.blind() {
			return false, nil
		}
		select {
		case <-stop:
			return false, nil
		default:
		}
	}
	return it.Error() == nil, it.Error()
}

func (s *sieve) addAll(keys [][16]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range keys {
		s.young.add(&keys[i])
	}
}

// blind reports whether the sieve holds too much to be of use: four times what
// its last mesh has room for, when it takes every third new key for an old one.
func (s *sieve) blind() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.young.blind()
}

// meshes are filters of growing size, the newest last.
type meshes []*mesh

// mesh is a Bloom filter whose bits of one key lie in one cache line.
type mesh struct {
	lines [][8]uint64
	room  int // keys it still takes before the next mesh is begun
}

// Sizes of a mesh. At 12 bits a key one new key in 150 is taken for an old
// one; the largest two of a generation come to 32 MiB and 22 million keys.
const (
	meshMin      = 256 << 10 / 64 // lines
	meshMax      = 16 << 20 / 64
	keysPerLine  = 64 * 8 / 12
	probesPerKey = 6
)

func (l meshes) holds(key *[16]byte) bool {
	for _, one := range l {
		if one.holds(key) {
			return true
		}
	}
	return false
}

func (l *meshes) add(key *[16]byte) {
	n := len(*l)
	switch {
	case n == 0:
		*l = append(*l, newMesh(meshMin))
	case (*l)[n-1].room <= 0 && len((*l)[n-1].lines) < meshMax:
		*l = append(*l, newMesh(2*len((*l)[n-1].lines)))
	}
	(*l)[len(*l)-1].add(key)
}

func (l meshes) blind() bool {
	n := len(l)
	return n > 0 && l[n-1].room < -3*meshMax*keysPerLine
}

func newMesh(lines int) *mesh {
	return &mesh{lines: make([][8]uint64, lines), room: lines * keysPerLine}
}

// place returns the line of a key and the source of its bits. The first half of
// a key may be a time, which neighbours share, and the second what a careless
// caller counts: each of the two answers depends on all of both (multiplied to
// twice the width, high xor low).
func (l *mesh) place(key *[16]byte) (line *[8]uint64, source uint64) {
	a, b := binary.BigEndian.Uint64(key[:]), binary.BigEndian.Uint64(key[8:])
	mix := func(x, y uint64) uint64 {
		high, low := bits.Mul64(x, y)
		return high ^ low
	}
	h := mix(a^0x9e3779b97f4a7c15, b^0xd1b54a32d192ed03)
	return &l.lines[h%uint64(len(l.lines))], mix(h^0xbf58476d1ce4e5b9, b^0x94d049bb133111eb)
}

func (l *mesh) holds(key *[16]byte) bool {
	line, source := l.place(key)
	for range probesPerKey {
		if line[source&7]>>(source>>3&63)&1 == 0 {
			return false
		}
		source >>= 9
	}
	return true
}

func (l *mesh) add(key *[16]byte) {
	line, source := l.place(key)
	for range probesPerKey {
		line[source&7] |= 1 << (source >> 3 & 63)
		source >>= 9
	}
	l.room--
}
