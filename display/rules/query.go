package rules

import (
	"encoding/binary"

	"qianma/cluster/machine"
	"qianma/display/colour"
	"qianma/display/displaypb"
)

// Held is a restriction that is known, with what became of it.
type Held struct {
	ID         displaypb.ID
	Fact       displaypb.Restricted
	ReleasedAt int64        // Unix ms; 0: not released
	ReleasedBy displaypb.ID // the Released fact
}

// State is what is held about one person. The zero State is nothing.
type State struct {
	Held         []Held
	Declarations []colour.Declaration
	Guardian     displaypb.Person // zero: none
	Facts        int              // how many entries there are; it only grows
}

// Reset empties the state and keeps its memory.
func (s *State) Reset() {
	*s = State{Held: s.Held[:0], Declarations: s.Declarations[:0]}
}

// Read fills s with what is held about a person.
func (s *State) Read(r machine.Reader, p displaypb.Person) { s.fill(recordOf(r, p)) }

// Peek fills s with what this replica holds about a person, without a view of it:
// there is but one key to read.
func (s *State) Peek(from machine.Proposer, shard int, p displaypb.Person) error {
	raw, _, err := from.Peek(shard, personKey(p))
	s.fill(raw)
	return err
}

func (s *State) fill(rec record) {
	s.Reset()
	for e, rest, ok := rec.next(); ok; e, rest, ok = rest.next() {
		s.take(rec, e)
	}
}

func (s *State) take(rec record, e entry) {
	s.Facts++
	switch e.tag {
	case tagRestricted:
		if f, ok := decodeRestricted(e.value); ok {
			s.Held = append(s.Held, Held{ID: displaypb.ID(e.key), Fact: *f})
		}
	case tagReleased:
		for i := range s.Held { // restrictions stand before releases
			if string(s.Held[i].ID[:]) == string(e.key) {
				s.Held[i].ReleasedAt = int64(binary.BigEndian.Uint64(e.value))
				s.Held[i].ReleasedBy = displaypb.ID(e.value[8:])
			}
		}
	case tagIll, tagWell:
		if !rec.has(tagWithdrawn, e.key[8:]) {
			s.Declarations = append(s.Declarations, colour.Declaration{At: int64(binary.BigEndian.Uint64(e.key)),
				Symptoms: e.value[0]&flagSymptoms != 0, Contact: e.value[0]&flagContact != 0})
		}
	case tagGuardian: // ascending in time: the last one that counts
		if !rec.has(tagWithdrawn, e.key[8:]) {
			s.Guardian = displaypb.Person(e.value)
		}
	}
}

func decodeRestricted(fact []byte) (*displaypb.Restricted, bool) {
	f, err := displaypb.Decode(fact)
	if err != nil {
		return nil, false
	}
	r, ok := f.(*displaypb.Restricted)
	return r, ok
}

// Citizen is the newest application of a person that was not withdrawn.
func Citizen(r machine.Reader, p displaypb.Person) (citizen *displaypb.CitizenApplied, id displaypb.ID, ok bool) {
	rec := recordOf(r, p)
	prefix := citizenPrefix(p)
	r.Scan(prefix, after(prefix), func(key, value []byte) bool {
		at := displaypb.ID(key[len(key)-16:])
		if f, err := displaypb.Decode(value); err == nil && !rec.has(tagWithdrawn, at[:]) {
			if c, is := f.(*displaypb.CitizenApplied); is {
				citizen, id, ok = c, at, true
			}
		}
		return true
	})
	return citizen, id, ok
}

func holdsCitizen(r machine.Reader, p displaypb.Person, id displaypb.ID) (found bool) {
	prefix := citizenPrefix(p)
	r.Scan(prefix, after(prefix), func(key, _ []byte) bool {
		found = string(key[len(key)-16:]) == string(id[:])
		return !found
	})
	return found
}

// Published is a rule set that is held.
type Published struct {
	ID   displaypb.ID
	Fact displaypb.RuleSetPublished
	// Contested: another document was published with this name and version, at
	// the other carrier. Both are kept; the one with the lower id is in force.
	Contested bool
}

// RuleSets returns every rule set held in the shard RuleSetShard, in the order
// in which they come into force.
func RuleSets(r machine.Reader) []Published {
	var out []Published
	seen := map[string]int{}
	r.Scan([]byte{spaceRuleSet}, []byte{spaceRuleSet + 1}, func(key, value []byte) bool {
		f, err := displaypb.Decode(value)
		if err != nil {
			return true
		}
		p := Published{ID: displaypb.ID(key[len(key)-16:]), Fact: *f.(*displaypb.RuleSetPublished)}
		name := ref(p.Fact.Name, p.Fact.Version)
		if first, twice := seen[name]; twice {
			p.Contested, out[first].Contested = true, true
		} else {
			seen[name] = len(out)
		}
		out = append(out, p)
		return true
	})
	return out
}

func ref(name string, version uint32) string {
	return string(binary.BigEndian.AppendUint32([]byte(name), version))
}

// builtin is the rule set that everyone has.
var builtin = colour.Builtin()

// knowsRule reports whether a rule set of that name and version is held.
func knowsRule(r machine.Reader, name string, version uint32) (known bool) {
	if name == builtin.Name && version == builtin.Version {
		return true
	}
	r.Scan([]byte{spaceRuleSet}, []byte{spaceRuleSet + 1}, func(_, value []byte) bool {
		if f, err := displaypb.Decode(value); err == nil {
			p := f.(*displaypb.RuleSetPublished)
			known = p.Name == name && p.Version == version
		}
		return !known
	})
	return known
}
