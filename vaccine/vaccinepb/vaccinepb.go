// Package vaccinepb is the vaccine subsystem's contract: the facts it commits
// (vaccine.proto), their coder, and what a set of them means for one person.
//
// It promises that equal facts have equal bytes and equal ids, that a reader
// skips what a newer writer added, and that History depends on the set of
// facts alone, never on the order they came in. It knows no store, no
// transport and no clock, and imports nothing of ours.
package vaccinepb

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Person is the 16-byte keyed hash of a document.
type Person [16]byte

// ID names a fact for ever: the first 16 bytes of the SHA-256 of its bytes.
type ID [16]byte

// Kind says which fact it is: the field number in the Fact message.
type Kind uint8

// The kinds of fact.
const (
	KindDoseGiven Kind = 1
	KindCorrected Kind = 2
)

// DoseGiven says that a person was given a dose.
type DoseGiven struct {
	Person   Person
	Product  string
	Batch    string
	Dose     uint32 // 1 for the first
	Site     string
	Day      int32 // days since 1970-01-01
	Operator string
}

// Corrected says that the fact it names does not stand.
type Corrected struct {
	Person   Person
	Target   ID
	Operator string
	Reason   string
	At       int64 // Unix milliseconds
}

// Fact is one fact; Kind says which field holds it.
type Fact struct {
	Kind      Kind
	DoseGiven DoseGiven
	Corrected Corrected
}

// What a decoder refuses.
var (
	ErrMalformed = errors.New("vaccinepb: malformed fact")
	ErrUnknown   = errors.New("vaccinepb: a kind of fact this build does not know")
)

// IDOf is the id of an encoded fact.
func IDOf(fact []byte) ID {
	sum := sha256.Sum256(fact)
	return ID(sum[:16])
}

var text = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// String is the id as people and programs quote it: "f_" and 26 characters.
func (id ID) String() string { return "f_" + text.EncodeToString(id[:]) }

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 28 || s[:2] != "f_" {
		return id, errors.New("a fact id is f_ and 26 characters")
	}
	raw, err := text.DecodeString(s[2:])
	if err != nil {
		return id, errors.New("a fact id is f_ and 26 lowercase base32 characters")
	}
	id = ID(raw)
	if id.String() != s {
		return ID{}, errors.New("a fact id has one spelling; this is not it")
	}
	return id, nil
}

// PersonOf is whom the fact is about.
func (f *Fact) PersonOf() Person {
	if f.Kind == KindCorrected {
		return f.Corrected.Person
	}
	return f.DoseGiven.Person
}

// Append encodes the fact behind dst, in canonical form. An unset kind
// encodes as nothing.
func (f *Fact) Append(dst []byte) []byte {
	switch f.Kind {
	case KindDoseGiven:
		return AppendDoseGiven(dst, &f.DoseGiven)
	case KindCorrected:
		return AppendCorrected(dst, &f.Corrected)
	}
	return dst
}

// AppendDoseGiven encodes a Fact that holds d behind dst.
func AppendDoseGiven(dst []byte, d *DoseGiven) []byte {
	n := sizeBytes(len(d.Person)) + sizeBytes(len(d.Product)) + sizeBytes(len(d.Batch)) + sizeVarint(uint64(d.Dose)) +
		sizeBytes(len(d.Site)) + sizeVarint(uint64(int64(d.Day))) + sizeBytes(len(d.Operator))
	dst = appendHead(dst, KindDoseGiven, n)
	dst = appendBytes(dst, 1, d.Person[:])
	dst = appendString(dst, 2, d.Product)
	dst = appendString(dst, 3, d.Batch)
	dst = appendVarint(dst, 4, uint64(d.Dose))
	dst = appendString(dst, 5, d.Site)
	dst = appendVarint(dst, 6, uint64(int64(d.Day)))
	return appendString(dst, 7, d.Operator)
}

// AppendCorrected encodes a Fact that holds c behind dst.
func AppendCorrected(dst []byte, c *Corrected) []byte {
	n := sizeBytes(len(c.Person)) + sizeBytes(len(c.Target)) + sizeBytes(len(c.Operator)) + sizeBytes(len(c.Reason)) +
		sizeVarint(uint64(c.At))
	dst = appendHead(dst, KindCorrected, n)
	dst = appendBytes(dst, 1, c.Person[:])
	dst = appendBytes(dst, 2, c.Target[:])
	dst = appendString(dst, 3, c.Operator)
	dst = appendString(dst, 4, c.Reason)
	return appendVarint(dst, 5, uint64(c.At))
}

