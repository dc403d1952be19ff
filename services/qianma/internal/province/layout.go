package province

import (
	"path/filepath"

	"qianma/cluster/topology"
)

// Layout names the files of a data directory, which is its value.
type Layout string

func (l Layout) join(part ...string) string {
	return filepath.Join(append([]string{string(l)}, part...)...)
}

// Files and directories that the whole province shares.
func (l Layout) Topology() string  { return l.join("topology.json") }
func (l Layout) Endpoints() string { return l.join("endpoints.json") }
func (l Layout) Plan() string      { return l.join("province.json") }
func (l Layout) Lock() string      { return l.join("supervisor.lock") }
func (l Layout) CA() string        { return l.join("ca") }
func (l Layout) Secrets() string   { return l.join("secrets") }
func (l Layout) Logs() string      { return l.join("logs") }

// SupervisorLog is where the supervisor tells what it did.
func (l Layout) SupervisorLog() string { return l.join("logs", "supervisor.log") }

// Process is the data directory of a process, Config its configuration, Log
// its log. A log lies outside the data directory, to tell of its loss.
func (l Layout) Process(p topology.Process) string { return l.join(p.Carrier, p.Name) }
func (l Layout) Config(p topology.Process) string  { return l.join(p.Carrier, p.Name, "config.json") }
func (l Layout) Log(p topology.Process) string     { return l.join("logs", p.Name+".log") }
