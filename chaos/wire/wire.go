// Package wire is the second way to break a network: each carrier in a network
// namespace of its own, and between the two a line on which single packets are
// lost, repeated, overtaken, damaged and late, below TCP. It needs root.
//
// Where the kernel has netem, the line is a veth pair and the kernel does the
// harm (tc). Where it has not, the line is a pair of TUN devices, and a process
// of ours carries each packet from one to the other and does the same harm, by
// a seed. Either is asked what is in force; neither is believed to have
// forgotten.
//
// The doors, by which clients and tools reach a carrier, are veth pairs of
// their own: a fault on the line is no fault between a carrier and its clients.
// It knows no process and no subsystem.
package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"time"
)

// The two kinds of line.
const (
	Kernel = "kernel" // veth and netem
	Own    = "own"    // TUN and a process of ours
)

// End is one carrier's end of the line.
type End struct {
	Carrier string `json:"carrier"`
	NetNS   string `json:"netns"`
	Addr    string `json:"addr"` // where its processes listen
	Door    string `json:"door"` // device by which it is reached from outside
}

// Config is how the two carriers are tied together, as it stands in wire.json.
type Config struct {
	Kind  string `json:"kind"`
	HTTP  string `json:"http"`  // control of our own line
	Gate  string `json:"gate"`  // our address outside, from which clients come
	Owner string `json:"owner"` // data directory
	Ends  [2]End `json:"ends"`
}

// Load reads it.
func Load(path string) (*Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := new(Config)
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// end is which end a carrier has; -1: none.
func (c *Config) end(carrier string) int {
	for i, e := range c.Ends {
		if e.Carrier == carrier {
			return i
		}
	}
	return -1
}

// Addr is where a carrier's processes listen.
func (c *Config) Addr(carrier string) string {
	if i := c.end(carrier); i >= 0 {
		return c.Ends[i].Addr
	}
	return ""
}

// NetNS is the namespace they run in.
func (c *Config) NetNS(carrier string) string {
	if i := c.end(carrier); i >= 0 {
		return c.Ends[i].NetNS
	}
	return ""
}

// Rule is a fault on the packets that leave one carrier for the other.
type Rule struct {
	ID        string        `json:"id"`
	From      string        `json:"from"`                // carrier
	Loss      float64       `json:"loss,omitempty"`      // share of packets
	Duplicate float64       `json:"duplicate,omitempty"` // share that comes twice
	Corrupt   float64       `json:"corrupt,omitempty"`   // share with one bit wrong
	Reorder   float64       `json:"reorder,omitempty"`   // share that overtakes those under Delay
	Delay     time.Duration `json:"delay_ns,omitempty"`
	Jitter    time.Duration `json:"jitter_ns,omitempty"`  // up to this much more or less
	BytesRate int           `json:"bytes_rate,omitempty"` // a second
	Seed      uint64        `json:"seed,omitempty"`
	// Until is when our own line forgets the rule; the kernel's has no clock.
	Until time.Time `json:"until,omitzero"`
}

// Validate reports every fault at once.
func (r Rule) Validate() error {
	var faults []error
	if r.ID == "" || r.From == "" {
		faults = append(faults, errors.New("a rule needs an id, to be removed by, and a carrier that packets come from"))
	}
	for _, share := range []float64{r.Loss, r.Duplicate, r.Corrupt, r.Reorder} {
		if !(share >= 0 && share <= 1) {
			faults = append(faults, errors.New("a share of packets is 0 to 1"))
		}
	}
	if r.Delay < 0 || r.Jitter < 0 || r.Jitter > r.Delay || r.BytesRate < 0 {
		faults = append(faults, errors.New("delay, jitter and rate are not negative, and jitter is no more than the delay"))
	}
	if r.Reorder > 0 && r.Delay == 0 {
		faults = append(faults, errors.New("to be overtaken, packets need a delay"))
	}
	if r.Loss+r.Duplicate+r.Corrupt+r.Reorder == 0 && r.Delay == 0 && r.BytesRate == 0 {
		faults = append(faults, errors.New("the rule harms no packet"))
	}
	return errors.Join(faults...)
}

// Harm is what became of the packets that left one carrier.
type Harm struct {
	From       string `json:"from"`
	Packets    int64  `json:"packets"`
	Lost       int64  `json:"lost"`
	Duplicated int64  `json:"duplicated"`
	Corrupted  int64  `json:"corrupted"`
	Reordered  int64  `json:"reordered"`
	Delayed    int64  `json:"delayed"`
	Overflowed int64  `json:"overflowed"` // lost because too many waited
}

// Line is the line as whoever harms it sees it.
type Line interface {
	// Set puts a rule in force. The lease is how long our own line remembers
	// it. A carrier's packets bear one rule at a time.
	Set(ctx context.Context, r Rule, lease time.Duration) error
	// Remove takes a rule off; one that is not there is fine.
	Remove(ctx context.Context, r Rule) error
	// Rules are the carriers whose packets are harmed now, as the line itself
	// shows. The kernel keeps no ids: theirs are empty.
	Rules(ctx context.Context) ([]Rule, error)
}

// Open is the line of a province.
func (c *Config) Open() Line {
	if c.Kind == Kernel {
		return kernel{c}
	}
	return own{c}
}

// percent is a share as tc reads it.
func percent(share float64) string { return fmt.Sprintf("%g%%", math.Round(share*1e6)/1e4) }
