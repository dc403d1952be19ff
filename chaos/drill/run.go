package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"qianma/chaos/agent"
	"qianma/chaos/check"
	"qianma/chaos/fault"
	"qianma/chaos/model"
	"qianma/chaos/report"
	"qianma/chaos/traffic"
	"qianma/chaos/world"
	"qianma/loadtest/ledger"
)

// Options are a run of a drill.
type Options struct {
	Data  string
	Seed  uint64
	Out   string   // directory of the report; empty: a new one under the province's
	Agent []string // command that becomes an agent
	Say   func(format string, args ...any)
}

// Bounds of what surrounds a drill.
const (
	steadyMax   = 3 * time.Minute // for the province to be well before
	settleLost  = time.Minute     // for what is missing to turn up
	electionMax = time.Minute     // for a step's target to have a leader
)

// Run runs a drill and reports. The error, when there is no report, is why it
// could not even be refused; a drill that was refused has a report that says so.
func (d *Drill) Run(ctx context.Context, o Options) (*report.Report, error) {
	w, err := world.Open(o.Data)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	home := agent.At(w.Data)
	if err := home.Make(); err != nil {
		return nil, err
	}
	d = d.Drawn(o.Seed, w.Topology.Carriers)
	r := &run{
		Drill: d, o: o, w: w, home: home, id: fmt.Sprintf("%s%d", agent.Marked, time.Now().UnixMilli()),
		rep: &report.Report{Name: d.Name, Says: d.Says, Row: d.Row, Seed: o.Seed, Start: time.Now(), Objectives: d.Objectives,
			MustFail: d.MustFail, UndoVerified: true, ConvergedMS: -1,
			Again: fmt.Sprintf("qianma drill run %s --seed %d --data %s", d.Name, o.Seed, w.Data)},
	}
	if r.o.Out == "" {
		r.o.Out = filepath.Join(home.Reports(), fmt.Sprintf("%s-%s", time.Now().UTC().Format("20060102-150405"), d.Name))
	}
	if o.Say == nil {
		r.o.Say = func(string, ...any) {}
	}
	if err := r.prepare(ctx); err != nil {
		r.rep.Verdict, r.rep.Why = report.Refused, []string{err.Error()}
		return r.rep, r.rep.Save(r.o.Out)
	}
	defer r.lock.Close()
	if err := r.rehearse(ctx); err != nil {
		r.rep.Why = append(r.rep.Why, err.Error())
	}
	r.rep.Judge()
	return r.rep, errors.Join(r.rep.Save(r.o.Out), r.keep())
}

// run is one run of a drill.
type run struct {
	*Drill
	o    Options
	w    *world.World
	home agent.Home
	id   string
	lock *lock
	rep  *report.Report

	h      *model.History
	watch  *traffic.Watch
	before map[string]traffic.Usage
	begun  time.Duration // when traffic began, on the history's clock

	mu    sync.Mutex // protects the fields below
	force []fault.Plan
	extra []traffic.Try // of surges
}

// prepare makes sure that the drill may run. It touches nothing but what an
// earlier drill has left behind.
func (r *run) prepare(ctx context.Context) error {
	if err := agent.Pulled(r.home); err != nil {
		return err
	}
	var err error
	if r.lock, err = takeLock(ctx, r.w); err != nil {
		return err
	}
	r.rep.Notes = append(r.rep.Notes, r.lock.Notes...)
	_ = os.Remove(r.home.Abort())
	err = r.may(ctx)
	if err != nil {
		return errors.Join(err, r.lock.Close())
	}
	return nil
}

func (r *run) may(ctx context.Context) error {
	undone, err := agent.Recover(ctx, r.w)
	if err != nil {
		return fmt.Errorf("what an earlier drill left behind cannot be undone: %w", err)
	}
	if len(undone) > 0 {
		r.o.Say("undone first, because its drill and its agent died: %v", undone)
	}
	if err := fault.Meets(r.w, r.Needs); err != nil {
		return err
	}
	r.o.Say("waiting for the steady state")
	if ill := settle(ctx, steadyMax, func(ctx context.Context) []string { return well(ctx, r.w) }); len(ill) > 0 {
		return fmt.Errorf("the steady state does not hold: %v", ill[:min(len(ill), 6)])
	}
	_, err = r.Plan(ctx, r.w, r.o.Seed)
	return err
}

