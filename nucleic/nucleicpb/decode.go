package nucleicpb

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// scanner walks the fields of one message. Faults stick: the caller reads on
// and asks err once, at the end.
type scanner struct {
	rest []byte
	num  protowire.Number
	typ  protowire.Type
	v    uint64 // of a varint field
	p    []byte // of a bytes field
	bad  bool
}

// next moves to the next field; false at the end or at a fault.
func (s *scanner) next() bool {
	if len(s.rest) == 0 || s.bad {
		return false
	}
	num, typ, n := protowire.ConsumeTag(s.rest)
	if n < 0 || num > protowire.MaxValidNumber {
		s.bad = true
		return false
	}
	s.num, s.typ, s.rest = num, typ, s.rest[n:]
	switch typ {
	case protowire.VarintType:
		s.v, n = protowire.ConsumeVarint(s.rest)
	case protowire.BytesType:
		s.p, n = protowire.ConsumeBytes(s.rest)
	default:
		n = protowire.ConsumeFieldValue(num, typ, s.rest)
	}
	if n < 0 {
		s.bad = true
		return false
	}
	s.rest = s.rest[n:]
	return true
}

// text is the current field as a string of the contract.
func (s *scanner) text() []byte {
	if !utf8.Valid(s.p) {
		s.bad = true
	}
	return s.p[:len(s.p):len(s.p)]
}

func (s *scanner) bytes() []byte { return s.p[:len(s.p):len(s.p)] }

// message is the current field as an encoded Registered. A message that stands
// twice is merged, and to merge encodings is to put one behind the other.
func (s *scanner) message(before []byte) []byte {
	if new(Registered).Unmarshal(s.p) != nil {
		s.bad = true
	}
	if before == nil {
		return s.bytes()
	}
	return append(before, s.p...)
}

func (s *scanner) err() error {
	if s.bad {
		return ErrMalformed
	}
	return nil
}

// key joins a field's number and type, so that a known number with an unknown
// type is skipped like any unknown field.
func (s *scanner) key() uint64 { return uint64(s.num)<<3 | uint64(s.typ) }

const (
	varint = uint64(protowire.VarintType)
	length = uint64(protowire.BytesType)
)

// Unmarshal reads the message; its slices alias b.
func (m *SiteOpened) Unmarshal(b []byte) error {
	*m = SiteOpened{}
	s := scanner{rest: b}
	for s.next() {
		switch s.key() {
		case 1<<3 | length:
			m.Site = s.text()
		case 2<<3 | length:
			m.Name = s.text()
		case 3<<3 | length:
			m.Division = s.text()
		case 4<<3 | varint:
			m.OpenedAt = int64(s.v)
		case 5<<3 | length:
			m.Operator = s.text()
		case 15<<3 | varint:
			m.DoorAt = int64(s.v)
		}
	}
	return s.err()
}

// Unmarshal reads the message; its slices alias b.
func (m *TubeOpened) Unmarshal(b []byte) error {
	*m = TubeOpened{}
	s := scanner{rest: b}
	for s.next() {
		switch s.key() {
		case 1<<3 | length:
			m.Tube = s.text()
		case 2<<3 | varint:
			m.Pool = Pool(s.v)
		case 3<<3 | length:
			m.Site = s.text()
		case 4<<3 | varint:
			m.OpenedAt = int64(s.v)
		case 5<<3 | length:
			m.Operator = s.text()
		case 6<<3 | length:
			m.From = s.text()
		case 15<<3 | varint:
			m.DoorAt = int64(s.v)
		}
	}
	return s.err()
}

// Unmarshal reads the message; its slices alias b.
func (m *Registered) Unmarshal(b []byte) error {
	*m = Registered{}
	s := scanner{rest: b}
	for s.next() {
		switch s.key() {
		case 1<<3 | length:
			m.Tube = s.text()
		case 2<<3 | length:
			m.Person = s.bytes()
		case 3<<3 | varint:
			m.Pool = Pool(s.v)
		case 4<<3 | length:
			m.Site = s.text()
		case 5<<3 | varint:
			m.SampledAt = int64(s.v)
		case 6<<3 | varint:
			m.Channel = Channel(s.v)
		case 7<<3 | length:
			m.Operator = s.text()
		case 8<<3 | length:
			m.Device = s.text()
		case 9<<3 | varint:
			m.Flags = uint32(s.v)
		case 10<<3 | length:
			m.Division = s.text()
		case 11<<3 | varint:
			m.Revision = uint32(s.v)
		case 15<<3 | varint:
			m.DoorAt = int64(s.v)
		}
	}
	return s.err()
}

