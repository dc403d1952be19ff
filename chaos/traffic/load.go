// Package traffic is what a drill sends while something is broken: the load
// generator's streams with their ledger, and probes that remember each of their
// operations for the checkers.
//
// Every try of every operation is recorded with its place, its times and its
// end; what may have been done is unknown, never failed. The package sends and
// remembers; it judges nothing.
package traffic

import (
	"context"
	"time"

	"qianma/chaos/model"
	"qianma/loadtest"
	"qianma/loadtest/drive"
	"qianma/loadtest/ledger"
	"qianma/loadtest/population"
	"qianma/loadtest/profiles"
	"qianma/loadtest/province"
	"qianma/loadtest/report"
)

// Shape is a load as a drill asks for it.
type Shape struct {
	Tests    float64 `yaml:"tests" json:"tests"`          // a second, over both carriers
	Displays float64 `yaml:"displays" json:"displays"`    // a second
	Batch    int     `yaml:"batch" json:"batch,omitzero"` // rows in a request; 0: each swab its own, as a booth scans
	Ack      string  `yaml:"ack" json:"ack,omitempty"`
	People   uint32  `yaml:"people" json:"people,omitzero"`
}

// Try is one try of one operation of the load.
type Try struct {
	Start   time.Duration `json:"start"` // on the history's clock
	End     time.Duration `json:"end"`
	Write   bool          `json:"write"`
	Home    int           `json:"home"`    // the carrier it belongs to
	Carrier int           `json:"carrier"` // the one it went to
	Outcome string        `json:"outcome"`
	Code    string        `json:"code,omitempty"`
	Surge   bool          `json:"surge,omitempty"`
	Took    time.Duration `json:"took"`            // since the operation should have begun
	Again   bool          `json:"again,omitempty"` // another try of the same operation followed
}

// OK reports whether the try did what it was to do.
func (t *Try) OK() bool { return t.Outcome == drive.OK.String() }

// Load is a finished load.
type Load struct {
	Result *report.Result
	Ledger *ledger.Ledger
	Tries  []Try
}

// absentMost is how long a carrier is waited for that answers nothing while
// everybody is read back. What a drill broke may come back late: each question has
// a minute, and what is missing is looked for during another.
const absentMost = 5 * time.Minute

// Options are a load to be made.
type Options struct {
	Data     string
	Shape    Shape
	Duration time.Duration
	Seed     uint64
	Out      string // directory for the ledger and the load's own report; empty: none
	History  *model.History
	Surge    bool                  // this is what comes on top; nothing is read back
	Settle   time.Duration         // how long to look for what is missing
	Rest     func(context.Context) // called when all was sent, before anything is read back; may be nil
}

// Run makes the load, and afterwards reads back every test it was told is
// safe. It returns when all that is done.
func Run(ctx context.Context, o Options) (*Load, error) {
	e, err := province.LoadEndpoints(o.Data)
	if err != nil {
		return nil, err
	}
	people := population.New(o.Seed, max(o.Shape.People, 20_000))
	ack := o.Shape.Ack
	if ack == "" {
		ack = string(model.Committed)
	}
	system, err := loadtest.Province(e, nil, province.Config{People: people, Ack: ack, Format: province.Binary})
	if err != nil {
		return nil, err
	}
	t := &tap{h: o.History, surge: o.Surge, began: map[*drive.Op]time.Duration{}, last: map[*drive.Op]int{}}
	open := system.Open
	system.Open = func(run string) (drive.Target, error) {
		target, err := open(run)
		if err != nil || t.Target != nil { // reading back is no traffic
			return target, err
		}
		t.Target = target
		return t, nil
	}
	result, book, err := loadtest.Run(ctx, o.settings(system, people))
	return &Load{result, book, t.tries}, err
}

func (o *Options) settings(system loadtest.System, people *population.People) loadtest.Options {
	s := profiles.Settings{
		Profile: "day", Rate: o.Shape.Tests, Displays: o.Shape.Displays, Duration: o.Duration, Seed: o.Seed, Draw: o.Seed,
		People: people, Positive: .001, Cold: .1, Watches: 5, Batch: o.Shape.Batch,
	}
	if s.Batch > 0 {
		s.Profile = "batch"
	}
	out := loadtest.Options{Settings: s, System: system, Out: o.Out, Settle: o.Settle, Rest: o.Rest,
		Shared: true, // a drill writes beside its load
		Absent: absentMost}
	if o.Surge {
		out.ReadBack, out.Watches, out.Unmetered, out.Out = -1, -1, true, ""
		out.Drive.Tries = 1 // a refusal is an answer
	}
	return out
}

// tap stands before a target and remembers what passes. Like a target it
// belongs to the driver's goroutine.
type tap struct {
	drive.Target
	h     *model.History
	surge bool
	began map[*drive.Op]time.Duration
	tries []Try
	last  map[*drive.Op]int // index of an operation's last try
}

func (t *tap) Start(op *drive.Op) {
	t.began[op] = t.h.Now()
	if i, ok := t.last[op]; ok && op.Tries > 1 {
		t.tries[i].Again = true
	}
	t.Target.Start(op)
}

func (t *tap) Poll(wait time.Duration, done func(*drive.Op)) error {
	return t.Target.Poll(wait, func(op *drive.Op) {
		t.last[op] = len(t.tries)
		t.tries = append(t.tries, Try{
			Start: t.began[op], End: t.h.Now(), Write: op.Kind.Write(), Home: op.Home, Carrier: op.Carrier,
			Outcome: op.Outcome.String(), Code: op.Code, Surge: t.surge, Took: op.Ended - op.Intended,
		})
		delete(t.began, op)
		done(op)
	})
}
