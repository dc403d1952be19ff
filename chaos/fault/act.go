package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"qianma/chaos/world"
)

// acts are what an action can do.
var acts = map[string]func(context.Context, *world.World, Action) error{
	"hold":             func(ctx context.Context, w *world.World, a Action) error { return w.Hold(ctx, a.On, a.For.D()) },
	"release":          func(ctx context.Context, w *world.World, a Action) error { return w.Release(ctx, a.On) },
	"kill":             verb("kill"),
	"pause":            verb("pause"),
	"restart":          verb("restart"),
	"resume":           resume,
	"start":            begin,
	"wipe":             wipe,
	"flip":             flip,
	"rule":             func(ctx context.Context, w *world.World, a Action) error { return w.SetRule(ctx, *a.Rule, a.For.D()) },
	"unrule":           func(ctx context.Context, w *world.World, a Action) error { return w.RemoveRule(ctx, a.Path) },
	"flap":             flapping,
	"member-add":       memberAdd,
	"member-remove":    memberRemove,
	"harm":             harm,
	"squeeze":          squeeze,
	"unsqueeze":        unsqueeze,
	"unharm":           func(ctx context.Context, w *world.World, a Action) error { return w.Wire().Remove(ctx, *a.Harm) },
	"rotate-authority": rotate,
	"publish":          publish,
	"expire":           expire,
	"renew":            renew,
	// What the system must show:
	"ready":     ready,
	"unheld":    unheld,
	"unruled":   unruled,
	"certified": certified,
	"harmed":    harmed,
	"votes":     votes,

	"squeezed":   squeezed,
	"unsqueezed": unsqueezed,
	"unharmed":   unharmed,
}

// patient are the actions that wait: they alone end with their context.
var patient = map[string]bool{"ready": true, "flap": true, "votes": true, "member-add": true}

// Act does one action. One that changes something is never given up half way,
// because it could still take hold after its undo: it ends within the bounds of
// package world.
func Act(ctx context.Context, w *world.World, a Action) error {
	act := acts[a.Do]
	if act == nil {
		return fmt.Errorf("nobody knows how to %s", a.Do)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !patient[a.Do] {
		ctx = context.WithoutCancel(ctx)
	}
	if err := act(ctx, w, a); err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	return nil
}

// ActAll does actions in order and stops at the first that fails.
func ActAll(ctx context.Context, w *world.World, list []Action) error {
	for _, a := range list {
		if err := Act(ctx, w, a); err != nil {
			return err
		}
	}
	return nil
}

// retryEvery is between two tries to take something away.
const retryEvery = 500 * time.Millisecond

// TakeAway undoes a plan and proves it against the system. It does every
// action even when one fails, and all of them again until the system shows that
// the fault is gone, or ctx ends. The error is what the last whole look found:
// one that ctx cut short says nothing of the system.
func TakeAway(ctx context.Context, w *world.World, p Plan) error {
	var found error
	for {
		var faults []error
		for _, a := range p.Undo {
			if err := Act(ctx, w, a); err != nil {
				faults = append(faults, err)
			}
		}
		err := Verify(ctx, w, p)
		if err == nil {
			return nil
		}
		if found == nil || ctx.Err() == nil {
			found = errors.Join(append(faults, err)...)
		}
		select {
		case <-ctx.Done():
			return found
		case <-time.After(retryEvery):
		}
		p.Undo = gentle(p.Undo)
	}
}

// gentle leaves out what must not be done twice: a node that is coming back is
// not knocked down again.
func gentle(list []Action) (out []Action) {
	for _, a := range list {
		if a.Do != "kill" && a.Do != "wipe" && a.Do != "hold" {
			out = append(out, a)
		}
	}
	return out
}

// Verify asks the system whether the fault is gone.
func Verify(ctx context.Context, w *world.World, p Plan) error {
	var faults []error
	for _, a := range p.Verify {
		if err := Act(ctx, w, a); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

func verb(v string) func(context.Context, *world.World, Action) error {
	return func(ctx context.Context, w *world.World, a Action) error { return w.Do(ctx, a.On, v) }
}

// resume thaws what is paused; what does not run is fine.
func resume(ctx context.Context, w *world.World, a Action) error {
	p, err := w.Process(ctx, a.On)
	if err != nil || p.State != "paused" {
		return err
	}
	return w.Do(ctx, a.On, "resume")
}

// begin starts what is down, whatever keeps it down.
func begin(ctx context.Context, w *world.World, a Action) error {
	p, err := w.Process(ctx, a.On)
	if err != nil || p.PID > 0 && p.State != "stopping" {
		return err
	}
	return w.Do(ctx, a.On, "start")
}

// lookEvery is between two looks at what is waited for.
const lookEvery = 100 * time.Millisecond

func ready(ctx context.Context, w *world.World, a Action) error {
	ctx, cancel := context.WithTimeout(ctx, a.For.D())
	defer cancel()
	var seen error // the last look may be cut off from telling
	for {
		p, err := w.Process(ctx, a.On)
		switch {
		case err == nil && p.State == world.Ready:
			return nil
		case err == nil:
			seen = fmt.Errorf("%s is %s: %s", a.On, p.State, p.Reason)
		case seen == nil:
			seen = err
		}
		select {
		case <-ctx.Done():
			return seen
		case <-time.After(lookEvery):
		}
	}
}

func unheld(ctx context.Context, w *world.World, a Action) error {
	r, err := w.Report(ctx)
	if err != nil {
		return err
	}
	for _, h := range r.Holds {
		if h.Name == a.On {
			return fmt.Errorf("a hold keeps %s down", a.On)
		}
	}
	return nil
}

func unruled(ctx context.Context, w *world.World, a Action) error {
	rules, err := w.Rules(ctx)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if r.ID == a.Path {
			return fmt.Errorf("the rule %s is still on the links", r.ID)
		}
	}
	return nil
}

// flapping puts the rule on and off until its time is over.
func flapping(ctx context.Context, w *world.World, a Action) error {
	over := time.After(a.For.D())
	for {
		if err := w.SetRule(context.WithoutCancel(ctx), *a.Rule, a.Every.D()/2); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
			return nil
		case <-time.After(a.Every.D()):
		}
	}
}

// wipe deletes what a process that is down has on disk, or a part of it.
func wipe(ctx context.Context, w *world.World, a Action) error {
	dir, err := grave(ctx, w, a)
	if err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(dir, a.Path))
}

// grave is the directory of a process that is down. It trusts nobody's word
// that it lies inside the province.
func grave(ctx context.Context, w *world.World, a Action) (string, error) {
	p, err := w.Process(ctx, a.On)
	if err != nil {
		return "", err
	}
	if p.State != "held" && p.State != "stopped" {
		return "", fmt.Errorf("%s is %s: its files are left alone while it may use them", a.On, p.State)
	}
	inside, err := filepath.Rel(w.Data, p.Dir)
	if err != nil || !filepath.IsLocal(inside) || filepath.Base(p.Dir) != a.On || !filepath.IsLocal(filepath.Join(inside, a.Path)) {
		return "", fmt.Errorf("%s is no directory of this province", p.Dir)
	}
	if strings.Contains(a.Path, "..") {
		return "", fmt.Errorf("%s leads out of the directory", a.Path)
	}
	return p.Dir, nil
}
