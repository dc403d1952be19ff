package nucleicpb

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// Fields are written in the order of their numbers and left out when empty,
// so equal messages have equal bytes.

func appendText(dst []byte, num protowire.Number, p []byte) []byte {
	if len(p) == 0 {
		return dst
	}
	return protowire.AppendBytes(protowire.AppendTag(dst, num, protowire.BytesType), p)
}

func appendInt(dst []byte, num protowire.Number, v int64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), uint64(v))
}

// open begins a nested message; shut, given where it began, puts its length in
// front of it. Nearly every message is shorter than 128 bytes, so one byte is
// kept for the length and longer ones are moved.
func open(dst []byte, num protowire.Number) ([]byte, int) {
	dst = append(protowire.AppendTag(dst, num, protowire.BytesType), 0)
	return dst, len(dst)
}

func shut(dst []byte, start int) []byte {
	n := len(dst) - start
	more := protowire.SizeVarint(uint64(n)) - 1
	if more > 0 {
		var pad [8]byte
		dst = append(dst, pad[:more]...)
		copy(dst[start+more:], dst[start:start+n])
	}
	protowire.AppendVarint(dst[:start-1], uint64(n))
	return dst
}

// Append encodes the message behind dst.
func (m *SiteOpened) Append(dst []byte) []byte {
	dst = appendText(dst, 1, m.Site)
	dst = appendText(dst, 2, m.Name)
	dst = appendText(dst, 3, m.Division)
	dst = appendInt(dst, 4, m.OpenedAt)
	dst = appendText(dst, 5, m.Operator)
	return appendInt(dst, 15, m.DoorAt)
}

// Append encodes the message behind dst.
func (m *TubeOpened) Append(dst []byte) []byte {
	dst = appendText(dst, 1, m.Tube)
	dst = appendInt(dst, 2, int64(m.Pool))
	dst = appendText(dst, 3, m.Site)
	dst = appendInt(dst, 4, m.OpenedAt)
	dst = appendText(dst, 5, m.Operator)
	dst = appendText(dst, 6, m.From)
	return appendInt(dst, 15, m.DoorAt)
}

// Append encodes the message behind dst.
func (m *Registered) Append(dst []byte) []byte {
	dst = appendText(dst, 1, m.Tube)
	dst = appendText(dst, 2, m.Person)
	dst = appendInt(dst, 3, int64(m.Pool))
	dst = appendText(dst, 4, m.Site)
	dst = appendInt(dst, 5, m.SampledAt)
	dst = appendInt(dst, 6, int64(m.Channel))
	dst = appendText(dst, 7, m.Operator)
	dst = appendText(dst, 8, m.Device)
	dst = appendInt(dst, 9, int64(m.Flags))
	dst = appendText(dst, 10, m.Division)
	dst = appendInt(dst, 11, int64(m.Revision))
	return appendInt(dst, 15, m.DoorAt)
}

// Append encodes the message behind dst.
func (m *TubeSealed) Append(dst []byte) []byte {
	dst = appendText(dst, 1, m.Tube)
	dst = appendInt(dst, 2, m.SealedAt)
	dst = appendText(dst, 3, m.Operator)
	dst = appendInt(dst, 4, int64(m.Count))
	return appendInt(dst, 15, m.DoorAt)
}

// Append encodes the message behind dst.
func (m *Boxed) Append(dst []byte) []byte {
	dst = appendText(dst, 1, m.Box)
	dst = appendText(dst, 2, m.Tube)
	dst = appendInt(dst, 3, m.PackedAt)
	dst = appendText(dst, 4, m.Operator)
	return appendInt(dst, 15, m.DoorAt)
}

// Append encodes the message behind dst.
func (m *LabReceived) Append(dst []byte) []byte {
	dst = appendText(dst, 1, m.Lab)
	dst = appendText(dst, 2, m.Tube)
	dst = appendText(dst, 3, m.Box)
	dst = appendInt(dst, 4, m.ReceivedAt)
	dst = appendText(dst, 5, m.Operator)
	return appendInt(dst, 15, m.DoorAt)
}

// Append encodes the message behind dst.
func (m *Resulted) Append(dst []byte) []byte {
	dst = appendText(dst, 1, m.Tube)
	dst = appendText(dst, 2, m.Lab)
	dst = appendInt(dst, 3, int64(m.Revision))
	dst = appendInt(dst, 4, int64(m.Outcome))
	dst = appendInt(dst, 5, m.ReceivedAt)
	dst = appendInt(dst, 6, m.TestedAt)
	dst = appendInt(dst, 7, m.ReportedAt)
	dst = appendText(dst, 8, m.Method)
	dst = appendText(dst, 9, m.Operator)
	return appendInt(dst, 15, m.DoorAt)
}

// Append encodes the message behind dst.
func (m *Corrected) Append(dst []byte) []byte {
	dst = appendText(dst, 1, m.Tube)
	dst = appendText(dst, 2, m.Person)
	dst = appendInt(dst, 3, int64(m.Revision))
	dst = appendText(dst, 4, m.Lab)
	dst = appendInt(dst, 5, int64(m.Outcome))
	if m.Rebind != nil {
		dst = protowire.AppendBytes(protowire.AppendTag(dst, 6, protowire.BytesType), m.Rebind)
	}
	dst = appendInt(dst, 7, m.CorrectedAt)
	dst = appendText(dst, 8, m.Operator)
	dst = appendText(dst, 9, m.Reason)
	return appendInt(dst, 15, m.DoorAt)
}

// AppendFact encodes the message as a whole fact behind dst.
func (m *SiteOpened) AppendFact(dst []byte) []byte {
	dst, start := open(dst, protowire.Number(KindSiteOpened))
	return shut(m.Append(dst), start)
}

// AppendFact encodes the message as a whole fact behind dst.
func (m *TubeOpened) AppendFact(dst []byte) []byte {
	dst, start := open(dst, protowire.Number(KindTubeOpened))
	return shut(m.Append(dst), start)
}

// AppendFact encodes the message as a whole fact behind dst.
func (m *Registered) AppendFact(dst []byte) []byte {
	dst, start := open(dst, protowire.Number(KindRegistered))
	return shut(m.Append(dst), start)
}

// AppendFact encodes the message as a whole fact behind dst.
func (m *TubeSealed) AppendFact(dst []byte) []byte {
	dst, start := open(dst, protowire.Number(KindTubeSealed))
	return shut(m.Append(dst), start)
}

// AppendFact encodes the message as a whole fact behind dst.
func (m *Boxed) AppendFact(dst []byte) []byte {
	dst, start := open(dst, protowire.Number(KindBoxed))
	return shut(m.Append(dst), start)
}

// AppendFact encodes the message as a whole fact behind dst.
func (m *LabReceived) AppendFact(dst []byte) []byte {
	dst, start := open(dst, protowire.Number(KindLabReceived))
	return shut(m.Append(dst), start)
}

// AppendFact encodes the message as a whole fact behind dst.
func (m *Resulted) AppendFact(dst []byte) []byte {
	dst, start := open(dst, protowire.Number(KindResulted))
	return shut(m.Append(dst), start)
}

// AppendFact encodes the message as a whole fact behind dst.
func (m *Corrected) AppendFact(dst []byte) []byte {
	dst, start := open(dst, protowire.Number(KindCorrected))
	return shut(m.Append(dst), start)
}
