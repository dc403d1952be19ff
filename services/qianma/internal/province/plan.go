package province

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"qianma/cluster/problem"
	"qianma/cluster/topology"
)

// Carriers are the two sites of a province.
var Carriers = []string{"unicom", "mobile"}

// replicas is how many processes of each kind a carrier runs; backbones are
// part of the plan.
var replicas = map[string]int{"nucleic": 3, "vaccine": 3, "display": 3, "middlestore": 2}

// programs are the binaries by subsystem.
var programs = map[string]string{
	"nucleic": "nucleicd", "vaccine": "vaccined", "display": "displayd",
	"middlestore": "middlestored", "backbone": "backboned",
}

// Program is the binary of a subsystem.
func Program(subsystem string) string { return programs[subsystem] }

// stages is the order in which processes stop, from the highest: doors before
// cellars. Who is asked by another goes after it.
var stages = map[string]int{LinksName: 0, WireName: 0, "backbone": 1, "middlestore": 2, "nucleic": 3, "vaccine": 3, "display": 4}

// StageLast is the highest stage.
const StageLast = 4

// Stage is when a subsystem stops: the highest stage first, the lowest last.
func Stage(subsystem string) int { return stages[subsystem] }

// The ways in which processes reach one another.
const (
	Direct     = "direct"     // by their own addresses
	Proxied    = "proxied"    // through one listener for each target, where faults can be put on a link
	Namespaces = "namespaces" // by their own addresses, each carrier in a network namespace of its own, with a line between them on which faults can be put on packets
)

// Plan is how a province was made. It is fixed from then on: its stores are cut
// to it.
type Plan struct {
	Name     string         `json:"name"`
	Backbone int            `json:"backbone"` // per carrier: 1 or 3; 0 when NATS and etcd are somebody else's
	Shards   map[string]int `json:"shards"`
	Insecure bool           `json:"insecure"`
	NoDrills bool           `json:"no_drills,omitempty"` // drills cannot break processes from inside
	Links    string         `json:"links"`
	// Somebody else's NATS and etcd, by carrier.
	NATS map[string][]string `json:"nats,omitempty"`
	Etcd map[string][]string `json:"etcd,omitempty"`
	// Host is the address a carrier's processes listen on; empty: 127.0.0.1.
	// NetNS is the network namespace they run in; empty: ours.
	Host  map[string]string `json:"host,omitempty"`
	NetNS map[string]string `json:"netns,omitempty"`
}

// Wish is what somebody asks of a plan; zero fields ask for nothing.
type Wish struct {
	Name     string
	Backbone int
	Shards   map[string]int
	Insecure bool
	NoDrills bool
	Links    string
	NATS     map[string][]string
	Etcd     map[string][]string
	Host     map[string]string
	NetNS    map[string]string
}

// fresh is the plan of a new province.
func (w Wish) fresh() (Plan, error) {
	p := Plan{Name: w.Name, Backbone: w.Backbone, Shards: map[string]int{}, Insecure: w.Insecure, NoDrills: w.NoDrills, Links: w.Links,
		NATS: w.NATS, Etcd: w.Etcd, Host: w.Host, NetNS: w.NetNS}
	if p.Name == "" {
		p.Name = "guizhou"
	}
	if p.Links == "" {
		p.Links = Direct
	}
	external := len(p.NATS) > 0 || len(p.Etcd) > 0
	if p.Backbone == 0 && !external {
		p.Backbone = 1
	}
	for s := range w.Shards {
		if replicas[s] == 0 || s == "middlestore" {
			return Plan{}, problem.New(problem.Invalid, s+" has no shards", "nucleic, vaccine and display have")
		}
		p.Shards[s] = w.Shards[s]
	}
	return p, p.validate()
}

func (p Plan) validate() error {
	bad := func(message, fix string) error { return problem.New(problem.Invalid, message, fix) }
	switch {
	case p.Links != Direct && p.Links != Proxied && p.Links != Namespaces:
		return bad("links cannot be "+p.Links, "use --links direct, --links proxied or --links namespaces")
	case p.external() && p.Links != Direct:
		return bad("links to somebody else's NATS and etcd cannot be "+p.Links, "use --links direct, or our own backbones")
	case p.Links == Namespaces && len(p.Host)+len(p.NetNS) > 0:
		return bad("with --links namespaces, namespaces and addresses are made for the province", "leave out --host and --netns")
	case p.external() && p.Backbone != 0:
		return bad("a province has its own backbones or somebody else's NATS and etcd, not both", "leave out --backbone, or --nats and --etcd")
	case !p.external() && p.Backbone != 1 && p.Backbone != 3:
		return bad(fmt.Sprintf("%d backbones cannot agree among themselves", p.Backbone), "use --backbone 1 or --backbone 3")
	}
	for _, c := range Carriers {
		if p.external() && (len(p.NATS[c]) == 0 || len(p.Etcd[c]) == 0) {
			return bad("carrier "+c+" has no NATS or no etcd", "give both for every carrier: --nats "+c+"=nats://host:4222 --etcd "+c+"=https://host:2379")
		}
	}
	for s, n := range p.Shards {
		if n < 1 || n > 64 {
			return bad(fmt.Sprintf("%s cannot be cut into %d shards", s, n), "use 1 to 64")
		}
	}
	return nil
}

