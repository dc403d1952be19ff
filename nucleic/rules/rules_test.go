package rules

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"qianma/cluster/machine"
	"qianma/cluster/machine/machinetest"
	"qianma/nucleic/nucleicpb"
)

// noon is when every test here takes place.
var noon = time.Date(2022, 1, 19, 12, 0, 0, 0, time.UTC)

func ms(d time.Duration) int64 { return noon.Add(d).UnixMilli() }

func person(n int) []byte {
	p := make([]byte, nucleicpb.PersonSize)
	p[0], p[15] = byte(n), byte(n>>8)
	return p
}

// door is one carrier's machine over a store.
type door struct {
	t   *testing.T
	m   *Machine
	mem *machinetest.Mem
}

func newDoor(t *testing.T) *door { return &door{t, New(1 << 20), machinetest.NewMem()} }

// send judges a command at noon and folds what it becomes.
func (d *door) send(command []byte) (machine.Status, string) {
	d.t.Helper()
	dec := d.m.Decide(d.mem, noon.UnixNano(), command)
	if dec.Status == machine.Accepted || dec.Status == machine.Conflicts {
		if err := d.m.Fold(d.mem, slices.Clone(dec.Fact)); err != nil {
			d.t.Fatalf("what Decide let in, Fold does not understand: %v", err)
		}
	}
	return dec.Status, dec.Code
}

func (d *door) want(status machine.Status, code string, command []byte) {
	d.t.Helper()
	if s, c := d.send(command); s != status || c != code {
		d.t.Fatalf("%v %q, want %v %q", s, c, status, code)
	}
}

func (d *door) accept(command []byte) { d.t.Helper(); d.want(machine.Accepted, "", command) }

func (d *door) reject(code string, command []byte) {
	d.t.Helper()
	d.want(machine.Rejected, code, command)
}

func (d *door) tube(code string) *Tube {
	d.t.Helper()
	t, ok := ReadTube(d.mem, []byte(code))
	if !ok {
		d.t.Fatalf("nothing held of %s", code)
	}
	return t
}

func (d *door) list(list Worklist) (tubes []string) {
	for _, e := range List(d.mem, list, nil, ms(time.Hour), 100) {
		tubes = append(tubes, string(e.Tube))
	}
	return tubes
}

// Facts, with what a test does not care about filled in.

func reg(tube string, who int, change ...func(*nucleicpb.Registered)) []byte {
	m := nucleicpb.Registered{Tube: []byte(tube), Person: person(who), Pool: nucleicpb.PoolTen, Site: []byte("GY-1"), SampledAt: ms(-5 * time.Hour), Channel: nucleicpb.ChannelCode}
	for _, c := range change {
		c(&m)
	}
	return m.AppendFact(nil)
}

func pool(p nucleicpb.Pool) func(*nucleicpb.Registered) {
	return func(m *nucleicpb.Registered) { m.Pool = p }
}

func res(tube string, revision int, o nucleicpb.Outcome, change ...func(*nucleicpb.Resulted)) []byte {
	m := nucleicpb.Resulted{Tube: []byte(tube), Lab: []byte("lab-1"), Revision: uint32(revision), Outcome: o, TestedAt: ms(-2 * time.Hour), ReportedAt: ms(-time.Hour)}
	for _, c := range change {
		c(&m)
	}
	return m.AppendFact(nil)
}

func opened(tube string, p nucleicpb.Pool) []byte {
	return (&nucleicpb.TubeOpened{Tube: []byte(tube), Pool: p, OpenedAt: ms(-6 * time.Hour)}).AppendFact(nil)
}

func sealed(tube string, count uint32) []byte {
	return (&nucleicpb.TubeSealed{Tube: []byte(tube), SealedAt: ms(-4 * time.Hour), Count: count}).AppendFact(nil)
}

func boxed(box, tube string) []byte {
	return (&nucleicpb.Boxed{Box: []byte(box), Tube: []byte(tube), PackedAt: ms(-4 * time.Hour)}).AppendFact(nil)
}

func received(tube, box string) []byte {
	return (&nucleicpb.LabReceived{Lab: []byte("lab-1"), Tube: []byte(tube), Box: []byte(box), ReceivedAt: ms(-3 * time.Hour)}).AppendFact(nil)
}

