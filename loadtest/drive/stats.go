package drive

import (
	"math/bits"
	"time"

	"qianma/loadtest/hist"
)

// Tally counts the operations of one kind in one stream. Response is from the
// intended start, Service from when the first byte was handed over; both count
// rows, so that a request of 500 weighs as much as 500 requests.
type Tally struct {
	Started  int64            `json:"started"`
	OK       int64            `json:"ok"`
	Refused  int64            `json:"refused"`
	Rejected int64            `json:"rejected"`
	NotSent  int64            `json:"not_sent"`
	Unknown  int64            `json:"unknown"`
	Dropped  int64            `json:"dropped"`
	Retries  int64            `json:"retries"` // tries beyond the first
	Replayed int64            `json:"replayed"`
	Rows     int64            `json:"rows"`  // taken, in the operations that went well
	Codes    map[string]int64 `json:"codes"` // of tries that did not succeed
	Response *hist.Hist       `json:"response"`
	Service  *hist.Hist       `json:"service"`
	Refusal  *hist.Hist       `json:"refusal"`         // from sending to being refused
	NoHint   int64            `json:"refused_no_hint"` // refusals without Retry-After
	Overdue  int64            `json:"overdue"`         // of OK: answered after the client's patience
	Excused  int64            `json:"excused_rows"`    // that may be there beyond what was acknowledged
	Found    int64            `json:"found"`           // of OK displays: showed a test
	Stale    int64            `json:"stale"`           // of OK displays: said that what they showed was old
}

// NewTally returns an empty one.
func NewTally() *Tally {
	return &Tally{Codes: map[string]int64{}, Response: hist.New(), Service: hist.New(), Refusal: hist.New()}
}

// Merge adds another generator's tally.
func (t *Tally) Merge(o *Tally) {
	t.Started += o.Started
	t.OK += o.OK
	t.Refused += o.Refused
	t.Rejected += o.Rejected
	t.NotSent += o.NotSent
	t.Unknown += o.Unknown
	t.Dropped += o.Dropped
	t.Retries += o.Retries
	t.Replayed += o.Replayed
	t.Rows += o.Rows
	t.NoHint += o.NoHint
	t.Overdue += o.Overdue
	t.Excused += o.Excused
	t.Found += o.Found
	t.Stale += o.Stale
	for c, n := range o.Codes {
		t.Codes[c] += n
	}
	t.Response.Merge(o.Response)
	t.Service.Merge(o.Service)
	t.Refusal.Merge(o.Refusal)
}

func (t *Tally) tried(op *Op) {
	if op.Outcome == OK {
		return
	}
	t.Codes[op.Code]++
	if op.Outcome == Refused {
		t.Refusal.Record(op.Ended - op.Tried)
		if op.RetryAfter < 0 {
			t.NoHint++
		}
	}
}

func (t *Tally) ended(op *Op, counted bool, patience time.Duration) {
	t.Retries += int64(op.Tries - 1)
	t.Excused += excused(op)
	switch op.Outcome {
	case OK:
		t.OK++
		if counted {
			t.Response.RecordN(op.Ended-op.Intended, op.rows())
			t.Service.RecordN(op.Ended-op.First, op.rows())
		}
		t.Rows += int64(max(len(op.Samples), len(op.Results)) - len(op.Row))
		t.took(op, patience)
	case Refused:
		t.Refused++
	case Rejected:
		t.Rejected++
	case NotSent:
		t.NotSent++
	case Unknown:
		t.Unknown++
	case Dropped:
		t.Dropped++
	}
}

// took notes of an operation that went well what else its answer said.
func (t *Tally) took(op *Op, patience time.Duration) {
	count := func(n *int64, when bool) {
		if when {
			*n++
		}
	}
	count(&t.Replayed, op.Replayed)
	count(&t.Overdue, op.Ended-op.Intended > patience)
	count(&t.Found, op.Kind == Display && op.View.Found)
	count(&t.Stale, op.Kind == Display && op.View.Stale)
}

// excused is how many facts an operation may have left behind beyond the rows
// that were acknowledged: all its rows at each carrier where a try was or may
// have been done, but for the one acknowledgement; and rows kept as conflicts.
// A carrier that keeps a row twice under one key has no excuse.
func excused(op *Op) int64 {
	if !op.Kind.Write() {
		return 0
	}
	places := int64(bits.OnesCount64(op.reached))
	if op.Outcome == OK {
		places--
	}
	n := places * op.rows()
	for _, r := range op.Row {
		if r.Kept {
			n++
		}
	}
	if op.Outcome == Rejected && op.Code == KeptConflict {
		n++
	}
	return n
}

// Units counts what the stream is about: tests, or displays. When a run has
// drained, Asked = Acked + Failed + Unknown + Dropped.
type Units struct {
	Asked   int64 `json:"asked"`   // by the schedule
	Sent    int64 `json:"sent"`    // handed to the network
	Acked   int64 `json:"acked"`   // all of it done
	Failed  int64 `json:"failed"`  // surely not done
	Unknown int64 `json:"unknown"` // perhaps done
	Dropped int64 `json:"dropped"` // never tried: a bound of the generator was met
}

// Add adds another generator's counts.
func (u *Units) Add(o Units) {
	u.Asked += o.Asked
	u.Sent += o.Sent
	u.Acked += o.Acked
	u.Failed += o.Failed
	u.Unknown += o.Unknown
	u.Dropped += o.Dropped
}

// Count adds one operation that is a unit by itself.
func (u *Units) Count(op *Op) {
	if op.First > 0 {
		u.Sent++
	}
	switch op.Outcome {
	case OK:
		u.Acked++
	case Unknown:
		u.Unknown++
	case Dropped:
		u.Dropped++
	default:
		u.Failed++
	}
}

// Second is one second of one stream, for plots.
type Second struct {
	At      int     `json:"at"`    // seconds from the start
	Asked   float64 `json:"asked"` // units a second
	Done    float64 `json:"done"`
	Failed  float64 `json:"failed"` // refused, rejected, unknown or dropped operations
	P50     float64 `json:"p50"`    // ms, of responses that came in this second, of the slowest kind
	P99     float64 `json:"p99"`
	Max     float64 `json:"max"`
	Open    int     `json:"open"` // operations in flight or waiting, of all streams
	Refused int64   `json:"refused"`
	Served  float64 `json:"served"` // units whose own arrival was answered well: a test registered, a code shown
}

// Pace says how well the generator itself kept up.
type Pace struct {
	Arrivals int64      `json:"arrivals"`
	Late     int64      `json:"late"` // taken up more than Tolerance after their time
	Lag      *hist.Hist `json:"lag"`  // from the intended start to being taken up
}

// Tolerance is how late an arrival may be taken up before it counts as late.
// Its response time counts from the intended start either way.
const Tolerance = 10 * time.Millisecond
