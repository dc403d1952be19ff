package nucleicpb

import (
	"bytes"

	"google.golang.org/protobuf/encoding/protowire"
)

// AppendIdentity writes what makes the fact itself behind dst: two facts with
// equal identities are one fact, whatever else they say. This is the one place
// where identity is defined; every store keys by it.
func (f *Fact) AppendIdentity(dst []byte) []byte {
	dst = append(dst, byte(f.Kind))
	switch f.Kind {
	case KindSiteOpened:
		dst = appendPart(dst, f.SiteOpened.Site)
	case KindTubeOpened:
		dst = appendPart(dst, f.TubeOpened.Tube)
	case KindRegistered:
		m := &f.Registered
		dst = protowire.AppendVarint(appendPart(appendPart(dst, m.Tube), m.Person), uint64(m.Rev()))
	case KindTubeSealed:
		dst = appendPart(dst, f.TubeSealed.Tube)
	case KindBoxed:
		dst = appendPart(appendPart(dst, f.Boxed.Tube), f.Boxed.Box)
	case KindLabReceived:
		m := &f.LabReceived
		dst = appendPart(appendPart(appendPart(dst, m.Tube), m.Box), m.Lab)
	case KindResulted:
		m := &f.Resulted
		dst = appendResult(dst, m.Tube, m.Revision, m.Lab, m.Outcome)
	case KindCorrected:
		m := &f.Corrected
		dst = appendResult(dst, m.Tube, m.Revision, m.Lab, m.Outcome)
		dst = appendPart(dst, m.Person)
		if bound, ok := m.Bound(); ok {
			dst = appendPart(dst, bound.Person)
		}
	}
	return dst
}

func appendPart(dst, p []byte) []byte { return protowire.AppendBytes(dst, p) }

func appendResult(dst, tube []byte, revision uint32, lab []byte, o Outcome) []byte {
	dst = protowire.AppendVarint(appendPart(dst, tube), uint64(revision))
	return protowire.AppendVarint(appendPart(dst, lab), uint64(uint32(o)))
}

// Stands reports whether f, encoded as rawF, stands where g, encoded as rawG,
// has the same identity. The earlier witness stands, and of two equal times
// the smaller bytes; a site alone is renamed by its latest opening.
func Stands(f *Fact, rawF []byte, g *Fact, rawG []byte) bool {
	if f.Kind == KindSiteOpened {
		return before(g.At(), rawG, f.At(), rawF)
	}
	return before(f.At(), rawF, g.At(), rawG)
}

// StandsOver reports whether m, encoded as raw, is what binds its person to
// its tube where other, encoded as rawOther, says it too: the later revision,
// and within one revision what Stands says. The encodings are those of the
// messages, without the fact around them.
func (m *Registered) StandsOver(raw []byte, other *Registered, rawOther []byte) bool {
	if m.Rev() != other.Rev() {
		return m.Rev() > other.Rev()
	}
	return before(m.SampledAt, raw, other.SampledAt, rawOther)
}

func before(at int64, raw []byte, otherAt int64, otherRaw []byte) bool {
	if at != otherAt {
		return at < otherAt
	}
	return bytes.Compare(raw, otherRaw) < 0
}

// Voids reports whether the correction voids the result.
func (m *Corrected) Voids(r *Resulted) bool {
	return len(m.Person) == 0 && m.Revision == r.Revision && m.Outcome == r.Outcome &&
		bytes.Equal(m.Tube, r.Tube) && bytes.Equal(m.Lab, r.Lab)
}