// Unmarshal reads the message; its slices alias b.
func (m *TubeSealed) Unmarshal(b []byte) error {
	*m = TubeSealed{}
	s := scanner{rest: b}
	for s.next() {
		switch s.key() {
		case 1<<3 | length:
			m.Tube = s.text()
		case 2<<3 | varint:
			m.SealedAt = int64(s.v)
		case 3<<3 | length:
			m.Operator = s.text()
		case 4<<3 | varint:
			m.Count = uint32(s.v)
		case 15<<3 | varint:
			m.DoorAt = int64(s.v)
		}
	}
	return s.err()
}

// Unmarshal reads the message; its slices alias b.
func (m *Boxed) Unmarshal(b []byte) error {
	*m = Boxed{}
	s := scanner{rest: b}
	for s.next() {
		switch s.key() {
		case 1<<3 | length:
			m.Box = s.text()
		case 2<<3 | length:
			m.Tube = s.text()
		case 3<<3 | varint:
			m.PackedAt = int64(s.v)
		case 4<<3 | length:
			m.Operator = s.text()
		case 15<<3 | varint:
			m.DoorAt = int64(s.v)
		}
	}
	return s.err()
}

// Unmarshal reads the message; its slices alias b.
func (m *LabReceived) Unmarshal(b []byte) error {
	*m = LabReceived{}
	s := scanner{rest: b}
	for s.next() {
		switch s.key() {
		case 1<<3 | length:
			m.Lab = s.text()
		case 2<<3 | length:
			m.Tube = s.text()
		case 3<<3 | length:
			m.Box = s.text()
		case 4<<3 | varint:
			m.ReceivedAt = int64(s.v)
		case 5<<3 | length:
			m.Operator = s.text()
		case 15<<3 | varint:
			m.DoorAt = int64(s.v)
		}
	}
	return s.err()
}

// Unmarshal reads the message; its slices alias b.
func (m *Resulted) Unmarshal(b []byte) error {
	*m = Resulted{}
	s := scanner{rest: b}
	for s.next() {
		switch s.key() {
		case 1<<3 | length:
			m.Tube = s.text()
		case 2<<3 | length:
			m.Lab = s.text()
		case 3<<3 | varint:
			m.Revision = uint32(s.v)
		case 4<<3 | varint:
			m.Outcome = Outcome(s.v)
		case 5<<3 | varint:
			m.ReceivedAt = int64(s.v)
		case 6<<3 | varint:
			m.TestedAt = int64(s.v)
		case 7<<3 | varint:
			m.ReportedAt = int64(s.v)
		case 8<<3 | length:
			m.Method = s.text()
		case 9<<3 | length:
			m.Operator = s.text()
		case 15<<3 | varint:
			m.DoorAt = int64(s.v)
		}
	}
	return s.err()
}

// Unmarshal reads the message; its slices alias b.
func (m *Corrected) Unmarshal(b []byte) error {
	*m = Corrected{}
	s := scanner{rest: b}
	for s.next() {
		switch s.key() {
		case 1<<3 | length:
			m.Tube = s.text()
		case 2<<3 | length:
			m.Person = s.bytes()
		case 3<<3 | varint:
			m.Revision = uint32(s.v)
		case 4<<3 | length:
			m.Lab = s.text()
		case 5<<3 | varint:
			m.Outcome = Outcome(s.v)
		case 6<<3 | length:
			m.Rebind = s.message(m.Rebind)
		case 7<<3 | varint:
			m.CorrectedAt = int64(s.v)
		case 8<<3 | length:
			m.Operator = s.text()
		case 9<<3 | length:
			m.Reason = s.text()
		case 15<<3 | varint:
			m.DoorAt = int64(s.v)
		}
	}
	return s.err()
}
