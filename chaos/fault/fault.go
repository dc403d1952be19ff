// Package fault is the catalogue of what can be done to a province: each fault
// knows the exact actions that bring it, the exact actions that take it away,
// and what the system itself must show once it is gone.
//
// A plan is plain data, so that it can be written down before anything is
// touched and undone by a process that has never seen the drill. Undo actions
// may be repeated, and are safe when the fault never came. Whether they worked
// is asked of the system (supervisor, links, files), never of the plan.
//
// The package decides neither when a fault comes nor whether it is wise;
// package drill does.
package fault

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"qianma/chaos/link"
	"qianma/chaos/wire"
	"qianma/chaos/world"
	"qianma/cluster/mishap"
)

// Duration is written 1.5s in files.
type Duration time.Duration

// D is the duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// UnmarshalYAML reads 1.5s.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err == nil && v < 0 {
		err = fmt.Errorf("%s is before it begins", n.Value)
	}
	*d = Duration(v)
	return err
}

// MarshalJSON writes 1.5s.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads 1.5s.
func (d *Duration) UnmarshalJSON(raw []byte) error {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}

// Spec is a fault as a drill asks for it.
type Spec struct {
	Fault  string   `yaml:"fault" json:"fault"`
	Target string   `yaml:"target" json:"target,omitempty"`
	For    Duration `yaml:"for" json:"for,omitzero"`       // how long it lasts; 0: it is over once it is done
	Kind   string   `yaml:"kind" json:"kind,omitempty"`    // of links: node, nats, leaf, etcd; empty: all
	Delay  Duration `yaml:"delay" json:"delay,omitzero"`   // of links
	Jitter Duration `yaml:"jitter" json:"jitter,omitzero"` // up to this much more
	Share  float64  `yaml:"share" json:"share,omitzero"`   // of new connections that are lost, of packets that are harmed, of one CPU that is left
	Bytes  int      `yaml:"bytes" json:"bytes,omitzero"`   // a second, each connection; a second, on the line; of memory
	Every  Duration `yaml:"every" json:"every,omitzero"`   // of what comes and goes
	Point  string   `yaml:"point" json:"point,omitempty"`  // of a panic
	Job    string   `yaml:"job" json:"job,omitempty"`      // of which pieces are left out
	Nth    uint64   `yaml:"nth" json:"nth,omitzero"`       // piece of it that is
	Part   string   `yaml:"part" json:"part,omitempty"`    // of what a process stores: log, state; empty: any
	Jump   Shift    `yaml:"jump" json:"jump,omitzero"`     // of a clock, ahead or back
	Rate   float64  `yaml:"rate" json:"rate,omitzero"`     // seconds that a clock gains each second
	Times  float64  `yaml:"times" json:"times,omitzero"`   // of a surge: how many times the traffic
}

// Action is one thing that is done. It is plain data.
type Action struct {
	Do    string     `json:"do"`
	On    string     `json:"on,omitempty"`    // process
	For   Duration   `json:"for,omitzero"`    // of a hold, a rule, a wait
	Every Duration   `json:"every,omitzero"`  // of a rule that comes and goes
	Rule  *link.Rule `json:"rule,omitempty"`  // on links
	Harm  *wire.Rule `json:"harm,omitempty"`  // on packets
	Path  string     `json:"path,omitempty"`  // inside the process's directory
	Seed  uint64     `json:"seed,omitempty"`  // of what is chosen by chance
	Bytes []byte     `json:"bytes,omitempty"` // what is published

	Order   *mishap.Order `json:"order,omitempty"`   // to a process; Path is its name where it is taken back
	All     []string      `json:"all,omitempty"`     // processes that something befalls at the same moment
	Squeeze *Squeeze      `json:"squeeze,omitempty"` // of a process's share of the machine
}

