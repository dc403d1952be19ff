package nucleicpb

import (
	"bytes"
	"time"
)

// Skew is how far the clocks of a booth and a lab may be apart. A result
// tested earlier than Skew before the swab was taken cannot be about it: the
// tube's code was used twice, or a time is wrong.
const Skew = time.Hour

// Verdict is what the results of one tube come to. The zero Verdict is that of
// a tube without any. Add them in any order, each as often as you like.
type Verdict struct {
	// Outcome is the outcome of the highest revision that is not void;
	// OutcomeConflict when that revision has several, OutcomePending when
	// there is none.
	Outcome  Outcome
	Revision uint32
	// The times of the counted result that was reported first.
	ReceivedAt, TestedAt, ReportedAt int64
}

// Add counts one result that is not void.
func (v *Verdict) Add(r *Resulted) {
	switch {
	case v.Outcome == OutcomePending || r.Revision > v.Revision:
		*v = Verdict{r.Outcome, r.Revision, r.ReceivedAt, r.TestedAt, r.ReportedAt}
		return
	case r.Revision < v.Revision:
		return
	case r.Outcome != v.Outcome:
		v.Outcome = OutcomeConflict
	}
	if r.before(v) {
		v.ReceivedAt, v.TestedAt, v.ReportedAt = r.ReceivedAt, r.TestedAt, r.ReportedAt
	}
}

// before orders a result's times against the ones kept: by report, then by
// test, then by reception, so that the choice is the same in any order.
func (m *Resulted) before(v *Verdict) bool {
	switch {
	case m.ReportedAt != v.ReportedAt:
		return m.ReportedAt < v.ReportedAt
	case m.TestedAt != v.TestedAt:
		return m.TestedAt < v.TestedAt
	}
	return m.ReceivedAt < v.ReceivedAt
}

// Test is one swab of one person, with what its tube came to.
type Test struct {
	Tube       []byte
	Pool       Pool  // as the person's own registration says
	SampledAt  int64 // all times in Unix milliseconds
	ReceivedAt int64
	TestedAt   int64
	ReportedAt int64
	Outcome    Outcome // of the tube's Verdict
}

// Counts is the outcome as far as this swab goes: a result older than the swab
// is a contradiction that a person must look at.
func (t *Test) Counts() Outcome {
	if t.Outcome != OutcomePending && Stale(t.SampledAt, t.TestedAt) {
		return OutcomeConflict
	}
	return t.Outcome
}

// Stale reports whether a result tested at one time is too old to be about a
// swab sampled at another. An unknown time is never too old.
func Stale(sampledAt, testedAt int64) bool {
	return testedAt != 0 && testedAt < sampledAt-Skew.Milliseconds()
}

// Basis is the time from which the validity of a test is counted.
type Basis uint8

// The times a rule may count from.
const (
	SinceSampled Basis = iota
	SinceReceived
	SinceReported
)

var basisNames = [...]string{"sampled", "received", "reported"}

// String is the basis as configuration writes it.
func (b Basis) String() string { return name(basisNames[:], int(b)) }

// ParseBasis reads what String writes.
func ParseBasis(s string) (Basis, bool) {
	i := number(basisNames[:], s)
	return Basis(i), basisNames[i] == s
}

// Since is the time from which the test's validity counts. Where the chosen
// time was not given it counts from sampling, the earliest of the three, so a
// missing time never makes a test look younger.
func (t *Test) Since(b Basis) int64 {
	switch {
	case b == SinceReceived && t.ReceivedAt != 0:
		return t.ReceivedAt
	case b == SinceReported && t.ReportedAt != 0:
		return t.ReportedAt
	}
	return t.SampledAt
}

// Within reports whether now (Unix milliseconds) is inside the window that the
// test opened.
func (t *Test) Within(b Basis, now int64, window time.Duration) bool {
	return now-t.Since(b) < window.Milliseconds()
}

// Standing is where a person's tests leave the person.
type Standing uint8

// The standings. The names cross the wire; they never change.
const (
	None               Standing = 0 // never tested
	Pending            Standing = 1 // tested, nothing decided
	Negative           Standing = 2
	PoolPositiveRetest Standing = 3 // was in a positive pool; a single retest is needed
	Positive           Standing = 4 // the person's own single test is positive
	Contested          Standing = 5 // results contradict one another
)

var standingNames = [...]string{"none", "pending", "negative", "pool_positive_retest", "positive", "conflict"}

// String is the standing's name on the wire.
func (s Standing) String() string { return name(standingNames[:], int(s)) }

// Stand works out where a list of tests leaves a person, and which of them
// decided it (its index; -1 without tests). The order of the list and repeats
// in it do not matter.
//
// The tests are taken in the order of sampling; of tests sampled at the same
// instant the gravest is taken last, so that nothing is cleared by a test that
// is not later. Then, test by test:
//
//   - A single negative or positive decides: it is the person's own.
//   - A pool's negative covers its members, but clears neither a positive nor
//     a positive pool nor a conflict: only a single test does.
//   - A pool's positive asks for a single retest, except of a person whose own
//     test is positive already.
//   - A conflict stands until a later test settles it, and never hides
//     something worse.
//   - An inconclusive test found something: it ends an earlier negative and
//     decides nothing. An invalid or pending one found nothing and leaves what
//     was known.
func Stand(tests []Test) (Standing, int) {
	var room [16]int
	order := sortTests(room[:0], tests)
	standing, by := None, -1
	for _, i := range order {
		if next, decides := step(standing, &tests[i]); decides {
			standing, by = next, i
		}
	}
	return standing, by
}

// step is one test's effect on a standing; decides is false where it leaves it.
func step(s Standing, t *Test) (next Standing, decides bool) {
	grave := s == Positive || s == PoolPositiveRetest || s == Contested
	single := t.Pool.Single()
	switch t.Counts() {
	case OutcomeNegative:
		return Negative, single || !grave
	case OutcomePositive:
		if single {
			return Positive, true
		}
		return PoolPositiveRetest, s != Positive
	case OutcomeConflict:
		return Contested, s != Positive && (single || s != PoolPositiveRetest)
	case OutcomeInconclusive:
		return Pending, !grave
	}
	return Pending, s == None || s == Pending
}

// sortTests appends the indexes of the tests in the order Stand takes them.
// People have few tests, so insertion is the fast way.
func sortTests(order []int, tests []Test) []int {
	for i := range tests {
		order = append(order, i)
		for j := i; j > 0 && earlier(&tests[order[j]], &tests[order[j-1]]); j-- {
			order[j], order[j-1] = order[j-1], order[j]
		}
	}
	return order
}

func earlier(a, b *Test) bool {
	switch {
	case a.SampledAt != b.SampledAt:
		return a.SampledAt < b.SampledAt
	case a.gravity() != b.gravity():
		return a.gravity() < b.gravity()
	case a.Pool != b.Pool:
		return a.Pool < b.Pool
	}
	return bytes.Compare(a.Tube, b.Tube) < 0
}

func (t *Test) gravity() int {
	switch t.Counts() {
	case OutcomePending:
		return 0
	case OutcomeInvalid:
		return 1
	case OutcomeNegative:
		return 2
	case OutcomeInconclusive:
		return 3
	case OutcomeConflict:
		return 4
	}
	if t.Pool.Single() {
		return 6
	}
	return 5
}
