// Package topology is the list of a province's processes: who there is, at
// which carrier, and where each listens.
//
// Raft members, RPC peers and feeds name processes, never addresses; a name is
// resolved here at every dial, so a process may move without any state being
// rewritten. The file is the seed: what the registry learns later is laid over
// it, and losing the registry loses nothing that the file says.
package topology

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Process is one process of the province.
type Process struct {
	Name      string `json:"name"` // "unicom-nucleic-1"
	Carrier   string `json:"carrier"`
	Subsystem string `json:"subsystem"` // "nucleic", "vaccine", "display", "middlestore", "backbone"
	Ordinal   int    `json:"ordinal"`   // 1..n within carrier and subsystem
	Node      string `json:"node"`      // host:port of raft and RPC ("" for a backbone)
	HTTP      string `json:"http"`      // host:port of the public HTTP API
	// A backbone's own listeners.
	NATS     string `json:"nats,omitempty"`      // clients
	Leaf     string `json:"leaf,omitempty"`      // leaf nodes of the other carrier
	Cluster  string `json:"cluster,omitempty"`   // routes between backbones of this carrier
	Etcd     string `json:"etcd,omitempty"`      // clients
	EtcdPeer string `json:"etcd_peer,omitempty"` // peers of this carrier
}

// Topology is a whole province.
type Topology struct {
	Province  string         `json:"province"`
	Carriers  []string       `json:"carriers"`
	Shards    map[string]int `json:"shards"` // groups per subsystem, fixed when the province is made
	Processes []Process      `json:"processes"`
}

// ShardsOf is how many groups a subsystem is cut into; at least 1.
func (t *Topology) ShardsOf(subsystem string) int { return max(1, t.Shards[subsystem]) }

// Find returns the process of that name.
func (t *Topology) Find(name string) (Process, bool) {
	i := slices.IndexFunc(t.Processes, func(p Process) bool { return p.Name == name })
	if i < 0 {
		return Process{}, false
	}
	return t.Processes[i], true
}

// Select returns the processes of a carrier and subsystem in order of their
// ordinals. An empty string matches all; the order is then the file's.
func (t *Topology) Select(carrier, subsystem string) []Process {
	var out []Process
	for _, p := range t.Processes {
		if (carrier == "" || p.Carrier == carrier) && (subsystem == "" || p.Subsystem == subsystem) {
			out = append(out, p)
		}
	}
	if carrier == "" || subsystem == "" {
		return out
	}
	slices.SortFunc(out, func(a, b Process) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	return out
}

// Others returns the carriers that are not the given one.
func (t *Topology) Others(carrier string) []string {
	return slices.DeleteFunc(slices.Clone(t.Carriers), func(c string) bool { return c == carrier })
}

// Load reads a topology file.
func Load(path string) (*Topology, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t := new(Topology)
	if err := json.Unmarshal(raw, t); err != nil {
		return nil, fmt.Errorf("topology %s: %w", path, err)
	}
	return t, t.Validate()
}

// Save writes the file so that a crash leaves the old one or the new one.
func (t *Topology) Save(path string) error {
	raw, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".topology-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(append(raw, '\n'))
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// Validate reports every fault at once.
func (t *Topology) Validate() error {
	var faults []error
	seen := map[string]bool{}
	for _, p := range t.Processes {
		if p.Name == "" || seen[p.Name] {
			faults = append(faults, fmt.Errorf("process name %q is empty or stands twice", p.Name))
		}
		seen[p.Name] = true
		if !slices.Contains(t.Carriers, p.Carrier) {
			faults = append(faults, fmt.Errorf("process %s: carrier %q is not in the list of carriers", p.Name, p.Carrier))
		}
	}
	return errors.Join(faults...)
}
