// Package rules is the display subsystem's machine: what may become a fact
// (Decide), what a fact changes (Fold), and what is held about a person, about
// citizens and about rule sets (query.go).
//
// It promises that the same facts in any order, with any repetition and any
// split between two carriers, leave the same keys. Restrictions are an
// add/release set: a release names the restrictions it lifts and may arrive
// before them; nothing else takes one away. What is imposed or lifted by hand
// needs two people.
//
// It refuses to know the time (the proposer stamps it), names, documents, the
// network, and colours: those are computed when somebody looks.
package rules

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"

	"qianma/cluster/machine"
	"qianma/display/colour"
	"qianma/display/displaypb"
)

// Codes of rows that were not plainly accepted. They are stored in receipts
// and cross the wire: they never change.
const (
	CodeMalformed    = "malformed"                 // not a fact of the contract
	CodeUnsupported  = "unsupported"               // a kind of fact this build does not know
	CodePerson       = "person_missing"            // nobody is named
	CodeText         = "text_length"               // a text is empty or too long
	CodeDivision     = "division_invalid"          // not a division code of GB/T 2260
	CodeTime         = "time_out_of_range"         // a time before the epidemic or in the future
	CodePeriod       = "period_invalid"            // ends before it begins, or lasts too long
	CodeLevel        = "level_invalid"             // not yellow, orange, red or purple
	CodeCause        = "cause_unknown"             // not a cause of the contract
	CodeScope        = "scope_invalid"             // not national, province or a division
	CodeRule         = "rule_unknown"              // names a rule set that is not held here
	CodeTwoPeople    = "approver_missing"          // done by hand without a second person
	CodeNoNames      = "restrictions_missing"      // a release that names nothing, too much, or twice
	CodeNotHereYet   = "restriction_not_here_yet"  // accepted; it will hold when the restriction arrives
	CodeTooMany      = "too_many"                  // the person has as many as one may have
	CodeGuardian     = "guardian_invalid"          // nobody, or the child itself
	CodeSealed       = "sealed_invalid"            // not what the vault makes
	CodeSymptoms     = "symptoms_invalid"          // a symptom or temperature that cannot be
	CodeUnknownFact  = "unknown_fact"              // a correction names what is not held here
	CodeNeedsRelease = "restriction_needs_release" // a correction names a restriction
	CodeDocument     = "rule_set_invalid"          // the document of a rule set has faults
	CodeVersionTaken = "version_taken"             // the version is published with another document
)

// Bounds of a fact. A row outside them is refused.
const (
	MaxText         = 64  // bytes of operators, references, names
	MaxSentence     = 300 // bytes of a reason or an evidence
	MaxSealed       = 1024
	MaxNamed        = 64  // restrictions that one release names
	MaxRestrictions = 256 // about one person that this carrier's door lets in
	MaxPeriod       = 366 * 24 * time.Hour
	// Skew is how far a stated time may lie ahead of the proposer's clock.
	Skew = 5 * time.Minute
)

