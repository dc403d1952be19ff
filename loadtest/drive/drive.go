// Package drive makes operations happen when a schedule says so.
//
// A Driver is one goroutine that owns the schedule, the clock, the retries and
// the counting; a Target does the operations. Promises: an operation starts at
// its time whether or not earlier ones have ended; its response time counts
// from the time at which it should have started, through every retry; what the
// generator could not take up in time is counted against the generator. A
// write that may have been done is tried again with the same key until it is
// known or given up, and is then unknown, never failed. What is in flight, what
// waits and how often a thing is tried are all bounded.
//
// It knows nothing of what operations mean: profiles say what to do at an
// arrival and at an end.
package drive

import (
	"container/heap"
	"context"
	"slices"
	"time"

	"qianma/loadtest/hist"
	"qianma/loadtest/schedule"
)

// Config bounds a run. The zero value has good defaults.
type Config struct {
	Tries       int              // of one operation at most; 0: 8
	Patience    time.Duration    // from the intended start until an operation is given up; 0: 30 s
	Backoff     time.Duration    // before the second try, doubled each time up to 1 s; 0: 20 ms
	KeepRefused bool             // a refusal is tried again too
	Open        int              // units in flight and waiting at most, and 64 operations at least; 0: 100,000
	Drain       time.Duration    // after the last arrival, for what is still open; 0: 60 s
	Warm        time.Duration    // what was to start earlier is in no percentile; it counts otherwise
	Quantum     time.Duration    // arrivals this close together are made together; 0: 1 ms
	Closed      int              // above 0: no schedule; this many operations are kept in flight
	Tick        func(second int) // called once a second, may be nil
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	def(&c.Patience, 30*time.Second)
	def(&c.Backoff, 20*time.Millisecond)
	def(&c.Drain, time.Minute)
	def(&c.Quantum, time.Millisecond)
	if c.Tries == 0 {
		c.Tries = 8
	}
	if c.Open == 0 {
		c.Open = 100_000
	}
	return c
}

// Stream is one source of arrivals with its own counts.
type Stream struct {
	Name   string
	Unit   string        // "tests", "displays"
	Weight int           // units in one arrival; 0: 1
	Most   int64         // units after which the stream is over whatever its plan says; 0: no bound
	Plan   schedule.Plan // for reports
	Times  *schedule.Schedule
	// Arrive does what is due at an arrival. It must call Count at once or
	// when the operation ends.
	Arrive func(at time.Duration)

	Units   Units
	InTime  int64 // units acknowledged within Grace of the end of the plan
	Kinds   [kinds]*Tally
	Series  []Second
	next    time.Duration
	over    bool
	timed   bool              // InTime is known
	windows [kinds]*hist.Hist // of this second; nil: nothing of that kind yet
	served  int64
	last    Units
	failed  int64
	refused int64
}

func (s *Stream) weight() int64 { return int64(max(1, s.Weight)) }

// Grace is how long after the end of its plan a stream's answers still come in
// time: a system that keeps up has something in flight when the last arrival
// comes, and one that does not has more.
const Grace = 500 * time.Millisecond

// Driver runs streams against a target. Make one with New.
type Driver struct {
	cfg     Config
	target  Target
	streams []*Stream
	start   time.Time
	open    int
	wake    timers
	seq     int
	free    []*Op
	second  int
	Pace    Pace
	ended   time.Duration // when the last operation that counts ended
	halted  bool
	cut     time.Duration // when somebody interrupted the run; 0: nobody did
}

// New returns a driver that has not begun.
func New(cfg Config, t Target) *Driver {
	return &Driver{cfg: cfg.withDefaults(), target: t, Pace: Pace{Lag: hist.New()}}
}

// Config is what the driver goes by, its defaults included.
func (d *Driver) Config() Config { return d.cfg }

// Add adds a stream before Run.
func (d *Driver) Add(s *Stream) {
	for k := range s.Kinds {
		s.Kinds[k] = NewTally()
	}
	d.streams = append(d.streams, s)
}

// Streams lists them.
func (d *Driver) Streams() []*Stream { return d.streams }

// Now is the run's clock.
func (d *Driver) Now() time.Duration { return time.Since(d.start) }

// Wall is an instant of the run's clock in Unix milliseconds.
func (d *Driver) Wall(at time.Duration) int64 { return d.start.Add(at).UnixMilli() }

// Ended is when the last counted operation ended, or when the run was
// interrupted if that was later.
func (d *Driver) Ended() time.Duration { return max(d.ended, d.cut) }

// Interrupted says whether somebody ended the run before its time. What was open
// then says nothing of the system.
func (d *Driver) Interrupted() bool { return d.cut > 0 }

// Open is how many operations are in flight, waiting, or between two tries.
func (d *Driver) Open() int { return d.open }

// Arriving says whether some stream still has arrivals to come.
func (d *Driver) Arriving() bool {
	return slices.ContainsFunc(d.streams, func(s *Stream) bool { return !s.over })
}

// Halted says whether the run was told to end early.
func (d *Driver) Halted() bool { return d.halted }