func correction(tube string, change func(*nucleicpb.Corrected)) []byte {
	m := nucleicpb.Corrected{Tube: []byte(tube), CorrectedAt: ms(-time.Hour), Operator: []byte("op-9"), Reason: []byte("wrong card")}
	change(&m)
	return m.AppendFact(nil)
}

func voidPerson(tube string, who int) []byte {
	return correction(tube, func(m *nucleicpb.Corrected) { m.Person = person(who) })
}

func rebindPerson(tube string, from, to int) []byte {
	return correction(tube, func(m *nucleicpb.Corrected) {
		m.Person = person(from)
		m.Rebind = (&nucleicpb.Registered{Person: person(to)}).Append([]byte{})
	})
}

func voidResult(tube string, revision int, o nucleicpb.Outcome) []byte {
	return correction(tube, func(m *nucleicpb.Corrected) { m.Revision, m.Outcome = uint32(revision), o })
}

func TestATubeTakesAsManyAsItsPool(t *testing.T) {
	for _, p := range nucleicpb.Pools {
		d := newDoor(t)
		for i := range p.Cap() {
			d.accept(reg("TUBE1", i, pool(p)))
		}
		d.reject(TubeFull, reg("TUBE1", 99, pool(p)))
		d.want(machine.Duplicate, "", reg("TUBE1", 0, pool(p))) // a repeat is not one more
		if n := len(d.tube("TUBE1").Members); n != p.Cap() {
			t.Errorf("pool %v holds %d", p, n)
		}
	}
}

func TestATubeKeepsItsPool(t *testing.T) {
	d := newDoor(t)
	d.accept(opened("TUBE1", nucleicpb.PoolTwenty))
	d.want(machine.Duplicate, "", opened("TUBE1", nucleicpb.PoolTwenty))
	d.reject(PoolMismatch, opened("TUBE1", nucleicpb.PoolTen))
	d.reject(PoolMismatch, reg("TUBE1", 1, pool(nucleicpb.PoolTen)))
	d.accept(reg("TUBE1", 1, pool(nucleicpb.PoolTwenty)))
	d.accept(reg("TUBE2", 1, pool(nucleicpb.PoolFive)))
	d.reject(PoolMismatch, reg("TUBE2", 2, pool(nucleicpb.PoolTwenty)))
	d.reject(PoolMismatch, opened("TUBE2", nucleicpb.PoolTwenty))
	d.accept(opened("TUBE2", nucleicpb.PoolFive))
}

func TestAPoolIsNeverPooledAgain(t *testing.T) {
	d := newDoor(t)
	d.reject(PoolOfPools, (&nucleicpb.TubeOpened{Tube: []byte("TUBE9"), Pool: nucleicpb.PoolTwenty, OpenedAt: ms(0), From: []byte("TUBE1")}).AppendFact(nil))
	d.reject(InvalidPool, opened("TUBE9", 50))
	d.reject(InvalidPool, reg("TUBE9", 1, pool(30)))
}

func TestASealedTubeTakesOnlyWhatABoothKeptOffline(t *testing.T) {
	late := func(m *nucleicpb.Registered) { m.SampledAt = ms(-3 * time.Hour) }
	offline := func(m *nucleicpb.Registered) { m.Channel = nucleicpb.ChannelOffline }
	d := newDoor(t)
	d.reject(TubeUnknown, sealed("TUBE1", 0))
	d.accept(reg("TUBE1", 1))
	d.reject(CountMismatch, sealed("TUBE1", 2))
	d.accept(sealed("TUBE1", 1))
	d.want(machine.Duplicate, "", sealed("TUBE1", 1))
	d.reject(TubeSealed, reg("TUBE1", 2))
	d.reject(TubeSealed, reg("TUBE1", 2, offline, late))
	d.accept(reg("TUBE1", 2, offline))
	d.want(machine.Duplicate, "", reg("TUBE1", 1)) // a repeat is still the same fact
	d.accept(opened("TUBE2", nucleicpb.PoolFive))
	d.accept(sealed("TUBE2", 0)) // opened is known enough
}

