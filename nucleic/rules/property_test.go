package rules

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"qianma/cluster/machine"
	"qianma/cluster/machine/machinetest"
	"qianma/nucleic/nucleicpb"
)

// The property: folding the same set of facts in any order, with any
// repetition and grouping, leaves the same keys and values. The facts are
// drawn from a small world, so that they collide all the time, and they
// include what no door would have let in.

var someTubes = []string{"T1", "T2", "T3"}

func drawFact(t *rapid.T) []byte {
	tube := []byte(rapid.SampledFrom(someTubes).Draw(t, "tube"))
	who := person(rapid.IntRange(1, 4).Draw(t, "who"))
	other := person(rapid.IntRange(1, 4).Draw(t, "other"))
	when := ms(0) + 3600_000*rapid.Int64Range(-3, 3).Draw(t, "when")
	revision := rapid.Uint32Range(0, 3).Draw(t, "revision")
	box := []byte(rapid.SampledFrom([]string{"B1", "B2"}).Draw(t, "box"))
	lab := []byte(rapid.SampledFrom([]string{"L1", "L2"}).Draw(t, "lab"))
	outcome := nucleicpb.Outcome(rapid.Int32Range(1, 4).Draw(t, "outcome"))
	p := rapid.SampledFrom([]nucleicpb.Pool{nucleicpb.PoolSingle, nucleicpb.PoolFive, nucleicpb.PoolHousehold, 64}).Draw(t, "pool")
	door := rapid.Int64Range(0, 2).Draw(t, "door")
	bound := nucleicpb.Registered{Tube: tube, Person: other, Pool: p, SampledAt: when, Revision: revision, DoorAt: door}
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		return (&nucleicpb.SiteOpened{Site: box, Name: lab, OpenedAt: when, DoorAt: door}).AppendFact(nil)
	case 1:
		return (&nucleicpb.TubeOpened{Tube: tube, Pool: p, OpenedAt: when, DoorAt: door}).AppendFact(nil)
	case 2:
		return (&nucleicpb.TubeSealed{Tube: tube, SealedAt: when, DoorAt: door}).AppendFact(nil)
	case 3:
		return (&nucleicpb.Boxed{Box: box, Tube: tube, PackedAt: when, DoorAt: door}).AppendFact(nil)
	case 4:
		return (&nucleicpb.LabReceived{Lab: lab, Box: box, ReceivedAt: when, DoorAt: door}).AppendFact(nil)
	case 5:
		return (&nucleicpb.LabReceived{Lab: lab, Tube: tube, ReceivedAt: when, DoorAt: door}).AppendFact(nil)
	case 6:
		return (&nucleicpb.Resulted{Tube: tube, Lab: lab, Revision: revision, Outcome: outcome, TestedAt: when, ReportedAt: when + door, DoorAt: door}).AppendFact(nil)
	case 7:
		return (&nucleicpb.Corrected{Tube: tube, Revision: revision, Lab: lab, Outcome: outcome, CorrectedAt: when, DoorAt: door}).AppendFact(nil)
	case 8:
		c := nucleicpb.Corrected{Tube: tube, Person: who, Revision: revision, CorrectedAt: when, DoorAt: door}
		if rapid.Bool().Draw(t, "rebind") {
			c.Rebind = bound.Append([]byte{})
		}
		return c.AppendFact(nil)
	}
	bound.Person = who
	return bound.AppendFact(nil)
}

// newTiny has room for one tube in its cache, newMachine for all of them.
func newTiny() machine.Machine    { return &Machine{cache: newCache(1)} }
func newMachine() machine.Machine { return New(1 << 20) }

func TestAnyOrderRepetitionAndGroupingLeavesTheSameState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		facts := rapid.SliceOfN(rapid.Custom(drawFact), 1, 40).Draw(t, "facts")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		shuffled := slices.Concat(facts, facts[:r.IntN(len(facts)+1)])
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		resets := map[int]bool{}
		for range 3 {
			resets[r.IntN(len(shuffled))] = true
		}
		machinetest.SameState(t, newMachine, facts, shuffled, resets)
		machinetest.SameState(t, newTiny, shuffled, facts, nil)
		mixed := func() machine.Machine { // one side with a cache, the other without
			if r.IntN(2) == 0 {
				return newTiny()
			}
			return newMachine()
		}
		machinetest.SplitState(t, mixed, facts, func(int) bool { return r.IntN(2) == 0 })
	})
}

