package nucleicpb

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const minute = int64(60_000)

func at(pool Pool, sampled int64, o Outcome) Test {
	t := Test{Tube: []byte{byte('a' + sampled/minute)}, Pool: pool, SampledAt: sampled, Outcome: o}
	if o != OutcomePending {
		t.ReceivedAt, t.TestedAt, t.ReportedAt = sampled+1, sampled+2, sampled+3
	}
	return t
}

func TestStandNamedCases(t *testing.T) {
	const single, pool = PoolSingle, PoolTwenty
	for _, c := range []struct {
		name  string
		tests []Test
		want  Standing
		by    int
	}{
		{"never tested", nil, None, -1},
		{"waiting for the lab", []Test{at(pool, minute, OutcomePending)}, Pending, 0},
		{"a negative pool covers its members", []Test{at(pool, minute, OutcomeNegative)}, Negative, 0},
		{"a positive pool asks for a single retest", []Test{at(pool, minute, OutcomePositive)}, PoolPositiveRetest, 0},
		{"a household is a pool", []Test{at(PoolHousehold, minute, OutcomePositive)}, PoolPositiveRetest, 0},
		{"a later negative pool does not clear a positive pool", []Test{at(pool, minute, OutcomePositive), at(pool, 2*minute, OutcomeNegative)}, PoolPositiveRetest, 0},
		{"the member's later single negative does", []Test{at(pool, minute, OutcomePositive), at(single, 2*minute, OutcomeNegative)}, Negative, 1},
		{"the member's later single positive decides", []Test{at(pool, minute, OutcomePositive), at(single, 2*minute, OutcomePositive)}, Positive, 1},
		{"an earlier single negative clears nothing", []Test{at(single, minute, OutcomeNegative), at(pool, 2*minute, OutcomePositive)}, PoolPositiveRetest, 1},
		{"nor does one of the same instant", []Test{at(single, minute, OutcomeNegative), at(pool, minute, OutcomePositive)}, PoolPositiveRetest, 1},
		{"a pending retest clears nothing", []Test{at(pool, minute, OutcomePositive), at(single, 2*minute, OutcomePending)}, PoolPositiveRetest, 0},
		{"an invalid retest clears nothing", []Test{at(pool, minute, OutcomePositive), at(single, 2*minute, OutcomeInvalid)}, PoolPositiveRetest, 0},
		{"an inconclusive retest clears nothing", []Test{at(pool, minute, OutcomePositive), at(single, 2*minute, OutcomeInconclusive)}, PoolPositiveRetest, 0},
		{"a contested retest is contested", []Test{at(pool, minute, OutcomePositive), at(single, 2*minute, OutcomeConflict)}, Contested, 1},
		{"a positive pool adds nothing to a positive", []Test{at(single, minute, OutcomePositive), at(pool, 2*minute, OutcomePositive)}, Positive, 0},
		{"a negative pool does not clear a positive", []Test{at(single, minute, OutcomePositive), at(pool, 2*minute, OutcomeNegative)}, Positive, 0},
		{"the newest negative counts", []Test{at(pool, minute, OutcomeNegative), at(pool, 2*minute, OutcomeNegative)}, Negative, 1},
		{"pending leaves yesterday's negative", []Test{at(pool, minute, OutcomeNegative), at(pool, 2*minute, OutcomePending)}, Negative, 0},
		{"invalid leaves yesterday's negative", []Test{at(pool, minute, OutcomeNegative), at(pool, 2*minute, OutcomeInvalid)}, Negative, 0},
		{"inconclusive ends yesterday's negative", []Test{at(pool, minute, OutcomeNegative), at(pool, 2*minute, OutcomeInconclusive)}, Pending, 1},
		{"a negative ends an inconclusive", []Test{at(pool, minute, OutcomeInconclusive), at(pool, 2*minute, OutcomeNegative)}, Negative, 1},
		{"a conflict is shown", []Test{at(pool, minute, OutcomeConflict)}, Contested, 0},
		{"a contested pool is not cleared by a pool", []Test{at(pool, minute, OutcomeConflict), at(pool, 2*minute, OutcomeNegative)}, Contested, 0},
		{"but by a single", []Test{at(pool, minute, OutcomeConflict), at(single, 2*minute, OutcomeNegative)}, Negative, 1},
		{"a contested pool does not hide a positive pool", []Test{at(pool, minute, OutcomePositive), at(pool, 2*minute, OutcomeConflict)}, PoolPositiveRetest, 0},
		{"a conflict does not hide a positive", []Test{at(single, minute, OutcomePositive), at(single, 2*minute, OutcomeConflict)}, Positive, 0},
		{"a result older than its swab is a conflict", []Test{{Pool: pool, SampledAt: 100 * minute, TestedAt: 100*minute - Skew.Milliseconds() - 1, Outcome: OutcomeNegative}}, Contested, 0},
		{"what is pending contradicts nothing", []Test{{Pool: pool, SampledAt: 100 * minute, TestedAt: minute}}, Pending, 0},
		{"a little older is two clocks", []Test{{Pool: pool, SampledAt: 100 * minute, TestedAt: 100*minute - Skew.Milliseconds(), Outcome: OutcomeNegative}}, Negative, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, by := Stand(c.tests); got != c.want || by != c.by {
				t.Errorf("%v by %d, want %v by %d", got, by, c.want, c.by)
			}
		})
	}
}