func TestTimesAreChecked(t *testing.T) {
	d := newDoor(t)
	sampled := func(at int64) func(*nucleicpb.Registered) {
		return func(m *nucleicpb.Registered) { m.SampledAt = at }
	}
	d.accept(reg("TUBE1", 1, sampled(ms(Ahead))))
	d.reject(SampledInFuture, reg("TUBE1", 2, sampled(ms(Ahead)+1)))
	d.accept(reg("TUBE1", 3, sampled(Epoch)))
	d.reject(SampledTooOld, reg("TUBE1", 4, sampled(Epoch-1)))
	d.reject(TimeMissing, reg("TUBE1", 4, sampled(0)))
	times := func(received, tested, reported int64) func(*nucleicpb.Resulted) {
		return func(m *nucleicpb.Resulted) { m.ReceivedAt, m.TestedAt, m.ReportedAt = received, tested, reported }
	}
	neg := nucleicpb.OutcomeNegative
	d.reject(TimesOutOfOrder, res("TUBE2", 1, neg, times(0, ms(0), ms(-1))))
	d.reject(TimesOutOfOrder, res("TUBE2", 1, neg, times(ms(0), ms(-1), ms(0))))
	d.reject(TimeInFuture, res("TUBE2", 1, neg, times(0, ms(0), ms(Ahead)+1)))
	d.reject(TimeTooOld, res("TUBE2", 1, neg, times(0, Epoch-1, ms(0))))
	d.reject(TimeMissing, res("TUBE2", 1, neg, times(0, 0, ms(0))))
	d.accept(res("TUBE2", 1, neg, times(ms(0), ms(0), ms(0))))
}

func TestFieldsAreChecked(t *testing.T) {
	d := newDoor(t)
	long := make([]byte, MaxID+1)
	for i := range long {
		long[i] = 'x'
	}
	set := func(fn func(*nucleicpb.Registered)) []byte { return reg("TUBE1", 1, fn) }
	for code, c := range map[string][]byte{
		InvalidTube:      set(func(m *nucleicpb.Registered) { m.Tube = []byte("T 1") }),
		InvalidPerson:    set(func(m *nucleicpb.Registered) { m.Person = m.Person[:15] }),
		InvalidSite:      set(func(m *nucleicpb.Registered) { m.Site = nil }),
		InvalidChannel:   set(func(m *nucleicpb.Registered) { m.Channel = 9 }),
		InvalidOperator:  set(func(m *nucleicpb.Registered) { m.Operator = long }),
		InvalidDevice:    set(func(m *nucleicpb.Registered) { m.Device = []byte("a\nb") }),
		InvalidDivision:  set(func(m *nucleicpb.Registered) { m.Division = []byte("5201x") }),
		InvalidRevision:  res("TUBE1", 0, nucleicpb.OutcomeNegative),
		InvalidOutcome:   res("TUBE1", 1, 9),
		InvalidLab:       res("TUBE1", 1, nucleicpb.OutcomeNegative, func(m *nucleicpb.Resulted) { m.Lab = nil }),
		InvalidMethod:    res("TUBE1", 1, nucleicpb.OutcomeNegative, func(m *nucleicpb.Resulted) { m.Method = long }),
		InvalidBox:       boxed("", "TUBE1"),
		InvalidReason:    correction("TUBE1", func(m *nucleicpb.Corrected) { m.Person, m.Reason = person(1), nil }),
		InvalidCount:     sealed("TUBE1", MaxMembers+1),
		InvalidName:      (&nucleicpb.SiteOpened{Site: []byte("S"), Name: make([]byte, MaxName+1), OpenedAt: ms(0)}).AppendFact(nil),
		ReceptionOfWhat:  received("", ""),
		CorrectionOfWhat: correction("TUBE1", func(m *nucleicpb.Corrected) {}),
		RebindWithoutBind: correction("TUBE1", func(m *nucleicpb.Corrected) {
			m.Revision, m.Rebind = 1, []byte{}
		}),
		Malformed: []byte("\xff"),
	} {
		d.reject(code, c)
	}
	if n := len(d.mem.Keys()); n != 0 {
		t.Errorf("refused commands left %d keys", n)
	}
	d.accept(reg("TUBE1", 1, func(m *nucleicpb.Registered) { m.Channel = nucleicpb.ChannelUnknown }))
}

