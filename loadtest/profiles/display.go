package profiles

import (
	"time"

	"qianma/loadtest/drive"
	"qianma/loadtest/ledger"
	"qianma/loadtest/population"
	"qianma/loadtest/schedule"
)

// displays is phones that refresh.
func (p *Profile) displays(plan schedule.Plan) *drive.Stream {
	return p.asking("displays", plan, p.draw().Next)
}

// asking is phones that refresh, whose person says who.
func (p *Profile) asking(name string, plan schedule.Plan, person func() uint32) *drive.Stream {
	return p.stream(name, "displays", plan, 1, func(s *drive.Stream, at time.Duration) {
		p.d.Go(s, p.phone(person()), at, func(op *drive.Op) { s.Units.Count(op) })
	})
}

// verify is gates that scan: tokens come from phones that refresh beside it,
// so that none is older than it may be.
func (p *Profile) verify(plan schedule.Plan) *drive.Stream {
	v := &gate{p: p, draw: p.draw()}
	v.fill()
	return p.stream("verifications", "verifications", plan, 1, v.arrive)
}

// tokens is how many phones stand in line at the gates, renewal how often each
// shows a new token: well within the 60 s that one counts for.
const (
	tokens  = 500
	renewal = 20 * time.Second
)

type gate struct {
	p     *Profile
	draw  *population.Draw
	line  [][]byte
	next  int
	early []func() // verifications that are due before the first token is there
}

// fill renews one token after the other for as long as there are arrivals.
func (v *gate) fill() {
	v.p.d.After(0, func() { v.renew(tokens / 10) })
}

func (v *gate) renew(n int) {
	for range n {
		op := v.p.phone(v.draw.Next())
		op.WantToken = true
		v.p.d.Ask(op, v.take)
	}
	if v.p.d.Arriving() {
		v.p.d.After(renewal/tokens*10, func() { v.renew(10) })
	}
}

func (v *gate) take(op *drive.Op) {
	if op.Outcome == drive.OK && len(op.Token) > 0 {
		token := append([]byte(nil), op.Token...)
		if len(v.line) < tokens {
			v.line = append(v.line, token)
		} else {
			v.line[v.next%tokens] = token
			v.next++
		}
	}
	waiting := v.early
	v.early = nil
	for _, fn := range waiting {
		fn()
	}
}

func (v *gate) arrive(s *drive.Stream, at time.Duration) {
	if len(v.line) == 0 && v.p.d.Arriving() {
		v.early = append(v.early, func() { v.check(s, at) })
		return
	}
	v.check(s, at)
}

func (v *gate) check(s *drive.Stream, at time.Duration) {
	if len(v.line) == 0 {
		s.Units.Dropped++ // no phone had a token to show
		return
	}
	op := v.p.d.Op(drive.Verify, v.p.carrier())
	op.Token = append(op.Token, v.line[v.p.rand.IntN(len(v.line))]...)
	v.p.d.Go(s, op, at, func(op *drive.Op) { s.Units.Count(op) })
}

// watcher times how long tests take to show at the other carrier. Which tests
// those are is settled at their intended arrivals, before anything is known of
// how they fare: a sample of what has been acknowledged would leave out what the
// system kept waiting.
type watcher struct {
	p        *Profile
	carriers int
	every    float64 // watches a second; below 0: none
	next     time.Duration
	open     int
}

const (
	watchesOpen = 2000                  // at once
	watchDebt   = time.Second           // how far the sample may be behind what arrives
	lookAgain   = 10 * time.Millisecond // least time between two looks
	lookShare   = 5                     // and a fifth of what has passed: what the figure may be too large by
)

// picks says whether the test that arrives now is one to be watched.
func (w *watcher) picks(at time.Duration) bool {
	if w.every < 0 || at < max(w.next, w.p.Settings.Warm) {
		return false
	}
	w.next = max(w.next+time.Duration(float64(time.Second)/w.every), at-watchDebt)
	w.p.Watched++
	return true
}

// begin looks for a tube's watched tests at the other carrier, when its result
// has been acknowledged. The clock has run since that result was due.
func (w *watcher) begin(t *tube, carrier int) {
	for _, test := range t.watched {
		if w.p.Ledger.At(test).State != ledger.Acked || w.open >= watchesOpen {
			w.unseen(0) // at the bound too: more are waited for than may be, because none shows
			continue
		}
		w.open++
		w.look(test, (carrier+1)%w.carriers, t.due)
	}
	t.watched = nil
}

// never counts the watched tests of a tube that has no result.
func (w *watcher) never(t *tube) {
	for range t.watched {
		w.unseen(0)
	}
	t.watched = nil
}

// unseen takes down a test that was given up after so long. However early that
// was, it is among the slowest: else the percentiles would be of those that fared
// well. Only what an interruption of the run kept from being shown is on neither side.
func (w *watcher) unseen(waited time.Duration) {
	if w.p.d.Interrupted() && waited < w.p.Settings.Unseen {
		return
	}
	w.p.Unseen++
	w.p.Visible.Record(max(waited, w.p.Settings.Unseen))
}

func (w *watcher) look(test uint32, carrier int, since time.Duration) {
	op := w.p.d.Op(drive.Display, carrier)
	op.Person = w.p.Ledger.At(test).Person
	w.p.d.Ask(op, func(op *drive.Op) {
		e := w.p.Ledger.At(test)
		at := w.p.Ledger.Head.SampledAt(e)
		// A newer test of the same person hides this one, so it must have come.
		shown := op.Outcome == drive.OK && op.View.Found && op.View.Sampled >= at-at%1000 && op.View.Status != "pending"
		waited := op.Ended - since
		switch {
		case shown:
			w.p.Visible.Record(waited)
		case waited > w.p.Settings.Unseen, w.p.d.Halted():
			w.unseen(waited)
		default:
			w.p.d.After(max(lookAgain, waited/lookShare), func() { w.look(test, carrier, since) })
			return
		}
		w.open--
	})
}
