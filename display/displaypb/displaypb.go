// Package displaypb is the display subsystem's contract: the facts it commits
// (display.proto) and their coder.
//
// It promises that equal facts have equal bytes and equal ids, and that a
// reader skips what a newer writer added. It knows no store, no transport, no
// clock and no key: names and numbers stand in it only as sealed bytes. It
// imports nothing of ours.
package displaypb

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
)

// Person is the 16-byte keyed hash of a document. The zero Person is nobody.
type Person [16]byte

// ID names a fact for ever: the first 16 bytes of the SHA-256 of its bytes.
type ID [16]byte

// Kind says which fact it is: the field number in the Fact message.
type Kind uint8

// The kinds of fact.
const (
	KindCitizenApplied   Kind = 1
	KindDeclared         Kind = 2
	KindRestricted       Kind = 3
	KindReleased         Kind = 4
	KindRuleSetPublished Kind = 5
	KindGuardianBound    Kind = 6
	KindCorrected        Kind = 7
)

// Level is an internal risk level. A higher number is worse.
type Level uint32

// The levels.
const (
	Green  Level = 1
	Yellow Level = 2
	Orange Level = 3
	Red    Level = 4
	Purple Level = 5
)

// Cause is why a person is restricted. There is no cause for anything but an
// epidemic: a purpose that is not listed cannot be expressed.
type Cause uint32

// The causes. Numbers never change.
const (
	Confirmed        Cause = 1
	Asymptomatic     Cause = 2
	InitialPositive  Cause = 3
	CloseContact     Cause = 4
	SecondaryContact Cause = 5
	Entrant          Cause = 6 // arrived from abroad
	Spacetime        Cause = 7 // was at the same place and time as a case
	SealedZone       Cause = 8
	ControlZone      Cause = 9
	RiskArea         Cause = 10
	Symptomatic      Cause = 11
	Recovered        Cause = 12 // discharged, under observation
	MissedTest       Cause = 13 // a required test was not taken
)

// causes are the names of the API, in the order of their numbers.
var causes = [...]string{"", "confirmed", "asymptomatic", "initial_positive", "close_contact", "secondary_contact",
	"entrant", "spacetime", "sealed_zone", "control_zone", "risk_area", "symptomatic", "recovered", "missed_test"}

// Causes returns every known cause.
func Causes() []Cause {
	out := make([]Cause, 0, len(causes)-1)
	for i := range causes[1:] {
		out = append(out, Cause(i+1))
	}
	return out
}

// String is the name of the cause; "unknown" for one only a newer build knows.
func (c Cause) String() string {
	if c == 0 || int(c) >= len(causes) {
		return "unknown"
	}
	return causes[c]
}

// ParseCause reads what String wrote.
func ParseCause(s string) (Cause, bool) {
	for i, name := range causes {
		if i > 0 && name == s {
			return Cause(i), true
		}
	}
	return 0, false
}

// Symptom is a set of symptoms.
type Symptom uint32

// The symptoms.
const (
	Fever        Symptom = 1 << 0
	Cough        Symptom = 1 << 1
	Fatigue      Symptom = 1 << 2
	SoreThroat   Symptom = 1 << 3
	LossOfTaste  Symptom = 1 << 4
	Breathless   Symptom = 1 << 5
	Diarrhoea    Symptom = 1 << 6
	OtherSymptom Symptom = 1 << 7
	AllSymptoms  Symptom = 1<<8 - 1
)

// FeverFrom is the temperature, in tenths of a degree, that counts as fever.
const FeverFrom = 373

// CitizenApplied says that a person applied for a code.
type CitizenApplied struct {
	Person       Person
	At           int64
	DocumentKind string
	Division     string
	Doubtful     bool
	KeyID        string
	Sealed       []byte
	Guardian     Person
}

// Declared is what a person says about their own health.
type Declared struct {
	Person      Person
	At          int64
	Symptoms    Symptom
	Temperature uint32 // tenths of a degree; 0: not measured
	Contact     bool
	Declarant   string
}

// Ill reports whether the declaration names anything that calls for care.
func (d *Declared) Ill() bool {
	return d.Symptoms != 0 || d.Temperature >= FeverFrom || d.Contact
}

// Restricted imposes a level on a person.
type Restricted struct {
	Person      Person
	Level       Level
	Cause       Cause
	Evidence    string
	Rule        string
	RuleVersion uint32
	Operator    string
	Approver    string
	Source      string
	Scope       string
	From, Until int64
	At          int64
	Reference   string
}

// Released lifts the restrictions it names.
type Released struct {
	Person       Person
	Restrictions []ID // ascending
	Reason       string
	Evidence     string
	Rule         string
	RuleVersion  uint32
	Operator     string
	Approver     string
	Source       string
	At           int64
}

// RuleSetPublished is a set of rules, from a date on.
type RuleSetPublished struct {
	Name          string
	Version       uint32
	EffectiveFrom int64
	At            int64
	Operator      string
	Approver      string
	Source        string
	Document      []byte
}

// GuardianBound lets a guardian show a child's code.
type GuardianBound struct {
	Person   Person // the child
	Guardian Person
	At       int64
	Operator string
}

// Corrected says that the fact it names does not count.
type Corrected struct {
	Person   Person
	Target   ID
	Operator string
	Reason   string
	At       int64
}

