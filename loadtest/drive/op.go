package drive

import (
	"time"

	"qianma/loadtest/client"
)

// Kind is what an operation asks of the system.
type Kind uint8

// The kinds of operations. A target refuses those it cannot do.
const (
	Register      Kind = iota // one sample
	RegisterBatch             // several samples in one request
	Report                    // the result of one tube
	ReportBatch               // the results of several tubes
	Display                   // a person's code, or the newest result
	Verify                    // of a token
	Tube                      // how many swabs a tube holds
	kinds
)

var kindNames = [...]string{"register", "register_batch", "result", "result_batch", "display", "verify", "tube"}

// String is the kind as reports name it.
func (k Kind) String() string { return kindNames[k] }

// Write says whether the kind changes the system.
func (k Kind) Write() bool { return k <= ReportBatch }

// Sample is one person's swab.
type Sample struct {
	Test    uint32 // index in the ledger
	Person  uint32
	Tube    uint64
	Pool    uint8
	Sampled int64 // Unix ms
}

// Result is what the lab found in one tube.
type Result struct {
	Tube    uint64
	Outcome uint8
	At      int64 // Unix ms
}

// Outcome is how an operation ended.
type Outcome uint8

// The outcomes.
const (
	OK       Outcome = iota
	Refused          // the system said not now: nothing was done
	Rejected         // the system said no: nothing was done, and asking again is no use
	NotSent          // it never reached the system
	Unknown          // it may have been done
	Dropped          // the generator's own bound was met
)

var outcomeNames = [...]string{"ok", "refused", "rejected", "not_sent", "unknown", "dropped"}

// String is the outcome's name.
func (o Outcome) String() string { return outcomeNames[o] }

// View is what a read showed.
type View struct {
	Found   bool
	Sampled int64  // Unix ms of the newest test
	Status  string // of the newest test
	Swabs   int    // in a tube
	Stale   bool
}

// Op is one operation from its intention to its end. A target fills in the
// second half. Ops are used again; nobody may hold one after its end.
type Op struct {
	Kind      Kind
	Carrier   int    // index: where it goes now
	Home      int    // where it goes first
	Key       uint64 // of the idempotency key; 0: none
	Samples   []Sample
	Results   []Result
	Person    uint32
	Phone     bool // of a display: the person's own phone, which keeps to one node while that is up
	TubeNo    uint64
	Token     []byte
	WantToken bool // of a display

	Intended time.Duration // when it should have started, on the run's clock
	First    time.Duration // when it was first handed to the network; 0: never
	Tried    time.Duration // when the last try was
	Ended    time.Duration
	Tries    int

	Outcome    Outcome
	Code       string        // why not OK; KeptConflict if the row was kept all the same
	RetryAfter time.Duration // -1: the answer did not say
	Sent       bool          // this try may have reached the system
	Row        []RowFault    // rows of a batch that were not taken
	Replayed   bool
	View       View

	Call    client.Call // for a target over HTTP
	Body    []byte
	stream  *Stream
	done    func(*Op)
	perhaps bool   // some try may have been done
	reached uint64 // carriers, as bits, where some try was or may have been done
	quiet   bool   // counted by nobody but its own done
}

// RowFault is one row of a batch that was not taken.
type RowFault struct {
	Row  int    `json:"row"`
	Code string `json:"code"`
	Kept bool   `json:"kept,omitempty"` // as a conflict: it is a fact, and no acknowledgement
}

// KeptConflict is the code of a single row that was kept as a conflict.
const KeptConflict = "conflict"

// rows is how many rows the operation writes, or 1: what it weighs.
func (o *Op) rows() int64 { return int64(max(1, len(o.Samples), len(o.Results))) }

// reset makes the op new but keeps its buffers.
func (o *Op) reset() {
	*o = Op{Samples: o.Samples[:0], Results: o.Results[:0], Token: o.Token[:0], Row: o.Row[:0], Body: o.Body[:0],
		Call: client.Call{Path: o.Call.Path[:0], Key: o.Call.Key[:0]}}
}

// Target is a system under load.
type Target interface {
	// Begin fixes the instant that the run's clock counts from.
	Begin(start time.Time)
	// Start begins an operation and never blocks.
	Start(op *Op)
	// Poll waits at most the given time and hands over the operations that
	// have ended, each once, with Outcome, Code, First, Ended, Sent, View set.
	Poll(wait time.Duration, done func(*Op)) error
	// Carriers is how many places an operation can go to.
	Carriers() int
	// Nodes is how many nodes a carrier has for the kind; tries go round them
	// before they go to another carrier.
	Nodes(carrier int, k Kind) int
	Close() error
}