func TestOutcomesThatContradictAreBothKeptAndShown(t *testing.T) {
	d := newDoor(t)
	d.accept(reg("TUBE1", 1))
	d.accept(res("TUBE1", 1, nucleicpb.OutcomeNegative))
	d.want(machine.Duplicate, "", res("TUBE1", 1, nucleicpb.OutcomeNegative))
	d.want(machine.Conflicts, ResultConflict, res("TUBE1", 1, nucleicpb.OutcomePositive))
	tube := d.tube("TUBE1")
	if len(tube.Results) != 2 || tube.Verdict.Outcome != nucleicpb.OutcomeConflict || !slices.Equal(ConflictNames(tube.Conflicts), []string{"outcome"}) {
		t.Fatalf("%+v", tube)
	}
	if got := d.list(ConflictsToSettle); !slices.Equal(got, []string{"TUBE1"}) {
		t.Fatalf("conflicts: %v", got)
	}
	d.accept(res("TUBE1", 2, nucleicpb.OutcomePositive)) // a revision settles it
	if got := d.list(ConflictsToSettle); len(got) != 0 {
		t.Fatalf("still in conflict: %v", got)
	}
	d.want(machine.Accepted, "", res("TUBE1", 1, nucleicpb.OutcomeInvalid)) // an old revision changes nothing that counts
	if o := d.tube("TUBE1").Verdict.Outcome; o != nucleicpb.OutcomePositive {
		t.Fatalf("verdict %v", o)
	}
}

func TestACorrectionSettlesAConflict(t *testing.T) {
	d := newDoor(t)
	d.accept(reg("TUBE1", 1))
	d.accept(res("TUBE1", 1, nucleicpb.OutcomeNegative))
	d.want(machine.Conflicts, ResultConflict, res("TUBE1", 1, nucleicpb.OutcomePositive))
	d.reject(ResultAmbiguous, voidResult("TUBE1", 1, nucleicpb.OutcomeUnknown))
	d.reject(ResultNone, voidResult("TUBE1", 2, nucleicpb.OutcomeUnknown))
	d.accept(voidResult("TUBE1", 1, nucleicpb.OutcomePositive))
	d.want(machine.Duplicate, "", voidResult("TUBE1", 1, nucleicpb.OutcomePositive))
	tube := d.tube("TUBE1")
	if tube.Verdict.Outcome != nucleicpb.OutcomeNegative || tube.Conflicts != 0 || len(tube.Results) != 2 {
		t.Fatalf("%+v", tube)
	}
	d.reject(ResultVoid, res("TUBE1", 1, nucleicpb.OutcomePositive))
	d.accept(voidResult("TUBE1", 1, nucleicpb.OutcomeUnknown)) // one is left, so it needs no name
	if got := d.list(RegistrationsWithoutResult); !slices.Equal(got, []string{"TUBE1"}) {
		t.Fatalf("waiting: %v", got)
	}
}

func TestAVoidedRegistrationLeavesTheTubeAndMayReturn(t *testing.T) {
	d := newDoor(t)
	d.reject(RegistrationNone, voidPerson("TUBE1", 1))
	d.accept(reg("TUBE1", 1, pool(nucleicpb.PoolSingle)))
	d.reject(TubeFull, reg("TUBE1", 2, pool(nucleicpb.PoolSingle)))
	d.accept(voidPerson("TUBE1", 1))
	d.want(machine.Duplicate, "", voidPerson("TUBE1", 1))
	d.reject(RegistrationVoid, reg("TUBE1", 1, pool(nucleicpb.PoolSingle)))
	d.accept(reg("TUBE1", 2, pool(nucleicpb.PoolSingle))) // the room is free again
	d.accept(voidPerson("TUBE1", 2))
	d.accept(reg("TUBE1", 1, pool(nucleicpb.PoolSingle), func(m *nucleicpb.Registered) { m.Revision = 2 }))
	if got := d.list(RegistrationsWithoutResult); !slices.Equal(got, []string{"TUBE1"}) {
		t.Fatalf("waiting: %v", got)
	}
}

