package colour

// Outcome is what a tube came to.
type Outcome uint8

// The outcomes.
const (
	OutcomeNone         Outcome = 0 // no result yet
	OutcomeNegative     Outcome = 1
	OutcomePositive     Outcome = 2
	OutcomeInconclusive Outcome = 3
	OutcomeInvalid      Outcome = 4
	OutcomeConflict     Outcome = 5 // standing results contradict one another
)

// Test is one tube a person has a sample in. Times are Unix milliseconds; 0
// is "not known".
type Test struct {
	Single   bool // the person's own tube
	Pool     uint32
	Outcome  Outcome
	Sampled  int64
	Received int64
	Reported int64
}

// counted is the time from which the rule set counts validity. A time that was
// never told falls back to an earlier step, which only makes the result older.
func (t *Test) counted(from string) int64 {
	switch {
	case from == FromReported && t.Reported != 0:
		return t.Reported
	case from != FromSampled && t.Received != 0:
		return t.Received
	}
	return t.Sampled
}

// Status is what a person's tests come to.
type Status uint8

// The statuses.
const (
	StatusNone Status = iota
	StatusPending
	StatusNegative
	StatusInconclusive
	StatusConflict
	StatusPoolPositive
	StatusPositive
)

var statusNames = [...]string{"none", "pending", "negative", "inconclusive", "conflict", "pool_positive_retest", "positive"}

// String is the status as the API shows it.
func (s Status) String() string { return statusNames[s] }

// standing is what the tests of a person come to at a moment.
type standing struct {
	positive     *Test // the newest positive of the person's own that still holds
	open         *Test // a pool positive or a conflict that waits for a single retest
	openLast     int64 // when the newest open tube was sampled: a retest must be later
	inconclusive *Test // not yet followed by a result that decides
	negative     *Test // the newest by the time that counts
	invalid      *Test // the newest tube of all, and it could not be tested
	pending      *Test // the newest tube of all, and it has no result
}

// assess folds the tests, newest sampled first, into a standing.
func (rs *RuleSet) assess(tests []Test, now int64) (s standing) {
	for i := len(tests) - 1; i >= 0; i-- { // oldest first: later results decide over earlier ones
		t := &tests[i]
		if t.Sampled > now { // a sample of the future decides nothing
			continue
		}
		s.pending, s.invalid = nil, nil
		s.take(rs, t, now)
	}
	return s
}

func (s *standing) take(rs *RuleSet, t *Test, now int64) {
	r := &rs.ready
	within := func(p span) bool { return now-t.Sampled < p.ms }
	switch t.Outcome {
	case OutcomeNone:
		s.pending = t
	case OutcomeInvalid:
		s.invalid = t
	case OutcomeInconclusive:
		if within(r.inconclusive) {
			s.inconclusive = t
		}
	case OutcomePositive:
		if t.Single && within(r.positive) {
			s.positive = t
		}
		if !t.Single && within(r.poolPositive) {
			s.reopen(rs, t)
		}
	case OutcomeConflict:
		if within(r.conflict) {
			s.reopen(rs, t)
		}
	case OutcomeNegative:
		s.negate(rs, t)
	}
}

// negate takes a negative. It never touches a positive of the person's own;
// it settles an open pool only where it is their own, sampled later.
func (s *standing) negate(rs *RuleSet, t *Test) {
	from := rs.Validity.CountedFrom
	if s.negative == nil || t.counted(from) >= s.negative.counted(from) {
		s.negative = t
	}
	if s.open != nil && t.Single && t.Sampled > s.openLast {
		s.open = nil
	}
	if s.inconclusive != nil && t.Sampled > s.inconclusive.Sampled {
		s.inconclusive = nil
	}
}

// reopen keeps the open tube that asks for the higher level; of equals, the
// later.
func (s *standing) reopen(rs *RuleSet, t *Test) {
	if s.open == nil || rs.openLevel(t) >= rs.openLevel(s.open) {
		s.open = t
	}
	s.openLast = max(s.openLast, t.Sampled)
}

func (rs *RuleSet) openLevel(t *Test) Level {
	if t.Outcome == OutcomeConflict {
		return rs.ready.conflict.level
	}
	return rs.ready.poolPositive.level
}

// status names the standing, worst first, with the test it rests on.
func (s *standing) status() (Status, *Test) {
	switch {
	case s.positive != nil:
		return StatusPositive, s.positive
	case s.open != nil && s.open.Outcome == OutcomeConflict:
		return StatusConflict, s.open
	case s.open != nil:
		return StatusPoolPositive, s.open
	case s.inconclusive != nil:
		return StatusInconclusive, s.inconclusive
	case s.negative != nil:
		return StatusNegative, s.negative
	case s.pending != nil:
		return StatusPending, s.pending
	case s.invalid != nil:
		return StatusInconclusive, s.invalid
	}
	return StatusNone, nil
}