// rehearse is the drill itself.
func (r *run) rehearse(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.before = traffic.Usages(ctx, r.w)
	r.h = model.NewHistory()
	r.watch = traffic.Look(r.w, r.h)
	defer r.watch.Close()
	probes := traffic.Begin(r.w.Topology, r.h, r.o.Seed)
	defer probes.Close()
	go r.heed(ctx, cancel) // ends with ctx
	load, calm := make(chan loaded, 1), make(chan time.Duration, 1)
	r.begun = r.h.Now()
	go func() {
		l, err := traffic.Run(ctx, traffic.Options{Data: r.w.Data, Shape: r.Traffic, Duration: r.Duration(), Seed: r.o.Seed,
			Out: filepath.Join(r.o.Out, "load"), History: r.h, Settle: settleLost,
			Rest: func(ctx context.Context) { r.converge(ctx, calm) }})
		load <- loaded{l, err}
	}()
	r.o.Say("traffic flows: %g tests and %g displays a second", r.Traffic.Tests, r.Traffic.Displays)
	failed := r.steps(ctx)
	if failed == nil {
		wait(ctx, r.begun+r.Duration()-r.h.Now())
	}
	until := r.h.Now()
	probes.Close()
	if failed != nil {
		cancel()
	}
	since := max(r.last(), until)
	calm <- since
	got := <-load
	r.rep.Changes = r.watch.Close()
	if err := errors.Join(failed, got.err); err != nil || ctx.Err() != nil {
		r.rep.Verdict = report.Aborted
		return errors.Join(err, ctx.Err())
	}
	r.quiet(ctx, since)
	if err := probes.Final(ctx); err != nil {
		r.rep.Why = append(r.rep.Why, err.Error())
	}
	r.judge(ctx, got.load, until)
	return nil
}

type loaded struct {
	load *traffic.Load
	err  error
}

// heed ends the drill when somebody says so, by the lever or by an abort.
func (r *run) heed(ctx context.Context, cancel func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookAgain):
		}
		if _, err := os.Stat(r.home.Abort()); err == nil || r.home.Engaged() {
			r.o.Say("somebody ends the drill")
			cancel()
			return
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(max(0, d)):
	}
}

