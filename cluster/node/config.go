package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// Config is all that a daemon is told. `qianma up` writes one as JSON for each
// process; a production unit file points at one written by hand.
type Config struct {
	Name      string `json:"name"`      // of this process in the topology: "unicom-nucleic-1"
	Carrier   string `json:"carrier"`   // "unicom"
	Subsystem string `json:"subsystem"` // "nucleic"
	Dir       string `json:"dir"`       // this process's own data directory
	Listen    string `json:"listen"`    // host:port for raft and RPC
	HTTP      string `json:"http"`      // host:port for the public HTTP API
	Topology  string `json:"topology"`  // file: every process of the province
	Secrets   string `json:"secrets"`   // directory with person.key and the token keys

	CA       string `json:"ca"`       // PEM file: the province's authority
	Cert     string `json:"cert"`     // PEM file: this process's certificate
	Key      string `json:"key"`      // PEM file: its private key
	Insecure bool   `json:"insecure"` // node-to-node traffic in plain text: never outside a test

	NATS []string `json:"nats"` // URLs of this carrier's NATS servers; empty: facts are pulled
	Etcd []string `json:"etcd"` // endpoints of this carrier's etcd; empty: the topology file alone

	// DialFrom is a local address that outgoing node-to-node connections are
	// bound to, so that a fault proxy can tell callers apart. Empty: any.
	DialFrom string `json:"dial_from,omitempty"`
	// Via replaces the address of a process for this one alone (name ->
	// host:port): how a fault proxy is put on a link. Empty: the topology's.
	Via map[string]string `json:"via,omitempty"`

	// Drills lets drills break this process from inside (package mishap). A
	// process that is not told so cannot be reached by them: leave it out where
	// nobody is meant to rehearse.
	Drills bool `json:"drills,omitempty"`

	MemoryMiB int    `json:"memory_mib"` // soft limit of the Go heap, beside room for a crowd at the door; 0: 256
	Procs     int    `json:"procs"`      // processors that run Go code at once; 0: all
	LogLevel  string `json:"log_level"`  // debug, info, warn, error; empty: info
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
	need("subsystem", c.Subsystem)
	need("dir", c.Dir)
	need("http", c.HTTP)
	need("topology", c.Topology)
	if !c.Insecure {
		need("ca", c.CA)
		need("cert", c.Cert)
		need("key", c.Key)
	}
	return errors.Join(faults...)
}
