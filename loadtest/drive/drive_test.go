package drive

import (
	"context"
	"testing"
	"time"

	"qianma/loadtest/schedule"
)

// script is a target that ends each try as it is told, at once or never.
type script struct {
	outcomes []Outcome // of the tries, in order; the last one repeats
	never    bool
	late     time.Duration // above 0: what is open ends well then
	tries    []try
	open     []*Op
	ready    []*Op
	start    time.Time
	closed   bool
	done     func(*Op)
}

type try struct {
	carrier int
	key     uint64
}

func (s *script) Begin(start time.Time) { s.start = start }
func (s *script) Carriers() int         { return 2 }
func (s *script) Nodes(int, Kind) int   { return 3 }

func (s *script) Start(op *Op) {
	now := time.Since(s.start)
	if op.First == 0 {
		op.First = now
	}
	op.Tried, op.Ended = now, now
	if (s.never || s.late > 0) && !s.closed {
		s.open = append(s.open, op)
		return
	}
	op.Outcome = s.outcomes[min(len(s.tries), len(s.outcomes)-1)]
	if s.closed {
		op.Outcome = NotSent
	}
	op.Code = op.Outcome.String()
	s.tries = append(s.tries, try{op.Carrier, op.Key})
	s.ready = append(s.ready, op)
}

func (s *script) Poll(wait time.Duration, done func(*Op)) error {
	s.done = done
	if len(s.ready) == 0 {
		<-time.After(min(wait, time.Millisecond)) // what a real target's poll does
	}
	if s.late > 0 && time.Since(s.start) > s.late {
		for _, op := range s.open {
			op.Ended = time.Since(s.start)
		}
		s.ready, s.open = append(s.ready, s.open...), nil
	}
	for len(s.ready) > 0 {
		op := s.ready[0]
		s.ready = s.ready[1:]
		done(op)
	}
	return nil
}

func (s *script) Close() error {
	s.closed = true
	for _, op := range s.open {
		op.Outcome, op.Ended = Unknown, time.Since(s.start)
		s.done(op)
	}
	s.open = nil
	return nil
}