// Halt ends the arrivals early; what is open is drained.
func (d *Driver) Halt() {
	for _, s := range d.streams {
		s.over = true
	}
	d.halted = true
}

// Run walks the schedules to their end and drains. The streams' clocks count
// from start, which may be a little ahead. flush is called when the last
// arrival has been taken up, and again as long as it returns true once
// everything has ended: it may start what was held back.
func (d *Driver) Run(ctx context.Context, start time.Time, flush func() bool) error {
	d.start = start
	d.target.Begin(start)
	for _, s := range d.streams {
		s.next, s.over = 0, false
		d.advance(s)
	}
	arriving := true
	var drainUntil time.Duration
	for {
		now := d.Now()
		if ctx.Err() != nil && !d.halted {
			d.cut = max(now, 1)
			d.Halt()
		}
		next, more := d.arrivals(now)
		if arriving && !more {
			arriving, drainUntil = false, now+d.cfg.Drain
			flush()
		}
		due := d.wake.run(now)
		d.tick(now)
		d.clock(now)
		if !arriving && d.open == 0 && len(d.wake) == 0 && !flush() && d.open == 0 {
			d.clock(1 << 62)
			return nil
		}
		if !arriving && now > drainUntil {
			d.clock(1 << 62)
			return d.abandon()
		}
		wait := 50 * time.Millisecond
		if more {
			wait = min(wait, max(next-now, d.cfg.Quantum))
		}
		if at, ok := d.wake.next(); ok {
			wait = min(wait, max(at-now, d.cfg.Quantum))
		}
		if due {
			wait = 0
		}
		if err := d.target.Poll(wait, d.finished); err != nil {
			return err
		}
	}
}

// arrivals takes up what is due and says when the next one is.
func (d *Driver) arrivals(now time.Duration) (next time.Duration, more bool) {
	if d.cfg.Closed > 0 {
		return d.refill(now)
	}
	for _, s := range d.streams {
		for n := 0; !s.over && s.next <= now; n++ {
			if n%64 == 63 {
				now = d.Now() // a long catch-up is lag, and must be measured as such
			}
			d.take(s, now)
		}
		if !s.over && (!more || s.next < next) {
			next, more = s.next, true
		}
	}
	return next, more
}

// clock takes down what of each stream came in time.
func (d *Driver) clock(now time.Duration) {
	for _, s := range d.streams {
		if !s.timed && now > s.Plan.Duration()+Grace {
			s.timed, s.InTime = true, s.Units.Acked
		}
	}
}

// fewest operations may be open however many units each of them is.
const fewest = 64

func (d *Driver) take(s *Stream, now time.Duration) {
	lag := now - s.next
	d.Pace.Arrivals++
	d.Pace.Lag.Record(lag)
	if lag > Tolerance {
		d.Pace.Late++
	}
	at := s.next
	d.advance(s)
	s.Units.Asked += s.weight()
	if d.open >= max(fewest, d.cfg.Open/int(s.weight())) {
		s.Units.Dropped += s.weight()
		s.failed++
		return
	}
	s.Arrive(at)
}

func (d *Driver) advance(s *Stream) {
	at, ok := s.Times.Next()
	s.next = at
	s.over = s.over || !ok
}

// refill keeps a fixed number of operations in flight: the closed model.
func (d *Driver) refill(now time.Duration) (time.Duration, bool) {
	more := false
	for _, s := range d.streams {
		s.over = s.over || now >= s.Plan.Duration()
		for ; !s.over && d.open < d.cfg.Closed; s.over = s.Most > 0 && s.Units.Asked >= s.Most {
			before := d.open
			s.Units.Asked += s.weight()
			d.Pace.Arrivals++
			d.Pace.Lag.Record(0)
			s.Arrive(now)
			if d.open == before {
				break
			}
		}
		more = more || !s.over
	}
	return now + 10*time.Millisecond, more
}

// Op returns an operation to fill in.
func (d *Driver) Op(k Kind, carrier int) *Op {
	var op *Op
	if n := len(d.free); n > 0 {
		op, d.free = d.free[n-1], d.free[:n-1]
		op.reset()
	} else {
		op = new(Op)
	}
	op.Kind, op.Carrier, op.Home = k, carrier, carrier
	return op
}

// Go starts an operation on behalf of a stream; done is called once, when it
// has ended for good.
func (d *Driver) Go(s *Stream, op *Op, intended time.Duration, done func(*Op)) {
	op.stream, op.Intended, op.done = s, intended, done
	s.Kinds[op.Kind].Started++
	d.open++
	d.try(op)
}

// Ask starts an operation that no stream counts.
func (d *Driver) Ask(op *Op, done func(*Op)) {
	op.stream, op.Intended, op.done, op.quiet = nil, d.Now(), done, true
	d.open++
	d.try(op)
}

func (d *Driver) try(op *Op) {
	op.Tries++
	op.Outcome, op.Code, op.RetryAfter, op.Sent = OK, "", -1, false
	d.target.Start(op)
}

