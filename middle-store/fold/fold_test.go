package fold_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sort"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"pgregory.net/rapid"

	"qianma/middle-store/fold"
	"qianma/middle-store/middlestorepb"
	"qianma/nucleic/nucleicpb"
	"qianma/vaccine/vaccinepb"
)

const noon = int64(1646107200000) // 2022-03-01 12:00 at the sites, in ms
const hour = int64(3600_000)

type entry struct {
	subsystem string
	raw       []byte
}

func person(n int) []byte { return append(make([]byte, 15), byte(n)) }

func tubeName(n int) []byte { return fmt.Appendf(nil, "5201001%d", n) }

func registered(who, tube int, at int64, edit ...func(*nucleicpb.Registered)) entry {
	m := nucleicpb.Registered{Tube: tubeName(tube), Person: person(who), Pool: nucleicpb.PoolTen, SampledAt: at, Site: []byte("S"), DoorAt: 1}
	for _, f := range edit {
		f(&m)
	}
	return entry{fold.Nucleic, m.AppendFact(nil)}
}

func single(m *nucleicpb.Registered) { m.Pool = nucleicpb.PoolSingle }

func resulted(tube int, revision uint32, o nucleicpb.Outcome, at int64, edit ...func(*nucleicpb.Resulted)) entry {
	m := nucleicpb.Resulted{Tube: tubeName(tube), Lab: []byte("L1"), Revision: revision, Outcome: o, ReceivedAt: at - hour, TestedAt: at - hour/2, ReportedAt: at, DoorAt: 1}
	for _, f := range edit {
		f(&m)
	}
	return entry{fold.Nucleic, m.AppendFact(nil)}
}

func corrected(tube int, edit func(*nucleicpb.Corrected)) entry {
	m := nucleicpb.Corrected{Tube: tubeName(tube), CorrectedAt: noon, Operator: []byte("o"), Reason: []byte("mistyped")}
	edit(&m)
	return entry{fold.Nucleic, m.AppendFact(nil)}
}

func dose(who int, n uint32, day int32, product string) entry {
	return entry{fold.Vaccine, vaccinepb.AppendDoseGiven(nil, &vaccinepb.DoseGiven{Person: vaccinepb.Person(person(who)), Dose: n, Day: day, Product: product, Batch: "B", Site: "S"})}
}