// The index is kept by differences. Here it is worked out anew from the plain
// set of facts, by somebody who knows neither keys nor folds.
func TestWorklistsAgreeWithAFullCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		facts := rapid.SliceOfN(rapid.Custom(drawFact), 1, 40).Draw(t, "facts")
		mem := machinetest.FoldAll(New(1<<20), facts, nil)
		for _, code := range someTubes {
			want := count(facts, code)
			for list, on := range map[Worklist]bool{RegistrationsWithoutResult: want.waiting, ResultsWithoutRegistration: want.unregistered, PackedNotReceived: want.packed, ConflictsToSettle: want.conflict} {
				entries := List(mem, list, nil, ms(0)*2, 100)
				n := 0
				for _, e := range entries {
					if string(e.Tube) == code {
						n++
					}
				}
				if (n == 1) != on || n > 1 {
					t.Fatalf("%s stands %d times on list %c, want %v", code, n, list, on)
				}
			}
		}
	})
}

type truth struct{ waiting, unregistered, packed, conflict bool }

// counter is the dumb way: every fact of one tube, in sets.
type counter struct {
	voided   map[string]uint32
	voidRes  map[string]bool
	bound    map[string][]nucleicpb.Registered
	results  []nucleicpb.Resulted
	boxes    map[string]bool
	sealedAt int64
	rebound  map[string]map[string]bool
	received bool
}

func count(facts [][]byte, code string) truth {
	c := counter{voided: map[string]uint32{}, voidRes: map[string]bool{}, bound: map[string][]nucleicpb.Registered{}, boxes: map[string]bool{}, rebound: map[string]map[string]bool{}}
	receivedBoxes := map[string]bool{}
	for _, raw := range facts {
		var f nucleicpb.Fact
		if _, err := f.Decode(raw); err != nil || !foldable(&f) && f.Kind != nucleicpb.KindRegistered {
			continue
		}
		if f.Kind == nucleicpb.KindRegistered && !f.Registered.Pool.Known() {
			continue
		}
		if f.Kind == nucleicpb.KindLabReceived && len(f.LabReceived.Box) > 0 {
			receivedBoxes[string(f.LabReceived.Box)] = true
		}
		if string(f.Tube()) == code {
			c.add(&f)
		}
	}
	for b := range c.boxes {
		c.received = c.received || receivedBoxes[b]
	}
	return c.truth()
}

func (c *counter) add(f *nucleicpb.Fact) {
	switch f.Kind {
	case nucleicpb.KindRegistered:
		c.bound[string(f.Registered.Person)] = append(c.bound[string(f.Registered.Person)], f.Registered)
	case nucleicpb.KindTubeSealed:
		if c.sealedAt == 0 || f.TubeSealed.SealedAt < c.sealedAt {
			c.sealedAt = f.TubeSealed.SealedAt
		}
	case nucleicpb.KindBoxed:
		c.boxes[string(f.Boxed.Box)] = true
	case nucleicpb.KindLabReceived:
		c.received = true
	case nucleicpb.KindResulted:
		c.results = append(c.results, f.Resulted)
	case nucleicpb.KindCorrected:
		m := f.Corrected
		if len(m.Person) == 0 {
			c.voidRes[fmt.Sprint(m.Revision, string(m.Lab), m.Outcome)] = true
			return
		}
		c.voided[string(m.Person)] = max(c.voided[string(m.Person)], m.Revision, 1)
		if r, ok := m.Bound(); ok {
			c.bound[string(r.Person)] = append(c.bound[string(r.Person)], r)
			key := fmt.Sprint(m.Person, m.Revision)
			if c.rebound[key] == nil {
				c.rebound[key] = map[string]bool{}
			}
			c.rebound[key][string(r.Person)] = true
		}
	}
}

// standing is the registration of a person that counts, if one does.
func (c *counter) standing(who string) (nucleicpb.Registered, bool) {
	all := slices.Clone(c.bound[who])
	slices.SortFunc(all, func(a, b nucleicpb.Registered) int {
		if a.Rev() != b.Rev() {
			return int(b.Rev()) - int(a.Rev())
		}
		if a.SampledAt != b.SampledAt {
			return int(a.SampledAt - b.SampledAt)
		}
		return bytes.Compare(a.Append(nil), b.Append(nil))
	})
	if len(all) == 0 || all[0].Rev() <= c.voided[who] {
		return nucleicpb.Registered{}, false
	}
	return all[0], true
}