// Decode reads one fact. ErrUnknown: well-formed, but of a kind that only a
// newer build knows. The fact keeps nothing of p.
func Decode(p []byte) (Fact, error) {
	var f Fact
	for len(p) > 0 {
		fd, rest, ok := next(p)
		if !ok {
			return Fact{}, ErrMalformed
		}
		p = rest
		if fd.typ != protowire.BytesType || (Kind(fd.num) != KindDoseGiven && Kind(fd.num) != KindCorrected) {
			continue
		}
		if k := Kind(fd.num); f.Kind != k {
			f = Fact{Kind: k}
		}
		if f.Kind == KindDoseGiven {
			ok = f.DoseGiven.merge(fd.bytes)
		} else {
			ok = f.Corrected.merge(fd.bytes)
		}
		if !ok {
			return Fact{}, ErrMalformed
		}
	}
	if f.Kind == 0 {
		return Fact{}, ErrUnknown
	}
	return f, nil
}

func (d *DoseGiven) merge(p []byte) bool {
	for len(p) > 0 {
		fd, rest, ok := next(p)
		if !ok {
			return false
		}
		p = rest
		switch {
		case fd.is(1, protowire.BytesType):
			ok = fd.array(d.Person[:])
		case fd.is(2, protowire.BytesType):
			d.Product, ok = fd.string()
		case fd.is(3, protowire.BytesType):
			d.Batch, ok = fd.string()
		case fd.is(4, protowire.VarintType):
			d.Dose = uint32(fd.varint)
		case fd.is(5, protowire.BytesType):
			d.Site, ok = fd.string()
		case fd.is(6, protowire.VarintType):
			d.Day = int32(fd.varint)
		case fd.is(7, protowire.BytesType):
			d.Operator, ok = fd.string()
		}
		if !ok {
			return false
		}
	}
	return true
}

func (c *Corrected) merge(p []byte) bool {
	for len(p) > 0 {
		fd, rest, ok := next(p)
		if !ok {
			return false
		}
		p = rest
		switch {
		case fd.is(1, protowire.BytesType):
			ok = fd.array(c.Person[:])
		case fd.is(2, protowire.BytesType):
			ok = fd.array(c.Target[:])
		case fd.is(3, protowire.BytesType):
			c.Operator, ok = fd.string()
		case fd.is(4, protowire.BytesType):
			c.Reason, ok = fd.string()
		case fd.is(5, protowire.VarintType):
			c.At = int64(fd.varint)
		}
		if !ok {
			return false
		}
	}
	return true
}

// field is one field of a message: its value is in varint or in bytes.
type field struct {
	num    protowire.Number
	typ    protowire.Type
	varint uint64
	bytes  []byte
}

// next reads one field from the front of p.
func next(p []byte) (fd field, rest []byte, ok bool) {
	num, typ, n := protowire.ConsumeTag(p)
	if n < 0 || num > protowire.MaxValidNumber {
		return fd, nil, false
	}
	p = p[n:]
	fd.num, fd.typ = num, typ
	switch typ {
	case protowire.VarintType:
		fd.varint, n = protowire.ConsumeVarint(p)
	case protowire.BytesType:
		fd.bytes, n = protowire.ConsumeBytes(p)
	default:
		n = protowire.ConsumeFieldValue(num, typ, p)
	}
	if n < 0 {
		return fd, nil, false
	}
	return fd, p[n:], true
}

func (fd *field) is(num protowire.Number, typ protowire.Type) bool {
	return fd.num == num && fd.typ == typ
}

// string refuses what protobuf refuses: text that is not UTF-8.
func (fd *field) string() (string, bool) { return string(fd.bytes), utf8.Valid(fd.bytes) }

// array fills dst and refuses every other length: an id cut short would name
// something else.
func (fd *field) array(dst []byte) bool {
	return copy(dst, fd.bytes) == len(dst) && len(fd.bytes) == len(dst)
}

func appendHead(dst []byte, k Kind, size int) []byte {
	dst = protowire.AppendTag(dst, protowire.Number(k), protowire.BytesType)
	return protowire.AppendVarint(dst, uint64(size))
}

func appendBytes(dst []byte, num protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return dst
	}
	return protowire.AppendBytes(protowire.AppendTag(dst, num, protowire.BytesType), v)
}

func appendString(dst []byte, num protowire.Number, v string) []byte {
	if v == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), v)
}

func appendVarint(dst []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), v)
}

// The sizes of one field with a one-byte tag.

func sizeBytes(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(n)
}

func sizeVarint(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}
