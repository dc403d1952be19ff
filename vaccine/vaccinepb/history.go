package vaccinepb

import (
	"bytes"
	"cmp"
	"slices"
)

// State says what a recorded dose is worth. The numbers cross the wire.
type State uint8

// What a recorded dose is worth.
const (
	Counts    State = 1 // stands, and nothing contradicts it
	Conflicts State = 2 // stands, but another record of the same dose number says otherwise
	Withdrawn State = 3 // a standing correction names it
)

// String is the state as answers show it.
func (s State) String() string {
	switch s {
	case Counts:
		return "counts"
	case Conflicts:
		return "conflict"
	case Withdrawn:
		return "withdrawn"
	}
	return "unknown"
}

// Record is a fact about one person with its id.
type Record struct {
	ID   ID
	Fact Fact
}

// Dose is a recorded dose and what it is worth.
type Dose struct {
	ID    ID
	State State
	DoseGiven
}

// Correction is a recorded correction; Stands is false when another standing
// correction names it.
type Correction struct {
	ID     ID
	Stands bool
	Corrected
}

// History is all that is recorded about one person, and what it comes to.
type History struct {
	Doses       []Dose       // by (dose number, day, id), withdrawn ones too
	Corrections []Correction // by (time, id)
	Count       int          // distinct dose numbers that stand
	LastDay     int32        // of the doses that stand; 0 when Count is 0
	Conflict    bool         // some dose number has standing records that differ
}

// HistoryOf works out a person's history from a set of facts about that
// person. The order of the records and their repetition do not matter.
func HistoryOf(records []Record) History {
	var h History
	for _, r := range records {
		switch r.Fact.Kind {
		case KindDoseGiven:
			h.Doses = append(h.Doses, Dose{ID: r.ID, State: Counts, DoseGiven: r.Fact.DoseGiven})
		case KindCorrected:
			h.Corrections = append(h.Corrections, Correction{ID: r.ID, Corrected: r.Fact.Corrected})
		}
	}
	slices.SortFunc(h.Doses, compareDoses)
	h.Doses = slices.CompactFunc(h.Doses, func(a, b Dose) bool { return a.ID == b.ID })
	slices.SortFunc(h.Corrections, compareCorrections)
	h.Corrections = slices.CompactFunc(h.Corrections, func(a, b Correction) bool { return a.ID == b.ID })
	h.settle()
	return h
}

// settle decides which corrections stand, then what each dose is worth.
func (h *History) settle() {
	for i := range h.Corrections {
		h.Corrections[i].Stands = !h.named(h.Corrections[i].ID, len(h.Corrections))
	}
	for i := range h.Doses {
		if h.named(h.Doses[i].ID, len(h.Corrections)) {
			h.Doses[i].State = Withdrawn
		}
	}
	for i := 0; i < len(h.Doses); {
		j := i
		for j < len(h.Doses) && h.Doses[j].Dose == h.Doses[i].Dose {
			j++
		}
		h.tally(h.Doses[i:j])
		i = j
	}
}

// named reports whether a correction that stands names the fact. A correction
// names an id, an id is a digest of what it names, so the names cannot form a
// ring; depth ends the walk all the same.
func (h *History) named(id ID, depth int) bool {
	if depth == 0 {
		return false
	}
	return slices.ContainsFunc(h.Corrections, func(c Correction) bool {
		return c.Target == id && !h.named(c.ID, depth-1)
	})
}

// tally counts the records of one dose number and marks those that disagree.
func (h *History) tally(same []Dose) {
	var first *Dose
	differ := false
	for i := range same {
		d := &same[i]
		if d.State == Withdrawn {
			continue
		}
		if first == nil {
			first = d
			h.Count++
		}
		differ = differ || !d.SameDose(&first.DoseGiven)
		h.LastDay = max(h.LastDay, d.Day)
	}
	if !differ {
		return
	}
	h.Conflict = true
	for i := range same {
		if same[i].State == Counts {
			same[i].State = Conflicts
		}
	}
}

// SameDose reports whether two records describe the same injection. Who
// entered it does not matter.
func (d *DoseGiven) SameDose(e *DoseGiven) bool {
	return d.Person == e.Person && d.Dose == e.Dose && d.Day == e.Day && d.Product == e.Product &&
		d.Batch == e.Batch && d.Site == e.Site
}

func compareDoses(a, b Dose) int {
	return cmp.Or(cmp.Compare(a.Dose, b.Dose), cmp.Compare(a.Day, b.Day), bytes.Compare(a.ID[:], b.ID[:]))
}

func compareCorrections(a, b Correction) int {
	return cmp.Or(cmp.Compare(a.At, b.At), bytes.Compare(a.ID[:], b.ID[:]))
}