// finished judges the end of one try.
func (d *Driver) finished(op *Op) {
	if op.stream != nil {
		op.stream.Kinds[op.Kind].tried(op)
	}
	op.perhaps = op.perhaps || op.Outcome == Unknown
	if op.Outcome == Unknown || op.Outcome == OK {
		op.reached |= 1 << op.Carrier
	}
	if wait, again := d.again(op); again {
		d.After(wait, func() { d.try(op) })
		return
	}
	if op.perhaps && op.Outcome != OK {
		op.Outcome = Unknown // some earlier try may have been done
	}
	d.open--
	d.count(op)
	op.done(op)
	d.free = append(d.free, op)
}

func (d *Driver) count(op *Op) {
	s := op.stream
	if s == nil {
		return
	}
	d.ended = max(d.ended, op.Ended)
	s.Kinds[op.Kind].ended(op, op.Intended >= d.cfg.Warm, d.cfg.Patience)
	if op.Outcome == OK {
		s.answered(op)
		return
	}
	s.failed++
	if op.Outcome == Refused {
		s.refused++
	}
}

// again decides whether a try is followed by another, and moves the operation
// to the next carrier when this one's nodes have all had their turn.
func (d *Driver) again(op *Op) (time.Duration, bool) {
	switch op.Outcome {
	case OK, Rejected, Dropped:
		return 0, false
	case Refused:
		if !d.cfg.KeepRefused {
			return 0, false
		}
	}
	now := d.Now()
	wait := min(d.cfg.Backoff<<min(op.Tries-1, 10), time.Second)
	if op.RetryAfter > 0 {
		wait = max(wait, min(op.RetryAfter, 5*time.Second))
	}
	if op.Tries >= d.cfg.Tries || now+wait > op.Intended+d.cfg.Patience || d.halted {
		return 0, false
	}
	nodes := max(1, d.target.Nodes(op.Home, op.Kind))
	if !op.quiet && d.target.Carriers() > 1 {
		op.Carrier = (op.Home + op.Tries/nodes) % d.target.Carriers()
	}
	if op.Tries < nodes {
		wait = min(wait, time.Millisecond) // another node may well be up
	}
	return wait, true
}

// abandon ends the run with what never answered counted as unknown: drain is
// over, and whoever waits for it must be told.
func (d *Driver) abandon() error {
	d.halted = true
	d.wake.run(1 << 62) // what waits for its next try must end too
	return d.target.Close()
}

// After calls fn later, from the driver's own goroutine.
func (d *Driver) After(wait time.Duration, fn func()) {
	d.seq++
	at := wait // before Run, from the start
	if !d.start.IsZero() {
		at += d.Now()
	}
	heap.Push(&d.wake, timer{at, d.seq, fn})
}

// tick closes the seconds that are over.
func (d *Driver) tick(now time.Duration) {
	for now >= time.Duration(d.second+1)*time.Second {
		for _, s := range d.streams {
			s.Series = append(s.Series, s.second(d.second, d.open))
		}
		d.second++
		if d.cfg.Tick != nil {
			d.cfg.Tick(d.second)
		}
	}
}

// answered takes down for its second an operation that went well.
func (s *Stream) answered(op *Op) {
	if s.windows[op.Kind] == nil {
		s.windows[op.Kind] = hist.New()
	}
	s.windows[op.Kind].RecordN(op.Ended-op.Intended, op.rows())
	if op.Kind != Report && op.Kind != ReportBatch { // those follow from what arrived
		s.served += op.rows() - int64(len(op.Row))
	}
}

// slowest is a percentile of the kind of which it is worst: results are few,
// and registrations must not be judged with theirs among them.
func (s *Stream) slowest(q float64) float64 {
	var most time.Duration
	for _, w := range s.windows {
		if w != nil {
			most = max(most, w.Quantile(q))
		}
	}
	return hist.Millis(most)
}

func (s *Stream) second(at, open int) Second {
	u := s.Units
	out := Second{
		At:      at,
		Asked:   float64(u.Asked - s.last.Asked),
		Done:    float64(u.Acked - s.last.Acked),
		Failed:  float64(s.failed),
		Refused: s.refused,
		P50:     s.slowest(.5),
		P99:     s.slowest(.99),
		Max:     s.slowest(1),
		Open:    open,
		Served:  float64(s.served),
	}
	s.last, s.failed, s.refused, s.served = u, 0, 0, 0
	for _, w := range s.windows {
		if w != nil && w.Count() > 0 {
			w.Reset()
		}
	}
	return out
}

type timer struct {
	at  time.Duration
	seq int
	fn  func()
}

// timers is a heap by time, then by order of asking.
type timers []timer

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	return t[i].at < t[j].at || (t[i].at == t[j].at && t[i].seq < t[j].seq)
}
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)   { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	old := *t
	x := old[len(old)-1]
	*t = old[:len(old)-1]
	return x
}

func (t *timers) next() (time.Duration, bool) {
	if len(*t) == 0 {
		return 0, false
	}
	return (*t)[0].at, true
}

func (t *timers) run(now time.Duration) bool {
	ran := false
	for len(*t) > 0 && (*t)[0].at <= now {
		heap.Pop(t).(timer).fn()
		ran = true
	}
	return ran
}
