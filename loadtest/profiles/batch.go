package profiles

import (
	"time"

	"qianma/loadtest/drive"
	"qianma/loadtest/schedule"
)

// batch is sites that upload their lists and labs that upload theirs: a batch
// of registrations at each arrival, cut between tubes, and batches of the
// results of what was taken.
type batch struct {
	p     *Profile
	s     *drive.Stream
	held  [][]*tube // by carrier: tubes whose results wait for a fuller request
	timed []bool    // by carrier: a timer will send them
}

// linger is how long a result waits for company.
const linger = 100 * time.Millisecond

func (p *Profile) batch(plan schedule.Plan) *drive.Stream {
	n := len(p.shares)
	w := &batch{p: p, held: make([][]*tube, n), timed: make([]bool, n)}
	w.s = p.stream("tests", "tests", plan, p.Settings.Batch, w.arrive)
	p.flushes = append(p.flushes, w.flush)
	return w.s
}

func (w *batch) arrive(s *drive.Stream, at time.Duration) {
	p := w.p
	carrier := p.carrier()
	op := p.d.Op(drive.RegisterBatch, carrier)
	op.Key = p.key()
	var tubes []*tube
	for len(op.Samples) < p.Settings.Batch {
		t := p.newTube(carrier)
		tubes = append(tubes, t)
		for !t.closed && len(op.Samples) < p.Settings.Batch {
			if sample, ok := p.swab(t, at); ok {
				op.Samples = append(op.Samples, sample)
			}
		}
	}
	p.d.Go(s, op, at, func(op *drive.Op) { w.registered(tubes, carrier, op) })
}

func (w *batch) registered(tubes []*tube, carrier int, op *drive.Op) {
	faults := faultsOf(op)
	for i := range op.Samples {
		w.p.registered(w.s, op, op.Samples[i].Test, faults[i])
	}
	for _, t := range tubes {
		if !w.p.worthTesting(t) {
			w.p.watch.never(t)
			continue
		}
		t.held = w.p.d.Now()
		w.held[carrier] = append(w.held[carrier], t)
	}
	w.send(carrier, w.p.Settings.Batch)
	if len(w.held[carrier]) > 0 && !w.timed[carrier] {
		w.timed[carrier] = true
		w.p.d.After(linger, func() {
			w.timed[carrier] = false
			w.send(carrier, 1)
		})
	}
}

func faultsOf(op *drive.Op) map[int]string {
	if len(op.Row) == 0 {
		return nil
	}
	out := map[int]string{}
	for _, r := range op.Row {
		out[r.Row] = r.Code
	}
	return out
}

// send uploads the held results in full requests, and the rest when there are
// at least least.
func (w *batch) send(carrier, least int) bool {
	p, any := w.p, false
	for len(w.held[carrier]) >= max(1, least) {
		n := min(len(w.held[carrier]), p.Settings.Batch)
		tubes := append([]*tube(nil), w.held[carrier][:n]...)
		w.held[carrier] = append(w.held[carrier][:0], w.held[carrier][n:]...)
		now := p.d.Now()
		op := p.d.Op(drive.ReportBatch, carrier)
		op.Key = p.key()
		for _, t := range tubes {
			t.due += now - t.held // that wait was the lab's own choice
			op.Results = append(op.Results, drive.Result{Tube: t.number, Outcome: t.outcome, At: p.d.Wall(now)})
		}
		p.d.Go(w.s, op, now, func(op *drive.Op) {
			faults := faultsOf(op)
			for i, t := range tubes {
				p.reported(w.s, t, op, faults[i])
			}
		})
		any = true
	}
	return any
}

func (w *batch) flush() bool {
	any := false
	for c := range w.held {
		any = w.send(c, 1) || any
	}
	return any
}