// String is the action as people read it in a plan.
func (a Action) String() string {
	s := a.Do
	if a.On != "" {
		s += " " + a.On
	}
	if a.Path != "" {
		s += " " + a.Path
	}
	if a.Rule != nil {
		s += " " + text(a.Rule)
	}
	if a.Harm != nil {
		s += " " + text(a.Harm)
	}
	if a.Order != nil {
		s += " " + string(a.Order.Kind)
	}
	if len(a.All) > 0 {
		s += " of " + strings.Join(a.All, " ")
	}
	if a.Squeeze != nil {
		s += " " + text(a.Squeeze)
	}
	if a.Every > 0 {
		s += " every " + a.Every.String()
	}
	if a.For > 0 {
		s += " (at most " + a.For.String() + ")"
	}
	return s
}

func text(rule any) string {
	raw, err := json.Marshal(rule)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// Plan is a fault with its targets found: what will be done, and how it is
// taken back.
type Plan struct {
	ID      string   `json:"id"`
	Spec    Spec     `json:"spec"`
	Seed    uint64   `json:"seed"`
	Targets []string `json:"targets"`
	Inject  []Action `json:"inject"`
	Undo    []Action `json:"undo"`
	// Verify is what the system must show afterwards.
	Verify []Action `json:"verify"`
	// Down are the processes that cannot serve their group meanwhile.
	Down []string `json:"down,omitempty"`
	// Traffic: the fault is what the drill itself sends; nothing is touched.
	Traffic bool `json:"traffic,omitempty"`
	// Tells is the gauge of a target that leaves zero when the system has
	// noticed a fault that no client feels.
	Tells string `json:"tells,omitempty"`
}

// Fault is an entry of the catalogue.
type Fault struct {
	Name  string
	Says  string // in plain words
	Needs string // what the province must have: Links, Namespaces
	plan  func(p *Plan, s Spec, t Targets) error
	tells string // Plan.Tells
}

// Catalogue lists every fault by its stable name.
var Catalogue = map[string]Fault{}

func enter(f Fault) { Catalogue[f.Name] = f }

// Names are the faults in order.
func Names() []string { return slices.Sorted(maps.Keys(Catalogue)) }

// Prepare finds the targets and lays out the plan. It changes nothing.
func Prepare(ctx context.Context, w *world.World, id string, s Spec, seed uint64) (Plan, error) {
	f, ok := Catalogue[s.Fault]
	if !ok {
		return Plan{}, fmt.Errorf("there is no fault %q; there are %v", s.Fault, Names())
	}
	if err := Meets(w, f.Needs); err != nil {
		return Plan{}, err
	}
	p := Plan{ID: id, Spec: s, Seed: seed, Tells: f.tells}
	t, err := Find(ctx, w, s.Target, seed)
	if err != nil {
		return p, err
	}
	p.Targets = t.Names()
	if err := f.plan(&p, s, t); err != nil {
		return p, err
	}
	return p, p.obeyed(ctx, w)
}

// What a fault may need of a province.
const (
	Links      = "links"      // they are proxied
	Namespaces = "namespaces" // each carrier is in one
)

// ErrNoLinks is returned when a fault needs links that are not proxied,
// ErrNoNamespaces when it needs carriers that are each in a network namespace.
var (
	ErrNoLinks      = fmt.Errorf("the links of this province are not proxied; bring it up with: qianma up --links proxied")
	ErrNoNamespaces = fmt.Errorf("the carriers of this province are in no network namespaces; bring it up, as root, with: qianma up --links namespaces")
)

// Meets says what a province lacks of what is needed; nil: nothing.
func Meets(w *world.World, needs string) error {
	switch {
	case needs == Links && !w.HasLinks():
		return ErrNoLinks
	case needs == Namespaces && w.Wire() == nil:
		return ErrNoNamespaces
	}
	return nil
}

// grace is how long holds and rules outlive their time, for the case that the
// agent that takes them off dies too.
const grace = 30 * time.Second

func (p *Plan) inject(a ...Action) { p.Inject = append(p.Inject, a...) }
func (p *Plan) undo(a ...Action)   { p.Undo = append(p.Undo, a...) }
func (p *Plan) verify(a ...Action) { p.Verify = append(p.Verify, a...) }

func (p *Plan) lease() Duration { return p.Spec.For + Duration(grace) }
