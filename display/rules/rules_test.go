package rules_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"qianma/cluster/machine"
	"qianma/cluster/machine/machinetest"
	"qianma/display/displaypb"
	"qianma/display/rules"
)

var (
	clock = time.Date(2022, 1, 5, 8, 0, 0, 0, time.UTC)
	now   = clock.UnixMilli()
	who   = displaypb.Person{1}
	child = displaypb.Person{2}
)

const hour = int64(3600 * 1000)

func factory() machine.Machine { return rules.New(nil) }

func restricted(change ...func(*displaypb.Restricted)) *displaypb.Restricted {
	f := &displaypb.Restricted{Person: who, Level: displaypb.Red, Cause: displaypb.CloseContact, Evidence: "case 17", Operator: "n17", Approver: "n18",
		Source: "520103", Scope: "province", From: now, Until: now + 504*hour, At: now}
	for _, c := range change {
		c(f)
	}
	return f
}

func id(f displaypb.Body) displaypb.ID { return displaypb.IDOf(displaypb.Append(nil, f)) }

func released(restrictions ...displaypb.ID) *displaypb.Released {
	slices.SortFunc(restrictions, func(a, b displaypb.ID) int { return bytes.Compare(a[:], b[:]) })
	return &displaypb.Released{Person: who, Restrictions: restrictions, Reason: "two negatives a day apart", Evidence: "form 4",
		Operator: "n17", Approver: "n18", Source: "520103", At: now}
}

func document(t testing.TB, version string) []byte {
	t.Helper()
	raw, err := os.ReadFile("../colour/guizhou.json")
	if err != nil {
		t.Fatal(err)
	}
	raw = bytes.Replace(raw, []byte(`"version": 0`), []byte(`"version": `+version), 1)
	return bytes.Replace(raw, []byte("1970-01-01T00:00:00Z"), []byte("2022-01-06T00:00:00Z"), 1)
}

func published(t testing.TB) *displaypb.RuleSetPublished {
	return &displaypb.RuleSetPublished{Name: "guizhou", Version: 3, EffectiveFrom: time.Date(2022, 1, 6, 0, 0, 0, 0, time.UTC).UnixMilli(), At: now,
		Operator: "n17", Approver: "n18", Source: "520000", Document: document(t, "3")}
}

func applied() *displaypb.CitizenApplied {
	return &displaypb.CitizenApplied{Person: who, At: now, DocumentKind: "resident", Division: "520103", KeyID: "k1", Sealed: make([]byte, 40)}
}

// door judges commands one after another as a carrier's door would, and folds
// what it lets in.
type door struct {
	t   *testing.T
	m   machine.Machine
	mem *machinetest.Mem
}

func newDoor(t *testing.T) *door { return &door{t, rules.New(nil), machinetest.NewMem()} }

func (d *door) offer(f displaypb.Body) machine.Decision {
	d.t.Helper()
	got := d.m.Decide(d.mem, clock.UnixNano(), displaypb.Append(nil, f))
	if got.Status == machine.Accepted {
		if err := d.m.Fold(d.mem, got.Fact); err != nil {
			d.t.Fatal(err)
		}
	}
	return got
}

func (d *door) want(f displaypb.Body, status machine.Status, code string) {
	d.t.Helper()
	if got := d.offer(f); got.Status != status || got.Code != code {
		d.t.Errorf("%T: %v %q, want %v %q", f, got.Status, got.Code, status, code)
	}
}

func (d *door) state(p displaypb.Person) rules.State {
	var s rules.State
	s.Read(d.mem, p)
	return s
}