// steps brings every fault at its time and returns when all are gone. The
// first that fails ends the others.
func (r *run) steps(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	faults := make([]error, len(r.Steps))
	r.rep.Faults = make([]report.Fault, len(r.Steps))
	var wg sync.WaitGroup
	over := make([]chan struct{}, len(r.Steps))
	for i, s := range r.Steps {
		over[i] = make(chan struct{})
		wg.Go(func() {
			defer close(over[i])
			wait(ctx, r.begun+(r.Steady+s.At).D()-r.h.Now())
			if s.Then && i > 0 {
				<-over[i-1] // which sees ctx end as well
			}
			if ctx.Err() != nil {
				return
			}
			if faults[i] = r.step(ctx, i, s); faults[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}

// step is one fault from its beginning to the proof that it is gone.
func (r *run) step(ctx context.Context, i int, s Step) error {
	p, err := r.find(ctx, i, s)
	if err != nil {
		return err
	}
	f := &r.rep.Faults[i]
	*f = report.Fault{ID: p.ID, Spec: s.Spec, Targets: p.Targets, Inject: p.Inject, Undo: p.Undo, From: r.now()}
	if err := r.enter(p); err != nil {
		f.Error = err.Error()
		return err
	}
	defer r.leave(p)
	r.o.Say("%s %v %s", s.Fault, p.Targets, s.Target)
	if p.Traffic {
		err = r.surge(ctx, s)
	} else {
		err = r.bring(ctx, p, f, s)
	}
	if err != nil {
		f.Error = err.Error()
	}
	f.To = r.now()
	return err
}

// find finds out what a step is about to hit. After the loss before it a group
// may still be electing, and an election is no reason to give a drill up.
func (r *run) find(ctx context.Context, i int, s Step) (p fault.Plan, err error) {
	for until := r.h.Now() + electionMax; ; wait(ctx, lookAgain) {
		p, err = fault.Prepare(ctx, r.w, fmt.Sprintf("%s-%d", r.id, i+1), s.Spec, stepSeed(r.o.Seed, i))
		if !errors.Is(err, fault.ErrNoLeader) || r.h.Now() > until || ctx.Err() != nil {
			return p, err
		}
	}
}

func (r *run) now() float64 { return millis(r.h.Now() - r.begun) }

// enter holds the fault, with those in force, to the limits.
func (r *run) enter(p fault.Plan) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.admit(r.w, p, r.force); err != nil {
		return err
	}
	r.force = append(r.force, p)
	return nil
}

func (r *run) leave(p fault.Plan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.force = slices.DeleteFunc(r.force, func(o fault.Plan) bool { return o.ID == p.ID })
}

// bring has an agent bring the fault, lets it last, and has it taken away.
func (r *run) bring(ctx context.Context, p fault.Plan, f *report.Fault, s Step) error {
	h, err := agent.Raise(ctx, r.o.Agent, p)
	if h == nil {
		return err
	}
	if err == nil {
		r.attend(p)
		f.From = r.now()
		err = r.stay(ctx, h, s)
		f.Injected = r.since(h.Injected)
		if err == nil {
			r.mu.Lock()
			r.rep.Injected++
			r.mu.Unlock()
		}
	}
	if undo := h.Undo(ctx); undo != nil {
		r.mu.Lock()
		r.rep.UndoVerified = false
		r.mu.Unlock()
		return errors.Join(err, undo)
	}
	r.o.Say("%s is gone", s.Fault)
	return err
}

// attend has the watch look for the sign that the targets themselves give.
func (r *run) attend(p fault.Plan) {
	if p.Tells == "" {
		return
	}
	for _, name := range p.Targets {
		r.watch.Gauge(name, p.Tells)
	}
}

// stay keeps a fault for its time and hears whether it was brought at all. One
// that takes longer to bring than it lasts is cut short.
func (r *run) stay(ctx context.Context, h *agent.Hand, s Step) error {
	if s.For == 0 {
		return h.Done(ctx)
	}
	bounded, cancel := context.WithTimeout(ctx, s.For.D())
	defer cancel()
	err := h.Done(bounded)
	wait(bounded, s.For.D())
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return nil
	}
	return err
}

// since is an instant after the beginning of traffic; 0 for one that never was.
func (r *run) since(at time.Time) float64 {
	if at.IsZero() {
		return 0
	}
	return millis(at.Sub(r.h.Start) - r.begun)
}

// surge sends more for a while.
func (r *run) surge(ctx context.Context, s Step) error {
	shape := r.Traffic
	shape.Tests, shape.Displays = shape.Tests*(s.Times-1), shape.Displays*(s.Times-1)
	l, err := traffic.Run(ctx, traffic.Options{Data: r.w.Data, Shape: shape, Duration: s.For.D(), Seed: r.o.Seed + 1, History: r.h, Surge: true})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rep.Injected++
	r.extra = append(r.extra, l.Tries...)
	return nil
}

// first and last are when faults began and were gone, on the history's clock.
func (r *run) first() time.Duration {
	at := r.h.Now()
	for _, f := range r.rep.Faults {
		at = min(at, r.begun+time.Duration(f.From)*time.Millisecond)
	}
	return at
}

func (r *run) last() (at time.Duration) {
	for _, f := range r.rep.Faults {
		at = max(at, r.begun+time.Duration(f.To)*time.Millisecond)
	}
	return at
}

// converge waits, when the load has sent all it had, until all of both carriers
// hold the same, and notes how long after the faults and the traffic that was.
// The load reads everybody back only then, as fast as the machine can: beside
// catching up that would measure itself.
func (r *run) converge(ctx context.Context, calm <-chan time.Duration) {
	var since time.Duration
	select {
	case since = <-calm:
	case <-ctx.Done():
		return
	}
	r.o.Say("calm: waiting until all are equal, before everybody is read back")
	if len(settle(ctx, r.Quiet.D(), r.w.Unequal)) == 0 {
		r.rep.ConvergedMS = millis(r.h.Now() - since)
	}
}

// quiet waits until all of both carriers hold the same, now that nothing is
// written or read any more.
func (r *run) quiet(ctx context.Context, since time.Duration) {
	r.o.Say("quiet: waiting until all are equal")
	differ := settle(ctx, r.Quiet.D(), r.w.Unequal)
	f := check.Finding{Name: check.Equal, Looked: 1, Broken: len(differ), First: differ[:min(len(differ), 10)]}
	if len(differ) == 0 && r.rep.ConvergedMS < 0 {
		r.rep.ConvergedMS = millis(r.h.Now() - since)
	}
	r.rep.Findings = append(r.rep.Findings, f)
}

// judge runs every check that the drill asks for.
func (r *run) judge(ctx context.Context, l *traffic.Load, until time.Duration) {
	if plant := plants[r.Plant]; plant != nil {
		plant(r.h)
	}
	success(r.rep, l)
	measure(r.rep, append(l.Tries, r.extra...), r.rep.Changes, r.first(), until)
	found := append(check.History(r.h, r.Owes), r.resources(ctx))
	for i := range found {
		if found[i].Name == check.Lost {
			book(&found[i], l.Result.Ledger)
			r.rep.Lost = max(r.rep.Lost, int64(found[i].Broken))
		}
		if found[i].Name == check.StaleGreen {
			r.rep.StaleGreen = found[i].Broken
		}
	}
	for _, f := range append(found, r.rep.Findings...) {
		if f.Name == check.Equal {
			continue
		}
		if slices.Contains(r.invariants(), f.Name) {
			r.rep.Findings = append(r.rep.Findings, f)
		}
	}
	r.rep.Operations = len(r.h.Ops)
	if len(r.Steps) > 0 && r.rep.Injected == 0 {
		r.rep.Why = append(r.rep.Why, "nothing was injected: the drill proves nothing")
	}
}

// book adds what the ledger of the load found.
func book(f *check.Finding, l *ledger.Report) {
	if l == nil {
		f.Unsure = "the load's ledger was not read back; the notes in load/result.json say why"
		return
	}
	f.Looked += int(l.Checked)
	f.Broken += int(l.Lost + l.Wrong + l.Repeated)
	for _, x := range l.First {
		f.First = append(f.First, refText(x))
	}
}

func refText(x ledger.Ref) string {
	return fmt.Sprintf("%s: test %d, tube %d, at %s %s", x.What, x.Test, x.Tube, x.Carrier, x.Seen)
}

// keep leaves the whole history beside the report.
func (r *run) keep() error {
	if r.h == nil {
		return nil
	}
	return r.h.Save(filepath.Join(r.o.Out, "history.ndjson"))
}
