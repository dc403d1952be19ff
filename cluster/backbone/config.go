// Package backbone is what a carrier's other processes lean on and can do
// without: an embedded NATS JetStream server and an embedded etcd member in
// one small process.
//
// It promises to come back by itself: a store that was deleted is made again,
// streams that are missing are made again, a leaf link that has gone stale is
// dialled again, a certificate authority that was rotated is taken up. It does
// not promise to keep anything: every fact lives in the subsystems' own logs,
// and what the registry says is cached by whoever read it. So nothing is lost
// with a backbone, and nobody waits for one.
//
// A production carrier that runs its own NATS and etcd clusters needs no
// backbone at all.
package backbone

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"qianma/cluster/pki"
	"qianma/cluster/topology"
)

// Config is all that a backbone is told. Its fields are named as in the other
// daemons' configuration, so that one writer serves all; fields it does not
// know are left alone.
type Config struct {
	Name     string `json:"name"`     // of this process in the topology: "unicom-backbone-1"
	Carrier  string `json:"carrier"`  // "unicom"
	Dir      string `json:"dir"`      // data directory
	HTTP     string `json:"http"`     // host:port of health, metrics and status; empty: none
	Topology string `json:"topology"` // file: every process of the province

	CA       string `json:"ca"`       // PEM file: the province's authority
	Cert     string `json:"cert"`     // PEM file: this process's certificate
	Key      string `json:"key"`      // PEM file: its private key
	Insecure bool   `json:"insecure"` // plain text everywhere: never outside a test

	// Via replaces the address of a process for this one alone (name ->
	// host:port): how a fault proxy is put on the leaf link.
	Via map[string]string `json:"via,omitempty"`

	StoreMiB  int    `json:"store_mib"`  // most bytes of each stream; 0: 512
	MemoryMiB int    `json:"memory_mib"` // soft limit of the Go heap; 0: 128
	Procs     int    `json:"procs"`      // processors that run Go code at once; 0: all
	LogLevel  string `json:"log_level"`  // debug, info, warn, error; empty: info

	Province *topology.Topology `json:"-"` // read from Topology when nil
	Logger   *slog.Logger       `json:"-"` // nil: silent

	// Paces of the keepers; zero means the default. Tests shorten them.
	KeepEvery  time.Duration `json:"-"` // stores and streams are looked at; 1 s
	BeatEvery  time.Duration `json:"-"` // a heartbeat crosses the leaf link; 5 s
	QuietMax   time.Duration `json:"-"` // no heartbeat for so long makes the link suspect; 15 s
	ActAfter   time.Duration `json:"-"` // time between one remedy for the link and the next; 20 s
	ReadyAfter time.Duration `json:"-"` // longest wait at start for NATS and etcd; 10 s
}

// Load reads a configuration file and validates it.
func Load(path string) (Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Config{}, err
	}
	var c Config
	if err := json.Unmarshal(raw, &c); err != nil {
		return Config{}, fmt.Errorf("config %s: %w", path, err)
	}
	return c, c.Validate()
}

// Validate reports every fault at once.
func (c *Config) Validate() error {
	var faults []error
	need := func(name, value string) {
		if value == "" {
			faults = append(faults, fmt.Errorf("%s is empty", name))
		}
	}
	need("name", c.Name)
	need("carrier", c.Carrier)
	need("dir", c.Dir)
	if c.Province == nil {
		need("topology", c.Topology)
	}
	if !c.Insecure {
		need("ca", c.CA)
		need("cert", c.Cert)
		need("key", c.Key)
	}
	return errors.Join(faults...)
}

// layout is who listens where, as the topology says.
type layout struct {
	self    topology.Process
	members []topology.Process            // backbones of this carrier, this one included
	others  map[string][]topology.Process // backbones of each other carrier
	rank    int                           // of this carrier in the list of carriers
	ranks   map[string]int
}

// fill sets defaults and reads the topology.
func (c *Config) fill() (layout, error) {
	if err := c.Validate(); err != nil {
		return layout{}, err
	}
	if c.Province == nil {
		t, err := topology.Load(c.Topology)
		if err != nil {
			return layout{}, err
		}
		c.Province = t
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	def(&c.StoreMiB, 512)
	def(&c.KeepEvery, time.Second)
	def(&c.BeatEvery, 5*time.Second)
	def(&c.QuietMax, 15*time.Second)
	def(&c.ActAfter, 20*time.Second)
	def(&c.ReadyAfter, 10*time.Second)
	return c.layout()
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) layout() (layout, error) {
	self, ok := c.Province.Find(c.Name)
	if !ok {
		return layout{}, fmt.Errorf("backbone: the topology has no process %q", c.Name)
	}
	if self.Carrier != c.Carrier {
		return layout{}, fmt.Errorf("backbone: %s stands at %q in the topology, not at %q", c.Name, self.Carrier, c.Carrier)
	}
	l := layout{self: self, members: c.Province.Select(c.Carrier, self.Subsystem), others: map[string][]topology.Process{}, ranks: map[string]int{}}
	for i, carrier := range c.Province.Carriers {
		l.ranks[carrier] = i
	}
	l.rank = l.ranks[c.Carrier]
	for _, other := range c.Province.Others(c.Carrier) {
		l.others[other] = c.Province.Select(other, self.Subsystem)
	}
	return l, nil
}

// solicits says whether this carrier dials the leaf link to the other. Of two
// carriers exactly one does, because two links would carry everything twice:
// the one that stands later in the list of carriers.
func (l *layout) solicits(other string) bool { return l.rank > l.ranks[other] }

func (l *layout) otherCarriers() []string {
	var names []string
	for name := range l.others {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// leafOf is where another carrier's backbone takes leaf connections, as seen
// from here.
func (c *Config) leafOf(p topology.Process) string {
	if via := c.Via[p.Name]; via != "" {
		return via
	}
	return p.Leaf
}

func (c *Config) files() pki.Files { return pki.Files{CA: c.CA, Cert: c.Cert, Key: c.Key} }
