package colour

// Restriction is a restriction that no release has named. Whether it holds at
// a moment is decided by From and Until.
type Restriction struct {
	Cause  Code
	Level  Level
	From   int64
	Until  int64
	Source string
	Rule   string
}

// Declaration is what the person said about their own health.
type Declaration struct {
	At       int64
	Symptoms bool
	Contact  bool
}

// Carrier is how far the data of one carrier reaches.
type Carrier struct {
	Name string
	AsOf int64 // all that happened there before this moment is known; 0: nothing is
}

// Input is all a verdict depends on. Times are Unix milliseconds.
type Input struct {
	Now          int64
	Restrictions []Restriction
	Declarations []Declaration
	Tests        []Test // newest sampled first

	// Known: some source of test data answered about the person, even with
	// "nothing". Carriers says how old that answer is.
	Known    bool
	Carriers []Carrier
	// LastKnown: the source is this process's own copy.
	LastKnown bool
	// Behind: the reader has seen newer data than this.
	Behind bool
	// RestrictionsAsOf is how far the restrictions reach; 0: never heard.
	RestrictionsAsOf int64
	// OthersAsOf is how far what the other carriers hold of restrictions has
	// been taken in here; 0: there is no other carrier.
	OthersAsOf int64
	// OthersMissing: others hold, or may hold, restrictions of which nothing
	// was ever taken in here: a carrier that has come back empty.
	OthersMissing bool
}

// Reach is how far all restrictions reach; 0: not known.
func (in *Input) Reach() int64 {
	switch {
	case in.OthersMissing:
		return 0
	case in.OthersAsOf != 0:
		return min(in.RestrictionsAsOf, in.OthersAsOf)
	}
	return in.RestrictionsAsOf
}

// Verdict is the answer.
type Verdict struct {
	Level   Level
	Colour  Colour
	Managed bool // shown as green, but under management
	Stale   bool // some of the data is older than the rule set calls fresh
	Blind   bool // there was no ground for green
	AsOf    int64
	Reasons []Reason // never empty; the worst first

	Status  Status
	Decided *Test // the test the status rests on; points into Input.Tests
	Hours   int64 // whole hours since Decided's time that counts
}

// Evaluate computes a verdict into v, whose slices are used again.
func (rs *RuleSet) Evaluate(in *Input, v *Verdict) {
	*v = Verdict{Level: Green, Reasons: v.Reasons[:0]}
	rs.weighRestrictions(in, v)
	rs.weighTests(in, v)
	rs.weighDeclarations(in, v)
	rs.weighData(in, v)
	sortReasons(v.Reasons)
	for i := range v.Reasons {
		v.Level = max(v.Level, v.Reasons[i].Level)
	}
	shown := &rs.ready.level[v.Level]
	v.Colour, v.Managed = shown.colour, shown.managed
	if v.Blind && rs.ready.blindColour > v.Colour {
		v.Colour, v.Managed = rs.ready.blindColour, false
	}
}

func (v *Verdict) because(r Reason) { v.Reasons = append(v.Reasons, r) }

func (rs *RuleSet) weighRestrictions(in *Input, v *Verdict) {
	for i := range in.Restrictions {
		r := &in.Restrictions[i]
		if in.Now < r.From || in.Now >= r.Until {
			continue
		}
		cause := r.Cause
		if _, ok := codeNumber[cause]; !ok {
			cause = Restricted
		}
		v.because(Reason{Code: cause, Level: min(max(r.Level, Yellow), Purple), Since: r.From, Until: r.Until, Source: r.Source, Rule: r.Rule})
	}
}

func (rs *RuleSet) weighTests(in *Input, v *Verdict) {
	if !in.Known { // weighData says that nothing can be known
		return
	}
	s := rs.assess(in.Tests, in.Now)
	v.Status, v.Decided = s.status()
	if v.Decided != nil {
		v.Hours = rs.hoursSince(v.Decided, in.Now)
	}
	proven := s.negative != nil && in.Now-s.negative.counted(rs.Validity.CountedFrom) < rs.ready.validity
	least := rs.ready.unproven // what the lack of a negative that still counts asks for
	if proven {
		least = Green
	}
	before := len(v.Reasons)
	add := func(t *Test, code Code, level Level) {
		if t != nil {
			v.because(Reason{Code: code, Level: max(level, least), Since: t.Sampled, Hours: rs.hoursSince(t, in.Now), Rule: rs.ready.ref})
		}
	}
	add(s.positive, Positive, rs.ready.positive.level)
	if s.open != nil {
		code := PoolPositive
		if s.open.Outcome == OutcomeConflict {
			code = ResultsConflict
		}
		add(s.open, code, rs.openLevel(s.open))
	}
	add(s.inconclusive, Inconclusive, rs.ready.inconclusive.level)
	switch {
	case len(v.Reasons) > before: // a negative beside a worse result would only confuse
	case proven:
		add(s.negative, NegativeValid, Green)
	default:
		add(s.negative, NegativeExpired, Green)
	}
	add(s.pending, ResultPending, 0)
	add(s.invalid, InvalidSample, 0)
	if len(v.Reasons) == before {
		code := NeverTested
		if len(in.Tests) > 0 {
			code = NoResult
		}
		v.because(Reason{Code: code, Level: least, Rule: rs.ready.ref})
	}
}

