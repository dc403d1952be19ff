package loadtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"qianma/loadtest/drive"
	"qianma/loadtest/ledger"
)

// readback looks for every acknowledged test at every carrier, the way a phone
// would, and for the swabs in every tube.
type readback struct {
	d       *drive.Driver
	audit   *ledger.Audit
	names   []string // of carriers
	settle  time.Duration
	width   int // questions in flight
	todo    []question
	missed  []question
	fewest  int // misses of the best pass so far
	since   time.Duration
	waiting bool
	step    int  // of the people every step-th is asked about, and of the tubes
	tubes   int  // that are asked about
	noTubes bool // the target cannot say what is in a tube
	asked   int
	say     func(string)  // of a reading that lasts; nil: nobody
	told    time.Duration // when it was said last
	notes   []string
}

type question struct {
	n       uint32 // of a person's question, or a tube's ordinal
	carrier uint8
	tube    bool
	seen    ledger.Seen
	swabs   int
}

// Reading is how a ledger is read back.
type Reading struct {
	Sample int           // people to ask about at most, evenly spread; 0: all
	Settle time.Duration // what is missing is looked for until nothing new has appeared for so long; 0: settleUsual
	Absent time.Duration // how long a carrier may leave everything unanswered; 0: absentMost
	Say    func(text string)
}

// settleUsual is how long is looked for what is missing.
const settleUsual = 15 * time.Second

// ReadBack audits a ledger against a target. A test that is not there yet is
// looked for again. A carrier that answers nothing at all for too long ends it
// with a *Silent: nothing is known of any test then, and a question takes its
// whole patience each.
func ReadBack(ctx context.Context, t drive.Target, l *ledger.Ledger, how Reading) (ledger.Report, []string, error) {
	r := &readback{audit: l.Audit(), names: l.Head.Carriers, settle: cmp.Or(how.Settle, settleUsual), width: 128, say: how.Say}
	reading, giveUp := context.WithCancel(ctx)
	defer giveUp()
	e := newEar(t, r.names, how, giveUp)
	r.d = drive.New(drive.Config{Tries: 100, Patience: time.Minute, Drain: 24 * time.Hour, KeepRefused: true}, e)
	e.now = r.d.Now
	r.plan(how.Sample)
	r.fewest = len(r.todo) + 1
	if err := r.d.Run(reading, time.Now(), r.fill); err != nil {
		return ledger.Report{}, nil, err
	}
	if e.silent != nil {
		return ledger.Report{}, nil, e.silent
	}
	if err := ctx.Err(); err != nil {
		return ledger.Report{}, nil, errors.New("reading back was interrupted")
	}
	report := r.audit.Close(r.step, !r.noTubes)
	report.Tubes = int64(r.tubes)
	if r.noTubes {
		report.Tubes = 0
		r.notes = append(r.notes, "the target cannot say what is in a tube: repeats inside a tube were not looked for")
	}
	return report, r.notes, nil
}

// plan lists the questions.
func (r *readback) plan(sample int) {
	persons := r.audit.Persons()
	r.step = 1
	if sample > 0 && persons > sample {
		r.step = (persons + sample - 1) / sample
	}
	ask := func(n uint32, tube bool) {
		for c := range r.names {
			r.todo = append(r.todo, question{n: n, carrier: uint8(c), tube: tube})
		}
	}
	for q := 0; q < persons; q += r.step {
		ask(uint32(q), false)
	}
	for i, t := range r.audit.Tubes() {
		if i%r.step == 0 {
			r.tubes++
			ask(t, true)
		}
	}
}

// fill keeps the questions flowing; the driver calls it when nothing is open.
func (r *readback) fill() bool {
	if r.d.Halted() {
		return false // else everybody would be asked about once more
	}
	started := false
	for r.d.Open() < r.width && r.next() {
		started = true
	}
	if started || r.waiting {
		return true
	}
	return r.pass()
}

// pass decides what follows when every question has been asked: nothing, or
// another look at what was missing.
func (r *readback) pass() bool {
	now := r.d.Now()
	if len(r.missed) < r.fewest {
		r.fewest, r.since = len(r.missed), now
	}
	if len(r.missed) == 0 || r.noTubes && r.onlyTubes() {
		return false
	}
	if now-r.since > r.settle {
		r.accept()
		return false
	}
	r.waiting = true
	r.d.After(200*time.Millisecond, func() {
		r.waiting = false
		r.todo, r.missed, r.asked = r.missed, nil, 0
		r.fill()
	})
	return true
}

func (r *readback) onlyTubes() bool {
	for _, q := range r.missed {
		if !q.tube {
			return false
		}
	}
	return true
}

// accept takes what is missing now for lost.
func (r *readback) accept() {
	for _, q := range r.missed { // people first: a tube that is short is short of them
		if !q.tube {
			r.audit.Seen(int(q.n), r.names[q.carrier], q.seen)
		}
	}
	for _, q := range r.missed {
		if q.tube && !r.noTubes {
			r.audit.SeenTube(q.n, r.names[q.carrier], q.swabs)
		}
	}
	r.missed = nil
}

// next asks the next question.
func (r *readback) next() bool {
	for r.asked < len(r.todo) && !r.d.Halted() {
		q := r.todo[r.asked]
		r.asked++
		if q.tube && r.noTubes {
			continue
		}
		op := r.d.Op(drive.Display, int(q.carrier))
		if q.tube {
			op.Kind, op.TubeNo = drive.Tube, r.audit.Number(q.n)
		} else {
			op.Person = r.audit.Person(int(q.n))
		}
		r.d.Ask(op, func(op *drive.Op) { r.answered(q, op) })
		return true
	}
	return false
}

func (r *readback) answered(q question, op *drive.Op) {
	if q.tube && op.Outcome == drive.Rejected && op.Code != "not_found" && op.Code != "unknown_tube" {
		r.noTubes = true
	}
	q.seen = ledger.Seen{Found: op.View.Found, Sampled: op.View.Sampled, Status: op.View.Status}
	q.swabs = op.View.Swabs
	pleased := false
	if q.tube {
		pleased = r.audit.TubePleases(q.n, q.swabs)
	} else {
		pleased = r.audit.Pleases(int(q.n), q.seen) || r.audit.Overtaken(int(q.n), q.seen)
	}
	if !pleased {
		r.missed = append(r.missed, q)
	}
	r.progress(r.d.Now())
	r.next()
}

// sayEvery is between two words of a reading that lasts.
const sayEvery = 10 * time.Second

// progress says now and then how far the reading is: everybody's takes minutes.
func (r *readback) progress(now time.Duration) {
	if r.say != nil && now-r.told >= sayEvery {
		r.told = now
		r.say(fmt.Sprintf("asked %d of %d questions, %d of them to be asked again", r.asked, len(r.todo), len(r.missed)))
	}
}