func folded(t testing.TB, entries ...entry) *mem {
	t.Helper()
	m := newMem()
	var f fold.Folder
	for _, e := range entries {
		if err := f.Fold(m, e.subsystem, e.raw); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func ask(m *mem, who int) middlestorepb.Person { return askMany(m, middlestorepb.DefaultTubes, who)[0] }

func askMany(m *mem, tubes int, who ...int) []middlestorepb.Person {
	var ids []middlestorepb.PersonID
	for _, n := range who {
		ids = append(ids, middlestorepb.PersonID(person(n)))
	}
	out := make([]middlestorepb.Person, len(ids))
	var r fold.Reader
	r.Read(m.iterator(), ids, tubes, func(i int, p *middlestorepb.Person) {
		out[i] = *p
		out[i].Tubes = slices.Clone(p.Tubes)
		out[i].Doses.Doses = slices.Clone(p.Doses.Doses)
		out[i].Subjects = slices.Clone(p.Subjects)
	})
	return out
}

func TestNobodyIsEmpty(t *testing.T) {
	got := ask(folded(t, registered(2, 1, noon)), 1)
	if got.Subjects = nil; !reflect.DeepEqual(got, middlestorepb.Person{}) {
		t.Fatalf("got %+v", got)
	}
}

func TestOneResultCoversItsPool(t *testing.T) {
	m := folded(t, registered(1, 7, noon), registered(2, 7, noon+1), registered(3, 8, noon), resulted(7, 1, nucleicpb.OutcomeNegative, noon+6*hour))
	got := askMany(m, 6, 3, 1, 2, 1)
	want := middlestorepb.Tube{Tube: "52010017", Pool: 10, SampledAt: noon, ReceivedAt: noon + 5*hour, TestedAt: noon + 5*hour + hour/2, ReportedAt: noon + 6*hour, Outcome: middlestorepb.OutcomeNegative, Revision: 1}
	for _, i := range []int{1, 3} {
		if got[i].Status != middlestorepb.StatusNegative || got[i].DecidedBy != 1 || !reflect.DeepEqual(got[i].Tubes, []middlestorepb.Tube{want}) {
			t.Errorf("person 1: got %+v", got[i])
		}
	}
	if got[2].Status != middlestorepb.StatusNegative || got[2].Tubes[0].SampledAt != noon+1 {
		t.Errorf("person 2: got %+v", got[2])
	}
	if got[0].Status != middlestorepb.StatusPending || got[0].Tubes[0].Outcome != middlestorepb.OutcomePending {
		t.Errorf("person 3: got %+v", got[0])
	}
}

func TestPositivePoolWaitsForTheSingleRetest(t *testing.T) {
	pool := []entry{registered(1, 7, noon), resulted(7, 1, nucleicpb.OutcomePositive, noon+6*hour)}
	if got := ask(folded(t, pool...), 1); got.Status != middlestorepb.StatusPoolPositiveRetest {
		t.Fatalf("got %+v", got)
	}
	retest := append(pool, registered(1, 8, noon+8*hour, single), resulted(8, 1, nucleicpb.OutcomeNegative, noon+12*hour))
	if got := ask(folded(t, retest...), 1); got.Status != middlestorepb.StatusNegative || got.DecidedBy != 1 || got.Tubes[0].Tube != "52010018" {
		t.Fatalf("got %+v", got)
	}
}

func TestContradictingResultsAreShown(t *testing.T) {
	m := folded(t, registered(1, 7, noon), resulted(7, 1, nucleicpb.OutcomePositive, noon+6*hour), resulted(7, 1, nucleicpb.OutcomeNegative, noon+7*hour))
	if got := ask(m, 1); got.Status != middlestorepb.StatusConflict || !got.Tubes[0].Conflict || got.Tubes[0].Outcome != middlestorepb.OutcomePending {
		t.Fatalf("got %+v", got)
	}
}

func TestCorrectionsVoid(t *testing.T) {
	wrong := []entry{registered(1, 7, noon), resulted(7, 1, nucleicpb.OutcomePositive, noon+6*hour), resulted(7, 1, nucleicpb.OutcomeNegative, noon+7*hour)}
	m := folded(t, append(wrong, corrected(7, func(c *nucleicpb.Corrected) {
		c.Revision, c.Lab, c.Outcome = 1, []byte("L1"), nucleicpb.OutcomePositive
	}))...)
	if got := ask(m, 1); got.Status != middlestorepb.StatusNegative {
		t.Fatalf("a void result counts: %+v", got)
	}
	rebound := nucleicpb.Registered{Tube: tubeName(7), Person: person(2), Pool: nucleicpb.PoolTen, SampledAt: noon}
	m = folded(t, append(wrong, corrected(7, func(c *nucleicpb.Corrected) { c.Person, c.Rebind = person(1), rebound.Append(nil) }))...)
	if got := ask(m, 1); got.Status != middlestorepb.StatusNone || len(got.Tubes) != 0 {
		t.Fatalf("a void registration counts: %+v", got)
	}
	if got := ask(m, 2); len(got.Tubes) != 1 {
		t.Fatalf("whoever takes the place has no tube: %+v", got)
	}
	m = folded(t, registered(1, 7, noon, func(m *nucleicpb.Registered) { m.Revision = 2 }), corrected(7, func(c *nucleicpb.Corrected) { c.Person, c.Revision = person(1), 1 }))
	if got := ask(m, 1); len(got.Tubes) != 1 {
		t.Fatalf("a later binding was voided by an earlier correction: %+v", got)
	}
}

func TestReceptionFillsInWhereTheResultIsSilent(t *testing.T) {
	tube := nucleicpb.LabReceived{Lab: []byte("L1"), Tube: tubeName(7), ReceivedAt: noon + 3*hour}
	box := nucleicpb.LabReceived{Lab: []byte("L1"), Box: []byte("B9"), ReceivedAt: noon + 2*hour}
	boxed := nucleicpb.Boxed{Box: []byte("B9"), Tube: tubeName(7), PackedAt: noon}
	raw := func(b []byte) entry { return entry{fold.Nucleic, b} }
	for name, c := range map[string]struct {
		entries []entry
		want    int64
	}{
		"by the tube":        {[]entry{raw(tube.AppendFact(nil))}, noon + 3*hour},
		"by the box":         {[]entry{raw(box.AppendFact(nil)), raw(boxed.AppendFact(nil))}, noon + 2*hour},
		"by the first":       {[]entry{raw(box.AppendFact(nil)), raw(boxed.AppendFact(nil)), raw(tube.AppendFact(nil))}, noon + 2*hour},
		"box not received":   {[]entry{raw(boxed.AppendFact(nil))}, 0},
		"the result says it": {[]entry{raw(tube.AppendFact(nil)), resulted(7, 1, nucleicpb.OutcomeNegative, noon+6*hour)}, noon + 5*hour},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ask(folded(t, append(c.entries, registered(1, 7, noon))...), 1).Tubes[0].ReceivedAt; got != c.want {
				t.Fatalf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestNewestTubesAndTheOneThatDecides(t *testing.T) {
	entries := []entry{registered(1, 0, noon, single), resulted(0, 1, nucleicpb.OutcomePositive, noon+hour)}
	for i := 1; i <= 9; i++ {
		entries = append(entries, registered(1, i, noon+int64(i)*24*hour))
	}
	got := askMany(folded(t, entries...), 3, 1)[0]
	if got.Status != middlestorepb.StatusPositive || !got.MoreTubes || len(got.Tubes) != 4 || got.DecidedBy != 4 {
		t.Fatalf("got %+v", got)
	}
	if got.Tubes[0].Tube != "52010019" || got.Tubes[2].Tube != "52010017" || got.Tubes[3].Tube != "52010010" {
		t.Fatalf("not the newest first: %+v", got.Tubes)
	}
}

// TestOnePersonCannotCostTheOthers: an answer about a person with an absurd
// number of tubes is cut, and says so.
func TestOnePersonCannotCostTheOthers(t *testing.T) {
	var entries []entry
	for i := range 500 {
		entries = append(entries, registered(1, 1000+i, noon+int64(i)))
	}
	got := askMany(folded(t, entries...), middlestorepb.MaxTubes, 1)[0]
	if len(got.Tubes) != middlestorepb.MaxTubes || !got.MoreTubes || got.Tubes[0].Tube != "52010011499" {
		t.Fatalf("%d tubes, more %v, newest %s", len(got.Tubes), got.MoreTubes, got.Tubes[0].Tube)
	}
}

func TestDoses(t *testing.T) {
	wrong := dose(1, 2, 18930, "B")
	undo := entry{fold.Vaccine, vaccinepb.AppendCorrected(nil, &vaccinepb.Corrected{Person: vaccinepb.Person(person(1)), Target: vaccinepb.IDOf(wrong.raw), At: noon, Operator: "o", Reason: "r"})}
	m := folded(t, dose(1, 1, 18900, "A"), wrong, dose(1, 2, 18931, "A"), dose(2, 1, 18900, "A"))
	if got := ask(m, 1); !got.HasDoses || got.Doses.Count != 2 || !got.Doses.Conflict || len(got.Doses.Doses) != 3 || got.Doses.LastDay != 18931 || got.Status != middlestorepb.StatusNone {
		t.Fatalf("got %+v", got)
	}
	m = folded(t, dose(1, 1, 18900, "A"), wrong, undo)
	if got := ask(m, 1); got.Doses.Count != 1 || got.Doses.Conflict || len(got.Doses.Doses) != 1 {
		t.Fatalf("got %+v", got)
	}
}

func TestWhatIsNotUnderstoodAddsNothing(t *testing.T) {
	bad := map[string]entry{
		"other subsystem":   {"display", dose(1, 1, 1, "A").raw},
		"nothing":           {fold.Nucleic, nil},
		"newer kind":        {fold.Nucleic, []byte{0x9a, 0x01, 0x00}},
		"newer vaccine":     {fold.Vaccine, []byte{0x9a, 0x01, 0x00}},
		"no tube":           registered(1, 1, noon, func(m *nucleicpb.Registered) { m.Tube = nil }),
		"no person":         registered(1, 1, noon, func(m *nucleicpb.Registered) { m.Person = nil }),
		"long tube":         registered(1, 1, noon, func(m *nucleicpb.Registered) { m.Tube = bytes.Repeat([]byte("x"), 256) }),
		"huge pool":         registered(1, 1, noon, func(m *nucleicpb.Registered) { m.Pool = 300 }),
		"negative outcome":  resulted(1, 1, -1, noon),
		"long lab":          resulted(1, 1, 1, noon, func(m *nucleicpb.Resulted) { m.Lab = bytes.Repeat([]byte("x"), 256) }),
		"correction of no":  corrected(1, func(m *nucleicpb.Corrected) { m.Person = []byte("short") }),
		"rebinding of none": corrected(1, func(m *nucleicpb.Corrected) { m.Person, m.Rebind = person(1), []byte{0x12, 0x01, 0x00} }),
		"box of no tube":    {fold.Nucleic, (&nucleicpb.Boxed{Box: []byte("B")}).AppendFact(nil)},
		"reception of none": {fold.Nucleic, (&nucleicpb.LabReceived{Lab: []byte("L")}).AppendFact(nil)},
	}
	for name, e := range bad {
		m := newMem()
		var f fold.Folder
		if err := f.Fold(m, e.subsystem, e.raw); !errors.Is(err, fold.ErrNotFolded) || len(m.rows) != 0 {
			t.Errorf("%s: %v, %d rows", name, err, len(m.rows))
		}
	}
}

func TestWhatSaysNothingAboutAPersonAddsNothing(t *testing.T) {
	for _, raw := range [][]byte{
		(&nucleicpb.SiteOpened{Site: []byte("S")}).AppendFact(nil),
		(&nucleicpb.TubeOpened{Tube: []byte("T"), Pool: 10}).AppendFact(nil),
		(&nucleicpb.TubeSealed{Tube: []byte("T")}).AppendFact(nil),
	} {
		if m := folded(t, entry{fold.Nucleic, raw}); len(m.rows) != 0 {
			t.Errorf("%x added %d rows", raw, len(m.rows))
		}
	}
}

// someEntries draws facts about few people and few tubes, so that they meet.
func someEntries(t *rapid.T) []entry {
	var out []entry
	who := func() int { return rapid.IntRange(1, 3).Draw(t, "who") }
	tube := func() int { return rapid.IntRange(1, 4).Draw(t, "tube") }
	at := func() int64 { return noon + hour*rapid.Int64Range(0, 8).Draw(t, "at") }
	revision := func() uint32 { return rapid.Uint32Range(0, 2).Draw(t, "revision") }
	outcome := func() nucleicpb.Outcome { return nucleicpb.Outcome(rapid.IntRange(1, 4).Draw(t, "outcome")) }
	lab := func() []byte { return []byte(rapid.SampledFrom([]string{"L1", "L2"}).Draw(t, "lab")) }
	pool := func() nucleicpb.Pool { return rapid.SampledFrom(nucleicpb.Pools[:]).Draw(t, "pool") }
	for range rapid.IntRange(1, 25).Draw(t, "facts") {
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0, 1, 2, 3:
			out = append(out, registered(who(), tube(), at(), func(m *nucleicpb.Registered) {
				m.Pool, m.Revision, m.DoorAt = pool(), revision(), rapid.Int64Range(1, 3).Draw(t, "door")
			}))
		case 4, 5, 6:
			out = append(out, resulted(tube(), max(1, revision()), outcome(), at(), func(m *nucleicpb.Resulted) { m.Lab = lab() }))
		case 7:
			out = append(out, corrected(tube(), func(m *nucleicpb.Corrected) {
				if m.Revision = revision(); rapid.Bool().Draw(t, "person") {
					m.Person = person(who())
					if rapid.Bool().Draw(t, "rebind") {
						m.Rebind = (&nucleicpb.Registered{Tube: m.Tube, Person: person(who()), Pool: pool(), SampledAt: at(), Revision: revision()}).Append(nil)
					}
					return
				}
				m.Lab, m.Outcome = lab(), outcome()
			}))
		case 8:
			out = append(out, dose(who(), rapid.Uint32Range(1, 3).Draw(t, "n"), rapid.Int32Range(18900, 18902).Draw(t, "day"), "A"))
		case 9:
			box := []byte(rapid.SampledFrom([]string{"B1", "B2"}).Draw(t, "box"))
			raw := (&nucleicpb.Boxed{Box: box, Tube: tubeName(tube())}).AppendFact(nil)
			if rapid.Bool().Draw(t, "received") {
				raw = (&nucleicpb.LabReceived{Lab: lab(), Box: box, ReceivedAt: at()}).AppendFact(nil)
			}
			out = append(out, entry{fold.Nucleic, raw})
		}
	}
	return out
}

// TestAnyOrderLeavesTheSameBytes: order, repetition and split of the same facts
// leave the same rows.
func TestAnyOrderLeavesTheSameBytes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		entries := someEntries(rt)
		want := folded(t, entries...)
		other := append(slices.Clone(entries), entries[:rapid.IntRange(0, len(entries)).Draw(rt, "repeats")]...)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		rng.Shuffle(len(other), func(i, j int) { other[i], other[j] = other[j], other[i] })
		if got := folded(t, other...); !maps.Equal(got.rows, want.rows) {
			rt.Fatalf("order changed the rows:\n%q\n%q", got.keys(), want.keys())
		}
	})
}

// TestReaderAgreesWithTheDumbOne compares the reader with one that goes through
// the list of facts, person by person, and never saw a key.
func TestReaderAgreesWithTheDumbOne(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		entries := someEntries(rt)
		got := askMany(folded(t, entries...), middlestorepb.MaxTubes, 1, 2, 3)
		for who := 1; who <= 3; who++ {
			want := dumb(entries, who)
			g := got[who-1]
			g.DecidedBy, g.HasDoses, g.Doses, g.Subjects = 0, false, middlestorepb.Doses{}, nil
			for i := range g.Tubes {
				g.Tubes[i].Revision = 0
			}
			if len(g.Tubes) == 0 {
				g.Tubes = nil
			}
			if !reflect.DeepEqual(g, want) {
				rt.Fatalf("person %d\ngot  %+v\nwant %+v", who, g, want)
			}
		}
	})
}

