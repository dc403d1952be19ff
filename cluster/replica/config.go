package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"qianma/cluster/clock"
	"qianma/cluster/machine"
	"qianma/cluster/raftlog"
)

// Listener hands out the incoming connections of a named group.
type Listener interface {
	Group(id string) net.Listener
}

// Dialer opens a connection to a named group at a named process.
type Dialer interface {
	Group(ctx context.Context, process, group string) (net.Conn, error)
}

// Calls makes a request to a named process. An error that carries
// problem.Unavailable says that nothing was done; problem.Unknown, that it may
// have been.
type Calls interface {
	Call(ctx context.Context, process, method string, request []byte) ([]byte, error)
}

// Config is what a Replica is told. Fields without a stated default are needed.
type Config struct {
	Name      string   // of this process: "unicom-nucleic-1"
	Carrier   string   // "unicom"
	Subsystem string   // "nucleic"
	Peers     []string // the processes the groups are first formed of; Name among them unless it joins later
	Shards    int      // groups; default 1. Fixed for the life of the data.

	Dir string // this replica's own directory; made if missing
	FS  vfs.FS // default: the operating system's

	// Machine returns the rules of one shard. Each is used by one goroutine.
	Machine func(shard int) machine.Machine

	Mux    Listener
	Dialer Dialer
	Calls  Calls

	Clock   clock.Clock           // default clock.Real
	Logger  *slog.Logger          // default slog.Default()
	Metrics prometheus.Registerer // default: none

	// Fatal is called once when this node must stop: its disk failed, its data
	// is damaged, or it contradicts the leader. It must make the process end
	// and must not wait for Close. Default: only logged.
	Fatal func(error)

	// Repeatable says that a command judged a second time is a Duplicate, so
	// that a proposal whose outcome was lost may be sent again without an
	// idempotency key. With a key it always is.
	Repeatable bool

	Tuning Tuning
}

// Heartbeat is Tuning.Heartbeat where nothing else is said.
const Heartbeat = 1200 * time.Millisecond

// Tuning has a good default for every field that is zero.
type Tuning struct {
	Heartbeat     time.Duration // silence after which a follower stands for election; the constant
	Lease         time.Duration // silence after which a leader steps down; half of Heartbeat; raft allows all of it
	CommitTimeout time.Duration // how soon an idle follower hears of a commit; 400 ms
	RPCTimeout    time.Duration // of one raft message; 3 s
	// Leaderless is how long nobody may be known to lead before a write is
	// refused, nothing written, so that its caller goes elsewhere: longer than
	// most elections, shorter than people wait. Where it is given, a process
	// that has known of nobody since it started refuses at once. 30 s.
	Leaderless time.Duration

	SnapshotEntries uint64 // entries after which the log may be cut; 4096
	SnapshotBytes   int    // entry bytes after which it is; 64 MiB
	TrailingLogs    uint64 // entries kept behind a snapshot; 10240
	TrailingBytes   int    // fewer are kept if they are large; 256 MiB

	EntryBytes    int // commands gathered into one entry; 1 MiB
	EntryCommands int // the same, counted; 4096
	Inflight      int // entries (or forwarded calls) under way; 4
	// Gather is the least time between two entries (or forwarded calls) of one
	// process: what arrives in between travels together. A call that finds
	// nothing sent lately leaves at once. 80 ms.
	Gather     time.Duration
	QueueCalls int // callers that may wait in one group; 8192
	QueueBytes int // and the bytes they may hold; 32 MiB

	LogMemTable   int // MiB; 16
	StateMemTable int // MiB; 16
	StateCache    int // MiB, for all groups of the process; 24

	// AwaitWord is how long a leader whose process has just started waits for
	// the other carrier to say how far it holds this origin, before it writes.
	// It costs nothing while the other carrier answers, or is not known. 2 s.
	AwaitWord time.Duration

	// KeyAge is how long an idempotency key is remembered at least; it is
	// forgotten after twice that. 24 h.
	KeyAge time.Duration
}

// Bounds of one proposal.
const (
	MaxCommands      = 1 << 14
	MaxProposalBytes = 6 << 20
	maxFact          = 4 << 20
)

func orElse[T comparable](v *T, or T) {
	var zero T
	if *v == zero {
		*v = or
	}
}

func (t *Tuning) setDefaults() {
	orElse(&t.Heartbeat, Heartbeat)
	orElse(&t.Lease, t.Heartbeat/2)
	orElse(&t.CommitTimeout, 400*time.Millisecond)
	orElse(&t.RPCTimeout, 3*time.Second)
	orElse(&t.Leaderless, patience)
	orElse(&t.SnapshotEntries, 4096)
	orElse(&t.SnapshotBytes, 64<<20)
	orElse(&t.TrailingLogs, 10240)
	orElse(&t.TrailingBytes, 256<<20)
	orElse(&t.EntryBytes, 1<<20)
	orElse(&t.EntryCommands, 4096)
	orElse(&t.Inflight, 4)
	orElse(&t.Gather, 80*time.Millisecond)
	orElse(&t.QueueCalls, 8192)
	orElse(&t.QueueBytes, 32<<20)
	orElse(&t.LogMemTable, 16)
	orElse(&t.StateMemTable, 16)
	orElse(&t.StateCache, 24)
	orElse(&t.AwaitWord, 2*time.Second)
	orElse(&t.KeyAge, 24*time.Hour)
}

func (c *Config) setDefaults() {
	orElse(&c.Shards, 1)
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Clock == nil {
		c.Clock = clock.Real
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Fatal == nil {
		log := c.Logger
		c.Fatal = func(err error) { log.Error("this node must stop", "error", err) }
	}
	c.Tuning.setDefaults()
}

// Validate reports every fault at once.
func (c *Config) Validate() error {
	var faults []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf("replica: "+format, args...))
		}
	}
	name := func(what, v string) {
		need(v != "" && len(v) <= 64, "%s %q must have 1 to 64 bytes", what, v)
	}
	name("Name", c.Name)
	name("Carrier", c.Carrier)
	name("Subsystem", c.Subsystem)
	need(c.Dir != "", "Dir is empty")
	need(c.Machine != nil, "Machine is missing")
	need(c.Mux != nil && c.Dialer != nil, "Mux or Dialer is missing")
	need(c.Calls != nil || len(c.Peers) <= 1, "Calls is missing")
	need(len(c.Peers) > 0, "Peers is empty")
	need(c.Shards >= 0 && c.Shards <= raftlog.MaxGroup, "Shards %d is out of range", c.Shards)
	for i, p := range c.Peers {
		name("Peers", p)
		need(!slices.Contains(c.Peers[:i], p), "peer %q stands twice", p)
	}
	return errors.Join(faults...)
}
