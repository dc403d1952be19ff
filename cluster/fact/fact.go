// Package fact gives every committed fact an address and proves that two
// stores hold the same facts.
//
// A fact is an opaque, immutable string of bytes. Facts commit in blocks. A
// block belongs to one origin, carries a gapless run of sequence numbers and
// a digest that covers the block and every block of that origin before it.
// Whoever holds a Mark (sequence, digest) of an origin can tell a repeat, a
// gap and a divergence apart, without asking anyone.
//
// The package knows no transport, no store and no health words. All values
// are plain data; nothing here is safe for concurrent mutation.
package fact

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Origin is where facts are born: one shard of one subsystem at one carrier,
// during one life of its disks. A shard that lost its disks or was restored
// from a backup returns as a new incarnation, so an address is never reused.
type Origin struct {
	Carrier     string
	Subsystem   string
	Shard       uint16
	Incarnation uint64
}

// String is "unicom/nucleic/0/18c2f0a1b2c3d4e5".
func (o Origin) String() string {
	return o.Carrier + "/" + o.Subsystem + "/" + strconv.Itoa(int(o.Shard)) + "/" + strconv.FormatUint(o.Incarnation, 16)
}

// ParseOrigin reads what String wrote.
func ParseOrigin(s string) (Origin, error) {
	carrier, rest, _ := strings.Cut(s, "/")
	subsystem, rest, _ := strings.Cut(rest, "/")
	number, life, whole := strings.Cut(rest, "/")
	if !whole || !isName(carrier) || !isName(subsystem) {
		return Origin{}, fmt.Errorf("origin %q: want carrier/subsystem/shard/incarnation", s)
	}
	shard, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return Origin{}, fmt.Errorf("origin %q: shard: %w", s, err)
	}
	inc, err := strconv.ParseUint(life, 16, 64) // which may hold no other "/"
	if err != nil {
		return Origin{}, fmt.Errorf("origin %q: incarnation: %w", s, err)
	}
	return Origin{carrier, subsystem, uint16(shard), inc}, nil
}

// isName reports whether s can stand in an origin: the text form and the
// encoding must both be able to carry it.
func isName(s string) bool { return s != "" && len(s) <= MaxName && !strings.Contains(s, "/") }

// Digest covers a block and all blocks of its origin before it (SHA-256).
type Digest [sha256.Size]byte

// String is the digest in hex, shortened to the 16 digits people compare.
func (d Digest) String() string { return hex.EncodeToString(d[:8]) }

// Mark says how far a holder has got with one origin: the sequence number of
// the last fact it holds and the running digest there. The zero Mark holds
// nothing.
type Mark struct {
	Seq    uint64
	Digest Digest
}

// Block is a run of facts that committed together.
type Block struct {
	Origin Origin
	First  uint64 // sequence number of the first fact; sequences start at 1
	Count  uint32 // how many facts; at least 1
	Stamp  int64  // when the proposer committed to it, Unix nanoseconds
	Prev   Digest // digest of the block before
	Body   []byte // Count facts, each behind its length as a uvarint
}

// Bounds of a block; a decoder refuses what exceeds them.
const (
	MaxFacts = 1 << 16
	MaxBody  = 8 << 20
	MaxName  = 255 // bytes of a carrier's or subsystem's name
)

// Errors of a chain of blocks.
var (
	ErrGap       = errors.New("fact: blocks are missing before this one")
	ErrRepeat    = errors.New("fact: block already held")
	ErrDivergent = errors.New("fact: block contradicts what is held at its address")
	ErrCorrupt   = errors.New("fact: malformed block")
)

// Last is the sequence number of the block's last fact.
func (b *Block) Last() uint64 { return b.First + uint64(b.Count) - 1 }

// Sum is the running digest after the block.
func (b *Block) Sum() Digest {
	h := sha256.New()
	var head [256]byte
	h.Write(b.appendHead(head[:0]))
	h.Write(b.Body)
	var d Digest
	h.Sum(d[:0])
	return d
}

// Mark is the mark of a holder that has folded the block.
func (b *Block) Mark() Mark { return Mark{b.Last(), b.Sum()} }