// TestAnAnswerStandsUnlessASubjectOfItIsTouched: whatever facts follow, an answer
// that becomes another was told of it by one of its subjects.
func TestAnAnswerStandsUnlessASubjectOfItIsTouched(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		first, then := someEntries(rt), someEntries(rt)
		before := askMany(folded(t, first...), middlestorepb.MaxTubes, 1, 2, 3)
		after := askMany(folded(t, append(slices.Clone(first), then...)...), middlestorepb.MaxTubes, 1, 2, 3)
		touched := map[uint32]bool{}
		for key := range folded(t, then...).rows {
			touched[fold.Subject([]byte(key))] = true
		}
		for i := range before {
			if slices.ContainsFunc(before[i].Subjects, func(s uint32) bool { return touched[s] }) {
				continue
			}
			if was, is := before[i].Append(nil), after[i].Append(nil); !bytes.Equal(was, is) {
				rt.Fatalf("person %d changed behind its subjects\nwas %+v\nis  %+v", i+1, before[i], after[i])
			}
		}
	})
}

// TestSubjectsOfAnAnswer: the person, the tube, and the box where only that says
// when a lab took the tube in.
func TestSubjectsOfAnAnswer(t *testing.T) {
	boxed := entry{fold.Nucleic, (&nucleicpb.Boxed{Box: []byte("B1"), Tube: tubeName(1)}).AppendFact(nil)}
	nobody := ask(newMem(), 1)
	if len(nobody.Subjects) != 1 {
		t.Fatalf("an answer about nobody rests on %v, wanted the person alone", nobody.Subjects)
	}
	waits := ask(folded(t, registered(1, 1, noon), boxed), 1)
	if len(waits.Subjects) != 3 || waits.Subjects[0] != nobody.Subjects[0] {
		t.Fatalf("an answer that waits rests on %v, wanted person, tube and box", waits.Subjects)
	}
}