// standOracle says the same in sentences about the whole list, without a walk.
func standOracle(tests []Test) Standing {
	pools := func(o Outcome) func(Test) bool {
		return func(t Test) bool { return t.Pool != PoolSingle && t.Outcome == o }
	}
	single := func(o Outcome) func(Test) bool {
		return func(t Test) bool { return t.Pool == PoolSingle && t.Outcome == o }
	}
	latest := func(match func(Test) bool) int64 {
		out := int64(-1)
		for _, t := range tests {
			if match(t) {
				out = max(out, t.SampledAt)
			}
		}
		return out
	}
	sneg, spos, ppos := latest(single(OutcomeNegative)), latest(single(OutcomePositive)), latest(pools(OutcomePositive))
	switch {
	case spos >= 0 && spos >= sneg:
		return Positive // an own positive stands until a later own negative
	case ppos >= 0 && ppos >= sneg:
		// A single conflict sampled after every positive pool takes over; at
		// the same instant the positive pool does.
		if latest(single(OutcomeConflict)) > ppos {
			return Contested
		}
		return PoolPositiveRetest
	}
	// From here on, whatever positives there were have been cleared at sneg.
	conflict := max(latest(single(OutcomeConflict)), latest(pools(OutcomeConflict)))
	if conflict >= 0 && conflict >= sneg {
		return Contested
	}
	neg := max(sneg, latest(pools(OutcomeNegative)))
	inconclusive := latest(func(t Test) bool { return t.Outcome == OutcomeInconclusive })
	switch {
	case len(tests) == 0:
		return None
	case neg < 0 || inconclusive >= neg:
		return Pending
	}
	return Negative
}

// Every list of up to four tests over two pools, six outcomes and as many
// instants as tests must agree with the oracle.
func TestStandAgreesWithSentencesAboutTheWholeList(t *testing.T) {
	var alphabet []Test
	for _, pool := range []Pool{PoolSingle, PoolTwenty} {
		for o := OutcomeConflict; o <= OutcomeInvalid; o++ {
			for instant := int64(1); instant <= 3; instant++ {
				alphabet = append(alphabet, at(pool, instant*minute, o))
			}
		}
	}
	n := 0
	var list []Test
	var grow func(depth, from int)
	grow = func(depth, from int) {
		n++
		if got, _ := Stand(list); got != standOracle(list) {
			t.Fatalf("%v: walk says %v, sentences say %v", brief(list), got, standOracle(list))
		}
		if depth == 0 {
			return
		}
		for i := from; i < len(alphabet); i++ {
			list = append(list, alphabet[i])
			grow(depth-1, i)
			list = list[:len(list)-1]
		}
	}
	grow(4, 0)
	t.Logf("%d lists", n)
}

func brief(tests []Test) (out []string) {
	for _, t := range tests {
		out = append(out, fmt.Sprintf("%v@%d %v", t.Pool, t.SampledAt/minute, t.Outcome))
	}
	return out
}

func TestStandDoesNotMindOrderOrRepetition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		test := rapid.Custom(func(t *rapid.T) Test {
			return at(rapid.SampledFrom(Pools[:]).Draw(t, "pool"), minute*rapid.Int64Range(1, 6).Draw(t, "instant"),
				Outcome(rapid.Int32Range(-1, 4).Draw(t, "outcome")))
		})
		list := rapid.SliceOfN(test, 0, 20).Draw(t, "tests")
		want, by := Stand(list)
		shuffled := append(slices.Clone(list), list[:len(list)/2]...)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		got, by2 := Stand(shuffled)
		if got != want {
			t.Fatalf("%v became %v", want, got)
		}
		if by >= 0 && (list[by].SampledAt != shuffled[by2].SampledAt || list[by].Outcome != shuffled[by2].Outcome) {
			t.Fatalf("decided by %v, then by %v", brief(list[by:by+1]), brief(shuffled[by2:by2+1]))
		}
	})
}

