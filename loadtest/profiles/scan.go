package profiles

import (
	"slices"
	"time"

	"qianma/loadtest/drive"
	"qianma/loadtest/ledger"
	"qianma/loadtest/population"
	"qianma/loadtest/schedule"
)

// tube is one tube from its first swab to its result.
type tube struct {
	ordinal uint32
	number  uint64
	carrier int
	pool    uint8
	outcome uint8
	tests   []uint32      // indexes in the ledger
	watched []uint32      // of them, whose visibility is timed
	open    int           // registrations that have not ended
	closed  bool          // no more swabs go in
	held    time.Duration // since when its result waits for company
	due     time.Duration // when its result should have gone up: when its last swab should have been taken
}

func (p *Profile) newTube(carrier int) *tube {
	t := &tube{ordinal: p.tubeSeq, carrier: carrier, outcome: ledger.Negative}
	p.tubeSeq++
	t.number = p.Ledger.Head.TubeNumber(t.ordinal)
	t.pool = population.PoolOf(p.Settings.Mix, p.Settings.Seed, t.number)
	if float64(population.Mix(p.Settings.Seed^0x706f73, t.number)>>11)/(1<<53) < p.Settings.Positive {
		t.outcome = ledger.Positive
	}
	return t
}

// swab puts the next person into the tube. Nobody is in a tube twice: where a
// population is so small that its next one is in it already, nothing is done, and
// the tube goes to the lab as it is.
func (p *Profile) swab(t *tube, at time.Duration) (s drive.Sample, ok bool) {
	who := p.person(t.outcome)
	if p.holds(t, who) {
		t.closed = true
		return s, false
	}
	p.step(t.outcome)
	e := ledger.Entry{
		Person:  who,
		Tube:    t.ordinal,
		Sampled: uint32(max(at, 0) / time.Millisecond),
		Carrier: uint8(t.carrier),
		Pool:    t.pool,
		Outcome: t.outcome,
	}
	i := p.Ledger.Add(e)
	t.tests = append(t.tests, i)
	t.due = max(at, 0)
	if p.watch.picks(at) {
		t.watched = append(t.watched, i)
	}
	t.closed = len(t.tests) == int(t.pool)
	return drive.Sample{Test: i, Person: e.Person, Tube: t.number, Pool: e.Pool, Sampled: p.Ledger.Head.SampledAt(&e)}, true
}

// holds says whether somebody is in the tube. Until everybody has been swabbed
// once nobody can be.
func (p *Profile) holds(t *tube, who uint32) bool {
	return p.around() && slices.ContainsFunc(t.tests, func(i uint32) bool { return p.Ledger.At(i).Person == who })
}

// scan is booths at work: a registration at each arrival, a result whenever a
// tube is full and all its registrations have ended.
type scan struct {
	p      *Profile
	s      *drive.Stream
	booths [][]*tube // by carrier: what each fills at the moment
}

func (p *Profile) scan(plan schedule.Plan) *drive.Stream {
	w := &scan{p: p}
	for range p.shares {
		w.booths = append(w.booths, make([]*tube, max(1, p.Settings.Booths/len(p.shares))))
	}
	w.s = p.stream("tests", "tests", plan, 1, w.arrive)
	p.flushes = append(p.flushes, w.flush)
	return w.s
}

// arrive lets the next person step up to a booth. Booths are drawn, not taken
// in turn, so that their tubes do not all fill at the same moment.
func (w *scan) arrive(s *drive.Stream, at time.Duration) {
	p := w.p
	carrier := p.carrier()
	booth := &w.booths[carrier][p.rand.IntN(len(w.booths[carrier]))]
	t, sample := w.swab(*booth, carrier, at)
	*booth = t
	if t.closed {
		*booth = nil
	}
	op := p.d.Op(drive.Register, carrier)
	op.Key = p.key()
	op.Samples = append(op.Samples, sample)
	t.open++
	p.d.Go(s, op, at, func(op *drive.Op) { w.registered(t, op) })
}

// swab takes the next person's swab into the booth's tube, or into a new one.
func (w *scan) swab(t *tube, carrier int, at time.Duration) (*tube, drive.Sample) {
	if t != nil {
		if sample, ok := w.p.swab(t, at); ok {
			return t, sample
		}
		t.due = max(at, 0) // it was to wait for somebody else
		w.settle(t)
	}
	t = w.p.newTube(carrier)
	sample, _ := w.p.swab(t, at) // an empty tube takes anybody
	return t, sample
}

func (w *scan) registered(t *tube, op *drive.Op) {
	w.p.registered(w.s, op, op.Samples[0].Test, "")
	t.open--
	w.settle(t)
}

// settle sends the tube to the lab once nothing more can happen to it. The
// result is due at that moment: what the lab waits for is the system's time.
func (w *scan) settle(t *tube) {
	if !t.closed || t.open > 0 {
		return
	}
	p := w.p
	if !p.worthTesting(t) {
		p.watch.never(t)
		return
	}
	now := p.d.Now()
	op := p.d.Op(drive.Report, t.carrier)
	op.Key = p.key()
	op.Results = append(op.Results, drive.Result{Tube: t.number, Outcome: t.outcome, At: p.d.Wall(now)})
	p.d.Go(w.s, op, now, func(op *drive.Op) {
		p.reported(w.s, t, op, "")
	})
}

// flush closes the tubes that never filled.
func (w *scan) flush() bool {
	any := false
	for _, booths := range w.booths {
		for i, t := range booths {
			if t != nil {
				booths[i] = nil
				t.closed, any = true, true
				t.due = w.p.d.Now() // it was to wait for more
				w.settle(t)
			}
		}
	}
	return any
}

// registered takes down how the registration of a test ended. fault is the
// code of its row, when the request went through and the row did not.
func (p *Profile) registered(s *drive.Stream, op *drive.Op, test uint32, fault string) {
	e := p.Ledger.At(test)
	if op.First > 0 {
		s.Units.Sent++
	}
	switch {
	case op.Outcome == drive.OK && fault == "":
		e.State = ledger.Registered
	case op.Outcome == drive.Unknown:
		e.State = ledger.Unknown
		s.Units.Unknown++
	case op.Outcome == drive.Dropped:
		e.State = ledger.Failed
		s.Units.Dropped++
	default:
		e.State = ledger.Failed
		s.Units.Failed++
	}
}

// worthTesting says whether any swab may be in the tube.
func (p *Profile) worthTesting(t *tube) bool {
	for _, i := range t.tests {
		if p.Ledger.At(i).State == ledger.Registered {
			return true
		}
	}
	return false
}

// reported takes down how the tube's result ended: with it, its tests do.
func (p *Profile) reported(s *drive.Stream, t *tube, op *drive.Op, fault string) {
	for _, i := range t.tests {
		e := p.Ledger.At(i)
		if e.State != ledger.Registered {
			continue
		}
		switch {
		case op.Outcome == drive.OK && fault == "":
			e.State = ledger.Acked
			s.Units.Acked++
		case op.Outcome == drive.Unknown:
			e.State = ledger.Unknown
			s.Units.Unknown++
		default: // the registration stands, the test is not complete
			s.Units.Failed++
		}
	}
	p.watch.begin(t, op.Carrier)
}
