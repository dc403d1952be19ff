package rules_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"qianma/cluster/machine"
	"qianma/cluster/machine/machinetest"
	"qianma/vaccine/rules"
	"qianma/vaccine/vaccinepb"
)

var (
	now    = time.Date(2022, 3, 1, 12, 0, 0, 0, time.UTC)
	at     = now.UnixNano()
	today  = int32(now.Unix() / 86400)
	person = vaccinepb.Person{1, 2, 3}
)

func dose(n uint32, day int32, edit ...func(*vaccinepb.DoseGiven)) []byte {
	d := vaccinepb.DoseGiven{Person: person, Product: "BBIBP-CorV", Batch: "202108B2715", Dose: n, Site: "520103-01", Day: day, Operator: "n17"}
	for _, f := range edit {
		f(&d)
	}
	return vaccinepb.AppendDoseGiven(nil, &d)
}

func corrected(target []byte, edit ...func(*vaccinepb.Corrected)) []byte {
	c := vaccinepb.Corrected{Person: person, Target: vaccinepb.IDOf(target), Operator: "n17", Reason: "typed into the wrong row", At: now.UnixMilli()}
	for _, f := range edit {
		f(&c)
	}
	return vaccinepb.AppendCorrected(nil, &c)
}

func holding(t *testing.T, facts ...[]byte) *machinetest.Mem {
	t.Helper()
	mem := machinetest.NewMem()
	for _, f := range facts {
		if err := (rules.Rules{}).Fold(mem, f); err != nil {
			t.Fatal(err)
		}
	}
	return mem
}

func expect(t *testing.T, mem *machinetest.Mem, command []byte, status machine.Status, code string) {
	t.Helper()
	d := rules.Rules{}.Decide(mem, at, command)
	if d.Status != status || d.Code != code {
		t.Fatalf("got %v %q, want %v %q", d.Status, d.Code, status, code)
	}
	if carries := status == machine.Accepted || status == machine.Conflicts; carries != (d.Fact != nil) {
		t.Fatalf("%v with fact %x", d.Status, d.Fact)
	}
}

func TestDoseAccepted(t *testing.T) {
	mem := holding(t, dose(1, today-30))
	expect(t, mem, dose(2, today), machine.Accepted, "")
}

func TestSameDoseIsADuplicate(t *testing.T) {
	mem := holding(t, dose(1, today))
	expect(t, mem, dose(1, today), machine.Duplicate, "")
	other := dose(1, today, func(d *vaccinepb.DoseGiven) { d.Operator = "n2" })
	expect(t, mem, other, machine.Duplicate, "")
}

func TestSameNumberOtherDetailsIsAConflictAndKept(t *testing.T) {
	mem := holding(t, dose(1, today))
	for name, edit := range map[string]func(*vaccinepb.DoseGiven){
		"day":     func(d *vaccinepb.DoseGiven) { d.Day-- },
		"product": func(d *vaccinepb.DoseGiven) { d.Product = "CoronaVac" },
		"batch":   func(d *vaccinepb.DoseGiven) { d.Batch = "x" },
		"site":    func(d *vaccinepb.DoseGiven) { d.Site = "x" },
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, mem, dose(1, today, edit), machine.Conflicts, rules.CodeOtherDose)
		})
	}
	both := holding(t, dose(1, today), dose(1, today-1))
	if h := rules.HistoryOf(both, person); !h.Conflict || len(h.Doses) != 2 || h.Count != 1 {
		t.Fatalf("both records should be shown: %+v", h)
	}
}

func TestWithdrawnDoseMakesRoom(t *testing.T) {
	wrong := dose(1, today-3)
	mem := holding(t, wrong, corrected(wrong))
	expect(t, mem, dose(1, today-2), machine.Accepted, "")
}

func TestCorrectionNamesWhatIsHeld(t *testing.T) {
	d := dose(1, today)
	expect(t, holding(t), corrected(d), machine.Rejected, rules.CodeUnknownFact)
	expect(t, holding(t, d), corrected(d), machine.Accepted, "")
	expect(t, holding(t, d, corrected(d)), corrected(d), machine.Duplicate, "")
	other := corrected(d, func(c *vaccinepb.Corrected) { c.Person = vaccinepb.Person{9} })
	expect(t, holding(t, d), other, machine.Rejected, rules.CodeUnknownFact)
}

