package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"qianma/chaos/world"
	"qianma/cluster/mishap"
)

// Faults inside a process: orders that it obeys because it was started for
// drills (package mishap). Each is a file beside the process, so that it can be
// taken back while the process is down; whether it is in force is asked of the
// process.

func init() {
	enter(Fault{Name: "panic", Says: "a process dies at a named point of its code (point); with for it dies there each time it comes back", plan: panicAt})
	inside("disk-full", "every write of a process finds no space left", true, func(o *mishap.Order, _ Spec) { o.Kind = mishap.DiskFull })
	inside("disk-slow", "every write and sync of a process is late (delay)", false, func(o *mishap.Order, s Spec) { o.Kind, o.Delay = mishap.DiskSlow, mishap.Span(s.Delay) })
	inside("fsync-error", "every sync of a process fails", true, func(o *mishap.Order, _ Spec) { o.Kind = mishap.SyncError })
	inside("fsync-lie", "every sync of a process says that it was done, and nothing is (a lie of the disk that no program survives: for canaries)", false,
		func(o *mishap.Order, _ Spec) { o.Kind = mishap.SyncLie })
	inside("clock-jump", "the wall clock of a process is wrong (jump: 2h, or -2h)", false, func(o *mishap.Order, s Spec) { o.Kind, o.Jump = mishap.ClockJump, mishap.Span(s.Jump) })
	inside("clock-drift", "the wall clock of a process gains time, or loses it (rate: seconds each second)", false, func(o *mishap.Order, s Spec) { o.Kind, o.Rate = mishap.ClockDrift, s.Rate })
	inside("omit", "a process leaves out every so-manieth piece of a kind of work in silence (job, nth: a fault of the build that no operator could undo: for canaries)", false,
		func(o *mishap.Order, s Spec) { o.Kind, o.Job, o.Nth = mishap.Omit, mishap.Job(s.Job), s.Nth })
	enter(Fault{Name: "power-cut", Says: "processes die at the same moment, and what they never synced is gone; with for they stay down until so long after the step, eight seconds of which pass before the power goes", plan: powerCut})
	told("clock-jump", clockOff)
	told("clock-drift", clockOff)
	acts["order"] = order
	acts["withdraw"] = func(ctx context.Context, w *world.World, a Action) error { return w.Withdraw(ctx, a.On, a.Path) }
	acts["befall"] = befall
	acts["cut-power"] = cutPower
	acts["free"] = func(ctx context.Context, w *world.World, a Action) error { return w.Free(ctx, a.On, a.Path) }
	patient["befall"] = true
}

// Shift is a duration that may be negative, written -2h in files.
type Shift time.Duration

// UnmarshalYAML reads -2h.
func (d *Shift) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	*d = Shift(v)
	return err
}

// MarshalJSON writes -2h.
func (d Shift) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads -2h.
func (d *Shift) UnmarshalJSON(raw []byte) error { return (*Duration)(d).UnmarshalJSON(raw) }

// inside enters a fault that is one order to each target, for a time. ends says
// that it ends the process.
func inside(name, says string, ends bool, change func(*mishap.Order, Spec)) {
	enter(Fault{Name: name, Says: says, plan: func(p *Plan, s Spec, t Targets) error {
		if s.For == 0 {
			return fmt.Errorf("%s needs for: how long it lasts", name)
		}
		o := mishap.Order{ID: p.ID}
		change(&o, s)
		if err := p.orders(t, o); err != nil {
			return err
		}
		if !ends {
			p.Down = nil
		}
		return nil
	}})
}

// clockOff is how far a process finds its machine's clock from its peers' (cluster/node).
const clockOff = "qianma_clock_off_seconds"

// told says by which gauge the targets of a fault tell of it.
func told(name, gauge string) {
	f := Catalogue[name]
	f.tells = gauge
	enter(f)
}

// orders gives the order to every target, and takes it back.
func (p *Plan) orders(t Targets, o mishap.Order) error {
	if err := t.needProcesses(); err != nil {
		return err
	}
	try := o
	try.At, try.Until = time.Unix(0, 0), time.Unix(1, 0)
	if err := try.Validate(); err != nil {
		return err
	}
	for _, x := range t.Processes {
		if !world.Harmable(x) {
			return fmt.Errorf("%s has no inside that a drill can reach", x.Name)
		}
		p.inject(Action{Do: "order", On: x.Name, Order: &o, For: p.lease()})
	}
	p.free(t)
	return nil
}