func TestARebindingCarriesTheSwabToAnotherPerson(t *testing.T) {
	d := newDoor(t)
	d.accept(reg("TUBE1", 1, func(m *nucleicpb.Registered) { m.SampledAt = ms(-7 * time.Hour) }))
	d.accept(rebindPerson("TUBE1", 1, 2))
	d.want(machine.Duplicate, "", rebindPerson("TUBE1", 1, 2))
	d.reject(AlreadyCorrected, rebindPerson("TUBE1", 1, 3))
	live := map[byte]int64{}
	for _, m := range d.tube("TUBE1").Members {
		if m.Live {
			live[m.Person[0]] = m.SampledAt
		}
	}
	if want := map[byte]int64{2: ms(-7 * time.Hour)}; !reflect.DeepEqual(live, want) {
		t.Fatalf("live %v, want %v", live, want)
	}
	d.accept(rebindPerson("TUBE1", 2, 1)) // it was right the first time
	for _, m := range d.tube("TUBE1").Members {
		if m.Live != (m.Person[0] == 1) {
			t.Fatalf("member %d live=%v", m.Person[0], m.Live)
		}
	}
	d.accept(correction("TUBE1", func(m *nucleicpb.Corrected) { // same person, other pool
		m.Person = person(1)
		m.Rebind = (&nucleicpb.Registered{Person: person(1), Pool: nucleicpb.PoolSingle}).Append([]byte{})
	}))
	if p := d.tube("TUBE1").Pool(); p != nucleicpb.PoolSingle {
		t.Fatalf("pool %v", p)
	}
}

func TestALaterVoidIsNotUndoneByAnEarlierOne(t *testing.T) {
	void := func(revision uint32) []byte {
		return correction("TUBE1", func(m *nucleicpb.Corrected) { m.Person, m.Revision = person(1), revision })
	}
	second := reg("TUBE1", 1, func(m *nucleicpb.Registered) { m.Revision = 2 })
	facts := [][]byte{reg("TUBE1", 1), void(1), second, void(2)}
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 3, 0, 2}, {3, 1, 2, 0}} {
		d := newDoor(t)
		for _, i := range order {
			if err := d.m.Fold(d.mem, facts[i]); err != nil {
				t.Fatal(err)
			}
		}
		if m := d.tube("TUBE1").Members[0]; m.Live || m.Voided != 2 || m.Rev() != 2 {
			t.Errorf("order %v: %+v", order, m)
		}
	}
}

func TestWorklistsFollowWhatIsMissing(t *testing.T) {
	d := newDoor(t)
	check := func(when string, waiting, unregistered, packed []string) {
		t.Helper()
		for list, want := range map[Worklist][]string{RegistrationsWithoutResult: waiting, ResultsWithoutRegistration: unregistered, PackedNotReceived: packed} {
			if got := d.list(list); !slices.Equal(got, want) {
				t.Errorf("%s: list %c has %v, want %v", when, list, got, want)
			}
		}
	}
	d.accept(reg("TUBE1", 1))
	d.accept(reg("TUBE2", 2, func(m *nucleicpb.Registered) { m.SampledAt = ms(-9 * time.Hour) }))
	check("two registered, the longest waiting first", []string{"TUBE2", "TUBE1"}, nil, nil)
	d.accept(res("TUBE2", 1, nucleicpb.OutcomeNegative))
	d.accept(res("TUBE3", 1, nucleicpb.OutcomeNegative))
	check("a result each for a known and an unknown tube", []string{"TUBE1"}, []string{"TUBE3"}, nil)
	d.accept(reg("TUBE3", 3))
	check("the unknown tube is registered", []string{"TUBE1"}, nil, nil)
	d.reject(TubeUnknown, boxed("BOX1", "TUBE4"))
	d.accept(boxed("BOX1", "TUBE1"))
	d.accept(boxed("BOX1", "TUBE2"))
	d.want(machine.Duplicate, "", boxed("BOX1", "TUBE2"))
	check("packed", []string{"TUBE1"}, nil, []string{"TUBE1", "TUBE2"})
	d.accept(received("TUBE1", ""))
	check("one tube received", []string{"TUBE1"}, nil, []string{"TUBE2"})
	d.accept(received("", "BOX1"))
	d.want(machine.Duplicate, "", received("", "BOX1"))
	check("the box received", []string{"TUBE1"}, nil, nil)
	d.accept(boxed("BOX1", "TUBE3"))
	check("packed into a box already received", []string{"TUBE1"}, nil, nil)
	if b, ok := ReadBox(d.mem, []byte("BOX1")); !ok || len(b.Tubes) != 3 || len(b.Receptions) != 1 {
		t.Errorf("box %+v", b)
	}
	if _, ok := ReadBox(d.mem, []byte("BOX2")); ok {
		t.Error("a box nobody packed")
	}
}