// hoursSince is whole hours since the time of a test that counts, never
// negative.
func (rs *RuleSet) hoursSince(t *Test, now int64) int64 {
	return max(0, (now-t.counted(rs.Validity.CountedFrom))/hour)
}

func (rs *RuleSet) weighDeclarations(in *Input, v *Verdict) {
	var symptoms, contact int64 // the newest of each that still holds
	for _, d := range in.Declarations {
		if d.Symptoms && in.Now-d.At < rs.ready.symptoms.ms {
			symptoms = max(symptoms, d.At)
		}
		if d.Contact && in.Now-d.At < rs.ready.contact.ms {
			contact = max(contact, d.At)
		}
	}
	if symptoms != 0 {
		v.because(Reason{Code: DeclaredSymptoms, Level: rs.ready.symptoms.level, Since: symptoms, Until: symptoms + rs.ready.symptoms.ms, Rule: rs.ready.ref})
	}
	if contact != 0 {
		v.because(Reason{Code: DeclaredContact, Level: rs.ready.contact.level, Since: contact, Until: contact + rs.ready.contact.ms, Rule: rs.ready.ref})
	}
}

// weighData says how old the data is. Every carrier that is not fresh is named,
// because a test may have gone there; but green is withheld only when no
// carrier's data can be trusted, because when one is lost people are tested
// through the other.
func (rs *RuleSet) weighData(in *Input, v *Verdict) {
	r := &rs.ready
	newest := int64(0)
	v.AsOf = in.Now
	for _, c := range in.Carriers {
		newest, v.AsOf = max(newest, c.AsOf), min(v.AsOf, c.AsOf)
	}
	if len(in.Carriers) == 0 || !in.Known {
		v.AsOf = 0
	}
	switch {
	case !in.Known || newest == 0:
		v.because(Reason{Code: DataMissing, Level: r.blind, Rule: r.ref})
		v.Blind = true
	case in.Now-newest > r.trusted:
		v.because(Reason{Code: DataTooOld, Level: r.blind, Since: newest, Rule: r.ref})
		v.Blind = true
	}
	v.Stale = v.Blind
	for _, c := range in.Carriers {
		if in.Known && in.Now-c.AsOf > r.fresh {
			v.because(Reason{Code: DataStale, Since: c.AsOf, Source: c.Name})
			v.Stale = true
		}
	}
	if in.Known && in.LastKnown {
		v.because(Reason{Code: DataLastKnown, Since: v.AsOf})
	}
	rs.weighReach(in, v)
	if in.Behind {
		v.because(Reason{Code: OlderThanSeen})
		v.Stale = true
	}
}

// weighReach says how far the restrictions reach. Not to have heard from
// one's own majority for a day, or to know nothing of what the other carriers
// hold, withholds green: somebody's red may be missing here. Another carrier
// that has fallen silent does not, because restrictions are then made here.
func (rs *RuleSet) weighReach(in *Input, v *Verdict) {
	r := &rs.ready
	reach := in.Reach()
	if in.Now-reach <= r.fresh {
		return
	}
	stale := Reason{Code: RestrictionsStale, Since: reach}
	if in.OthersMissing || in.Now-in.RestrictionsAsOf > r.trusted {
		stale.Level, stale.Rule, v.Blind = r.blind, r.ref, true
	}
	v.because(stale)
	v.Stale = true
}

// sortReasons puts the worst first and keeps the order among equals; there are
// few, so insertion is the fastest way and allocates nothing.
func sortReasons(rs []Reason) {
	for i := 1; i < len(rs); i++ {
		for j := i; j > 0 && rs[j].Level > rs[j-1].Level; j-- {
			rs[j], rs[j-1] = rs[j-1], rs[j]
		}
	}
}

// AppendWord writes the word of a verdict: the level's, or the one for missing
// data, with the mark of stale data behind it.
func (rs *RuleSet) AppendWord(dst []byte, v *Verdict, l Lang) []byte {
	word := rs.ready.level[v.Level].word
	if v.Blind && v.Colour == rs.ready.blindColour && v.Colour != rs.ready.level[v.Level].colour {
		word = rs.Data.BlindWord
	}
	dst = append(dst, word.in(l)...)
	if v.Stale {
		dst = append(dst, rs.Data.StaleMark.in(l)...)
	}
	return dst
}