// free takes the plan's order back from every target and has each process say so.
func (p *Plan) free(t Targets) {
	for _, x := range t.Processes {
		if world.Harmable(x) {
			p.undo(Action{Do: "withdraw", On: x.Name, Path: p.ID})
		}
	}
	p.down(t)
	for _, x := range t.Processes { // asked when it is ready: one that is coming back does not answer yet
		if world.Harmable(x) {
			p.verify(Action{Do: "free", On: x.Name, Path: p.ID})
		}
	}
}

func panicAt(p *Plan, s Spec, t Targets) error {
	o := mishap.Order{ID: p.ID, Kind: mishap.Panic, Point: mishap.Point(s.Point), Once: s.For == 0}
	if _, ok := mishap.Points[o.Point]; !ok {
		return fmt.Errorf("there is no point %q; there are %v", s.Point, mishap.PointNames())
	}
	err := p.orders(t, o)
	for _, name := range t.Names() {
		if o.Once {
			p.inject(Action{Do: "befall", On: name, Path: p.ID, For: comeback})
		}
	}
	return err
}

func powerCut(p *Plan, s Spec, t Targets) error {
	if s.For > 0 {
		for _, name := range t.Names() {
			p.inject(Action{Do: "hold", On: name, For: p.lease()})
		}
	}
	p.inject(Action{Do: "cut-power", All: t.Names(), Path: p.ID})
	p.free(t)
	return t.needProcesses()
}

// order puts a process under an order for so long.
func order(ctx context.Context, w *world.World, a Action) error {
	o := *a.Order
	o.At = time.Now()
	o.Until = o.At.Add(min(a.For.D(), mishap.LongestOrder))
	return w.Order(ctx, a.On, o)
}

// befall waits until an order has been taken by the process that it ends.
func befall(ctx context.Context, w *world.World, a Action) error {
	ctx, cancel := context.WithTimeout(ctx, a.For.D())
	defer cancel()
	for w.Waits(a.On, a.Path) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing has befallen %s", a.On)
		case <-time.After(lookEvery):
		}
	}
	return nil
}

// Bounds of a power cut: from its step until all die at the same moment, by when
// all have heard of it, and from then until they are dead.
const (
	CutAfter = 8 * time.Second
	cutMax   = 10 * time.Second
)

// cutPower has all targets lose their power at the same moment. Those that have
// no inside (NATS and etcd) are killed then, and keep what the kernel has.
func cutPower(ctx context.Context, w *world.World, a Action) error {
	at := time.Now().Add(CutAfter)
	o := mishap.Order{ID: a.Path, Kind: mishap.PowerCut, At: at, Until: at.Add(cutMax)}
	var inside, outside []string
	for _, name := range a.All {
		if p, ok := w.Topology.Find(name); ok && world.Harmable(p) {
			inside = append(inside, name)
		} else {
			outside = append(outside, name)
		}
	}
	if err := each(inside, func(name string) error { return insist(ctx, w, name, o) }); err != nil {
		return err
	}
	<-time.After(time.Until(at))
	err := each(outside, func(name string) error { return w.Do(ctx, name, "kill") })
	return errors.Join(err, each(inside, func(name string) error {
		return befall(ctx, w, Action{On: name, Path: a.Path, For: Duration(cutMax)})
	}))
}

// insist gives an order to a process that may be slow to answer, while there is
// time. What is left unknown when the moment has come is for its end to show.
func insist(ctx context.Context, w *world.World, name string, o mishap.Order) error {
	for {
		err := w.Order(ctx, name, o)
		if err == nil || errors.Is(err, world.ErrNoDrills) || time.Until(o.At) < time.Second {
			return err
		}
		<-time.After(lookEvery)
	}
}

// each does one thing to all of them at the same time.
func each(names []string, do func(string) error) error {
	faults := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { faults[i] = do(name) })
	}
	wg.Wait()
	return errors.Join(faults...)
}

// obeyed refuses a plan whose targets were not started for drills.
func (p *Plan) obeyed(ctx context.Context, w *world.World) error {
	var names []string
	for _, a := range p.Inject {
		switch a.Do {
		case "order":
			names = append(names, a.On)
		case "cut-power":
			names = append(names, a.All...)
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		x, ok := w.Topology.Find(name)
		return !ok || !world.Harmable(x)
	})
	return each(names, func(name string) error { return w.Obeys(ctx, name) })
}
