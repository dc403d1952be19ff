// Package model is what a drill remembers of the operations it made: each with
// when it began and ended on one clock, where it went, and what came back.
//
// It promises that an operation whose end is not known is remembered as
// unknown, never as failed, and that a history can be written down and read
// again without loss. It knows no person: whoever is tested or shown is a
// number. It judges nothing; package check does.
package model

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// Kind is what an operation asked for.
type Kind string

// The kinds.
const (
	Register Kind = "register" // bind a member to a tube
	Repeat   Kind = "repeat"   // the same request again, with the same key
	Read     Kind = "read"     // the members of a tube
	Show     Kind = "show"     // a person's code
	Result   Kind = "result"   // of a tube
	Restrict Kind = "restrict" // a person
)

// Outcome is how an operation ended.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"
	Refused Outcome = "refused" // surely not done
	Unknown Outcome = "unknown" // perhaps done
)

// Level is how far a receipt says a write has got.
type Level string

// The levels.
const (
	Committed  Level = "committed"
	Replicated Level = "replicated"
)

// Receipt is what a write was answered with.
type Receipt struct {
	Level    Level  `json:"level"`
	Origin   string `json:"origin"`
	First    uint64 `json:"first"`
	Last     uint64 `json:"last"`
	Replayed bool   `json:"replayed"`
}

// Address is the receipt without what may differ when it is given again.
func (r Receipt) Address() Receipt { return Receipt{Origin: r.Origin, First: r.First, Last: r.Last} }

// View is what a code said.
type View struct {
	Colour  string           `json:"colour"`
	Status  string           `json:"status"`  // of the newest test; "" when none
	Sampled int64            `json:"sampled"` // Unix ms
	Stale   bool             `json:"stale"`   // the answer says so itself
	Behind  bool             `json:"behind"`  // it says that this reader has seen more
	AsOf    map[string]int64 `json:"as_of"`   // carrier -> Unix ms
	Source  string           `json:"source"`
}

// Op is one operation.
type Op struct {
	Client  int           `json:"client"`
	Kind    Kind          `json:"kind"`
	Carrier string        `json:"carrier"`
	Node    string        `json:"node,omitempty"` // that answered
	Start   time.Duration `json:"start"`          // from the beginning of the history
	End     time.Duration `json:"end"`
	Outcome Outcome       `json:"outcome"`
	Code    string        `json:"code,omitempty"`
	Key     string        `json:"key,omitempty"`
	Tube    string        `json:"tube,omitempty"`
	Member  int           `json:"member,omitempty"`  // of the tube
	Members uint64        `json:"members,omitempty"` // a read's, as bits
	Strange int           `json:"strange,omitempty"` // a read's members that nobody sent
	Stale   bool          `json:"stale,omitempty"`   // a read says that no majority vouched for it
	Final   bool          `json:"final,omitempty"`   // after the quiet period
	Person  int           `json:"person,omitempty"`
	Sampled int64         `json:"sampled,omitempty"` // Unix ms, of what a write is about
	Colour  string        `json:"colour,omitempty"`  // that a restriction demands
	Receipt *Receipt      `json:"receipt,omitempty"`
	View    *View         `json:"view,omitempty"`
}

// History is every operation of a drill. Add is safe for concurrent use; the
// rest is for when all have ended.
type History struct {
	Start time.Time `json:"start"`
	Ops   []Op      `json:"-"`

	mu sync.Mutex
}

// NewHistory begins one now.
func NewHistory() *History { return &History{Start: time.Now()} }

// Now is the history's clock.
func (h *History) Now() time.Duration { return time.Since(h.Start) }

// Wall is an instant of the history's clock in Unix milliseconds.
func (h *History) Wall(at time.Duration) int64 { return h.Start.Add(at).UnixMilli() }

// Add remembers an operation that has ended.
func (h *History) Add(op Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Ops = append(h.Ops, op)
}

// Save writes the history as lines of JSON: its head, then each operation.
func (h *History) Save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	err = enc.Encode(h)
	for i := 0; i < len(h.Ops) && err == nil; i++ {
		err = enc.Encode(&h.Ops[i])
	}
	return errors.Join(err, w.Flush(), f.Close())
}

// Load reads a history.
func Load(path string) (*History, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dec := json.NewDecoder(bufio.NewReader(f))
	h := new(History)
	if err := dec.Decode(h); err != nil {
		return nil, err
	}
	for {
		var op Op
		if err := dec.Decode(&op); err == io.EOF {
			return h, nil
		} else if err != nil {
			return nil, err
		}
		h.Ops = append(h.Ops, op)
	}
}