// dumb works out a person from the facts themselves.
func dumb(entries []entry, who int) middlestorepb.Person {
	var facts []nucleicpb.Fact
	var bindings []nucleicpb.Registered
	for _, e := range entries {
		var f nucleicpb.Fact
		if e.subsystem != fold.Nucleic {
			continue
		}
		if _, err := f.Decode(e.raw); err != nil {
			continue
		}
		facts = append(facts, f)
		if f.Kind == nucleicpb.KindRegistered {
			bindings = append(bindings, f.Registered)
		}
		if bound, ok := f.Corrected.Bound(); ok && f.Kind == nucleicpb.KindCorrected {
			bindings = append(bindings, bound)
		}
	}
	stands := map[string]nucleicpb.Registered{}
	for _, b := range bindings {
		if !bytes.Equal(b.Person, person(who)) || isVoid(facts, &b) {
			continue
		}
		held, ok := stands[string(b.Tube)]
		if !ok || b.Rev() > held.Rev() || b.Rev() == held.Rev() && (b.SampledAt < held.SampledAt || b.SampledAt == held.SampledAt && b.Pool < held.Pool) {
			stands[string(b.Tube)] = b
		}
	}
	var tests []nucleicpb.Test
	for _, b := range stands {
		tests = append(tests, dumbTest(facts, b))
	}
	sort.Slice(tests, func(i, j int) bool {
		if tests[i].SampledAt != tests[j].SampledAt {
			return tests[i].SampledAt > tests[j].SampledAt
		}
		return bytes.Compare(tests[i].Tube, tests[j].Tube) < 0
	})
	standing, _ := nucleicpb.Stand(tests)
	p := middlestorepb.Person{Status: middlestorepb.Status(standing)}
	for _, x := range tests {
		shown := middlestorepb.Tube{Tube: string(x.Tube), Pool: uint32(x.Pool), SampledAt: x.SampledAt, ReceivedAt: x.ReceivedAt, TestedAt: x.TestedAt, ReportedAt: x.ReportedAt}
		if o := x.Counts(); o == nucleicpb.OutcomeConflict {
			shown.Conflict = true
		} else {
			shown.Outcome = middlestorepb.Outcome(o)
		}
		p.Tubes = append(p.Tubes, shown)
	}
	return p
}

