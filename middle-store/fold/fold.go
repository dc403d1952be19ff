package fold

import (
	"encoding/binary"
	"errors"
	"fmt"

	"qianma/nucleic/nucleicpb"
	"qianma/vaccine/vaccinepb"
)

// Subsystems whose facts can be folded.
const (
	Nucleic = "nucleic"
	Vaccine = "vaccine"
)

// ErrNotFolded says that this build cannot fold a fact: it is set aside, and a
// newer build may fold it.
var ErrNotFolded = errors.New("fold: a fact this build does not understand")

// Writer takes rows. The slices are valid only during the call. A row with the
// key of one that is held has its value too.
type Writer interface {
	Set(key, value []byte)
}

// Folder turns facts into rows. The zero value is ready; it keeps only
// scratch space.
type Folder struct {
	fact nucleicpb.Fact
	key  []byte
}

// Fold adds the rows of one fact of a subsystem. It adds all of them or, with
// an error, none.
func (f *Folder) Fold(w Writer, subsystem string, fact []byte) error {
	switch subsystem {
	case Nucleic:
		return f.foldNucleic(w, fact)
	case Vaccine:
		return f.foldVaccine(w, fact)
	}
	return fmt.Errorf("%w: subsystem %q", ErrNotFolded, subsystem)
}

func (f *Folder) foldVaccine(w Writer, fact []byte) error {
	v, err := vaccinepb.Decode(fact)
	if err != nil {
		return notFolded(err)
	}
	person, id := v.PersonOf(), vaccinepb.IDOf(fact)
	f.key = append(append(personKey(f.key[:0], person[:]), personVaccine), id[:]...)
	w.Set(f.key, fact)
	return nil
}

func (f *Folder) foldNucleic(w Writer, fact []byte) error {
	kind, err := f.fact.Decode(fact)
	if err != nil {
		return notFolded(err)
	}
	switch kind {
	case nucleicpb.KindRegistered:
		return f.registered(w, &f.fact.Registered)
	case nucleicpb.KindResulted:
		return f.resulted(w, &f.fact.Resulted)
	case nucleicpb.KindCorrected:
		return f.corrected(w, &f.fact.Corrected)
	case nucleicpb.KindBoxed:
		return f.boxed(w, &f.fact.Boxed)
	case nucleicpb.KindLabReceived:
		return f.labReceived(w, &f.fact.LabReceived)
	}
	return nil // says nothing about a person
}

func (f *Folder) registered(w Writer, m *nucleicpb.Registered) error {
	if !named(m.Tube) || len(m.Person) != personSize || !m.Pool.Known() {
		return notFolded(nucleicpb.ErrMalformed)
	}
	f.key = registeredKey(f.key[:0], m.Person, m.SampledAt, m.Rev(), byte(m.Pool), m.Tube)
	w.Set(f.key, nil)
	return nil
}

func (f *Folder) resulted(w Writer, m *nucleicpb.Resulted) error {
	if !named(m.Tube) || len(m.Lab) > maxName || !m.Outcome.Known() {
		return notFolded(nucleicpb.ErrMalformed)
	}
	f.key = resultKey(f.key[:0], tubeResult, m.Tube, m.Revision, byte(m.Outcome), m.Lab)
	for _, t := range [...]int64{m.ReportedAt, m.TestedAt, m.ReceivedAt} {
		f.key = binary.BigEndian.AppendUint64(f.key, ordered(t))
	}
	w.Set(f.key, nil)
	return nil
}

func (f *Folder) corrected(w Writer, m *nucleicpb.Corrected) error {
	if !named(m.Tube) || len(m.Lab) > maxName {
		return notFolded(nucleicpb.ErrMalformed)
	}
	if len(m.Person) == 0 {
		if !m.Outcome.Known() {
			return notFolded(nucleicpb.ErrMalformed)
		}
		f.key = resultKey(f.key[:0], tubeVoid, m.Tube, m.Revision, byte(m.Outcome), m.Lab)
		w.Set(f.key, nil)
		return nil
	}
	if len(m.Person) != personSize {
		return notFolded(nucleicpb.ErrMalformed)
	}
	if m.Rebind != nil {
		bound, ok := m.Bound()
		if !ok {
			return notFolded(nucleicpb.ErrMalformed)
		}
		bound.Tube = m.Tube
		if err := f.registered(w, &bound); err != nil {
			return err
		}
	}
	f.key = voidKey(f.key[:0], m.Person, max(1, m.Revision), m.Tube)
	w.Set(f.key, nil)
	return nil
}

func (f *Folder) boxed(w Writer, m *nucleicpb.Boxed) error {
	if !named(m.Tube) || !named(m.Box) {
		return notFolded(nucleicpb.ErrMalformed)
	}
	f.key = append(append(nameKey(f.key[:0], tagTube, m.Tube), tubeBoxed), m.Box...)
	w.Set(f.key, nil)
	return nil
}

func (f *Folder) labReceived(w Writer, m *nucleicpb.LabReceived) error {
	tag, name, kind := byte(tagTube), m.Tube, byte(tubeReceived)
	if len(m.Tube) == 0 {
		tag, name, kind = tagBox, m.Box, boxReceived
	}
	if !named(name) {
		return notFolded(nucleicpb.ErrMalformed)
	}
	f.key = append(nameKey(f.key[:0], tag, name), kind)
	f.key = binary.BigEndian.AppendUint64(f.key, ordered(m.ReceivedAt))
	w.Set(f.key, nil)
	return nil
}

func named(name []byte) bool { return len(name) > 0 && len(name) <= maxName }

func notFolded(err error) error { return fmt.Errorf("%w: %w", ErrNotFolded, err) }
