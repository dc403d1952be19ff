package fold

import (
	"bytes"
	"cmp"
	"slices"

	"qianma/middle-store/middlestorepb"
	"qianma/nucleic/nucleicpb"
	"qianma/vaccine/vaccinepb"
)

// Iterator walks rows of one version of the store.
type Iterator interface {
	// Seek moves to the first row with the prefix; false: there is none.
	Seek(prefix []byte) bool
	// Next moves to the next row with the same prefix.
	Next() bool
	// Key and Value are valid until the next move.
	Key() []byte
	Value() []byte
}

// Bounds of one answer. They keep a person with an absurd number of rows from
// costing the others; no honest person comes near.
const (
	standTubes = middlestorepb.MaxTubes // newest tubes that a status is worked out from
	personRows = 512                    // rows of one person that are looked at
	tubeRows   = 256                    // rows of one tube that are looked at
)

// Reader answers for many people at once: first the rows of all persons, then
// those of their tubes, each tube once however many share it, both in key
// order. It keeps only scratch space.
type Reader struct {
	order  []int32 // of persons, then of swabs
	people []person
	swabs  []swab
	tubes  []tube
	arena  []byte // names of tubes

	rests []uint32 // subjects that tubes were worked out from

	voids  []void
	facts  []vaccinepb.Record
	tests  []nucleicpb.Test
	voided []nucleicpb.Resulted // of the tube being read
	boxes  []byte
	prefix []byte
	out    middlestorepb.Person
}

// person is one answer in the making: a range of swabs and of vaccine facts.
type person struct {
	swab, swabEnd int32
	fact, factEnd int32
	more          bool
}

// swab is a registration that is not void.
type swab struct {
	name      name
	sampledAt int64
	revision  uint32
	pool      byte
	tube      int32 // index of its tube
}

// name is a part of the arena.
type name struct{ at, end int32 }

type tube struct {
	verdict    nucleicpb.Verdict
	receivedAt int64 // by a lab, where the result does not say
	rest       int32 // range of subjects: the tube's own, those of its boxes
	restEnd    int32
}

// void is a registration that was taken back, up to a revision.
type void struct {
	name     name
	revision uint32
}

// Read works out each person and hands it to emit, in the order asked. What
// emit is given is valid only during the call.
func (r *Reader) Read(it Iterator, persons []middlestorepb.PersonID, tubes int, emit func(i int, p *middlestorepb.Person)) {
	r.people = append(r.people[:0], make([]person, len(persons))...)
	r.swabs, r.tubes, r.facts, r.arena, r.rests = r.swabs[:0], r.tubes[:0], r.facts[:0], r.arena[:0], r.rests[:0]
	r.order = r.order[:0]
	for i := range persons {
		r.order = append(r.order, int32(i))
	}
	slices.SortFunc(r.order, func(a, b int32) int { return bytes.Compare(persons[a][:], persons[b][:]) })
	for _, i := range r.order {
		r.readPerson(it, &r.people[i], persons[i][:])
	}
	r.readTubes(it)
	names := string(r.arena)
	for i := range r.people {
		r.join(&r.people[i], names, tubes)
		r.rest(&r.people[i], persons[i][:])
		emit(i, &r.out)
	}
}

// rest says what the answer in out rests on: a row of the person or of any of
// the tubes that were looked at may change it, also one that is not shown.
func (r *Reader) rest(p *person, id []byte) {
	r.prefix = personKey(r.prefix[:0], id)
	r.out.Subjects = append(r.out.Subjects, Subject(r.prefix))
	for i := range r.swabs[p.swab:p.swabEnd] {
		t := &r.tubes[r.swabs[int(p.swab)+i].tube]
		r.out.Subjects = append(r.out.Subjects, r.rests[t.rest:t.restEnd]...)
	}
}

// readPerson gathers one person's rows. They come as vaccine facts, voids,
// then registrations from the newest, so the walk can stop early.
func (r *Reader) readPerson(it Iterator, p *person, id []byte) {
	p.swab, p.fact = int32(len(r.swabs)), int32(len(r.facts))
	r.voids = r.voids[:0]
	r.prefix = personKey(r.prefix[:0], id)
	n := len(r.prefix)
	for ok, rows := it.Seek(r.prefix), 0; ok && rows < personRows && !p.more; ok, rows = it.Next(), rows+1 {
		key := it.Key()
		if len(key) <= n {
			continue
		}
		rest := row(key[n+1:])
		switch key[n] {
		case personVaccine:
			r.addFact(rest, it.Value())
		case personVoid:
			revision := rest.uint32()
			r.voids = append(r.voids, void{r.keep(rest), revision})
		case personRegistered:
			r.addSwab(p, rest)
		}
	}
	p.swabEnd, p.factEnd = int32(len(r.swabs)), int32(len(r.facts))
}