// TestDoorRefuses offers facts with one thing wrong.
func TestDoorRefuses(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), 301))
	r := func(change func(*displaypb.Restricted)) displaypb.Body { return restricted(change) }
	rel := func(change func(*displaypb.Released)) displaypb.Body {
		f := released(displaypb.ID{1}, displaypb.ID{2})
		change(f)
		return f
	}
	set := func(change func(*displaypb.RuleSetPublished)) displaypb.Body {
		f := published(t)
		change(f)
		return f
	}
	app := func(change func(*displaypb.CitizenApplied)) displaypb.Body {
		f := applied()
		change(f)
		return f
	}
	for _, c := range []struct {
		name string
		fact displaypb.Body
		code string
	}{
		{"nobody", r(func(f *displaypb.Restricted) { f.Person = displaypb.Person{} }), rules.CodePerson},
		{"green", r(func(f *displaypb.Restricted) { f.Level = displaypb.Green }), rules.CodeLevel},
		{"beyond purple", r(func(f *displaypb.Restricted) { f.Level = 6 }), rules.CodeLevel},
		{"no cause", r(func(f *displaypb.Restricted) { f.Cause = 0 }), rules.CodeCause},
		{"a cause that is none", r(func(f *displaypb.Restricted) { f.Cause = 99 }), rules.CodeCause},
		{"no evidence", r(func(f *displaypb.Restricted) { f.Evidence = "" }), rules.CodeText},
		{"endless evidence", r(func(f *displaypb.Restricted) { f.Evidence = long }), rules.CodeText},
		{"no source", r(func(f *displaypb.Restricted) { f.Source = "" }), rules.CodeDivision},
		{"source with letters", r(func(f *displaypb.Restricted) { f.Source = "52010x" }), rules.CodeDivision},
		{"no scope", r(func(f *displaypb.Restricted) { f.Scope = "" }), rules.CodeScope},
		{"ends before it begins", r(func(f *displaypb.Restricted) { f.Until = f.From }), rules.CodePeriod},
		{"two years", r(func(f *displaypb.Restricted) { f.Until = f.From + 2*366*24*hour }), rules.CodePeriod},
		{"imposed tomorrow", r(func(f *displaypb.Restricted) { f.At = now + 24*hour }), rules.CodeTime},
		{"from before the epidemic", r(func(f *displaypb.Restricted) { f.From, f.Until = 1, hour }), rules.CodeTime},
		{"no operator", r(func(f *displaypb.Restricted) { f.Operator = "" }), rules.CodeText},
		{"blank operator", r(func(f *displaypb.Restricted) { f.Operator = "  " }), rules.CodeText},
		{"one person", r(func(f *displaypb.Restricted) { f.Approver = "" }), rules.CodeTwoPeople},
		{"the same person", r(func(f *displaypb.Restricted) { f.Approver = "n17" }), rules.CodeTwoPeople},
		{"the same person in disguise", r(func(f *displaypb.Restricted) { f.Approver = " N17\u200b" }), rules.CodeTwoPeople},
		{"a rule nobody has", r(func(f *displaypb.Restricted) { f.Rule, f.RuleVersion = "guizhou", 9 }), rules.CodeRule},

		{"release of nothing", rel(func(f *displaypb.Released) { f.Restrictions = nil }), rules.CodeNoNames},
		{"release out of order", rel(func(f *displaypb.Released) { slices.Reverse(f.Restrictions) }), rules.CodeNoNames},
		{"release that names one twice", rel(func(f *displaypb.Released) { f.Restrictions[1] = f.Restrictions[0] }), rules.CodeNoNames},
		{"release of too many", rel(func(f *displaypb.Released) { f.Restrictions = make([]displaypb.ID, 65) }), rules.CodeNoNames},
		{"release without a reason", rel(func(f *displaypb.Released) { f.Reason = "" }), rules.CodeText},
		{"release by one person", rel(func(f *displaypb.Released) { f.Approver = "ｎ17" }), rules.CodeTwoPeople},
		{"release without a source", rel(func(f *displaypb.Released) { f.Source = "1" }), rules.CodeDivision},
		{"release of tomorrow", rel(func(f *displaypb.Released) { f.At = now + hour }), rules.CodeTime},

		{"rule set by one person", set(func(f *displaypb.RuleSetPublished) { f.Approver = "" }), rules.CodeTwoPeople},
		{"rule set with faults", set(func(f *displaypb.RuleSetPublished) { f.Document = []byte("{}") }), rules.CodeDocument},
		{"rule set of another version", set(func(f *displaypb.RuleSetPublished) { f.Version = 4 }), rules.CodeDocument},
		{"rule set of another date", set(func(f *displaypb.RuleSetPublished) { f.EffectiveFrom++ }), rules.CodeDocument},

		{"citizen of nowhere", app(func(f *displaypb.CitizenApplied) { f.Division = "0" }), rules.CodeDivision},
		{"citizen in the clear", app(func(f *displaypb.CitizenApplied) { f.Sealed = []byte("name") }), rules.CodeSealed},
		{"own guardian", app(func(f *displaypb.CitizenApplied) { f.Guardian = f.Person }), rules.CodeGuardian},
		{"citizen of tomorrow", app(func(f *displaypb.CitizenApplied) { f.At = now + hour }), rules.CodeTime},
		{"impossible symptom", &displaypb.Declared{Person: who, At: now, Symptoms: 1 << 20}, rules.CodeSymptoms},
		{"impossible temperature", &displaypb.Declared{Person: who, At: now, Temperature: 37}, rules.CodeSymptoms},
		{"declared tomorrow", &displaypb.Declared{Person: who, At: now + hour}, rules.CodeTime},
		{"bound to itself", &displaypb.GuardianBound{Person: who, Guardian: who, At: now}, rules.CodeGuardian},
		{"correction of nothing known", &displaypb.Corrected{Person: who, Target: displaypb.ID{9}, Operator: "n", Reason: "r", At: now}, rules.CodeUnknownFact},
		{"correction without a reason", &displaypb.Corrected{Person: who, Target: displaypb.ID{9}, Operator: "n", At: now}, rules.CodeText},
	} {
		t.Run(c.name, func(t *testing.T) { newDoor(t).want(c.fact, machine.Rejected, c.code) })
	}
	got := rules.New(nil).Decide(machinetest.NewMem(), clock.UnixNano(), []byte{0xff})
	if got.Code != rules.CodeMalformed {
		t.Errorf("garbage: %q", got.Code)
	}
	got = rules.New(nil).Decide(machinetest.NewMem(), clock.UnixNano(), []byte{0xca, 0x02, 0})
	if got.Code != rules.CodeUnsupported {
		t.Errorf("a newer kind: %q", got.Code)
	}
}

