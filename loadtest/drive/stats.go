package drive

import (
	"time"

	"qianma/loadtest/hist"
)

// Tally counts the operations of one kind in one stream. Response is from the
// intended start, Service from when the first byte was handed over.
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

func (t *Tally) ended(op *Op, warm bool) {
	t.Retries += int64(op.Tries - 1)
	switch op.Outcome {
	case OK:
		t.OK++
		if warm {
			t.Response.Record(op.Ended - op.Intended)
			t.Service.Record(op.Ended - op.First)
		}
		t.Rows += int64(max(len(op.Samples), len(op.Results)) - len(op.Row))
		if op.Replayed {
			t.Replayed++
		}
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
	P50     float64 `json:"p50"`    // ms, of responses that came in this second
	P99     float64 `json:"p99"`
	Max     float64 `json:"max"`
	Open    int     `json:"open"` // operations in flight or waiting, of all streams
	Refused int64   `json:"refused"`
}

// Pace says how well the generator itself kept up.
type Pace struct {
	Arrivals int64         `json:"arrivals"`
	Late     int64         `json:"late"` // taken up more than Tolerance after their time
	Lag      *hist.Hist    `json:"lag"`  // from the intended start to being taken up
	Most     time.Duration `json:"-"`
}

// Tolerance is how late an arrival may be taken up before it counts as late.
// Its response time counts from the intended start either way.
const Tolerance = 10 * time.Millisecond