func (r *Reader) addFact(id row, value []byte) {
	f, err := vaccinepb.Decode(value)
	if err == nil && len(id) == len(vaccinepb.ID{}) {
		r.facts = append(r.facts, vaccinepb.Record{ID: vaccinepb.ID(id), Fact: f})
	}
}

// addSwab takes in a registration unless it is void. Of several registrations
// in one tube the highest revision stands, then the one sampled first. One
// tube more than wanted says that there are more.
func (r *Reader) addSwab(p *person, rest row) {
	var s swab
	s.sampledAt = rest.newest()
	s.revision = rest.uint32()
	s.pool = rest.byte()
	for i := range r.voids {
		if r.voids[i].revision >= s.revision && bytes.Equal(r.text(r.voids[i].name), rest) {
			return
		}
	}
	for i := p.swab; i < int32(len(r.swabs)); i++ {
		held := &r.swabs[i]
		if !bytes.Equal(r.text(held.name), rest) {
			continue
		}
		if s.before(held) {
			s.name = held.name
			*held = s
		}
		return
	}
	if len(r.swabs)-int(p.swab) == standTubes {
		p.more = true
		return
	}
	s.name = r.keep(rest)
	r.swabs = append(r.swabs, s)
}

// before reports whether s stands where t was registered in the same tube.
func (s *swab) before(t *swab) bool {
	return cmp.Or(cmp.Compare(t.revision, s.revision), cmp.Compare(s.sampledAt, t.sampledAt), cmp.Compare(s.pool, t.pool)) < 0
}

func (r *Reader) keep(p []byte) name {
	at := int32(len(r.arena))
	r.arena = append(r.arena, p...)
	return name{at, int32(len(r.arena))}
}

func (r *Reader) text(n name) []byte { return r.arena[n.at:n.end] }

// readTubes looks each tube up once, in key order.
func (r *Reader) readTubes(it Iterator) {
	r.order = r.order[:0]
	for i := range r.swabs {
		r.order = append(r.order, int32(i))
	}
	slices.SortFunc(r.order, func(a, b int32) int {
		x, y := r.text(r.swabs[a].name), r.text(r.swabs[b].name)
		return cmp.Or(cmp.Compare(len(x), len(y)), bytes.Compare(x, y))
	})
	var last []byte
	for _, i := range r.order {
		s := &r.swabs[i]
		text := r.text(s.name)
		if last == nil || !bytes.Equal(text, last) {
			r.tubes = append(r.tubes, r.readTube(it, text))
			last = text
		}
		s.tube = int32(len(r.tubes)) - 1
	}
}

// readTube works out one tube. Voids come before the results they void.
func (r *Reader) readTube(it Iterator, text []byte) tube {
	var t tube
	r.voided, r.boxes = r.voided[:0], r.boxes[:0]
	r.prefix = nameKey(r.prefix[:0], tagTube, text)
	n := len(r.prefix)
	t.rest = int32(len(r.rests))
	r.rests = append(r.rests, Subject(r.prefix))
	for ok, rows := it.Seek(r.prefix), 0; ok && rows < tubeRows; ok, rows = it.Next(), rows+1 {
		key := it.Key()
		if len(key) <= n {
			continue
		}
		rest := row(key[n+1:])
		switch key[n] {
		case tubeVoid:
			m := result(&rest)
			m.Lab = slices.Clone(m.Lab)
			r.voided = append(r.voided, m)
		case tubeResult:
			m := result(&rest)
			m.ReportedAt, m.TestedAt, m.ReceivedAt = rest.time(), rest.time(), rest.time()
			if !r.isVoid(&m) {
				t.verdict.Add(&m)
			}
		case tubeReceived:
			t.receivedAt = first(t.receivedAt, rest.time())
		case tubeBoxed:
			r.boxes = append(append(r.boxes, byte(len(rest))), rest...)
		}
	}
	if t.verdict.ReceivedAt == 0 {
		t.receivedAt = r.readBoxes(it, t.receivedAt)
	}
	t.restEnd = int32(len(r.rests))
	return t
}