func isVoid(facts []nucleicpb.Fact, b *nucleicpb.Registered) bool {
	return slices.ContainsFunc(facts, func(f nucleicpb.Fact) bool {
		c := &f.Corrected
		return f.Kind == nucleicpb.KindCorrected && bytes.Equal(c.Person, b.Person) && bytes.Equal(c.Tube, b.Tube) && max(1, c.Revision) >= b.Rev()
	})
}

func dumbTest(facts []nucleicpb.Fact, b nucleicpb.Registered) nucleicpb.Test {
	var v nucleicpb.Verdict
	received := int64(0)
	earlier := func(at int64) {
		if received == 0 || at < received {
			received = at
		}
	}
	for _, f := range facts {
		switch {
		case f.Kind == nucleicpb.KindResulted && bytes.Equal(f.Resulted.Tube, b.Tube):
			if !slices.ContainsFunc(facts, func(c nucleicpb.Fact) bool {
				return c.Kind == nucleicpb.KindCorrected && c.Corrected.Voids(&f.Resulted)
			}) {
				v.Add(&f.Resulted)
			}
		case f.Kind == nucleicpb.KindLabReceived && bytes.Equal(f.LabReceived.Tube, b.Tube):
			earlier(f.LabReceived.ReceivedAt)
		case f.Kind == nucleicpb.KindBoxed && bytes.Equal(f.Boxed.Tube, b.Tube):
			for _, g := range facts {
				if g.Kind == nucleicpb.KindLabReceived && bytes.Equal(g.LabReceived.Box, f.Boxed.Box) {
					earlier(g.LabReceived.ReceivedAt)
				}
			}
		}
	}
	if v.ReceivedAt != 0 {
		received = v.ReceivedAt
	}
	return nucleicpb.Test{Tube: b.Tube, Pool: b.Pool, SampledAt: b.SampledAt, ReceivedAt: received, TestedAt: v.TestedAt, ReportedAt: v.ReportedAt, Outcome: v.Outcome}
}

// TestComparerKeepsItsPromises runs Pebble's own checks.
func TestComparerKeepsItsPromises(t *testing.T) {
	prefix := func(tag byte, rest string) []byte { return append([]byte{tag}, rest...) }
	people := [][]byte{prefix('p', string(person(1))), prefix('p', string(person(2)))}
	tubes := [][]byte{prefix('t', "\x03abc"), prefix('t', "\x04abcd"), prefix('b', "\x01x")}
	for _, key := range slices.Concat(people, tubes) {
		for _, rest := range []string{"", "\x01", "\x03suffix"} {
			if got := fold.Split(append(bytes.Clone(key), rest...)); got != len(key) {
				t.Errorf("Split(%q + %q) = %d, want %d", key, rest, got, len(key))
			}
		}
	}
	if err := pebble.CheckComparer(fold.Comparer, [][]byte{[]byte("marks"), []byte("u"), {}}, nil); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkFoldRegistered(b *testing.B) {
	var f fold.Folder
	e := registered(1, 1, noon)
	w := discard{}
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Fold(w, e.subsystem, e.raw); err != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (discard) Set(_, _ []byte) {}