// epoch is the first moment a stated time can have.
var epoch = time.Date(2019, 12, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// Watcher is told what has changed, so that caches beside the machine can drop
// it. Calls come from the goroutine that folds, before the change is visible
// in a view; they must not block.
type Watcher interface {
	// Touched names a person of whom something changed; the zero Person stands
	// for the rule sets.
	Touched(p displaypb.Person)
	// Replaced says that anything may have changed.
	Replaced()
}

// Rules is the machine.
type Rules struct{ watcher Watcher }

// New returns the machine of a shard. The watcher may be nil.
func New(w Watcher) *Rules { return &Rules{w} }

// Factory has the shape the floor asks for.
func Factory(w Watcher) func(shard int) machine.Machine {
	return func(int) machine.Machine { return New(w) }
}

// Reset implements machine.Machine.
func (m *Rules) Reset() {
	if m.watcher != nil {
		m.watcher.Replaced()
	}
}

func reject(code string) machine.Decision {
	return machine.Decision{Status: machine.Rejected, Code: code}
}

// Decide implements machine.Machine.
func (m *Rules) Decide(r machine.Reader, at int64, command []byte) machine.Decision {
	f, err := displaypb.Decode(command)
	if errors.Is(err, displaypb.ErrUnknown) {
		return reject(CodeUnsupported)
	}
	if err != nil {
		return reject(CodeMalformed)
	}
	j := judge{r: r, latest: at/int64(time.Millisecond) + Skew.Milliseconds(), id: displaypb.IDOf(command)}
	status, code := j.decide(f)
	d := machine.Decision{Status: status, Code: code}
	if status == machine.Accepted {
		d.Fact = command
	}
	return d
}

// judge looks at one command.
type judge struct {
	r      machine.Reader
	latest int64 // the latest time a command may state, Unix ms
	id     displaypb.ID
}

func (j *judge) decide(f displaypb.Body) (machine.Status, string) {
	if f.Kind() != displaypb.KindRuleSetPublished && f.PersonOf() == (displaypb.Person{}) {
		return machine.Rejected, CodePerson
	}
	switch f := f.(type) {
	case *displaypb.CitizenApplied:
		return j.citizen(f)
	case *displaypb.Declared:
		return j.declared(f)
	case *displaypb.Restricted:
		return j.restricted(f)
	case *displaypb.Released:
		return j.released(f)
	case *displaypb.RuleSetPublished:
		return j.ruleSet(f)
	case *displaypb.GuardianBound:
		return j.guardian(f)
	case *displaypb.Corrected:
		return j.corrected(f)
	}
	return machine.Rejected, CodeUnsupported
}

func (j *judge) time(ms int64) bool { return ms >= epoch && ms <= j.latest }

func text(s string, least, most int) bool { return len(s) >= least && len(s) <= most }

// IsDivision reports whether s can be a code of GB/T 2260: 6, 9 or 12 digits
// that do not begin with 0.
func IsDivision(s string) bool {
	if len(s) != 6 && len(s) != 9 && len(s) != 12 || s[0] == '0' {
		return false
	}
	return strings.Trim(s, "0123456789") == ""
}

// samePerson compares two operators as a clerk would: case, spaces and width
// do not make two people of one.
func samePerson(a, b string) bool { return plain(a) == plain(b) }

func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '!'+0xfee0 && r <= '~'+0xfee0 {
			r -= 0xfee0 // full-width form of a printable ASCII character
		}
		if unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return unicode.ToLower(unicode.ToUpper(r))
	}, s)
}

// hands checks who did it: by hand, an operator and somebody else who
// approved; by rule, an operator (a service counts) and a rule set held here.
func (j *judge) hands(operator, approver, rule string, version uint32) string {
	switch {
	case !text(operator, 1, MaxText) || !text(approver, 0, MaxText) || !text(rule, 0, MaxText) || plain(operator) == "":
		return CodeText
	case rule == "" && (plain(approver) == "" || samePerson(operator, approver)):
		return CodeTwoPeople
	case rule != "" && !knowsRule(j.r, rule, version):
		return CodeRule
	}
	return ""
}

func (j *judge) citizen(f *displaypb.CitizenApplied) (machine.Status, string) {
	switch {
	case !j.time(f.At):
		return machine.Rejected, CodeTime
	case !IsDivision(f.Division):
		return machine.Rejected, CodeDivision
	case !text(f.DocumentKind, 1, MaxText) || !text(f.KeyID, 1, MaxText):
		return machine.Rejected, CodeText
	case len(f.Sealed) < 28 || len(f.Sealed) > MaxSealed:
		return machine.Rejected, CodeSealed
	case f.Guardian == f.Person:
		return machine.Rejected, CodeGuardian
	}
	if _, ok := j.r.Get(citizenKey(f.Person, f.At, j.id)); ok {
		return machine.Duplicate, ""
	}
	return machine.Accepted, ""
}

func (j *judge) declared(f *displaypb.Declared) (machine.Status, string) {
	switch {
	case !j.time(f.At):
		return machine.Rejected, CodeTime
	case f.Symptoms&^displaypb.AllSymptoms != 0 || f.Temperature != 0 && (f.Temperature < 300 || f.Temperature > 450):
		return machine.Rejected, CodeSymptoms
	case !text(f.Declarant, 0, MaxText):
		return machine.Rejected, CodeText
	}
	if recordOf(j.r, f.Person).has(declaredTag(f), orderedKey(f.At, j.id)) {
		return machine.Duplicate, ""
	}
	return machine.Accepted, ""
}

func (j *judge) restricted(f *displaypb.Restricted) (machine.Status, string) {
	if code := checkRestricted(f); code != "" {
		return machine.Rejected, code
	}
	if !j.time(f.At) || f.From < epoch {
		return machine.Rejected, CodeTime
	}
	if code := j.hands(f.Operator, f.Approver, f.Rule, f.RuleVersion); code != "" {
		return machine.Rejected, code
	}
	rec := recordOf(j.r, f.Person)
	switch {
	case rec.has(tagRestricted, j.id[:]):
		return machine.Duplicate, ""
	case rec.count(tagRestricted) >= MaxRestrictions:
		return machine.Rejected, CodeTooMany
	}
	return machine.Accepted, ""
}

