package fault

import (
	"context"
	"fmt"
	"time"

	"qianma/chaos/world"
)

func init() {
	enter(Fault{Name: "member-removed", Says: "a raft group loses one of its voters, by an operator's word, and is given it back", plan: memberRemoved})
	enter(Fault{Name: "member-added", Says: "a process that holds nothing is taken into a raft group as a voter, in the place of one that was removed", plan: memberAdded})
	enter(Fault{Name: "member-replaced", Says: "a voter's machine is replaced: the process comes back with an empty disk, and its group puts its new life in the place of the old one", plan: memberReplaced})
}

// newcomerMax bounds the wait for a newcomer to be filled and given its vote.
const newcomerMax = Duration(90e9)

// voting undoes whatever became of memberships: each target votes in the end.
func (p *Plan) voting(t Targets) {
	for _, name := range t.Names() {
		p.undo(Action{Do: "member-add", On: name, For: newcomerMax})
		p.verify(Action{Do: "votes", On: name, For: newcomerMax})
	}
}

func memberRemoved(p *Plan, s Spec, t Targets) error {
	if s.For == 0 {
		return fmt.Errorf("a member that is removed needs for: how long until it is given back")
	}
	for _, name := range t.Names() {
		p.inject(Action{Do: "member-remove", On: name})
	}
	p.Down = t.Names()
	p.voting(t)
	return t.needReplicas()
}

// memberAdded removes and empties first: only who holds nothing has to be
// filled while traffic runs.
func memberAdded(p *Plan, _ Spec, t Targets) error {
	for _, name := range t.Names() {
		p.inject(Action{Do: "member-remove", On: name}, Action{Do: "hold", On: name, For: p.lease()}, Action{Do: "kill", On: name},
			Action{Do: "wipe", On: name}, Action{Do: "release", On: name}, Action{Do: "start", On: name},
			Action{Do: "member-add", On: name, For: newcomerMax}, Action{Do: "votes", On: name, For: newcomerMax})
	}
	p.down(t)
	p.voting(t)
	return t.needReplicas()
}

func memberReplaced(p *Plan, s Spec, t Targets) error {
	if err := destroy(p, s, t); err != nil {
		return err
	}
	for _, name := range t.Names() {
		p.verify(Action{Do: "votes", On: name, For: newcomerMax})
	}
	return t.needReplicas()
}

// needReplicas refuses processes that are in no raft group.
func (t Targets) needReplicas() error {
	for _, x := range t.Processes {
		if x.Subsystem == "backbone" || x.Subsystem == "middlestore" {
			return fmt.Errorf("%s is in no raft group", x.Name)
		}
	}
	return t.needProcesses()
}

func memberRemove(ctx context.Context, w *world.World, a Action) error {
	return w.ChangeMember(ctx, a.On, false)
}

// memberAdd asks until the process has been taken in: one that has just been
// started does not answer yet, and filling it may outlast one request.
func memberAdd(ctx context.Context, w *world.World, a Action) error {
	return until(ctx, a.For, func(ctx context.Context) error { return w.ChangeMember(ctx, a.On, true) })
}

func votes(ctx context.Context, w *world.World, a Action) error {
	return until(ctx, a.For, func(ctx context.Context) error {
		on, err := w.Votes(ctx, a.On)
		if err == nil && !on {
			err = fmt.Errorf("%s has no vote in its group", a.On)
		}
		return err
	})
}

// until tries something until it works, and returns its last error when the
// time is over.
func until(ctx context.Context, within Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within.D())
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(lookEvery):
		}
	}
}
