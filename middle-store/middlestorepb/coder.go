package middlestorepb

import (
	"encoding/binary"
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrMalformed is what a decoder says of bytes that are not its message.
var ErrMalformed = errors.New("middlestorepb: malformed message")

// field is one field of a message: its value is in varint or in bytes.
type field struct {
	num    protowire.Number
	typ    protowire.Type
	varint uint64 // of varint, fixed32 and fixed64 fields
	bytes  []byte
	text   string // the same bytes, out of the message's one string copy
}

// message walks the fields of one message. All strings that come out of it
// are parts of one copy, made once for the whole message.
type message struct {
	p    []byte
	text string // covers p
}

func open(p []byte) message { return message{p, string(p)} }

// sub is the walk over an embedded message.
func (f *field) sub() message { return message{f.bytes, f.text} }

// next reads one field; ok is false at a malformed one. Ask for more only
// while len(m.p) > 0.
func (m *message) next(f *field) (ok bool) {
	num, typ, n := protowire.ConsumeTag(m.p)
	if n < 0 || num > protowire.MaxValidNumber {
		return false
	}
	m.skip(n)
	f.num, f.typ = num, typ
	switch typ {
	case protowire.VarintType:
		f.varint, n = protowire.ConsumeVarint(m.p)
	case protowire.Fixed32Type:
		var v uint32
		v, n = protowire.ConsumeFixed32(m.p)
		f.varint = uint64(v)
	case protowire.Fixed64Type:
		f.varint, n = protowire.ConsumeFixed64(m.p)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(m.p)
		if n >= 0 {
			f.text = m.text[n-len(f.bytes) : n]
		}
	default:
		n = protowire.ConsumeFieldValue(num, typ, m.p)
	}
	if n < 0 {
		return false
	}
	m.skip(n)
	return true
}

func (m *message) skip(n int) { m.p, m.text = m.p[n:], m.text[n:] }

func (f *field) is(num protowire.Number, typ protowire.Type) bool {
	return f.num == num && f.typ == typ
}

func (f *field) uint(num protowire.Number) bool   { return f.is(num, protowire.VarintType) }
func (f *field) string(num protowire.Number) bool { return f.is(num, protowire.BytesType) }

// utf8 reports whether the field is text as protobuf means it.
func (f *field) utf8() bool { return utf8.ValidString(f.text) }

func appendUint(dst []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), v)
}

func appendInt(dst []byte, num protowire.Number, v int64) []byte {
	return appendUint(dst, num, uint64(v))
}

func appendBool(dst []byte, num protowire.Number, v bool) []byte {
	if !v {
		return dst
	}
	return appendUint(dst, num, 1)
}

func appendText(dst []byte, num protowire.Number, v string) []byte {
	if v == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), v)
}

// appendNumbers writes 32-bit numbers, packed.
func appendNumbers(dst []byte, num protowire.Number, v []uint32) []byte {
	if len(v) == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, num, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(4*len(v)))
	for _, x := range v {
		dst = protowire.AppendFixed32(dst, x)
	}
	return dst
}

// numbers adds 32-bit numbers, packed or one by one, if the field is theirs;
// false: they are malformed.
func (f *field) numbers(num protowire.Number, v *[]uint32) bool {
	switch {
	case f.is(num, protowire.Fixed32Type):
		*v = append(*v, uint32(f.varint))
	case f.is(num, protowire.BytesType):
		if len(f.bytes)%4 != 0 {
			return false
		}
		for p := f.bytes; len(p) > 0; p = p[4:] {
			*v = append(*v, binary.LittleEndian.Uint32(p))
		}
	}
	return true
}

// appendSub writes an embedded message in one pass: a length of one byte is
// assumed and put right afterwards, which for the small messages here is
// almost never needed.
func appendSub(dst []byte, num protowire.Number, body func([]byte) []byte) []byte {
	dst = protowire.AppendTag(dst, num, protowire.BytesType)
	at := len(dst)
	dst = body(append(dst, 0))
	size := len(dst) - at - 1
	extra := protowire.SizeVarint(uint64(size)) - 1
	for range extra {
		dst = append(dst, 0)
	}
	copy(dst[at+1+extra:], dst[at+1:at+1+size])
	protowire.AppendVarint(dst[at:at], uint64(size))
	return dst
}

// grow lengthens a slice by one and returns the new element, reusing what the
// slice held before.
func grow[T any](s *[]T) *T {
	if n := len(*s); n < cap(*s) {
		*s = (*s)[:n+1]
	} else {
		var zero T
		*s = append(*s, zero)
	}
	return &(*s)[len(*s)-1]
}
