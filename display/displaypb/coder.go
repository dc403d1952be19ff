package displaypb

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Append encodes the fact behind dst, in canonical form.
func Append(dst []byte, f Body) []byte {
	body := coder{}
	f.fields(&body)
	dst = protowire.AppendTag(dst, protowire.Number(f.Kind()), protowire.BytesType)
	return protowire.AppendBytes(dst, body.out)
}

// Decode reads one fact. ErrUnknown: well-formed, but of a kind that only a
// newer build knows. The fact keeps nothing of p.
func Decode(p []byte) (Body, error) {
	var f Body
	for len(p) > 0 {
		fd, rest, ok := next(p)
		if !ok {
			return nil, ErrMalformed
		}
		p = rest
		if fd.typ != protowire.BytesType || fd.num > protowire.Number(KindCorrected) {
			continue
		}
		if f == nil || f.Kind() != Kind(fd.num) {
			f = newBody(Kind(fd.num))
		}
		if f == nil || !merge(f, fd.bytes) {
			return nil, ErrMalformed
		}
	}
	if f == nil {
		return nil, ErrUnknown
	}
	return f, nil
}

// merge reads the fields of p into f; a later value of a field wins.
func merge(f Body, p []byte) bool {
	c := coder{reading: true}
	for len(p) > 0 {
		fd, rest, ok := next(p)
		if !ok {
			return false
		}
		p, c.in = rest, fd
		if f.fields(&c); c.bad {
			return false
		}
	}
	return true
}

// coder walks the fields of a fact. Writing, it appends each that is not zero;
// reading, it offers one field of the wire and whoever has its number takes
// it. So every fact lists its fields once.
type coder struct {
	reading bool
	bad     bool
	in      field
	out     []byte
}

// field is one field of the wire: its value is in varint or in bytes.
type field struct {
	num    protowire.Number
	typ    protowire.Type
	varint uint64
	bytes  []byte
}

// next reads one field from the front of p.
func next(p []byte) (fd field, rest []byte, ok bool) {
	num, typ, n := protowire.ConsumeTag(p)
	if n < 0 || !num.IsValid() {
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

// takes reports whether the offered field is the one asked for.
func (c *coder) takes(num protowire.Number, typ protowire.Type) bool {
	return c.in.num == num && c.in.typ == typ
}

func (c *coder) tag(num protowire.Number, typ protowire.Type) {
	c.out = protowire.AppendTag(c.out, num, typ)
}

func (c *coder) varint(num protowire.Number, v uint64) {
	if v != 0 {
		c.tag(num, protowire.VarintType)
		c.out = protowire.AppendVarint(c.out, v)
	}
}

func (c *coder) int64(num protowire.Number, v *int64) {
	if !c.reading {
		c.varint(num, uint64(*v))
	} else if c.takes(num, protowire.VarintType) {
		*v = int64(c.in.varint)
	}
}

func (c *coder) uint32(num protowire.Number, v *uint32) {
	if !c.reading {
		c.varint(num, uint64(*v))
	} else if c.takes(num, protowire.VarintType) {
		*v = uint32(c.in.varint)
	}
}

func (c *coder) bool(num protowire.Number, v *bool) {
	if !c.reading && *v {
		c.varint(num, 1)
	} else if c.reading && c.takes(num, protowire.VarintType) {
		*v = protowire.DecodeBool(c.in.varint)
	}
}

// string refuses what protobuf refuses: text that is not UTF-8.
func (c *coder) string(num protowire.Number, v *string) {
	if !c.reading {
		if *v != "" {
			c.tag(num, protowire.BytesType)
			c.out = protowire.AppendString(c.out, *v)
		}
	} else if c.takes(num, protowire.BytesType) {
		*v = string(c.in.bytes)
		c.bad = c.bad || !utf8.Valid(c.in.bytes)
	}
}

func (c *coder) bytes(num protowire.Number, v *[]byte) {
	if !c.reading {
		if len(*v) > 0 {
			c.tag(num, protowire.BytesType)
			c.out = protowire.AppendBytes(c.out, *v)
		}
	} else if c.takes(num, protowire.BytesType) {
		*v = append([]byte(nil), c.in.bytes...)
	}
}

// array fills v and refuses every other length: an id cut short would name
// something else.
func (c *coder) array(num protowire.Number, v []byte) {
	if !c.reading {
		c.tag(num, protowire.BytesType)
		c.out = protowire.AppendBytes(c.out, v)
	} else if c.takes(num, protowire.BytesType) {
		c.bad = c.bad || len(c.in.bytes) != len(v)
		copy(v, c.in.bytes)
	}
}

// optional is array, but all zeros stands for absent.
func (c *coder) optional(num protowire.Number, v []byte) {
	if !c.reading && string(v) == string(make([]byte, len(v))) {
		return
	}
	c.array(num, v)
}

func (c *coder) ids(num protowire.Number, v *[]ID) {
	if !c.reading {
		for i := range *v {
			c.array(num, (*v)[i][:])
		}
	} else if c.takes(num, protowire.BytesType) {
		var id ID
		c.array(num, id[:])
		*v = append(*v, id)
	}
}
