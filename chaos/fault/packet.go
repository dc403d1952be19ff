package fault

import (
	"context"
	"fmt"
	"slices"
	"time"

	"qianma/chaos/link"
	"qianma/chaos/wire"
	"qianma/chaos/world"
)

// overtake is how late packets are that others overtake, unless it is said.
const overtake = Duration(20 * time.Millisecond)

func init() {
	onPackets("packet-loss", "a share of the packets between the carriers is lost", func(r *wire.Rule, s Spec) { r.Loss = s.Share })
	onPackets("packet-duplicate", "a share of the packets between the carriers comes twice", func(r *wire.Rule, s Spec) { r.Duplicate = s.Share })
	onPackets("packet-corrupt", "a share of the packets between the carriers has one bit wrong", func(r *wire.Rule, s Spec) { r.Corrupt = s.Share })
	onPackets("packet-reorder", "a share of the packets between the carriers overtakes the others", func(r *wire.Rule, s Spec) {
		r.Reorder, r.Delay = s.Share, s.Delay.D()
		if s.Delay == 0 {
			r.Delay = overtake.D()
		}
	})
	onPackets("packet-delay", "packets between the carriers are late, each by another time", func(r *wire.Rule, s Spec) { r.Delay, r.Jitter = s.Delay.D(), s.Jitter.D() })
	onPackets("packet-rate", "few bytes a second pass between the carriers", func(r *wire.Rule, s Spec) { r.BytesRate = s.Bytes })
}

// onPackets enters a fault on the packets that leave carriers for the other;
// change makes it what it is.
func onPackets(name, says string, change func(*wire.Rule, Spec)) {
	enter(Fault{Name: name, Says: says, Needs: Namespaces, plan: func(p *Plan, s Spec, t Targets) error {
		from, err := t.leaving()
		if err != nil {
			return err
		}
		if s.For == 0 {
			return fmt.Errorf("%s needs for: how long it lasts", name)
		}
		for i, carrier := range from {
			r := wire.Rule{ID: fmt.Sprintf("%s-%d", p.ID, i+1), From: carrier, Seed: p.Seed + uint64(i)}
			change(&r, s)
			if err := r.Validate(); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			p.inject(Action{Do: "harm", Harm: &r, For: p.lease()}, Action{Do: "harmed", Harm: &r})
			p.undo(Action{Do: "unharm", Harm: &r})
			p.verify(Action{Do: "unharmed", Harm: &r})
		}
		return nil
	}})
}

// leaving are the carriers whose packets the target's links mean. The line is
// between whole carriers: packets bear no name of a process.
func (t Targets) leaving() ([]string, error) {
	var out []string
	for _, x := range t.Links {
		if !whole(x.from) || !whole(x.to) {
			return nil, fmt.Errorf("packets are harmed between whole carriers: write link:unicom-mobile or link:unicom->mobile, not %s", t.Text)
		}
		out = append(out, x.from[0].Carrier)
		if x.both {
			out = append(out, x.to[0].Carrier)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the target %q is no link: write link:unicom-mobile", t.Text)
	}
	return out, nil
}

func whole(side []link.Selector) bool {
	return len(side) == 1 && side[0].Carrier != "" && side[0].Name == "" && side[0].Subsystem == ""
}

func harm(ctx context.Context, w *world.World, a Action) error {
	return w.Wire().Set(ctx, *a.Harm, a.For.D())
}

// harmed asks the line itself whether the rule is in force.
func harmed(ctx context.Context, w *world.World, a Action) error {
	on, err := bears(ctx, w, a.Harm)
	if err == nil && !on {
		err = fmt.Errorf("the line shows no harm to the packets of %s", a.Harm.From)
	}
	return err
}

func unharmed(ctx context.Context, w *world.World, a Action) error {
	on, err := bears(ctx, w, a.Harm)
	if err == nil && on {
		err = fmt.Errorf("the packets of %s are still harmed", a.Harm.From)
	}
	return err
}

func bears(ctx context.Context, w *world.World, r *wire.Rule) (bool, error) {
	rules, err := w.Wire().Rules(ctx)
	return slices.ContainsFunc(rules, func(o wire.Rule) bool { return o.From == r.From }), err
}
