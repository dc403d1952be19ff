package rules

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"qianma/nucleic/nucleicpb"
)

// TestAStoredMemberIsReadAsItCame: whatever encoder wrote a registration, its
// bytes decide between two that contradict one another, so none may change.
func TestAStoredMemberIsReadAsItCame(t *testing.T) {
	tube, person := []byte("52010012345678"), bytes.Repeat([]byte{7}, nucleicpb.PersonSize)
	body := (&nucleicpb.Registered{Tube: tube, Person: person, Pool: nucleicpb.PoolTen, Site: []byte("520100-a"), SampledAt: 1}).Append(nil)
	lead := appendLead(nil, tube, person)
	other := appendLead(nil, tube, bytes.Repeat([]byte{8}, nucleicpb.PersonSize))

	for name, c := range map[string]struct {
		body []byte
		cut  bool
	}{
		"as this build writes it":      {body, true},
		"its lead alone":               {lead, true},
		"its lead twice":               {slices.Concat(lead, body), true},
		"fields in another order":      {slices.Concat(body[len(lead):], lead), false},
		"of somebody else":             {slices.Concat(other, body[len(lead):]), false},
		"without its tube":             {body[2+len(tube):], false},
		"none, only a correction came": {nil, false},
	} {
		stored := appendMember(nil, tube, person, 3, c.body)
		if whole := 1 + len(c.body); len(stored) < whole != c.cut {
			t.Errorf("%s: %d bytes are stored of %d", name, len(stored), whole)
		}
		voided, got := splitMember(tube, person, stored)
		if voided != 3 || !bytes.Equal(got, c.body) || (got == nil) != (c.body == nil) {
			t.Errorf("%s: voided %d and % x, want 3 and % x", name, voided, got, c.body)
		}
	}
}

// TestAMemberStoredByAnOlderBuildIsRead: it kept registrations whole.
func TestAMemberStoredByAnOlderBuildIsRead(t *testing.T) {
	tube, person := []byte("52010012345678"), bytes.Repeat([]byte{7}, nucleicpb.PersonSize)
	body := (&nucleicpb.Registered{Tube: tube, Person: person, Pool: nucleicpb.PoolTen, SampledAt: 5}).Append(nil)
	old := append(binary.AppendUvarint(nil, 2), body...)
	if voided, got := splitMember(tube, person, old); voided != 2 || !bytes.Equal(got, body) {
		t.Errorf("voided %d and % x, want 2 and % x", voided, got, body)
	}
	if m := readMember(tube, person, old); m.sampledAt != 5 || m.pool != nucleicpb.PoolTen || m.voided != 2 {
		t.Errorf("read as %+v", m)
	}
}
