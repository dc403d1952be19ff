package rules

import (
	"bytes"
	"encoding/binary"

	"qianma/nucleic/nucleicpb"
)

// member is one person of a tube.
type member struct {
	person    [nucleicpb.PersonSize]byte
	sampledAt int64
	pool      nucleicpb.Pool
	revision  uint32 // of the registration that stands; 0: only voided so far
	voided    uint32 // the highest revision that a correction voids
}

// live: the binding stands.
func (m *member) live() bool { return m.revision > m.voided }

func (m *member) set(reg *nucleicpb.Registered) {
	m.revision, m.sampledAt, m.pool = reg.Rev(), reg.SampledAt, reg.Pool
}

// A stored member is the voided revision and then the registration that stands;
// nothing follows when only its correction has come. A registration begins with
// its tube and its person, which are the key already and two bytes of five: if
// they stand there as this build writes them, inTheKey stands for both. No
// message begins with that byte, so that what stands there whole, because an
// older build or another encoder wrote it, is told apart.
const inTheKey = 0

// appendMember appends a member as it is stored.
func appendMember(dst []byte, tube, person []byte, voided uint32, body []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(voided))
	var room [128]byte
	if rest, ok := bytes.CutPrefix(body, appendLead(room[:0], tube, person)); ok {
		return append(append(dst, inTheKey), rest...)
	}
	return append(dst, body...)
}

// splitMember takes a stored member apart: the voided revision, and the
// registration that stands, byte for byte as it came (nil when only its
// correction has come).
func splitMember(tube, person, value []byte) (voided uint32, body []byte) {
	v, w := binary.Uvarint(value)
	if w <= 0 {
		return 0, nil
	}
	body = value[w:]
	switch {
	case len(body) == 0:
		body = nil
	case body[0] == inTheKey:
		lead := appendLead(make([]byte, 0, len(tube)+len(person)+len(body)+8), tube, person)
		body = append(lead, body[1:]...)
	}
	return uint32(v), body
}

// appendLead appends what a registration of the person in the tube begins with.
func appendLead(dst []byte, tube, person []byte) []byte {
	return (&nucleicpb.Registered{Tube: tube, Person: person}).Append(dst)
}

// readMember reads a stored member.
func readMember(tube, person, value []byte) member {
	voided, body := splitMember(tube, person, value)
	m := member{voided: voided}
	copy(m.person[:], person)
	var reg nucleicpb.Registered
	if body != nil && reg.Unmarshal(body) == nil {
		m.set(&reg)
	}
	return m
}