func (p Plan) external() bool { return len(p.NATS) > 0 || len(p.Etcd) > 0 }

// meets reports the first thing in which a plan that is fixed differs from
// what is asked.
func (p Plan) meets(w Wish) error {
	differs := func(what, is, asked string) error {
		return problem.New(problem.Invalid, fmt.Sprintf("this province was made with %s %s, not %s", what, is, asked),
			"leave the flag out, or make another province with another --data")
	}
	switch {
	case w.Name != "" && w.Name != p.Name:
		return differs("the name", p.Name, w.Name)
	case w.Backbone != 0 && w.Backbone != p.Backbone:
		return differs("--backbone", strconv.Itoa(p.Backbone), strconv.Itoa(w.Backbone))
	case w.Insecure && !p.Insecure:
		return differs("links that are", "encrypted", "--insecure")
	case w.NoDrills && !p.NoDrills:
		return differs("processes that are", "open to drills", "--no-drills")
	case w.Links != "" && w.Links != p.Links:
		return differs("--links", p.Links, w.Links)
	case len(w.NATS) > 0 && !maps.EqualFunc(w.NATS, p.NATS, slices.Equal):
		return differs("--nats", fmt.Sprint(p.NATS), fmt.Sprint(w.NATS))
	case len(w.Etcd) > 0 && !maps.EqualFunc(w.Etcd, p.Etcd, slices.Equal):
		return differs("--etcd", fmt.Sprint(p.Etcd), fmt.Sprint(w.Etcd))
	case len(w.Host) > 0 && !maps.Equal(w.Host, p.Host):
		return differs("--host", fmt.Sprint(p.Host), fmt.Sprint(w.Host))
	case len(w.NetNS) > 0 && !maps.Equal(w.NetNS, p.NetNS):
		return differs("--netns", fmt.Sprint(p.NetNS), fmt.Sprint(w.NetNS))
	}
	for s, n := range w.Shards {
		if max(1, p.Shards[s]) != n {
			return differs("shards of "+s, strconv.Itoa(max(1, p.Shards[s])), strconv.Itoa(n))
		}
	}
	return nil
}

// loadPlan returns the plan of a data directory, made now if there is none.
func loadPlan(l Layout, w Wish) (Plan, error) {
	raw, err := os.ReadFile(l.Plan())
	if errors.Is(err, os.ErrNotExist) {
		p, err := w.fresh()
		if err != nil {
			return Plan{}, err
		}
		return p, replaceJSON(l.Plan(), p)
	}
	if err != nil {
		return Plan{}, err
	}
	var p Plan
	if err := json.Unmarshal(raw, &p); err != nil {
		return Plan{}, problem.Wrap(err, problem.Malformed, l.Plan()+" cannot be read", "restore it, or make another province with another --data")
	}
	return p, p.meets(w)
}

// layOut gives every process its ports in the block that begins at first.
func (p Plan) layOut(first int, host func(carrier string) string) *topology.Topology {
	t := &topology.Topology{Province: p.Name, Carriers: Carriers, Shards: p.Shards}
	next := first
	for _, carrier := range Carriers {
		addr := func() string {
			next++
			return fmt.Sprintf("%s:%d", host(carrier), next-1)
		}
		for _, subsystem := range Subsystems {
			for i := range p.count(subsystem) {
				proc := topology.Process{
					Name: fmt.Sprintf("%s-%s-%d", carrier, subsystem, i+1), Carrier: carrier, Subsystem: subsystem, Ordinal: i + 1,
					HTTP: addr(),
				}
				if subsystem == "backbone" {
					proc.NATS, proc.Leaf, proc.Cluster, proc.Etcd, proc.EtcdPeer = addr(), addr(), addr(), addr(), addr()
				} else {
					proc.Node = addr()
				}
				t.Processes = append(t.Processes, proc)
			}
		}
	}
	return t
}

func (p Plan) count(subsystem string) int {
	if subsystem == "backbone" {
		return p.Backbone
	}
	return replicas[subsystem]
}

// replaceJSON writes v so that a crash leaves the old file or the new one.
func replaceJSON(path string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return replace(path, append(raw, '\n'), 0o644)
}

// replace writes the file so that a crash leaves the old one or the new one.
// Bytes that are there already are left alone.
func replace(path string, raw []byte, mode os.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && slices.Equal(old, raw) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(raw)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