func TestStandDoesNotAllocate(t *testing.T) {
	list := []Test{at(PoolTwenty, minute, OutcomePositive), at(PoolSingle, 2*minute, OutcomeNegative), at(PoolTen, 3*minute, OutcomePending)}
	if n := testing.AllocsPerRun(100, func() { Stand(list) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestVerdictCountsTheHighestRevision(t *testing.T) {
	r := func(revision uint32, o Outcome, reported int64) *Resulted {
		return &Resulted{Revision: revision, Outcome: o, ReportedAt: reported, TestedAt: reported - 1, ReceivedAt: reported - 2}
	}
	for name, c := range map[string]struct {
		results []*Resulted
		want    Verdict
	}{
		"none":                         {nil, Verdict{}},
		"one":                          {[]*Resulted{r(1, OutcomeNegative, 10)}, Verdict{OutcomeNegative, 1, 8, 9, 10}},
		"a revision replaces":          {[]*Resulted{r(1, OutcomePositive, 10), r(2, OutcomeNegative, 20)}, Verdict{OutcomeNegative, 2, 18, 19, 20}},
		"an old revision does not":     {[]*Resulted{r(2, OutcomeNegative, 20), r(1, OutcomePositive, 30)}, Verdict{OutcomeNegative, 2, 18, 19, 20}},
		"two labs agree":               {[]*Resulted{r(1, OutcomeNegative, 20), r(1, OutcomeNegative, 10)}, Verdict{OutcomeNegative, 1, 8, 9, 10}},
		"two outcomes conflict":        {[]*Resulted{r(1, OutcomeNegative, 10), r(1, OutcomePositive, 20)}, Verdict{OutcomeConflict, 1, 8, 9, 10}},
		"a third does not settle it":   {[]*Resulted{r(1, OutcomeNegative, 10), r(1, OutcomePositive, 20), r(1, OutcomePositive, 30)}, Verdict{OutcomeConflict, 1, 8, 9, 10}},
		"a revision settles it":        {[]*Resulted{r(1, OutcomeNegative, 10), r(1, OutcomePositive, 20), r(2, OutcomePositive, 30)}, Verdict{OutcomePositive, 2, 28, 29, 30}},
		"an old conflict stays buried": {[]*Resulted{r(2, OutcomePositive, 30), r(1, OutcomeNegative, 10), r(1, OutcomePositive, 20)}, Verdict{OutcomePositive, 2, 28, 29, 30}},
	} {
		permute(c.results, func(list []*Resulted) {
			var v Verdict
			for _, r := range list {
				v.Add(r)
				v.Add(r)
			}
			if v != c.want {
				t.Errorf("%s: %+v, want %+v", name, v, c.want)
			}
		})
	}
}

func permute[T any](list []T, fn func([]T)) {
	if len(list) <= 1 {
		fn(list)
		return
	}
	for i := range list {
		rest := slices.Delete(slices.Clone(list), i, i+1)
		permute(rest, func(tail []T) { fn(append([]T{list[i]}, tail...)) })
	}
}

func TestValidityCountsFromTheChosenTime(t *testing.T) {
	test := Test{SampledAt: 1000, ReceivedAt: 2000, ReportedAt: 3000}
	for b, want := range map[Basis]int64{SinceSampled: 1000, SinceReceived: 2000, SinceReported: 3000} {
		if got := test.Since(b); got != want {
			t.Errorf("since %v: %d, want %d", b, got, want)
		}
		if back, ok := ParseBasis(b.String()); !ok || back != b {
			t.Errorf("%v does not parse back", b)
		}
		if !test.Within(b, want+999, time.Second) || test.Within(b, want+1000, time.Second) {
			t.Errorf("the window since %v is not one second", b)
		}
	}
	if (&Test{SampledAt: 1000}).Since(SinceReported) != 1000 {
		t.Error("a time that was not given makes the test look younger")
	}
	if _, ok := ParseBasis("yesterday"); ok {
		t.Error("parsed nonsense")
	}
}

func TestWordsParseBack(t *testing.T) {
	for _, p := range Pools {
		if back, ok := ParsePool(p.String()); !ok || back != p || !p.Known() {
			t.Errorf("pool %v", p)
		}
	}
	for _, s := range []string{"", "0", "30", "50", "unknown", "99"} {
		if _, ok := ParsePool(s); ok {
			t.Errorf("pool %q parsed", s)
		}
	}
	for o := OutcomeNegative; o <= OutcomeInvalid; o++ {
		if back, ok := ParseOutcome(o.String()); !ok || back != o || !o.Known() {
			t.Errorf("outcome %v", o)
		}
	}
	for _, s := range []string{"", "pending", "conflict", "unknown"} {
		if _, ok := ParseOutcome(s); ok {
			t.Errorf("outcome %q parsed", s)
		}
	}
	for c := ChannelCode; c <= ChannelOffline; c++ {
		if back, ok := ParseChannel(c.String()); !ok || back != c {
			t.Errorf("channel %v", c)
		}
	}
	if _, ok := ParseChannel("unknown"); ok || Pool(30).Known() || Outcome(9).Known() {
		t.Error("an unknown word is known")
	}
}

func TestIdentityIsContent(t *testing.T) {
	reg := func(change func(*Registered)) *Fact {
		m := sampleRegistered()
		change(m)
		return &Fact{Kind: KindRegistered, Registered: *m}
	}
	res := func(change func(*Resulted)) *Fact {
		m := Resulted{Tube: []byte("T"), Lab: []byte("L"), Revision: 1, Outcome: OutcomeNegative, ReportedAt: 5}
		change(&m)
		return &Fact{Kind: KindResulted, Resulted: m}
	}
	for name, c := range map[string]struct {
		a, b *Fact
		same bool
	}{
		"other door time":       {reg(func(*Registered) {}), reg(func(m *Registered) { m.DoorAt++ }), true},
		"other sampling time":   {reg(func(*Registered) {}), reg(func(m *Registered) { m.SampledAt++ }), true},
		"revision 0 and 1":      {reg(func(*Registered) {}), reg(func(m *Registered) { m.Revision = 1 }), true},
		"revision 2":            {reg(func(*Registered) {}), reg(func(m *Registered) { m.Revision = 2 }), false},
		"other person":          {reg(func(*Registered) {}), reg(func(m *Registered) { m.Person[0]++ }), false},
		"other tube":            {reg(func(*Registered) {}), reg(func(m *Registered) { m.Tube = []byte("X") }), false},
		"result, other report":  {res(func(*Resulted) {}), res(func(m *Resulted) { m.ReportedAt++ }), true},
		"result, other lab":     {res(func(*Resulted) {}), res(func(m *Resulted) { m.Lab = []byte("M") }), false},
		"result, other outcome": {res(func(*Resulted) {}), res(func(m *Resulted) { m.Outcome = OutcomePositive }), false},
		"parts do not run together": {
			&Fact{Kind: KindBoxed, Boxed: Boxed{Tube: []byte("AB"), Box: []byte("C")}},
			&Fact{Kind: KindBoxed, Boxed: Boxed{Tube: []byte("A"), Box: []byte("BC")}}, false,
		},
	} {
		if got := bytes.Equal(c.a.AppendIdentity(nil), c.b.AppendIdentity(nil)); got != c.same {
			t.Errorf("%s: same=%v", name, got)
		}
	}
}

func TestStandsIsAStrictOrder(t *testing.T) {
	early, late := &Fact{Kind: KindTubeSealed, TubeSealed: TubeSealed{SealedAt: 1}}, &Fact{Kind: KindTubeSealed, TubeSealed: TubeSealed{SealedAt: 2}}
	a, b := early.Append(nil), late.Append(nil)
	if !Stands(early, a, late, b) || Stands(late, b, early, a) || Stands(early, a, early, a) {
		t.Error("the earlier witness does not stand")
	}
	old, renamed := &Fact{Kind: KindSiteOpened, SiteOpened: SiteOpened{OpenedAt: 1}}, &Fact{Kind: KindSiteOpened, SiteOpened: SiteOpened{OpenedAt: 2}}
	a, b = old.Append(nil), renamed.Append(nil)
	if Stands(old, a, renamed, b) || !Stands(renamed, b, old, a) {
		t.Error("a site keeps its old name")
	}
}