func result(rest *row) nucleicpb.Resulted {
	return nucleicpb.Resulted{Revision: rest.uint32(), Outcome: nucleicpb.Outcome(rest.byte()), Lab: rest.text()}
}

func (r *Reader) isVoid(m *nucleicpb.Resulted) bool {
	for i := range r.voided {
		v := &r.voided[i]
		if v.Revision == m.Revision && v.Outcome == m.Outcome && bytes.Equal(v.Lab, m.Lab) {
			return true
		}
	}
	return false
}

// readBoxes is when a lab first took in a box that the tube is in.
func (r *Reader) readBoxes(it Iterator, at int64) int64 {
	for boxes := row(r.boxes); len(boxes) > 0; {
		r.prefix = nameKey(r.prefix[:0], tagBox, boxes.text())
		r.rests = append(r.rests, Subject(r.prefix))
		if it.Seek(r.prefix) && len(it.Key()) > len(r.prefix) {
			rest := row(it.Key()[len(r.prefix)+1:])
			at = first(at, rest.time())
		}
	}
	return at
}

// first is the earlier of two times of which 0 is not known.
func first(a, b int64) int64 {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// join puts a person's swabs, their tubes and the doses together into out.
func (r *Reader) join(p *person, names string, tubes int) {
	r.out.Reset()
	swabs := r.swabs[p.swab:p.swabEnd]
	slices.SortFunc(swabs, func(a, b swab) int {
		return cmp.Or(cmp.Compare(b.sampledAt, a.sampledAt), bytes.Compare(r.text(a.name), r.text(b.name)))
	})
	r.tests = r.tests[:0]
	for i := range swabs {
		r.tests = append(r.tests, r.test(&swabs[i]))
	}
	standing, by := nucleicpb.Stand(r.tests)
	r.out.Status = middlestorepb.Status(standing)
	r.out.MoreTubes = p.more || len(swabs) > tubes
	for i := range swabs[:min(tubes, len(swabs))] {
		r.addTube(names, i, &swabs[i], by)
	}
	if by >= tubes { // what decides is always shown
		r.addTube(names, by, &swabs[by], by)
	}
	r.joinDoses(r.facts[p.fact:p.factEnd])
}

func (r *Reader) test(s *swab) nucleicpb.Test {
	t := &r.tubes[s.tube]
	v := &t.verdict
	received := v.ReceivedAt
	if received == 0 {
		received = t.receivedAt
	}
	return nucleicpb.Test{
		Tube: r.text(s.name), Pool: nucleicpb.Pool(s.pool), SampledAt: s.sampledAt,
		ReceivedAt: received, TestedAt: v.TestedAt, ReportedAt: v.ReportedAt, Outcome: v.Outcome,
	}
}

func (r *Reader) addTube(names string, i int, s *swab, by int) {
	t := &r.tests[i]
	shown := middlestorepb.Tube{
		Tube: names[s.name.at:s.name.end], Pool: uint32(s.pool), SampledAt: t.SampledAt,
		ReceivedAt: t.ReceivedAt, TestedAt: t.TestedAt, ReportedAt: t.ReportedAt,
		Revision: r.tubes[s.tube].verdict.Revision,
	}
	if o := t.Counts(); o == nucleicpb.OutcomeConflict {
		shown.Conflict = true
	} else {
		shown.Outcome = middlestorepb.Outcome(o)
	}
	r.out.Tubes = append(r.out.Tubes, shown)
	if i == by {
		r.out.DecidedBy = uint32(len(r.out.Tubes))
	}
}

func (r *Reader) joinDoses(facts []vaccinepb.Record) {
	if len(facts) == 0 {
		return
	}
	h := vaccinepb.HistoryOf(facts)
	d := &r.out.Doses
	d.Count, d.LastDay, d.Conflict = uint32(h.Count), h.LastDay, h.Conflict
	for i := range h.Doses {
		x := &h.Doses[i]
		if x.State == vaccinepb.Withdrawn {
			continue
		}
		d.Doses = append(d.Doses, middlestorepb.Dose{Dose: x.Dose, Day: x.Day, Product: x.Product, Batch: x.Batch, Site: x.Site, Conflict: x.State == vaccinepb.Conflicts})
	}
	r.out.HasDoses = true
}
