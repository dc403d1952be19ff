package rules

import (
	"bytes"

	"qianma/cluster/machine"
	"qianma/nucleic/nucleicpb"
)

// decideCorrected completes a correction with what is held here, so that the
// fact says by itself what it voids and what takes its place: whoever folds it
// needs nothing else.
func (m *Machine) decideCorrected(r machine.Reader, c *nucleicpb.Corrected) machine.Decision {
	t := m.tube(r, c.Tube)
	if t.sum.facts >= MaxTubeFacts+MaxTubeFacts/2 {
		return rejected(TubeCrowded) // corrections have room of their own, so that a crowded tube can be set right
	}
	if len(c.Person) == 0 {
		return m.voidResult(t, c)
	}
	return m.voidRegistration(r, t, c)
}

func (m *Machine) voidRegistration(r machine.Reader, t *tube, c *nucleicpb.Corrected) machine.Decision {
	held := t.find(c.Person)
	if held == nil || held.revision == 0 || c.Revision > held.revision {
		return rejected(RegistrationNone)
	}
	if c.Revision == 0 {
		c.Revision = held.revision
	}
	if bound, ok := c.Bound(); ok {
		c.Rebind = m.completed(r, t, c, bound).Append(nil)
	}
	if known, _ := lookup(t.head, m.fact.AppendIdentity(nil)); known {
		return duplicate
	}
	if held.voided >= c.Revision {
		return rejected(AlreadyCorrected)
	}
	return accepted(c.AppendFact(nil))
}

// completed fills in what a rebinding leaves unsaid from the registration it
// replaces, and gives it the revision at which it holds.
func (m *Machine) completed(r machine.Reader, t *tube, c *nucleicpb.Corrected, bound nucleicpb.Registered) *nucleicpb.Registered {
	var old nucleicpb.Registered
	value, _ := r.Get(pairKey(m.key[:], tableMember, t.code, c.Person))
	_, body := splitMember(t.code, c.Person, value)
	_ = old.Unmarshal(body)

	next := old
	next.Tube, next.Person, next.DoorAt = t.code, bound.Person, c.DoorAt
	next.Flags, next.Division = bound.Flags, bound.Division
	if bound.Pool != nucleicpb.PoolUnknown {
		next.Pool = bound.Pool
	}
	if bound.SampledAt != 0 {
		next.SampledAt = bound.SampledAt
	}
	next.Revision = revisionFor(t, c, bound.Person)
	return &next
}

// revisionFor is the revision at which a person may be bound again: one more
// than all that is void, or the one that stands.
func revisionFor(t *tube, c *nucleicpb.Corrected, person []byte) uint32 {
	voided, revision := uint32(0), uint32(0)
	if m := t.find(person); m != nil {
		voided, revision = m.voided, m.revision
	}
	if bytes.Equal(person, c.Person) {
		voided = max(voided, c.Revision)
	}
	return max(voided+1, revision)
}

func (m *Machine) voidResult(t *tube, c *nucleicpb.Corrected) machine.Decision {
	v := readVerdicts(t.head, func(*nucleicpb.Fact) {})
	var found *nucleicpb.Resulted
	void := false
	for i := range v.results {
		held := &v.results[i]
		switch {
		case !names(c, held):
		case v.void(held):
			void = true
		case found != nil:
			return rejected(ResultAmbiguous)
		default:
			found = held
		}
	}
	switch {
	case found == nil && void:
		return duplicate
	case found == nil:
		return rejected(ResultNone)
	}
	c.Lab, c.Outcome = found.Lab, found.Outcome
	return accepted(c.AppendFact(nil))
}

// names reports whether a correction, as far as it says, means the result.
func names(c *nucleicpb.Corrected, r *nucleicpb.Resulted) bool {
	return c.Revision == r.Revision &&
		(len(c.Lab) == 0 || bytes.Equal(c.Lab, r.Lab)) &&
		(c.Outcome == nucleicpb.OutcomeUnknown || c.Outcome == r.Outcome)
}