// checkRestricted looks at what needs neither clock nor store.
func checkRestricted(f *displaypb.Restricted) string {
	switch {
	case f.Level < displaypb.Yellow || f.Level > displaypb.Purple:
		return CodeLevel
	case f.Cause.String() == "unknown":
		return CodeCause
	case !text(f.Evidence, 1, MaxSentence) || !text(f.Reference, 0, MaxText):
		return CodeText
	case !IsDivision(f.Source):
		return CodeDivision
	case f.Scope != "national" && f.Scope != "province" && !IsDivision(f.Scope):
		return CodeScope
	case f.Until <= f.From || f.Until-f.From > MaxPeriod.Milliseconds():
		return CodePeriod
	}
	return ""
}

func (j *judge) released(f *displaypb.Released) (machine.Status, string) {
	named := f.Restrictions
	ascending := func(a, b displaypb.ID) int { return bytes.Compare(a[:], b[:]) }
	switch {
	case len(named) == 0 || len(named) > MaxNamed || !slices.IsSortedFunc(named, ascending) || len(slices.Compact(slices.Clone(named))) != len(named):
		return machine.Rejected, CodeNoNames
	case !text(f.Reason, 1, MaxSentence) || !text(f.Evidence, 1, MaxSentence):
		return machine.Rejected, CodeText
	case !IsDivision(f.Source):
		return machine.Rejected, CodeDivision
	case !j.time(f.At):
		return machine.Rejected, CodeTime
	}
	if code := j.hands(f.Operator, f.Approver, f.Rule, f.RuleVersion); code != "" {
		return machine.Rejected, code
	}
	rec := recordOf(j.r, f.Person)
	status, code := machine.Duplicate, ""
	for _, id := range named {
		if !rec.has(tagReleased, id[:]) {
			status = machine.Accepted
		}
		if !rec.has(tagRestricted, id[:]) {
			code = CodeNotHereYet
		}
	}
	if status == machine.Duplicate {
		code = ""
	}
	return status, code
}

func (j *judge) ruleSet(f *displaypb.RuleSetPublished) (machine.Status, string) {
	rs, err := colour.ParseRuleSet(f.Document)
	switch {
	case err != nil || rs.Name != f.Name || rs.Version != f.Version || rs.EffectiveFrom.UnixMilli() != f.EffectiveFrom || f.Version == 0:
		return machine.Rejected, CodeDocument
	case !j.time(f.At) || f.EffectiveFrom < epoch:
		return machine.Rejected, CodeTime
	case !IsDivision(f.Source):
		return machine.Rejected, CodeDivision
	}
	if code := j.hands(f.Operator, f.Approver, "", 0); code != "" {
		return machine.Rejected, code
	}
	if _, ok := j.r.Get(ruleSetKey(f.EffectiveFrom, f.Version, j.id)); ok {
		return machine.Duplicate, ""
	}
	if knowsRule(j.r, f.Name, f.Version) {
		return machine.Rejected, CodeVersionTaken
	}
	return machine.Accepted, ""
}

func (j *judge) guardian(f *displaypb.GuardianBound) (machine.Status, string) {
	switch {
	case f.Guardian == (displaypb.Person{}) || f.Guardian == f.Person:
		return machine.Rejected, CodeGuardian
	case !j.time(f.At):
		return machine.Rejected, CodeTime
	case !text(f.Operator, 0, MaxText):
		return machine.Rejected, CodeText
	case recordOf(j.r, f.Person).has(tagGuardian, orderedKey(f.At, j.id)):
		return machine.Duplicate, ""
	}
	return machine.Accepted, ""
}

func (j *judge) corrected(f *displaypb.Corrected) (machine.Status, string) {
	switch {
	case !text(f.Operator, 1, MaxText) || !text(f.Reason, 1, MaxSentence):
		return machine.Rejected, CodeText
	case !j.time(f.At):
		return machine.Rejected, CodeTime
	}
	rec := recordOf(j.r, f.Person)
	switch {
	case rec.has(tagWithdrawn, f.Target[:]):
		return machine.Duplicate, ""
	case rec.has(tagRestricted, f.Target[:]):
		return machine.Rejected, CodeNeedsRelease
	case !rec.names(f.Target) && !holdsCitizen(j.r, f.Person, f.Target):
		return machine.Rejected, CodeUnknownFact
	}
	return machine.Accepted, ""
}

// Codes lists every code that a row can carry.
func Codes() []string {
	return []string{CodeMalformed, CodeUnsupported, CodePerson, CodeText, CodeDivision, CodeTime, CodePeriod, CodeLevel, CodeCause, CodeScope,
		CodeRule, CodeTwoPeople, CodeNoNames, CodeNotHereYet, CodeTooMany, CodeGuardian, CodeSealed, CodeSymptoms, CodeUnknownFact,
		CodeNeedsRelease, CodeDocument, CodeVersionTaken}
}
