// Package rules is the vaccine subsystem's machine: what may become a fact
// (Decide), what a fact changes (Fold), and what is held about a person
// (HistoryOf).
//
// It promises that the same facts in any order, with any repetition, leave
// the same keys. It refuses to know the time (the proposer stamps it), names,
// documents and the network. A machine keeps nothing between calls.
package rules

import (
	"errors"
	"time"

	"qianma/cluster/machine"
	"qianma/vaccine/vaccinepb"
)

// Codes of rows that were not plainly accepted. They are stored in receipts
// and cross the wire: they never change.
const (
	CodeMalformed   = "malformed"    // not a fact of the contract
	CodeUnsupported = "unsupported"  // a kind of fact this build does not know
	CodeInvalid     = "invalid"      // a field is empty, too long or out of range
	CodeFutureDay   = "future_day"   // the day has not come yet
	CodeTooMany     = "too_many"     // the person has as many records as one may have
	CodeUnknownFact = "unknown_fact" // a correction names what is not held here
	CodeOtherDose   = "dose_differs" // the same dose number stands with other details
	CodeTooEarly    = "too_early"    // the day is before any vaccine was given
)

// Codes lists every code, for the table that explains them.
var Codes = []string{
	CodeMalformed, CodeUnsupported, CodeInvalid, CodeFutureDay, CodeTooEarly, CodeTooMany, CodeUnknownFact, CodeOtherDose,
}

// Bounds of a fact. A row outside them is refused.
const (
	MaxText    = 64  // bytes of product, batch, site, operator
	MaxReason  = 300 // bytes of a correction's reason
	MaxDose    = 20  // highest dose number
	MaxRecords = 64  // facts about one person that this carrier's door lets in
)

// firstDay is the first day a dose can have been given: 2020-07-01, before the
// first emergency use.
var firstDay = int32(time.Date(2020, 7, 1, 0, 0, 0, 0, time.UTC).Unix() / 86400)

// Rules is the machine. The zero value is ready.
type Rules struct{}

// New returns the machine of a shard; it has the shape the floor asks for.
func New(int) machine.Machine { return Rules{} }

// Reset implements machine.Machine: there is no cache.
func (Rules) Reset() {}

// Decide implements machine.Machine.
func (Rules) Decide(r machine.Reader, at int64, command []byte) machine.Decision {
	f, err := vaccinepb.Decode(command)
	if errors.Is(err, vaccinepb.ErrUnknown) {
		return reject(CodeUnsupported)
	}
	if err != nil {
		return reject(CodeMalformed)
	}
	if code := check(&f, at); code != "" {
		return reject(code)
	}
	id := vaccinepb.IDOf(command)
	records := recordsOf(r, f.PersonOf())
	if holds(records, id) {
		return machine.Decision{Status: machine.Duplicate}
	}
	if len(records) >= MaxRecords {
		return reject(CodeTooMany)
	}
	if f.Kind == vaccinepb.KindCorrected {
		return decideCorrected(records, &f.Corrected, command)
	}
	return decideDose(records, &f.DoseGiven, command)
}

func decideDose(records []vaccinepb.Record, d *vaccinepb.DoseGiven, command []byte) machine.Decision {
	history := vaccinepb.HistoryOf(records)
	differs := false
	for i := range history.Doses {
		held := &history.Doses[i]
		if held.Dose != d.Dose || held.State == vaccinepb.Withdrawn {
			continue
		}
		if held.SameDose(d) {
			return machine.Decision{Status: machine.Duplicate}
		}
		differs = true
	}
	if differs {
		return machine.Decision{Status: machine.Conflicts, Code: CodeOtherDose, Fact: command}
	}
	return machine.Decision{Status: machine.Accepted, Fact: command}
}

func decideCorrected(records []vaccinepb.Record, c *vaccinepb.Corrected, command []byte) machine.Decision {
	if !holds(records, c.Target) {
		return reject(CodeUnknownFact)
	}
	return machine.Decision{Status: machine.Accepted, Fact: command}
}

// check says what is wrong with a fact by itself; "" means nothing.
func check(f *vaccinepb.Fact, at int64) string {
	if f.PersonOf() == (vaccinepb.Person{}) {
		return CodeInvalid
	}
	if f.Kind == vaccinepb.KindCorrected {
		return checkCorrected(&f.Corrected, at)
	}
	return checkDose(&f.DoseGiven, at)
}

func checkDose(d *vaccinepb.DoseGiven, at int64) string {
	switch {
	case !filled(d.Product), !filled(d.Batch), !filled(d.Site), len(d.Operator) > MaxText:
		return CodeInvalid
	case d.Dose < 1 || d.Dose > MaxDose:
		return CodeInvalid
	case d.Day < firstDay:
		return CodeTooEarly
	case d.Day > newestDay(at):
		return CodeFutureDay
	}
	return ""
}

func checkCorrected(c *vaccinepb.Corrected, at int64) string {
	switch {
	case c.Target == (vaccinepb.ID{}), !filled(c.Operator), c.Reason == "", len(c.Reason) > MaxReason:
		return CodeInvalid
	case c.At <= 0:
		return CodeInvalid
	case c.At > at/int64(time.Millisecond)+int64(clockSlack/time.Millisecond):
		return CodeFutureDay
	}
	return ""
}

// clockSlack is how far a sender's clock may run ahead of the proposer's.
const clockSlack = 10 * time.Minute

// zone is the calendar of the sites, in seconds east of UTC.
const zone = 8 * 3600

// newestDay is the day it is at the sites, for a proposer at the given time.
func newestDay(at int64) int32 {
	return int32((at/int64(time.Second) + int64(clockSlack/time.Second) + zone) / 86400)
}

func filled(s string) bool { return s != "" && len(s) <= MaxText }

func reject(code string) machine.Decision {
	return machine.Decision{Status: machine.Rejected, Code: code}
}

func holds(records []vaccinepb.Record, id vaccinepb.ID) bool {
	for i := range records {
		if records[i].ID == id {
			return true
		}
	}
	return false
}
