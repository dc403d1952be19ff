package loadtest

import (
	"context"
	"slices"
	"time"

	"qianma/loadtest/cost"
	"qianma/loadtest/report"
)

// books compare the facts that all origins have committed with those that were
// acknowledged to this run. They are worth something only while nobody else
// writes, so they are opened at rest or not at all.
type books struct {
	watch  *observer
	before int64
	why    string // they say nothing; empty: they do
}

// stillness is how long no fact may be committed before the run for its books
// to be opened: longer than facts collect for, anywhere on their way.
const stillness = 500 * time.Millisecond

// openBooks counts the facts before the run; nil where there are none to count,
// or none of this run alone.
func (r *run) openBooks(ctx context.Context) *books {
	if r.o.System.Endpoints == nil || r.profile.Ledger == nil || r.o.Shared || r.o.Unmetered {
		return nil
	}
	return openBooks(ctx, r.watch)
}

func openBooks(ctx context.Context, watch *observer) *books {
	b := &books{watch: watch}
	early, why := watch.committed(ctx)
	sleep(ctx, stillness)
	if b.before, b.why = watch.committed(ctx); b.why == "" {
		b.why = why
	}
	if b.why == "" && b.before != early {
		b.why = "facts were being committed before the run began, by others or by an earlier run"
	}
	return b
}

// close counts again, when all has ended.
func (b *books) close(ctx context.Context, r *run) *report.Facts {
	if r.o.System.Endpoints == nil || r.profile.Ledger == nil {
		return nil
	}
	f := &report.Facts{}
	for _, t := range r.profile.Main.Kinds {
		f.Acknowledged += t.Rows
		f.Excused += t.Excused
	}
	switch {
	case r.o.Shared:
		f.Unmeasured = "others write to the province too"
	case b == nil:
		f.Unmeasured = report.OfOnePart
	default:
		b.read(ctx, f)
	}
	if f.Unmeasured == "" && r.o.Parts > 1 {
		f.Unmeasured = report.OfOnePart
	}
	return f
}

func (b *books) read(ctx context.Context, f *report.Facts) {
	after, why := b.watch.committed(ctx)
	f.Committed = after - b.before
	if f.Unmeasured = b.why; f.Unmeasured == "" {
		f.Unmeasured = why
	}
}

// The wait for what is still owed is bounded: a system that never gets level
// shows in the report, not in a run that does not end.
const (
	settleMost = 10 * time.Second
	settleLook = 200 * time.Millisecond
)

// bill is what a run cost, and what it left behind.
type bill struct {
	roles, settled []cost.Usage
	busy, settledS float64 // settledS -1: not seen
	unmeasured     bool    // the system's own part
	facts          *report.Facts
	notes          []string
}

// drawUp meters the processes when all has ended. A system that can no longer be
// asked for its processes has only the generator's cost on its bill, as one that
// never could.
func drawUp(meter *cost.Meter) *bill {
	b := &bill{settledS: -1}
	err := meter.Sample()
	b.roles, b.busy = meter.Usage(), meter.Machine().Seconds()
	if err != nil {
		b.roles = slices.DeleteFunc(b.roles, func(u cost.Usage) bool { return u.Role != cost.Generator })
		b.unmeasured = true
		b.notes = append(b.notes, "the system's own cost was not measured: its processes could not be metered when all had ended: "+err.Error())
	}
	return b
}

// settle meters again when nothing is owed any more.
func (b *bill) settle(ctx context.Context, watch *observer, meter *cost.Meter) {
	if b.unmeasured {
		return // there is nobody to wait for
	}
	took, err := settle(ctx, watch, meter)
	if err != nil {
		b.notes = append(b.notes, "what was still owed when the last answer came was not measured: "+err.Error())
		return
	}
	b.settledS, b.settled = took, meter.Usage()
}

// join adds the system's bill to what the generators found, who metered
// themselves.
func (b *bill) join(res *report.Result) {
	generators := res.Roles
	res.Roles = append(slices.Clone(generators), b.roles...)
	res.Settled, res.SettledS, res.BusyCPU = nil, b.settledS, b.busy
	if b.settled != nil {
		res.Settled = append(slices.Clone(generators), b.settled...)
	}
	res.Notes = append(res.Notes, b.notes...)
}

// settle waits until every replica and every middle store holds every fact,
// meters once more, and says how many seconds that took; -1: longer than it waits.
func settle(ctx context.Context, watch *observer, meter *cost.Meter) (float64, error) {
	start, took := time.Now(), -1.
	for took < 0 && time.Since(start) < settleMost {
		if watch.level(ctx) {
			took = time.Since(start).Seconds()
		} else if !sleep(ctx, settleLook) {
			break
		}
	}
	return took, meter.Sample()
}