func TestListPages(t *testing.T) {
	d := newDoor(t)
	for i := range 10 {
		d.accept(reg(fmt.Sprintf("TUBE%d", i), i, func(m *nucleicpb.Registered) { m.SampledAt = ms(-time.Duration(10-i) * time.Hour) }))
	}
	var got []string
	var after []byte
	for {
		page := List(d.mem, RegistrationsWithoutResult, after, ms(-3*time.Hour), 3)
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			got = append(got, string(e.Tube))
			if e.Since >= ms(-3*time.Hour) {
				t.Errorf("%s waits since %d", e.Tube, e.Since)
			}
		}
		after = page[len(page)-1].Place
	}
	if want := []string{"TUBE0", "TUBE1", "TUBE2", "TUBE3", "TUBE4", "TUBE5", "TUBE6"}; !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
}

func TestATubeUsedTwiceIsAConflict(t *testing.T) {
	d := newDoor(t)
	d.accept(reg("TUBE1", 1))
	d.accept(res("TUBE1", 1, nucleicpb.OutcomeNegative))
	d.want(machine.Conflicts, SampledAfterTest, reg("TUBE1", 2, func(m *nucleicpb.Registered) { m.SampledAt = ms(0) }))
	if names := ConflictNames(d.tube("TUBE1").Conflicts); !slices.Equal(names, []string{"tested_before_swab"}) {
		t.Fatalf("%v", names)
	}
	e := newDoor(t)
	e.accept(reg("TUBE1", 1, func(m *nucleicpb.Registered) { m.SampledAt = ms(0) }))
	e.want(machine.Conflicts, TestedBeforeSwab, res("TUBE1", 1, nucleicpb.OutcomeNegative))
}

