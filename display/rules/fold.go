package rules

import (
	"encoding/binary"

	"qianma/cluster/machine"
	"qianma/display/displaypb"
)

// Fold implements machine.Machine. Every fact is an insertion into a set, so
// order and repetition cannot matter.
func (m *Rules) Fold(tx machine.Tx, fact []byte) error {
	f, err := displaypb.Decode(fact)
	if err != nil {
		return err
	}
	id := displaypb.IDOf(fact)
	switch f := f.(type) {
	case *displaypb.CitizenApplied:
		tx.Set(citizenKey(f.Person, f.At, id), fact)
		if f.Guardian != (displaypb.Person{}) {
			add(tx, f.Person, entry{tagGuardian, orderedKey(f.At, id), f.Guardian[:]})
		}
	case *displaypb.RuleSetPublished:
		tx.Set(ruleSetKey(f.EffectiveFrom, f.Version, id), fact)
	case *displaypb.Declared:
		add(tx, f.Person, entry{declaredTag(f), orderedKey(f.At, id), []byte{declaredFlags(f)}})
	case *displaypb.Restricted:
		add(tx, f.Person, entry{tagRestricted, id[:], fact})
	case *displaypb.Released:
		lift := append(binary.BigEndian.AppendUint64(nil, uint64(f.At)), id[:]...)
		for i := range f.Restrictions {
			add(tx, f.Person, entry{tagReleased, f.Restrictions[i][:], lift})
		}
	case *displaypb.GuardianBound:
		add(tx, f.Person, entry{tagGuardian, orderedKey(f.At, id), f.Guardian[:]})
	case *displaypb.Corrected:
		add(tx, f.Person, entry{tagWithdrawn, f.Target[:], nil})
	}
	if m.watcher != nil {
		m.watcher.Touched(f.PersonOf())
	}
	return nil
}

func add(tx machine.Tx, p displaypb.Person, e entry) {
	rec := recordOf(tx, p)
	if next, changed := rec.with(e); changed {
		tx.Set(personKey(p), next)
	}
}

func declaredTag(f *displaypb.Declared) byte {
	if f.Ill() {
		return tagIll
	}
	return tagWell
}

// Flags of a declaration as the record keeps it.
const (
	flagSymptoms = 1
	flagContact  = 2
)

func declaredFlags(f *displaypb.Declared) (flags byte) {
	if f.Symptoms != 0 || f.Temperature >= displaypb.FeverFrom {
		flags |= flagSymptoms
	}
	if f.Contact {
		flags |= flagContact
	}
	return flags
}