func TestReleaseLiftsWhatItNamesAndNothingElse(t *testing.T) {
	d := newDoor(t)
	mine, theirs := restricted(), restricted(func(f *displaypb.Restricted) { f.Source, f.Level = "410100", displaypb.Orange })
	d.want(mine, machine.Accepted, "")
	d.want(mine, machine.Duplicate, "")
	d.want(theirs, machine.Accepted, "")
	d.want(released(id(mine)), machine.Accepted, "")
	d.want(released(id(mine)), machine.Duplicate, "")
	s := d.state(who)
	if len(s.Held) != 2 || s.Facts != 3 {
		t.Fatalf("%+v", s)
	}
	for _, h := range s.Held {
		if (h.ReleasedAt != 0) != (h.ID == id(mine)) {
			t.Errorf("restriction of %s: released at %d", h.Fact.Source, h.ReleasedAt)
		}
	}
}

func TestReleaseMayComeBeforeItsRestriction(t *testing.T) {
	d := newDoor(t)
	r := restricted()
	d.want(released(id(r)), machine.Accepted, rules.CodeNotHereYet)
	d.want(r, machine.Accepted, "")
	if s := d.state(who); len(s.Held) != 1 || s.Held[0].ReleasedAt != now || s.Held[0].ReleasedBy != id(released(id(r))) {
		t.Fatalf("%+v", s)
	}
}

func TestRestrictionByRuleNeedsThatRule(t *testing.T) {
	d := newDoor(t)
	byRule := restricted(func(f *displaypb.Restricted) { f.Rule, f.RuleVersion, f.Approver = "guizhou", 3, "" })
	d.want(byRule, machine.Rejected, rules.CodeRule)
	d.want(published(t), machine.Accepted, "")
	d.want(byRule, machine.Accepted, "")
	d.want(restricted(func(f *displaypb.Restricted) { f.Rule, f.Approver = "guizhou", "" }), machine.Accepted, "")
}

func TestRuleSetVersionIsTakenOnce(t *testing.T) {
	d := newDoor(t)
	d.want(published(t), machine.Accepted, "")
	d.want(published(t), machine.Duplicate, "")
	other := published(t)
	other.Document = bytes.Replace(other.Document, []byte(`"hours": 72, "counted_from"`), []byte(`"hours": 48, "counted_from"`), 1)
	d.want(other, machine.Rejected, rules.CodeVersionTaken)
	// What two doors let in separately is kept and shown.
	if err := d.m.Fold(d.mem, displaypb.Append(nil, other)); err != nil {
		t.Fatal(err)
	}
	sets := rules.RuleSets(d.mem)
	if len(sets) != 2 || !sets[0].Contested || !sets[1].Contested {
		t.Fatalf("%d sets", len(sets))
	}
}