func TestTwoCarriersFillOneTubeWhileTheLineIsCut(t *testing.T) {
	a, b := newDoor(t), newDoor(t)
	var fromA, fromB [][]byte
	for i := range 10 {
		fa, fb := reg("TUBE1", i), reg("TUBE1", 100+i)
		a.accept(fa)
		b.accept(fb)
		fromA, fromB = append(fromA, fa), append(fromB, fb)
	}
	a.reject(TubeFull, fromB[0])
	for i := range fromA {
		for _, err := range []error{a.m.Fold(a.mem, fromB[i]), b.m.Fold(b.mem, fromA[len(fromA)-1-i])} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if k := a.mem.Diff(b.mem); k != "" {
		t.Fatalf("the carriers differ at %q", k)
	}
	tube := a.tube("TUBE1")
	if len(tube.Members) != 20 || !slices.Equal(ConflictNames(tube.Conflicts), []string{"overfull"}) {
		t.Fatalf("%d members, conflicts %v", len(tube.Members), ConflictNames(tube.Conflicts))
	}
}

func TestOneSwabGivenToTwoPeopleIsAConflict(t *testing.T) {
	a, b := newDoor(t), newDoor(t)
	first := reg("TUBE1", 1)
	a.accept(first)
	b.accept(first)
	toB := a.m.Decide(a.mem, noon.UnixNano(), rebindPerson("TUBE1", 1, 2)).Fact
	toC := b.m.Decide(b.mem, noon.UnixNano(), rebindPerson("TUBE1", 1, 3)).Fact
	for _, f := range [][]byte{toB, toC} {
		if err := a.m.Fold(a.mem, f); err != nil {
			t.Fatal(err)
		}
	}
	if names := ConflictNames(a.tube("TUBE1").Conflicts); !slices.Equal(names, []string{"rebound_twice"}) {
		t.Fatalf("%v", names)
	}
	a.accept(voidPerson("TUBE1", 3))
	if bits := a.tube("TUBE1").Conflicts; bits != 0 {
		t.Fatalf("still %v", ConflictNames(bits))
	}
}

func TestSitesAreRenamedByTheLatestOpening(t *testing.T) {
	site := func(name string, at time.Duration) []byte {
		return (&nucleicpb.SiteOpened{Site: []byte("GY-1"), Name: []byte(name), Division: []byte("520115"), OpenedAt: ms(at)}).AppendFact(nil)
	}
	d := newDoor(t)
	d.accept(site("体育馆", -2*time.Hour))
	d.want(machine.Duplicate, "", site("体育馆", -time.Hour))
	d.want(machine.Duplicate, "", site("广场", -3*time.Hour)) // older news of the same site
	d.accept(site("体育馆南门", 0))
	got, ok := ReadSite(d.mem, []byte("GY-1"))
	if !ok || string(got.Name) != "体育馆南门" {
		t.Fatalf("%s %v", got.Name, ok)
	}
	if _, ok := ReadSite(d.mem, []byte("GY-2")); ok {
		t.Error("a site nobody opened")
	}
}

func TestBoundsOfOneTubeAndOneBox(t *testing.T) {
	d := newDoor(t)
	for i := range MaxTubeFacts {
		d.accept(res("TUBE1", i+1, nucleicpb.OutcomeInvalid))
	}
	d.reject(TubeCrowded, res("TUBE1", MaxTubeFacts+1, nucleicpb.OutcomeInvalid))
	d.accept(voidResult("TUBE1", 1, nucleicpb.OutcomeInvalid)) // it can still be set right
	for i := range MaxBox {
		tube := fmt.Sprintf("TUBE%05d", i)
		d.accept(opened(tube, nucleicpb.PoolTen))
		d.accept(boxed("BOX1", tube))
	}
	d.accept(opened("TUBEX", nucleicpb.PoolTen))
	d.reject(BoxFull, boxed("BOX1", "TUBEX"))
}

func TestFoldSetsAsideWhatItHasNoPlaceFor(t *testing.T) {
	d := newDoor(t)
	for name, f := range map[string][]byte{
		"pool of a newer build":    reg("TUBE1", 1, pool(64)),
		"person of another length": reg("TUBE1", 1, func(m *nucleicpb.Registered) { m.Person = m.Person[:3] }),
		"no tube":                  res("", 1, nucleicpb.OutcomeNegative),
		"new outcome":              res("TUBE1", 1, 9),
		"tube and box":             received("TUBE1", "BOX1"),
		"rebinding of a result":    correction("TUBE1", func(m *nucleicpb.Corrected) { m.Revision, m.Rebind = 1, []byte{} }),
		"garbage":                  []byte("\xff\xff"),
		"unknown kind":             {0xfa, 0x01, 0x00},
	} {
		if err := d.m.Fold(d.mem, f); err == nil {
			t.Errorf("%s was folded", name)
		}
	}
	if n := len(d.mem.Keys()); n != 0 {
		t.Errorf("facts set aside left %d keys", n)
	}
}

func TestShardsSpreadConsecutiveTubes(t *testing.T) {
	const shards, tubes = 4, 4000
	count := make([]int, shards)
	for i := range tubes {
		s := ShardOf(fmt.Appendf(nil, "520100%08d", i), shards)
		count[s]++
	}
	for s, n := range count {
		if n < tubes/shards*8/10 || n > tubes/shards*12/10 {
			t.Errorf("shard %d has %d of %d", s, n, tubes)
		}
	}
	if ShardOf([]byte("x"), 1) != 0 {
		t.Error("one shard")
	}
}

// listening is a store that writes down which rows were asked for in vain.
type listening struct {
	*machinetest.Mem
	missed []string
}

func (l *listening) Get(key []byte) ([]byte, bool) {
	value, ok := l.Mem.Get(key)
	if !ok {
		l.missed = append(l.missed, string(key))
	}
	return value, ok
}

// Goal: what the first person of a tube has asked for in vain is of a table that
// the floor is told of, so that no store is asked.
func TestWhatANewTubeAsksForIsSought(t *testing.T) {
	m, store := New(1<<20), &listening{Mem: machinetest.NewMem()}
	d := m.Decide(store, noon.UnixNano(), reg("TUBE1", 1))
	if d.Status != machine.Accepted || len(store.missed) == 0 {
		t.Fatalf("%+v, asked in vain for %q", d, store.missed)
	}
	if err := m.Fold(store, d.Fact); err != nil {
		t.Fatal(err)
	}
	for _, key := range store.missed {
		if !slices.Contains(m.Sought(), key[0]) {
			t.Errorf("%q is asked for before it is there", key)
		}
	}
}