// Follows says what b is to a holder standing at m: nil (fold it), ErrRepeat,
// ErrGap, or ErrDivergent. A block that straddles m is divergent, because
// blocks are cut once, by their origin.
func (b *Block) Follows(m Mark) error {
	switch {
	case b.First == m.Seq+1 && b.Prev == m.Digest:
		return nil
	case b.First == m.Seq+1:
		return ErrDivergent
	case b.First > m.Seq:
		return ErrGap
	case b.Last() > m.Seq:
		return ErrDivergent
	case b.Last() == m.Seq && b.Sum() != m.Digest:
		return ErrDivergent
	}
	return ErrRepeat
}

// Facts calls fn with each fact and its sequence number, in order. The slices
// alias Body. A false from fn ends the walk.
func (b *Block) Facts(fn func(seq uint64, fact []byte) bool) error {
	rest := b.Body
	for i := uint32(0); i < b.Count; i++ {
		n, w := binary.Uvarint(rest)
		if w <= 0 || n > uint64(len(rest)-w) {
			return ErrCorrupt
		}
		if !fn(b.First+uint64(i), rest[w:w+int(n):w+int(n)]) {
			return nil
		}
		rest = rest[w+int(n):]
	}
	if len(rest) != 0 {
		return ErrCorrupt
	}
	return nil
}

// AppendFact adds one fact to a block body under construction.
func AppendFact(body, fact []byte) []byte {
	body = binary.AppendUvarint(body, uint64(len(fact)))
	return append(body, fact...)
}

const version = 1

// appendHead writes everything but the body, in the form that is digested.
func (b *Block) appendHead(dst []byte) []byte {
	dst = append(dst, version)
	dst = appendString(dst, b.Origin.Carrier)
	dst = appendString(dst, b.Origin.Subsystem)
	dst = binary.BigEndian.AppendUint16(dst, b.Origin.Shard)
	dst = binary.BigEndian.AppendUint64(dst, b.Origin.Incarnation)
	dst = binary.BigEndian.AppendUint64(dst, b.First)
	dst = binary.BigEndian.AppendUint32(dst, b.Count)
	dst = binary.BigEndian.AppendUint64(dst, uint64(b.Stamp))
	dst = append(dst, b.Prev[:]...)
	return binary.BigEndian.AppendUint32(dst, uint32(len(b.Body)))
}

// Append encodes the block behind dst. The encoding is self-delimiting, so
// several blocks can stand one behind another.
func (b *Block) Append(dst []byte) []byte {
	return append(b.appendHead(dst), b.Body...)
}

// Decode reads one block from the front of p and returns what follows it. The
// block's Body aliases p.
func Decode(p []byte) (b Block, rest []byte, err error) {
	r := reader{p: p}
	if r.byte() != version {
		return Block{}, p, ErrCorrupt
	}
	b.Origin.Carrier = r.string()
	b.Origin.Subsystem = r.string()
	b.Origin.Shard = r.uint16()
	b.Origin.Incarnation = r.uint64()
	b.First = r.uint64()
	b.Count = r.uint32()
	b.Stamp = int64(r.uint64())
	copy(b.Prev[:], r.take(len(b.Prev)))
	n := r.uint32()
	if n > MaxBody {
		r.bad = true
	}
	b.Body = r.take(int(n))
	if !isName(b.Origin.Carrier) || !isName(b.Origin.Subsystem) {
		r.bad = true
	}
	if r.bad || b.First == 0 || b.Count == 0 || b.Count > MaxFacts || b.First+uint64(b.Count) < b.First {
		return Block{}, p, ErrCorrupt
	}
	if b.Facts(func(uint64, []byte) bool { return true }) != nil {
		return Block{}, p, ErrCorrupt
	}
	return b, r.p, nil
}

func appendString(dst []byte, s string) []byte {
	return append(append(dst, byte(len(s))), s...)
}

type reader struct {
	p   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.p) {
		r.bad = true
		return nil
	}
	out := r.p[:n:n]
	r.p = r.p[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) string() string { return string(r.take(int(r.byte()))) }

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}