// one runs a single operation through a driver and returns how it ended.
func one(t *testing.T, cfg Config, s *script) (Outcome, *Stream, int) {
	t.Helper()
	d := New(cfg, s)
	st := &Stream{Name: "x", Plan: schedule.Constant(20, 50*time.Millisecond)}
	st.Times = schedule.Even(st.Plan)
	got, ends := OK, 0
	st.Arrive = func(at time.Duration) {
		op := d.Op(Register, 0)
		op.Key = 42
		d.Go(st, op, at, func(op *Op) { got = op.Outcome; ends++ })
	}
	d.Add(st)
	if err := d.Run(context.Background(), time.Now(), func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	return got, st, ends
}

// Goal: what may have been done is never called failed. Method: every order of
// a lost reply and a refusal.
func TestOnceUnknownNeverFailed(t *testing.T) {
	quick := Config{Tries: 3, Backoff: time.Millisecond}
	for _, c := range []struct {
		name     string
		outcomes []Outcome
		want     Outcome
		tries    int
	}{
		{"done at once", []Outcome{OK}, OK, 1},
		{"lost, then known", []Outcome{Unknown, OK}, OK, 2},
		{"lost for good", []Outcome{Unknown}, Unknown, 3},
		{"lost, then out of reach", []Outcome{Unknown, NotSent}, Unknown, 3},
		{"lost, then rejected", []Outcome{Unknown, Rejected}, Unknown, 2},
		{"never reached", []Outcome{NotSent}, NotSent, 3},
		{"rejected", []Outcome{Rejected}, Rejected, 1},
		{"refused", []Outcome{Refused}, Refused, 1},
	} {
		s := &script{outcomes: c.outcomes}
		got, st, ends := one(t, quick, s)
		if got != c.want || len(s.tries) != c.tries || ends != 1 {
			t.Errorf("%s: ended %d times as %v after %d tries, want %v after %d", c.name, ends, got, len(s.tries), c.want, c.tries)
		}
		for _, try := range s.tries {
			if try.key != 42 {
				t.Errorf("%s: a try had key %d", c.name, try.key)
			}
		}
		if st.Kinds[Register].Retries != int64(c.tries-1) {
			t.Errorf("%s: %d retries counted", c.name, st.Kinds[Register].Retries)
		}
	}
}

func TestARefusalIsTriedAgainWhereAsked(t *testing.T) {
	s := &script{outcomes: []Outcome{Refused, OK}}
	if got, _, _ := one(t, Config{KeepRefused: true, Backoff: time.Millisecond}, s); got != OK || len(s.tries) != 2 {
		t.Errorf("ended as %v after %d tries", got, len(s.tries))
	}
}

// Three nodes of the first carrier have their turn before the other carrier.
func TestTriesGoRoundTheNodesThenToTheOtherCarrier(t *testing.T) {
	s := &script{outcomes: []Outcome{NotSent}}
	one(t, Config{Tries: 7, Backoff: time.Millisecond}, s)
	for i, want := range []int{0, 0, 0, 1, 1, 1, 0} {
		if s.tries[i].carrier != want {
			t.Errorf("try %d went to carrier %d, want %d", i, s.tries[i].carrier, want)
		}
	}
}

// Goal: a run ends although an answer never comes, and says unknown.
func TestWhatNeverAnswersIsGivenUpAsUnknown(t *testing.T) {
	s := &script{never: true}
	got, _, ends := one(t, Config{Drain: 50 * time.Millisecond}, s)
	if !s.closed || got != Unknown || ends != 1 {
		t.Errorf("closed %v, ended %d times as %v", s.closed, ends, got)
	}
}

func TestAtTheBoundArrivalsAreDroppedAndCounted(t *testing.T) {
	s := &script{never: true}
	d := New(Config{Open: 70, Drain: 50 * time.Millisecond}, s)
	st := &Stream{Name: "x", Plan: schedule.Constant(2000, 100*time.Millisecond)}
	st.Times = schedule.Even(st.Plan)
	st.Arrive = func(at time.Duration) { d.Go(st, d.Op(Display, 0), at, func(op *Op) { st.Units.Count(op) }) }
	d.Add(st)
	if err := d.Run(context.Background(), time.Now(), func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	if st.Units.Asked != 200 || st.Units.Dropped != 130 {
		t.Errorf("%+v", st.Units)
	}
}

// Goal: response counts from the intended start, whenever the driver got round
// to it. Method: a target that blocks the driver, as a starved processor would.
func TestResponseCountsFromTheIntendedStart(t *testing.T) {
	s := &script{outcomes: []Outcome{OK}}
	d := New(Config{}, s)
	st := &Stream{Name: "x", Plan: schedule.Constant(100, 200*time.Millisecond)}
	st.Times = schedule.Even(st.Plan)
	first := true
	st.Arrive = func(at time.Duration) {
		if first {
			first = false
			<-time.After(150 * time.Millisecond)
		}
		d.Go(st, d.Op(Display, 0), at, func(*Op) {})
	}
	d.Add(st)
	if err := d.Run(context.Background(), time.Now(), func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	k := st.Kinds[Display]
	if k.Response.Above(20*time.Millisecond) < 10 {
		t.Errorf("%d responses above 20 ms: the wait before the start was not counted", k.Response.Above(20*time.Millisecond))
	}
	if k.Service.Max() > 100*time.Millisecond {
		t.Errorf("service took %v", k.Service.Max())
	}
	if d.Pace.Late < 10 {
		t.Errorf("%d late arrivals counted", d.Pace.Late)
	}
}

// Goal: what warms up counts, and is in no percentile.
func TestTheWarmUpIsInNoPercentile(t *testing.T) {
	d := New(Config{Warm: 25 * time.Millisecond}, &script{outcomes: []Outcome{OK}})
	st := &Stream{Name: "x", Plan: schedule.Constant(1000, 50*time.Millisecond)}
	st.Times = schedule.Even(st.Plan)
	late := int64(0)
	st.Arrive = func(at time.Duration) {
		if at >= 25*time.Millisecond {
			late++
		}
		d.Go(st, d.Op(Register, 0), at, func(*Op) {})
	}
	d.Add(st)
	if err := d.Run(context.Background(), time.Now(), func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	k := st.Kinds[Register]
	if k.OK != 50 || late == 0 || late == 50 || k.Response.Count() != late || k.Service.Count() != late {
		t.Errorf("%d done, %d after warming up; in the percentiles are %d and %d", k.OK, late, k.Response.Count(), k.Service.Count())
	}
}

// Goal: what may be there beyond what was acknowledged is excused, row by row,
// and nothing else is: a carrier that keeps a thing twice under one key is not.
func TestOnlyWhatMayBeThereTwiceIsExcused(t *testing.T) {
	for _, c := range []struct {
		name     string
		outcomes []Outcome
		want     int64
	}{
		{"done at once", []Outcome{OK}, 0},
		{"lost, then known at the same carrier", []Outcome{Unknown, OK}, 0},
		{"lost at one, known at the other", []Outcome{Unknown, Unknown, Unknown, OK}, 1},
		{"never reached one, known at the other", []Outcome{NotSent, NotSent, NotSent, OK}, 0},
		{"refused at one, known at the other", []Outcome{Refused, Refused, Refused, OK}, 0},
		{"lost at one", []Outcome{Unknown, Rejected}, 1},
		{"lost at both", []Outcome{Unknown}, 2},
		{"rejected", []Outcome{Rejected}, 0},
	} {
		_, st, _ := one(t, Config{Tries: 5, Backoff: time.Millisecond, KeepRefused: true}, &script{outcomes: c.outcomes})
		if got := st.Kinds[Register].Excused; got != c.want {
			t.Errorf("%s: %d rows excused, want %d", c.name, got, c.want)
		}
	}
	kept := &Op{Kind: RegisterBatch, Samples: make([]Sample, 3), reached: 1, Row: []RowFault{{Row: 1, Kept: true}, {Row: 2}}}
	if got := excused(kept); got != 1 {
		t.Errorf("a row kept as a conflict: %d excused, want 1", got)
	}
	if got := excused(&Op{Kind: Register, Outcome: Rejected, Code: KeptConflict}); got != 1 {
		t.Errorf("a single row kept as a conflict: %d excused, want 1", got)
	}
	if got := excused(&Op{Kind: Display, Outcome: Unknown, reached: 1}); got != 0 {
		t.Errorf("a display: %d excused, want 0", got)
	}
}

// Goal: a request of many rows weighs as much as they would, in every
// percentile; and results do not dilute what each second says of registrations.
func TestRequestsWeighWhatTheyCarry(t *testing.T) {
	d := New(Config{}, &script{outcomes: []Outcome{OK}})
	st := &Stream{Name: "x", Plan: schedule.Constant(1, time.Second)}
	d.Add(st)
	end := func(k Kind, rows int, took time.Duration) {
		op := &Op{Kind: k, stream: st, Samples: make([]Sample, rows), Ended: took}
		d.count(op)
	}
	end(RegisterBatch, 500, 90*time.Millisecond)
	for range 100 {
		end(ReportBatch, 1, time.Millisecond)
	}
	k := st.Kinds[RegisterBatch]
	if k.Response.Count() != 500 || k.Service.Count() != 500 || k.OK != 1 {
		t.Errorf("%d responses, %d services of %d request; want 500 each", k.Response.Count(), k.Service.Count(), k.OK)
	}
	sec := st.second(0, 0)
	if sec.P50 < 80 || sec.Served != 500 {
		t.Errorf("in that second p50 %v ms, served %v; want the registrations' 90 ms, 500", sec.P50, sec.Served)
	}
	if sec = st.second(1, 0); sec.P99 != 0 || sec.Served != 0 {
		t.Errorf("the next second begins with %+v", sec)
	}
}

// Goal: an answer that comes after whoever asked has gone is told from the rest.
func TestAnAnswerAfterItsClientsPatienceIsOverdue(t *testing.T) {
	d := New(Config{Patience: 100 * time.Millisecond}, &script{outcomes: []Outcome{OK}})
	st := &Stream{Name: "x", Plan: schedule.Constant(1, time.Second)}
	d.Add(st)
	for _, took := range []time.Duration{time.Millisecond, 99 * time.Millisecond, 101 * time.Millisecond} {
		d.count(&Op{Kind: Display, stream: st, Ended: took, View: View{Found: true, Stale: took < 2*time.Millisecond}})
	}
	if k := st.Kinds[Display]; k.OK != 3 || k.Overdue != 1 || k.Found != 3 || k.Stale != 1 {
		t.Errorf("of %d one late and one stale: %d late, %d found, %d stale", k.OK, k.Overdue, k.Found, k.Stale)
	}
}

// Goal: what is acknowledged long after the last arrival does not count as in
// time. Method: answers at once, and answers after the grace.
func TestWhatIsAcknowledgedLateIsNotInTime(t *testing.T) {
	for _, late := range []time.Duration{0, Grace + 200*time.Millisecond} {
		d := New(Config{}, &script{outcomes: []Outcome{OK}, late: late})
		st := &Stream{Name: "x", Plan: schedule.Constant(100, 50*time.Millisecond)}
		st.Times = schedule.Even(st.Plan)
		st.Arrive = func(at time.Duration) {
			d.Go(st, d.Op(Display, 0), at, func(op *Op) { st.Units.Acked++ })
		}
		d.Add(st)
		if err := d.Run(context.Background(), time.Now(), func() bool { return false }); err != nil {
			t.Fatal(err)
		}
		want := int64(5)
		if late > 0 {
			want = 0
		}
		if st.Units.Acked != 5 || st.InTime != want {
			t.Errorf("late %v: %d acknowledged, %d in time; want 5 and %d", late, st.Units.Acked, st.InTime, want)
		}
	}
}
