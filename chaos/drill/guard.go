package drill

import (
	"context"
	"fmt"
	"slices"
	"time"

	"qianma/chaos/agent"
	"qianma/chaos/fault"
	"qianma/chaos/world"
)

// replicated are the subsystems whose groups need a majority.
var replicated = []string{"nucleic", "vaccine", "display"}

// well says what is wrong with the province before a drill; nothing means that
// its steady state holds.
func well(ctx context.Context, w *world.World) []string {
	r, err := w.Report(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, p := range r.Processes {
		if p.State != world.Ready {
			out = append(out, p.Name+" is "+p.State)
		}
	}
	left, err := agent.Leftovers(ctx, w)
	if err != nil {
		return append(out, err.Error())
	}
	out = append(out, left...)
	for _, carrier := range w.Topology.Carriers {
		for _, s := range replicated {
			if w.Leader(ctx, carrier, s, 0) == "" {
				out = append(out, s+" at "+carrier+" has no leader")
			}
		}
	}
	return append(out, w.Unequal(ctx)...)
}

// lookAgain is between two looks at the whole province.
const lookAgain = 300 * time.Millisecond

// settle waits until the province is well and returns what is not when the
// time is over.
func settle(ctx context.Context, within time.Duration, ill func(context.Context) []string) []string {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	last := []string{"nobody has looked"}
	for ctx.Err() == nil {
		if now := ill(ctx); ctx.Err() == nil {
			last = now
		}
		if len(last) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookAgain):
		}
	}
	return last
}

// Left says what quorum is left of each group when these processes are down;
// lost names the groups that have none.
func Left(w *world.World, down []string) (lines, lost []string) {
	for _, carrier := range w.Topology.Carriers {
		for _, s := range replicated {
			all := w.Topology.Select(carrier, s)
			up := 0
			for _, p := range all {
				if !slices.Contains(down, p.Name) {
					up++
				}
			}
			if up == len(all) {
				continue
			}
			group := s + " at " + carrier
			lines = append(lines, fmt.Sprintf("%s: %d of %d left, %d needed", group, up, len(all), len(all)/2+1))
			if up <= len(all)/2 {
				lost = append(lost, group)
			}
		}
	}
	return lines, lost
}

// admit holds a plan, and those in force beside it, to the drill's limits.
func (d *Drill) admit(w *world.World, p fault.Plan, others []fault.Plan) error {
	touched, down := slices.Clone(p.Targets), slices.Clone(p.Down)
	for _, o := range others {
		touched, down = append(touched, o.Targets...), append(down, o.Down...)
	}
	slices.Sort(touched)
	if n := len(slices.Compact(touched)); n > max(1, d.Limits.Processes) && len(down) > 0 {
		return fmt.Errorf("%s would touch %d processes at once; limits.processes allows %d", p.Spec.Fault, n, max(1, d.Limits.Processes))
	}
	if _, lost := Left(w, down); len(lost) > 0 && d.Limits.Quorum != mayLose {
		return fmt.Errorf("%s would take the quorum of %v; a drill that means it says limits: {quorum: %s}", p.Spec.Fault, lost, mayLose)
	}
	return nil
}

// Plan finds every step's targets as they are now and says what would be done.
// It changes nothing.
func (d *Drill) Plan(ctx context.Context, w *world.World, seed uint64) ([]fault.Plan, error) {
	var out []fault.Plan
	for i, s := range d.Steps {
		p, err := fault.Prepare(ctx, w, fmt.Sprintf("%splan-%d", agent.Marked, i+1), s.Spec, stepSeed(seed, i))
		if err != nil {
			return nil, fmt.Errorf("step %d: %w", i+1, err)
		}
		var beside []fault.Plan
		for k, o := range out {
			if at := d.Steps[k]; at.At <= s.At && s.At < at.At+max(at.For, 1) {
				beside = append(beside, o)
			}
		}
		if err := d.admit(w, p, beside); err != nil {
			return nil, fmt.Errorf("step %d: %w", i+1, err)
		}
		out = append(out, p)
	}
	return out, nil
}

func stepSeed(seed uint64, i int) uint64 { return seed*1_000_003 + uint64(i) }
