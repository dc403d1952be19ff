// Package drill rehearses a loss on a running province: it holds the steady
// state to account, sends traffic, brings faults and takes them away, and says
// what held.
//
// A drill refuses to begin when the province is not well, when another drill
// runs, when the lever is pulled, or when it would take a quorum without having
// asked for that. Whatever ends it (its own end, an objective, a signal, its
// death), each fault is taken away by its agent and the system is asked whether
// it is gone.
package drill

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"qianma/chaos/check"
	"qianma/chaos/drills"
	"qianma/chaos/fault"
	"qianma/chaos/model"
	"qianma/chaos/report"
	"qianma/chaos/traffic"
)

// Drill is a drill file.
type Drill struct {
	Name       string            `yaml:"name" json:"name"`
	Says       string            `yaml:"says" json:"says"`                     // what is lost and what must hold, in plain words
	Row        string            `yaml:"row" json:"row"`                       // of the failure table
	Traffic    traffic.Shape     `yaml:"traffic" json:"traffic"`               // what is sent all along
	Steady     fault.Duration    `yaml:"steady" json:"steady"`                 // how long all must be well first
	Steps      []Step            `yaml:"steps" json:"steps"`                   // faults, in sequence or at once
	Mix        *Mix              `yaml:"mix" json:"mix,omitempty"`             // in place of steps: pairs of faults, by chance
	After      fault.Duration    `yaml:"after" json:"after"`                   // traffic after the last fault
	Quiet      fault.Duration    `yaml:"quiet" json:"quiet"`                   // at most, until all are equal
	Limits     Limits            `yaml:"limits" json:"limits"`                 // of what may be touched
	Objectives report.Objectives `yaml:"objectives" json:"objectives"`         // measured
	Invariants []string          `yaml:"invariants" json:"invariants"`         // empty: all
	Owes       model.Level       `yaml:"owes" json:"owes"`                     // what may not be lost: committed, or only what is replicated
	Plant      string            `yaml:"plant" json:"plant,omitempty"`         // canary: the lie told to the checkers
	MustFail   string            `yaml:"must_fail" json:"must_fail,omitempty"` // the invariant that a canary breaks
	Needs      string            `yaml:"needs" json:"needs,omitempty"`         // of the province: links that are proxied, or carriers in namespaces
}

// Step is a fault at its time.
type Step struct {
	At         fault.Duration `yaml:"at" json:"at"`               // after the steady time
	Then       bool           `yaml:"then" json:"then,omitempty"` // and not before the step before it is over
	fault.Spec `yaml:",inline"`
}

// Limits bound what a drill may take.
type Limits struct {
	Processes int    `yaml:"processes" json:"processes"` // touched at once; 0: 1
	Quorum    string `yaml:"quorum" json:"quorum"`       // "keep", or "may be lost" when that is what is rehearsed
}

// mayLose is how a drill asks for the loss of a quorum.
const mayLose = "may be lost"

// fileMax bounds a drill file; stepsMax its steps; lengthMax their length.
const (
	fileMax   = 64 << 10
	stepsMax  = 100
	lengthMax = fault.Duration(2 * time.Hour)
)

// Parse reads a drill and reports every fault of the file at once.
func Parse(raw []byte) (*Drill, error) {
	dec := yaml.NewDecoder(io.LimitReader(bytes.NewReader(raw), fileMax))
	dec.KnownFields(true)
	d := &Drill{
		Steady: fault.Duration(5 * time.Second), After: fault.Duration(8 * time.Second), Quiet: fault.Duration(3 * time.Minute),
		Limits: Limits{Processes: 1, Quorum: "keep"}, Traffic: traffic.Shape{Tests: 60, Displays: 120},
		Owes: model.Committed,
	}
	if err := dec.Decode(d); err != nil {
		return nil, err
	}
	return d, d.Validate()
}

// Validate reports every fault of the drill at once.
func (d *Drill) Validate() error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if d.Name == "" || strings.ContainsAny(d.Name, " /\\.") {
		bad("name %q must be one word, as the file is called", d.Name)
	}
	if d.Says == "" {
		bad("says is empty: what is lost, and what must hold, in plain words")
	}
	if d.Limits.Quorum != "keep" && d.Limits.Quorum != mayLose {
		bad(`limits.quorum is %q: write "keep" or %q`, d.Limits.Quorum, mayLose)
	}
	if d.Owes != model.Committed && d.Owes != model.Replicated {
		bad("owes is %q: write committed, or replicated where disks are destroyed", d.Owes)
	}
	if d.Traffic.Tests <= 0 || d.Traffic.Displays <= 0 {
		bad("traffic must have tests and displays: what carries no traffic notices nothing")
	}
	if len(d.Steps) > stepsMax || d.Length() > lengthMax {
		bad("the drill is longer than %d steps or %s", stepsMax, lengthMax)
	}
	if len(d.Steps) == 0 && d.Plant == "" && d.Mix == nil {
		bad("a drill that breaks nothing proves nothing: it needs steps")
	}
	if d.Mix != nil {
		d.Mix.validate(bad)
		if len(d.Steps) > 0 {
			bad("a drill has steps or a mix, not both")
		}
	}
	for i, s := range d.Steps {
		if _, ok := fault.Catalogue[s.Fault]; !ok {
			bad("step %d: there is no fault %q; there are %s", i+1, s.Fault, strings.Join(fault.Names(), ", "))
		}
	}
	if d.MustFail != "" && !slices.Contains(d.invariants(), d.MustFail) {
		bad("must_fail is %q, which is no invariant that is held here", d.MustFail)
	}
	for _, name := range d.Invariants {
		if !slices.Contains(check.Names, name) {
			bad("there is no invariant %q; there are %s", name, strings.Join(check.Names, ", "))
		}
	}
	if !slices.Contains([]string{"", fault.Links, fault.Namespaces}, d.Needs) {
		bad("needs is %q: write %s or %s", d.Needs, fault.Links, fault.Namespaces)
	}
	if d.Plant != "" && plants[d.Plant] == nil {
		bad("there is no plant %q", d.Plant)
	}
	return errors.Join(faults...)
}

// Length is how long steps last, from the first moment after the steady time.
func (d *Drill) Length() fault.Duration {
	var end fault.Duration
	if d.Mix != nil {
		end = d.Mix.length()
	}
	for _, s := range d.Steps {
		end = max(end, s.At+s.For)
	}
	return end
}

// Duration is how long traffic flows.
func (d *Drill) Duration() time.Duration { return (d.Steady + d.Length() + d.After).D() }

// invariants are those that are held.
func (d *Drill) invariants() []string {
	if len(d.Invariants) > 0 {
		return d.Invariants
	}
	return check.Names
}

// Load finds a drill by its name among those in the binary, or reads a file.
func Load(name string) (*Drill, error) {
	raw, err := drills.Files.ReadFile(name + ".yaml")
	if errors.Is(err, fs.ErrNotExist) || strings.ContainsAny(name, "/.") {
		raw, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, fmt.Errorf("there is no drill %q (qianma drill list names them), nor a file of that name", name)
	}
	d, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}

// All returns every drill in the binary, by name.
func All() ([]*Drill, error) {
	names, err := fs.Glob(drills.Files, "*.yaml")
	if err != nil {
		return nil, err
	}
	var out []*Drill
	for _, n := range names {
		d, err := Load(strings.TrimSuffix(path.Base(n), ".yaml"))
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}