// Body is one of the facts above.
type Body interface {
	Kind() Kind
	// PersonOf is whom the fact is about; the zero Person for a rule set.
	PersonOf() Person
	fields(c *coder)
}

func (*CitizenApplied) Kind() Kind   { return KindCitizenApplied }
func (*Declared) Kind() Kind         { return KindDeclared }
func (*Restricted) Kind() Kind       { return KindRestricted }
func (*Released) Kind() Kind         { return KindReleased }
func (*RuleSetPublished) Kind() Kind { return KindRuleSetPublished }
func (*GuardianBound) Kind() Kind    { return KindGuardianBound }
func (*Corrected) Kind() Kind        { return KindCorrected }

func (f *CitizenApplied) PersonOf() Person   { return f.Person }
func (f *Declared) PersonOf() Person         { return f.Person }
func (f *Restricted) PersonOf() Person       { return f.Person }
func (f *Released) PersonOf() Person         { return f.Person }
func (f *RuleSetPublished) PersonOf() Person { return Person{} }
func (f *GuardianBound) PersonOf() Person    { return f.Person }
func (f *Corrected) PersonOf() Person        { return f.Person }

func (f *CitizenApplied) fields(c *coder) {
	c.array(1, f.Person[:])
	c.int64(2, &f.At)
	c.string(3, &f.DocumentKind)
	c.string(4, &f.Division)
	c.bool(5, &f.Doubtful)
	c.string(6, &f.KeyID)
	c.bytes(7, &f.Sealed)
	c.optional(8, f.Guardian[:])
}

func (f *Declared) fields(c *coder) {
	c.array(1, f.Person[:])
	c.int64(2, &f.At)
	c.uint32(3, (*uint32)(&f.Symptoms))
	c.uint32(4, &f.Temperature)
	c.bool(5, &f.Contact)
	c.string(6, &f.Declarant)
}

func (f *Restricted) fields(c *coder) {
	c.array(1, f.Person[:])
	c.uint32(2, (*uint32)(&f.Level))
	c.uint32(3, (*uint32)(&f.Cause))
	c.string(4, &f.Evidence)
	c.string(5, &f.Rule)
	c.uint32(6, &f.RuleVersion)
	c.string(7, &f.Operator)
	c.string(8, &f.Approver)
	c.string(9, &f.Source)
	c.string(10, &f.Scope)
	c.int64(11, &f.From)
	c.int64(12, &f.Until)
	c.int64(13, &f.At)
	c.string(14, &f.Reference)
}

func (f *Released) fields(c *coder) {
	c.array(1, f.Person[:])
	c.ids(2, &f.Restrictions)
	c.string(3, &f.Reason)
	c.string(4, &f.Evidence)
	c.string(5, &f.Rule)
	c.uint32(6, &f.RuleVersion)
	c.string(7, &f.Operator)
	c.string(8, &f.Approver)
	c.string(9, &f.Source)
	c.int64(10, &f.At)
}

func (f *RuleSetPublished) fields(c *coder) {
	c.string(1, &f.Name)
	c.uint32(2, &f.Version)
	c.int64(3, &f.EffectiveFrom)
	c.int64(4, &f.At)
	c.string(5, &f.Operator)
	c.string(6, &f.Approver)
	c.string(7, &f.Source)
	c.bytes(8, &f.Document)
}

func (f *GuardianBound) fields(c *coder) {
	c.array(1, f.Person[:])
	c.array(2, f.Guardian[:])
	c.int64(3, &f.At)
	c.string(4, &f.Operator)
}

func (f *Corrected) fields(c *coder) {
	c.array(1, f.Person[:])
	c.array(2, f.Target[:])
	c.string(3, &f.Operator)
	c.string(4, &f.Reason)
	c.int64(5, &f.At)
}

// What a decoder refuses.
var (
	ErrMalformed = errors.New("displaypb: malformed fact")
	ErrUnknown   = errors.New("displaypb: a kind of fact this build does not know")
)

// newBody returns an empty fact of the kind, or nil.
func newBody(k Kind) Body {
	switch k {
	case KindCitizenApplied:
		return new(CitizenApplied)
	case KindDeclared:
		return new(Declared)
	case KindRestricted:
		return new(Restricted)
	case KindReleased:
		return new(Released)
	case KindRuleSetPublished:
		return new(RuleSetPublished)
	case KindGuardianBound:
		return new(GuardianBound)
	case KindCorrected:
		return new(Corrected)
	}
	return nil
}

// IDOf is the id of an encoded fact.
func IDOf(fact []byte) ID {
	sum := sha256.Sum256(fact)
	return ID(sum[:16])
}

var text = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// String is the id as people and programs quote it: "f_" and 26 characters.
func (id ID) String() string { return "f_" + text.EncodeToString(id[:]) }

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	if len(s) != 28 || s[:2] != "f_" {
		return ID{}, errors.New("a fact id is f_ and 26 characters")
	}
	raw, err := text.DecodeString(s[2:])
	if err != nil {
		return ID{}, errors.New("a fact id is f_ and 26 lowercase base32 characters")
	}
	if id := ID(raw); id.String() == s {
		return id, nil
	}
	return ID{}, errors.New("a fact id has one spelling; this is not it")
}