func TestCitizenIsTheNewestThatStands(t *testing.T) {
	d := newDoor(t)
	old, fresh := applied(), applied()
	fresh.At, fresh.Division, fresh.Guardian = now+1, "520201", child
	d.want(fresh, machine.Accepted, "")
	d.want(old, machine.Accepted, "")
	d.want(old, machine.Duplicate, "")
	if c, at, ok := rules.Citizen(d.mem, who); !ok || c.Division != "520201" || at != id(fresh) || d.state(who).Guardian != child {
		t.Fatalf("%+v %v", c, ok)
	}
	correction := &displaypb.Corrected{Person: who, Target: id(fresh), Operator: "n17", Reason: "wrong county", At: now}
	d.want(correction, machine.Accepted, "")
	d.want(correction, machine.Duplicate, "")
	if c, _, ok := rules.Citizen(d.mem, who); !ok || c.Division != "520103" || d.state(who).Guardian != (displaypb.Person{}) {
		t.Fatalf("%+v %v", c, ok)
	}
	if _, _, ok := rules.Citizen(d.mem, child); ok {
		t.Fatal("nobody applied for the child")
	}
}

func TestGuardianIsTheLastOneBound(t *testing.T) {
	d := newDoor(t)
	first := &displaypb.GuardianBound{Person: child, Guardian: who, At: now}
	second := &displaypb.GuardianBound{Person: child, Guardian: displaypb.Person{7}, At: now + 1}
	d.want(second, machine.Accepted, "")
	d.want(first, machine.Accepted, "")
	d.want(first, machine.Duplicate, "")
	if g := d.state(child).Guardian; g != second.Guardian {
		t.Fatal(g)
	}
}

func TestDeclarationsStandUntilWithdrawn(t *testing.T) {
	d := newDoor(t)
	ill := &displaypb.Declared{Person: who, At: now, Temperature: 381, Contact: true}
	d.want(ill, machine.Accepted, "")
	d.want(ill, machine.Duplicate, "")
	for i := range 20 { // no number of healthy ones pushes it out
		d.want(&displaypb.Declared{Person: who, At: now + int64(i+1)}, machine.Accepted, "")
	}
	find := func() (n int) {
		for _, x := range d.state(who).Declarations {
			if x.At == now && x.Symptoms && x.Contact {
				n++
			}
		}
		return n
	}
	if find() != 1 || len(d.state(who).Declarations) != 9 {
		t.Fatalf("%+v", d.state(who).Declarations)
	}
	d.want(&displaypb.Corrected{Person: who, Target: id(ill), Operator: "n17", Reason: "typed for the wrong person", At: now}, machine.Accepted, "")
	if find() != 0 {
		t.Fatal("a withdrawn declaration counts")
	}
}

func TestACorrectionDoesNotEndARestriction(t *testing.T) {
	d := newDoor(t)
	r := restricted()
	d.want(r, machine.Accepted, "")
	d.want(&displaypb.Corrected{Person: who, Target: id(r), Operator: "n17", Reason: "wrong", At: now}, machine.Rejected, rules.CodeNeedsRelease)
}

func TestRestrictionsOfOnePersonHaveABound(t *testing.T) {
	d := newDoor(t)
	for i := range rules.MaxRestrictions {
		d.offer(restricted(func(f *displaypb.Restricted) { f.From -= int64(i) }))
	}
	d.want(restricted(func(f *displaypb.Restricted) { f.From--; f.Level = displaypb.Purple }), machine.Rejected, rules.CodeTooMany)
}

// facts draws a set of facts about two persons, in which releases and
// corrections name what may or may not be in the set.
func facts(t *rapid.T, ruleSet *displaypb.RuleSetPublished) [][]byte {
	var out [][]byte
	var ids []displaypb.ID
	person := func() displaypb.Person { return rapid.SampledFrom([]displaypb.Person{who, child}).Draw(t, "person") }
	at := func() int64 { return now + rapid.Int64Range(0, 12).Draw(t, "at") }
	for range rapid.IntRange(1, 30).Draw(t, "facts") {
		var f displaypb.Body
		switch rapid.IntRange(1, 7).Draw(t, "kind") {
		case 1:
			f = &displaypb.CitizenApplied{Person: person(), At: at(), Guardian: rapid.SampledFrom([]displaypb.Person{{}, {8}}).Draw(t, "guardian")}
		case 2:
			f = &displaypb.Declared{Person: person(), At: at(), Symptoms: displaypb.Symptom(rapid.IntRange(0, 1).Draw(t, "symptom"))}
		case 3:
			f = &displaypb.Restricted{Person: person(), At: at(), Level: displaypb.Level(rapid.IntRange(1, 5).Draw(t, "level"))}
		case 4:
			rel := &displaypb.Released{Person: person(), At: at()}
			for range rapid.IntRange(1, 3).Draw(t, "named") {
				rel.Restrictions = append(rel.Restrictions, someID(t, ids))
			}
			f = rel
		case 5:
			next := *ruleSet
			next.Version = rapid.Uint32Range(1, 3).Draw(t, "version")
			next.At = at()
			f = &next
		case 6:
			f = &displaypb.GuardianBound{Person: person(), Guardian: displaypb.Person{9}, At: at()}
		case 7:
			f = &displaypb.Corrected{Person: person(), Target: someID(t, ids), At: at()}
		}
		out = append(out, displaypb.Append(nil, f))
		ids = append(ids, id(f))
	}
	return out
}

