package token

import (
	"math"
	"strings"
)

// Bounds of the fields a decoder accepts.
const (
	maxIssuer    = 16
	maxKeyID     = 16
	maxSignature = 96
	claimCount   = 9
)

// CBOR major types used here.
const (
	majorUint  = 0
	majorNint  = 1
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6
)

const tagSign1 = 18 // COSE_Sign1

// appendHead writes a CBOR head in its shortest form.
func appendHead(dst []byte, major byte, n uint64) []byte {
	m := major << 5
	switch {
	case n < 24:
		return append(dst, m|byte(n))
	case n <= math.MaxUint8:
		return append(dst, m|24, byte(n))
	case n <= math.MaxUint16:
		return append(dst, m|25, byte(n>>8), byte(n))
	case n <= math.MaxUint32:
		return append(dst, m|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(dst, m|27, byte(n>>56), byte(n>>48), byte(n>>40), byte(n>>32),
		byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

func appendInt(dst []byte, v int64) []byte {
	if v < 0 {
		return appendHead(dst, majorNint, uint64(-1-v))
	}
	return appendHead(dst, majorUint, uint64(v))
}

func appendBytes(dst, b []byte) []byte {
	return append(appendHead(dst, majorBytes, uint64(len(b))), b...)
}

func appendText(dst []byte, s string) []byte {
	return append(appendHead(dst, majorText, uint64(len(s))), s...)
}

func appendPayload(dst []byte, c *Claims) []byte {
	dst = appendHead(dst, majorArray, claimCount)
	dst = appendInt(dst, int64(c.Kind))
	dst = appendText(dst, c.Issuer)
	dst = appendBytes(dst, c.Subject[:])
	dst = appendInt(dst, int64(c.Colour))
	dst = appendInt(dst, int64(c.Level))
	dst = appendInt(dst, c.Issued)
	dst = appendInt(dst, c.Expires)
	dst = appendInt(dst, c.AsOf)
	return appendInt(dst, int64(c.Flags))
}

// appendProtected writes the header map {1: algorithm, 4: key id}.
func appendProtected(dst []byte, alg int64, kid []byte) []byte {
	dst = appendHead(dst, majorMap, 2)
	dst = appendInt(appendInt(dst, 1), alg)
	return appendBytes(appendInt(dst, 4), kid)
}

// appendToSign writes the Sig_structure of RFC 9052 §4.4: what is signed.
func appendToSign(dst, protected, payload []byte) []byte {
	dst = appendHead(dst, majorArray, 4)
	dst = appendText(dst, "Signature1")
	dst = appendBytes(dst, protected)
	dst = appendBytes(dst, nil) // no external data
	return appendBytes(dst, payload)
}

func appendEnvelope(dst, protected, payload, signature []byte) []byte {
	dst = appendHead(dst, majorTag, tagSign1)
	dst = appendHead(dst, majorArray, 4)
	dst = appendBytes(dst, protected)
	dst = appendHead(dst, majorMap, 0)
	dst = appendBytes(dst, payload)
	return appendBytes(dst, signature)
}

// envelope is a token taken apart; the slices alias one decoded buffer.
type envelope struct {
	algorithm                     int64
	kid                           []byte
	protected, payload, signature []byte
	claims                        Claims
}

// parse takes a token apart. It accepts only the one form Sign writes (shortest
// heads, fixed order), so that a token has exactly one text.
func parse(text string) (envelope, error) {
	body, ok := strings.CutPrefix(text, Prefix)
	if !ok || len(text) > maxText {
		return envelope{}, refuse(Malformed, "it is not a token of this system")
	}
	raw, ok := decodeBase45(body)
	if !ok {
		return envelope{}, refuse(Malformed, "its text is damaged")
	}
	r := reader{p: raw}
	r.head(majorTag, tagSign1, tagSign1)
	r.head(majorArray, 4, 4)
	e := envelope{protected: r.bytes(64)}
	r.head(majorMap, 0, 0)
	e.payload = r.bytes(128)
	e.signature = r.bytes(maxSignature)
	e.algorithm, e.kid = parseProtected(&r, e.protected)
	e.claims = parsePayload(&r, e.payload)
	if r.bad || len(r.p) != 0 {
		return envelope{}, refuse(Malformed, "its content is damaged")
	}
	return e, nil
}

func parseProtected(outer *reader, p []byte) (alg int64, kid []byte) {
	r := reader{p: p, bad: outer.bad}
	r.head(majorMap, 2, 2)
	r.head(majorUint, 1, 1)
	alg = r.int()
	r.head(majorUint, 4, 4)
	kid = r.bytes(maxKeyID)
	outer.bad = r.bad || len(r.p) != 0
	return alg, kid
}

func parsePayload(outer *reader, p []byte) (c Claims) {
	r := reader{p: p, bad: outer.bad}
	r.head(majorArray, claimCount, claimCount)
	c.Kind = Kind(r.head(majorUint, uint64(Online), uint64(Offline)))
	c.Issuer = r.text(maxIssuer)
	if s := r.bytes(SubjectSize); len(s) == SubjectSize {
		copy(c.Subject[:], s)
	} else {
		r.bad = true
	}
	c.Colour = Colour(r.head(majorUint, uint64(Green), uint64(Red)))
	c.Level = uint8(r.head(majorUint, 0, math.MaxUint8))
	c.Issued = int64(r.head(majorUint, 0, maxTime))
	c.Expires = int64(r.head(majorUint, 0, maxTime))
	c.AsOf = int64(r.head(majorUint, 0, maxTime))
	c.Flags = Flags(r.head(majorUint, 0, math.MaxUint8))
	outer.bad = r.bad || len(r.p) != 0
	return c
}

// maxTime keeps every time inside what time.Unix and JSON can show.
const maxTime = 1 << 37

// reader walks canonical CBOR; after the first fault it only reports bad.
type reader struct {
	p   []byte
	bad bool
}

// head reads a head of the given major type whose argument lies in [min,max].
func (r *reader) head(major byte, min, max uint64) uint64 {
	if r.bad || len(r.p) == 0 || r.p[0]>>5 != major {
		r.bad = true
		return 0
	}
	n, size, shortest := uint64(r.p[0]&31), 0, uint64(0)
	switch n {
	case 24:
		size, shortest = 1, 24
	case 25:
		size, shortest = 2, math.MaxUint8+1
	case 26:
		size, shortest = 4, math.MaxUint16+1
	case 27:
		size, shortest = 8, math.MaxUint32+1
	}
	if n > 27 || len(r.p) < 1+size {
		r.bad = true
		return 0
	}
	if size > 0 {
		n = 0
		for _, b := range r.p[1 : 1+size] {
			n = n<<8 | uint64(b)
		}
	}
	r.p = r.p[1+size:]
	if n < shortest || n < min || n > max {
		r.bad = true
		return 0
	}
	return n
}

func (r *reader) int() int64 {
	if !r.bad && len(r.p) > 0 && r.p[0]>>5 == majorNint {
		return -1 - int64(r.head(majorNint, 0, math.MaxInt64))
	}
	return int64(r.head(majorUint, 0, math.MaxInt64))
}

func (r *reader) take(major byte, max int) []byte {
	n := r.head(major, 0, uint64(max))
	if r.bad || n > uint64(len(r.p)) {
		r.bad = true
		return nil
	}
	out := r.p[:n:n]
	r.p = r.p[n:]
	return out
}

func (r *reader) bytes(max int) []byte { return r.take(majorBytes, max) }
func (r *reader) text(max int) string  { return string(r.take(majorText, max)) }