func TestBadRowsAreRejected(t *testing.T) {
	long := strings.Repeat("x", rules.MaxText+1)
	type edit = func(*vaccinepb.DoseGiven)
	for name, c := range map[string]struct {
		command []byte
		code    string
	}{
		"not a fact":    {[]byte{0xff}, rules.CodeMalformed},
		"newer kind":    {[]byte{0x9a, 0x01, 0x00}, rules.CodeUnsupported},
		"nobody":        {dose(1, today, edit(func(d *vaccinepb.DoseGiven) { d.Person = vaccinepb.Person{} })), rules.CodeInvalid},
		"no product":    {dose(1, today, edit(func(d *vaccinepb.DoseGiven) { d.Product = "" })), rules.CodeInvalid},
		"long product":  {dose(1, today, edit(func(d *vaccinepb.DoseGiven) { d.Product = long })), rules.CodeInvalid},
		"no batch":      {dose(1, today, edit(func(d *vaccinepb.DoseGiven) { d.Batch = "" })), rules.CodeInvalid},
		"no site":       {dose(1, today, edit(func(d *vaccinepb.DoseGiven) { d.Site = "" })), rules.CodeInvalid},
		"long operator": {dose(1, today, edit(func(d *vaccinepb.DoseGiven) { d.Operator = long })), rules.CodeInvalid},
		"dose 0":        {dose(0, today), rules.CodeInvalid},
		"dose 21":       {dose(rules.MaxDose+1, today), rules.CodeInvalid},
		"before any":    {dose(1, 18443), rules.CodeTooEarly},
		"tomorrow":      {dose(1, today+1), rules.CodeFutureDay},
		"no reason":     {corrected(nil, func(c *vaccinepb.Corrected) { c.Reason = "" }), rules.CodeInvalid},
		"long reason":   {corrected(nil, func(c *vaccinepb.Corrected) { c.Reason = strings.Repeat("x", rules.MaxReason+1) }), rules.CodeInvalid},
		"no operator":   {corrected(nil, func(c *vaccinepb.Corrected) { c.Operator = "" }), rules.CodeInvalid},
		"no target":     {corrected(nil, func(c *vaccinepb.Corrected) { c.Target = vaccinepb.ID{} }), rules.CodeInvalid},
		"no time":       {corrected(nil, func(c *vaccinepb.Corrected) { c.At = 0 }), rules.CodeInvalid},
		"future time":   {corrected(nil, func(c *vaccinepb.Corrected) { c.At += 11 * 60 * 1000 }), rules.CodeFutureDay},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, holding(t), c.command, machine.Rejected, c.code)
		})
	}
}

// TestDayFollowsTheSitesCalendar: at 16:00 UTC a new day begins in Guizhou.
func TestDayFollowsTheSitesCalendar(t *testing.T) {
	evening := time.Date(2022, 3, 1, 16, 0, 1, 0, time.UTC).UnixNano()
	d := rules.Rules{}.Decide(holding(t), evening, dose(1, today+1))
	if d.Status != machine.Accepted {
		t.Fatalf("got %v %q", d.Status, d.Code)
	}
}

func TestOnePersonCannotFillTheShard(t *testing.T) {
	mem := holding(t)
	for i := range rules.MaxRecords {
		_ = (rules.Rules{}).Fold(mem, dose(1, today-int32(i)))
	}
	expect(t, mem, dose(2, today), machine.Rejected, rules.CodeTooMany)
}

// TestFoldIsAUnion is the property every machine owes: order, repetition and
// split of the same facts leave the same keys.
func TestFoldIsAUnion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		facts := someFacts(t)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		other := append(append([][]byte(nil), facts...), facts[:rapid.IntRange(0, len(facts)).Draw(t, "repeats")]...)
		rng.Shuffle(len(other), func(i, j int) { other[i], other[j] = other[j], other[i] })
		machinetest.SameState(t, factory, facts, other, map[int]bool{len(other) / 2: true})
		machinetest.SplitState(t, factory, facts, func(i int) bool { return i%2 == 0 })
	})
}

func factory() machine.Machine { return rules.New(0) }

// someFacts draws facts about few people, so that they meet, and one that no
// build of today understands.
func someFacts(t *rapid.T) [][]byte {
	var facts [][]byte
	for range rapid.IntRange(1, 20).Draw(t, "facts") {
		who := func(d *vaccinepb.DoseGiven) { d.Person[0] = byte(rapid.IntRange(0, 2).Draw(t, "person")) }
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			facts = append(facts, []byte{0x9a, 0x01, 0x00})
		case 1:
			if len(facts) > 0 {
				facts = append(facts, corrected(facts[rapid.IntRange(0, len(facts)-1).Draw(t, "target")]))
				continue
			}
			fallthrough
		default:
			facts = append(facts, dose(rapid.Uint32Range(1, 3).Draw(t, "n"), today-rapid.Int32Range(0, 3).Draw(t, "ago"), who))
		}
	}
	return facts
}

func BenchmarkDecideAndFold(b *testing.B) {
	mem := machinetest.NewMem()
	var m machine.Machine = rules.New(0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c := dose(1, today, func(d *vaccinepb.DoseGiven) { d.Person[0], d.Person[1] = byte(i), byte(i>>8) })
		if d := m.Decide(mem, at, c); d.Status == machine.Accepted {
			_ = m.Fold(mem, d.Fact)
		}
	}
}
