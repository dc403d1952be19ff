package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"qianma/chaos/link"
	"qianma/chaos/world"
	"qianma/cluster/topology"
)

// Targets are what a target expression means now.
//
//	unicom-nucleic-1         that process
//	leader(nucleic@unicom)   who leads the cluster now
//	follower(nucleic@unicom) one who does not
//	one(nucleic@unicom)      any one
//	one(*)                   any one of any cluster that has more than one
//	minority(nucleic@unicom) as many as may be lost
//	all(nucleic@unicom)      the whole cluster; all(nucleic): of every carrier
//	carrier:unicom           everything of a carrier
//	everything               every process
//	link:unicom-mobile       the way between two, both ways
//	link:A->B, link:A<->B    A and B are any of the above, or *
//
// Chance is drawn from the drill's seed, so the same seed on the same province
// means the same processes.
type Targets struct {
	Text      string
	Processes []topology.Process
	Carriers  []string // named as such
	Links     []way
	loners    []string
}

// way is from some processes to others.
type way struct {
	from, to []link.Selector
	both     bool
}

// Names are the processes' names.
func (t Targets) Names() []string {
	out := make([]string, len(t.Processes))
	for i, p := range t.Processes {
		out[i] = p.Name
	}
	return out
}

// ErrNoLeader is about a target that names a leader while nobody is known to lead.
var ErrNoLeader = errors.New("has no leader now")

// Find finds out what a target expression means now.
func Find(ctx context.Context, w *world.World, text string, seed uint64) (Targets, error) {
	t := Targets{Text: text}
	if text == "" {
		return t, nil
	}
	f := finder{ctx, w, rand.New(rand.NewPCG(seed, 0x7a7))}
	var err error
	if rest, ok := strings.CutPrefix(text, "link:"); ok {
		err = f.ways(&t, rest)
	} else {
		t.Processes, err = f.processes(text)
		if c, ok := strings.CutPrefix(text, "carrier:"); ok {
			t.Carriers = []string{c}
		}
	}
	return t, err
}

type finder struct {
	ctx  context.Context
	w    *world.World
	rand *rand.Rand
}

func (f finder) processes(text string) ([]topology.Process, error) {
	if p, ok := f.w.Topology.Find(text); ok {
		return []topology.Process{p}, nil
	}
	if text == "everything" {
		return f.w.Topology.Processes, nil
	}
	if text == "one(*)" {
		return f.few("one", f.clustered())
	}
	if c, ok := strings.CutPrefix(text, "carrier:"); ok {
		return some(f.w.Topology.Select(c, ""), text)
	}
	how, rest, ok := strings.Cut(strings.TrimSuffix(text, ")"), "(")
	if !ok || !strings.HasSuffix(text, ")") {
		return nil, fmt.Errorf("the target %q names nothing", text)
	}
	subsystem, carrier, _ := strings.Cut(rest, "@")
	all, err := some(f.w.Topology.Select(carrier, subsystem), text)
	if err != nil || how == "all" {
		return all, err
	}
	if carrier == "" {
		return nil, fmt.Errorf("%q does not say at which carrier: write %s(%s@unicom)", text, how, subsystem)
	}
	return f.few(how, all)
}

// clustered are the processes that are not alone in what they do at their
// carrier.
func (f finder) clustered() []topology.Process {
	return slices.DeleteFunc(slices.Clone(f.w.Topology.Processes), func(p topology.Process) bool {
		return len(f.w.Topology.Select(p.Carrier, p.Subsystem)) < 2
	})
}

// few picks from one cluster.
func (f finder) few(how string, all []topology.Process) ([]topology.Process, error) {
	switch how {
	case "one":
		return []topology.Process{all[f.rand.IntN(len(all))]}, nil
	case "minority":
		f.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		return all[:max(1, (len(all)-1)/2)], nil
	case "leader", "follower":
		name := f.w.Leader(f.ctx, all[0].Carrier, all[0].Subsystem, 0)
		i := slices.IndexFunc(all, func(p topology.Process) bool { return p.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("%s at %s: %w", all[0].Subsystem, all[0].Carrier, ErrNoLeader)
		}
		if how == "leader" {
			return all[i : i+1], nil
		}
		rest := slices.Delete(slices.Clone(all), i, i+1)
		return []topology.Process{rest[f.rand.IntN(len(rest))]}, nil
	}
	return nil, fmt.Errorf("%q is no way to pick: use leader, follower, one, minority or all", how)
}

func some(ps []topology.Process, text string) ([]topology.Process, error) {
	if len(ps) == 0 {
		return nil, fmt.Errorf("the target %q names nothing", text)
	}
	return slices.Clone(ps), nil
}

func (f finder) ways(t *Targets, text string) error {
	x := way{both: true}
	a, b, ok := strings.Cut(text, "<->")
	if !ok {
		if a, b, ok = strings.Cut(text, "->"); ok {
			x.both = false
		} else {
			a, b, ok = strings.Cut(text, "-")
		}
	}
	if !ok {
		return fmt.Errorf("the link %q does not say between whom: write link:unicom-mobile or link:A->B", text)
	}
	var err error
	if x.from, err = f.side(t, a); err == nil {
		x.to, err = f.side(t, b)
	}
	if (a == "*") != (b == "*") && len(t.Processes) == 1 && x.both {
		t.loners = t.Names()
	}
	t.Links = append(t.Links, x)
	return err
}

// side is one end of a link.
func (f finder) side(t *Targets, text string) ([]link.Selector, error) {
	if text == "*" {
		return []link.Selector{{}}, nil
	}
	if slices.Contains(f.w.Topology.Carriers, text) {
		text = "carrier:" + text
	}
	if c, ok := strings.CutPrefix(text, "carrier:"); ok && slices.Contains(f.w.Topology.Carriers, c) {
		return []link.Selector{{Carrier: c}}, nil
	}
	ps, err := f.processes(text)
	if err != nil {
		return nil, err
	}
	t.Processes = append(t.Processes, ps...)
	if rest, ok := strings.CutPrefix(text, "all("); ok {
		subsystem, carrier, _ := strings.Cut(strings.TrimSuffix(rest, ")"), "@")
		return []link.Selector{{Carrier: carrier, Subsystem: subsystem}}, nil
	}
	var out []link.Selector
	for _, p := range ps {
		out = append(out, link.Selector{Name: p.Name})
	}
	return out, nil
}

func (t Targets) needProcesses() error {
	if len(t.Processes) == 0 || len(t.Links) > 0 {
		return fmt.Errorf("the target %q is no process", t.Text)
	}
	return nil
}

// alone are the processes that a full cut of these links takes from everybody.
func (t Targets) alone() []string { return t.loners }

// rules are the target's links as rules that cut.
func (t Targets) rules(id string, s Spec) ([]link.Rule, error) {
	if len(t.Links) == 0 {
		return nil, fmt.Errorf("the target %q is no link: write link:unicom-mobile", t.Text)
	}
	var out []link.Rule
	for _, x := range t.Links {
		for _, from := range x.from {
			for _, to := range x.to {
				out = append(out, link.Rule{ID: fmt.Sprintf("%s-%d", id, len(out)+1), From: from, To: to, Both: x.both, Kind: s.Kind, Cut: true})
			}
		}
	}
	return out, nil
}