func someID(t *rapid.T, ids []displaypb.ID) displaypb.ID {
	if len(ids) == 0 || rapid.IntRange(0, 9).Draw(t, "unknown") == 0 {
		return displaypb.ID{0xee}
	}
	return rapid.SampledFrom(ids).Draw(t, "id")
}

// TestOrderRepetitionAndSplitDoNotMatter is what every machine owes.
func TestOrderRepetitionAndSplitDoNotMatter(t *testing.T) {
	ruleSet := published(t)
	rapid.Check(t, func(t *rapid.T) {
		all := facts(t, ruleSet)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		mixed := append(slices.Clone(all), all[:rng.IntN(len(all)+1)]...)
		rng.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		machinetest.SameState(t, factory, all, mixed, map[int]bool{rng.IntN(len(mixed)): true})
		cut := rng.Uint64()
		machinetest.SplitState(t, factory, all, func(i int) bool { return cut>>(i%64)&1 == 0 })
	})
}

// TestStateIsTheSetOfFacts holds the sorted record to a plain reading of the
// facts: what is held, what is released, what is withdrawn.
func TestStateIsTheSetOfFacts(t *testing.T) {
	ruleSet := published(t)
	rapid.Check(t, func(t *rapid.T) {
		all := facts(t, ruleSet)
		mem := machinetest.FoldAll(rules.New(nil), all, nil)
		var got rules.State
		got.Read(mem, who)

		held, lifted := map[displaypb.ID]bool{}, map[displaypb.ID]int64{}
		for _, raw := range all {
			f, err := displaypb.Decode(raw)
			if err != nil || f.PersonOf() != who {
				continue
			}
			switch f := f.(type) {
			case *displaypb.Restricted:
				held[displaypb.IDOf(raw)] = true
			case *displaypb.Released:
				for _, id := range f.Restrictions {
					if at, ok := lifted[id]; !ok || f.At < at {
						lifted[id] = f.At
					}
				}
			}
		}
		if len(got.Held) != len(held) {
			t.Fatalf("%d restrictions, want %d", len(got.Held), len(held))
		}
		for _, h := range got.Held {
			if !held[h.ID] || h.ReleasedAt != lifted[h.ID] {
				t.Fatalf("restriction %v: released at %d, want %d", h.ID, h.ReleasedAt, lifted[h.ID])
			}
		}
	})
}

// watch records what it is told.
type watch struct {
	touched  []displaypb.Person
	replaced int
}

func (w *watch) Touched(p displaypb.Person) { w.touched = append(w.touched, p) }
func (w *watch) Replaced()                  { w.replaced++ }

func TestWatcherHearsOfEveryChange(t *testing.T) {
	var w watch
	m := rules.Factory(&w)(0)
	mem := machinetest.NewMem()
	for _, f := range []displaypb.Body{restricted(), released(displaypb.ID{1}), published(t), &displaypb.GuardianBound{Person: child, Guardian: who}} {
		if err := m.Fold(mem, displaypb.Append(nil, f)); err != nil {
			t.Fatal(err)
		}
	}
	m.Reset()
	if !slices.Equal(w.touched, []displaypb.Person{who, who, {}, child}) || w.replaced != 1 {
		t.Fatalf("%v %d", w.touched, w.replaced)
	}
}

func TestAFactOfANewerBuildIsSetAside(t *testing.T) {
	if rules.New(nil).Fold(machinetest.NewMem(), []byte{0xca, 0x02, 0}) == nil {
		t.Fatal("a fact that is not understood was folded")
	}
}

func BenchmarkFoldRestricted(b *testing.B) {
	m, mem := rules.New(nil), machinetest.NewMem()
	raw := displaypb.Append(nil, restricted())
	b.ReportAllocs()
	for b.Loop() {
		_ = m.Fold(mem, raw)
	}
}

func BenchmarkReadNobody(b *testing.B) {
	mem := machinetest.NewMem()
	var s rules.State
	b.ReportAllocs()
	for b.Loop() {
		s.Read(mem, who)
	}
}
