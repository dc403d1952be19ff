package world

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"qianma/cluster/mishap"
	"qianma/cluster/problem"
	"qianma/cluster/topology"
)

// ErrNoDrills is returned when a process cannot be broken from inside.
var ErrNoDrills = problem.New(problem.Unsupported, "this process was not started for drills", "rehearse on a province that was brought up without --no-drills")

// Harmable reports whether a process has an inside that drills can reach. A
// backbone is other people's code.
func Harmable(p topology.Process) bool { return p.Subsystem != "backbone" }

func (w *World) orders(name string) (string, error) {
	p, ok := w.Topology.Find(name)
	if !ok {
		return "", fmt.Errorf("no process is called %s", name)
	}
	return mishap.Dir(filepath.Join(w.Data, p.Carrier, p.Name)), nil
}

// Order gives a process an order, and returns when the process says that it is
// under it.
func (w *World) Order(ctx context.Context, name string, o mishap.Order) error {
	dir, err := w.orders(name)
	if err != nil {
		return err
	}
	if _, err := w.ask(ctx, name); err != nil {
		return err // nothing is written for a process that would not know it
	}
	if err := mishap.Write(dir, o); err != nil {
		return err
	}
	under, err := w.ask(ctx, name)
	if err == nil && !slices.ContainsFunc(under, func(x mishap.Order) bool { return x.ID == o.ID }) {
		err = fmt.Errorf("%s does not say that it is under the order %s", name, o.ID)
	}
	return err
}

// Withdraw takes an order back, whether the process runs or not. That it took
// hold is for Free to say.
func (w *World) Withdraw(ctx context.Context, name, id string) error {
	dir, err := w.orders(name)
	if err != nil {
		return err
	}
	if err := mishap.Remove(dir, id); err != nil {
		return err
	}
	_, _ = w.ask(ctx, name) // so that it looks; one that is down will not find it
	return nil
}

// Free returns nil when the process itself says that it is not under the order,
// and none lies in wait for the next one.
func (w *World) Free(ctx context.Context, name, id string) error {
	if w.Waits(name, id) {
		return fmt.Errorf("the order %s still lies before %s", id, name)
	}
	under, err := w.ask(ctx, name)
	if err == nil && slices.ContainsFunc(under, func(x mishap.Order) bool { return x.ID == id }) {
		err = fmt.Errorf("%s is still under the order %s", name, id)
	}
	return err
}

// Waits reports whether an order lies before a process and was not taken.
func (w *World) Waits(name, id string) bool {
	dir, err := w.orders(name)
	if err != nil {
		return false
	}
	lie, _ := mishap.Read(dir) // one that cannot be read was never ours
	return slices.ContainsFunc(lie, func(x mishap.Order) bool { return x.ID == id })
}

// Orders are those a process is under and those that wait for the next one.
// What is down is under none.
func (w *World) Orders(ctx context.Context, name string) (ids []string) {
	dir, err := w.orders(name)
	if err != nil {
		return nil
	}
	lie, _ := mishap.Read(dir)
	under, _ := w.ask(ctx, name)
	for _, o := range slices.Concat(lie, under) {
		if !slices.Contains(ids, o.ID) {
			ids = append(ids, o.ID)
		}
	}
	return ids
}

// Obeys returns ErrNoDrills for a process that says so.
func (w *World) Obeys(ctx context.Context, name string) error {
	if _, err := w.ask(ctx, name); problem.Is(err, ErrNoDrills.Code) {
		return err
	}
	return nil
}

func (w *World) ask(ctx context.Context, name string) ([]mishap.Order, error) {
	var a struct {
		Orders []mishap.Order `json:"orders"`
	}
	err := w.Get(ctx, name, "/v1/mishaps", &a)
	if problem.Is(err, problem.NotFound) {
		return nil, fmt.Errorf("%s: %w", name, ErrNoDrills)
	}
	return a.Orders, err
}