func (c *counter) truth() truth {
	live, last := 0, int64(0)
	pools := map[nucleicpb.Pool]bool{}
	for who := range c.bound {
		if r, ok := c.standing(who); ok {
			live++
			last = max(last, r.SampledAt)
			pools[r.Pool] = true
		}
	}
	var v nucleicpb.Verdict
	resulted := false
	for _, r := range c.standingResults() {
		resulted = true
		v.Add(&r)
	}
	room := 0
	for p := range pools {
		room = max(room, p.Cap())
	}
	conflict := v.Outcome == nucleicpb.OutcomeConflict || len(pools) > 1 || live > room ||
		(live > 0 && c.sealedAt != 0 && last > c.sealedAt+600_000) ||
		(live > 0 && resulted && v.TestedAt < last-3600_000)
	for _, people := range c.rebound {
		n := 0
		for who := range people {
			if _, ok := c.standing(who); ok {
				n++
			}
		}
		conflict = conflict || n > 1
	}
	return truth{live > 0 && !resulted, live == 0 && resulted, len(c.boxes) > 0 && !c.received, conflict}
}

// standingResults are the results that no correction voids, each identity once
// with the earliest report.
func (c *counter) standingResults() (out []nucleicpb.Resulted) {
	best := map[string]nucleicpb.Resulted{}
	for _, r := range c.results {
		key := fmt.Sprint(r.Revision, string(r.Lab), r.Outcome)
		old, ok := best[key]
		f, g := nucleicpb.Fact{Kind: nucleicpb.KindResulted, Resulted: r}, nucleicpb.Fact{Kind: nucleicpb.KindResulted, Resulted: old}
		if !c.voidRes[key] && (!ok || nucleicpb.Stands(&f, f.Append(nil), &g, g.Append(nil))) {
			best[key] = r
		}
	}
	for _, r := range best {
		out = append(out, r)
	}
	return out
}

// What Decide lets in, Fold must understand, and Decide must not write.
func TestDecideNeverLetsInWhatFoldCannotMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, mem := New(1<<20), machinetest.NewMem()
		for _, command := range rapid.SliceOfN(rapid.Custom(drawCommand), 1, 40).Draw(t, "commands") {
			d := m.Decide(readOnly{mem}, noon.UnixNano(), command)
			fresh := New(1<<20).Decide(readOnly{mem}, noon.UnixNano(), command)
			if d.Status != fresh.Status || d.Code != fresh.Code || !bytes.Equal(d.Fact, fresh.Fact) {
				t.Fatalf("with a cache %+v, without %+v", d, fresh)
			}
			if d.Status != machine.Accepted && d.Status != machine.Conflicts {
				continue
			}
			fact := bytes.Clone(d.Fact)
			if err := m.Fold(mem, fact); err != nil {
				t.Fatal(err)
			}
			if again := m.Decide(readOnly{mem}, noon.UnixNano(), fact); again.Status != machine.Duplicate {
				t.Fatalf("the same fact again is %v %s", again.Status, again.Code)
			}
		}
	})
}

// drawCommand is drawFact with what a door asks for filled in.
func drawCommand(t *rapid.T) []byte {
	var f nucleicpb.Fact
	if _, err := f.Decode(drawFact(t)); err != nil {
		t.Fatal(err)
	}
	tube := []byte("TUBE-" + string(f.Tube()))
	past := ms(0) - 4*3600_000
	switch f.Kind {
	case nucleicpb.KindTubeOpened:
		f.TubeOpened.Tube, f.TubeOpened.OpenedAt = tube, past
	case nucleicpb.KindRegistered:
		f.Registered.Tube, f.Registered.Site, f.Registered.SampledAt = tube, []byte("S"), past
		f.Registered.Channel = nucleicpb.ChannelOffline
	case nucleicpb.KindTubeSealed:
		f.TubeSealed.Tube, f.TubeSealed.SealedAt = tube, past
	case nucleicpb.KindBoxed:
		f.Boxed.Tube, f.Boxed.PackedAt = tube, past
	case nucleicpb.KindLabReceived:
		f.LabReceived.ReceivedAt = past
		if len(f.LabReceived.Tube) > 0 {
			f.LabReceived.Tube = tube
		}
	case nucleicpb.KindResulted:
		m := &f.Resulted
		m.Tube, m.Revision, m.TestedAt, m.ReportedAt = tube, max(1, m.Revision), past, past
	case nucleicpb.KindCorrected:
		m := &f.Corrected
		m.Tube, m.Operator, m.Reason, m.CorrectedAt = tube, []byte("o"), []byte("r"), past
		if len(m.Person) > 0 {
			m.Lab, m.Outcome = nil, 0
		}
	case nucleicpb.KindSiteOpened:
		f.SiteOpened.OpenedAt += past - ms(0)
	}
	return f.Append(nil)
}

// readOnly hides the writing half of a store.
type readOnly struct{ mem *machinetest.Mem }

func (r readOnly) Get(key []byte) ([]byte, bool) { return r.mem.Get(key) }
func (r readOnly) Scan(start, end []byte, fn func(key, value []byte) bool) {
	r.mem.Scan(start, end, fn)
}
