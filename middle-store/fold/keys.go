package fold

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// Layout numbers the meaning of the keys below. A store of another layout is
// thrown away and built anew.
const Layout = 1

// The rows. A number is eight bytes big-endian, a revision four, an outcome
// and a pool one; text in the middle stands behind its length, one byte.
//
//	'p' person(16) 1 id(16)                                      = vaccine fact
//	'p' person(16) 2 revision tube                               a registration is void
//	'p' person(16) 3 ^sampled_at revision pool tube              a registration, newest first
//	't' tube 1 revision outcome lab                              a result is void
//	't' tube 2 revision outcome lab reported tested received     a result
//	't' tube 3 at                                                a lab took the tube in
//	't' tube 4 box                                               the tube is in a box
//	'b' box 1 at                                                 a lab took the box in
//
// A row has all it says in its key, so that two rows which differ in anything
// are two rows, and neither replaces the other. A vaccine fact is the value of
// its own digest, which comes to the same.
//
// Everything up to the row's kind is its prefix: one seek, helped by a filter
// over prefixes, finds all that a question needs.
const (
	tagPerson = 'p'
	tagTube   = 't'
	tagBox    = 'b'

	personVaccine    = 1
	personVoid       = 2
	personRegistered = 3

	tubeVoid     = 1
	tubeResult   = 2
	tubeReceived = 3
	tubeBoxed    = 4

	boxReceived = 1
)

// Rows reports whether a key is a row of this package. A store may keep keys
// of its own that are not.
func Rows(key []byte) bool {
	return len(key) > 0 && (key[0] == tagPerson || key[0] == tagTube || key[0] == tagBox)
}

// Split is the length of a key's prefix. Keys that are not rows are all
// prefix.
func Split(key []byte) int {
	if len(key) < 2 {
		return len(key)
	}
	switch key[0] {
	case tagPerson:
		return min(len(key), 1+personSize)
	case tagTube, tagBox:
		return min(len(key), 2+int(key[1]))
	}
	return len(key)
}

// Subject is a number for what a row is about: the person, the tube or the box
// of its prefix. Two may share a number. An answer rests on the subjects that
// were read for it, and on no others.
func Subject(key []byte) uint32 { return uint32(xxhash.Sum64(key[:Split(key)])) }

// Bounds of what a row can name; the doors refuse far less.
const (
	personSize = 16
	maxName    = 255
)

func personKey(dst, person []byte) []byte {
	return append(append(dst, tagPerson), person...)
}

func nameKey(dst []byte, tag byte, name []byte) []byte {
	return append(append(dst, tag, byte(len(name))), name...)
}

func registeredKey(dst, person []byte, sampledAt int64, revision uint32, pool byte, tube []byte) []byte {
	dst = append(personKey(dst, person), personRegistered)
	dst = binary.BigEndian.AppendUint64(dst, ^ordered(sampledAt))
	dst = binary.BigEndian.AppendUint32(dst, revision)
	return append(append(dst, pool), tube...)
}

func voidKey(dst, person []byte, revision uint32, tube []byte) []byte {
	dst = append(personKey(dst, person), personVoid)
	return append(binary.BigEndian.AppendUint32(dst, revision), tube...)
}

func resultKey(dst []byte, kind byte, tube []byte, revision uint32, outcome byte, lab []byte) []byte {
	dst = append(nameKey(dst, tagTube, tube), kind)
	dst = append(binary.BigEndian.AppendUint32(dst, revision), outcome, byte(len(lab)))
	return append(dst, lab...)
}

// ordered maps a time so that its bytes sort like the time.
func ordered(t int64) uint64 { return uint64(t) ^ 1<<63 }

func unordered(v uint64) int64 { return int64(v ^ 1<<63) }

// row reads the rest of a key behind its prefix and kind. A row that is too
// short reads as zeros: it was written by this package, so it is not.
type row []byte

func (r *row) take(n int) []byte {
	if n > len(*r) {
		n = len(*r)
	}
	out := (*r)[:n:n]
	*r = (*r)[n:]
	return out
}

func (r *row) byte() byte {
	if p := r.take(1); len(p) == 1 {
		return p[0]
	}
	return 0
}

func (r *row) uint32() uint32 {
	if p := r.take(4); len(p) == 4 {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (r *row) time() int64 {
	if p := r.take(8); len(p) == 8 {
		return unordered(binary.BigEndian.Uint64(p))
	}
	return 0
}

// newest is a time that was written inverted, so that the newest comes first.
func (r *row) newest() int64 {
	if p := r.take(8); len(p) == 8 {
		return unordered(^binary.BigEndian.Uint64(p))
	}
	return 0
}

func (r *row) text() []byte { return r.take(int(r.byte())) }
