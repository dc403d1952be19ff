package colour

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Text is a sentence in both languages.
type Text struct {
	ZH string `json:"zh"`
	EN string `json:"en"`
}

// Lang chooses a language of Text.
type Lang uint8

// The languages.
const (
	ZH Lang = 0
	EN Lang = 1
)

func (t Text) in(l Lang) string {
	if l == EN {
		return t.EN
	}
	return t.ZH
}

// Display is what is shown for a level.
type Display struct {
	Colour  string `json:"colour"`
	Word    Text   `json:"word"`
	Managed bool   `json:"managed,omitempty"` // shown better than it is: "green, under management"
}

// Times a validity can be counted from.
const (
	FromSampled  = "sampled"
	FromReceived = "received"
	FromReported = "reported"
)

// RuleSet is the rules as data: what a decree can change.
type RuleSet struct {
	Name          string    `json:"name"`
	Version       uint32    `json:"version"`
	EffectiveFrom time.Time `json:"effective_from"`

	// Validity of a negative result.
	Validity struct {
		Hours       int    `json:"hours"`
		CountedFrom string `json:"counted_from"` // sampled, received or reported
	} `json:"validity"`
	// Unproven is the level without a negative result that still counts.
	Unproven string `json:"unproven"`

	PoolPositive Duration `json:"pool_positive"` // until the single retest
	Positive     Duration `json:"positive"`      // the person's own, whatever comes after
	Conflict     Duration `json:"conflict"`      // results that contradict one another
	Inconclusive Duration `json:"inconclusive"`  // until the next result
	Symptoms     Duration `json:"symptoms"`      // declared by the person
	Contact      Duration `json:"contact"`       // declared by the person

	// Data says when what is known counts as stale, and as no ground for green.
	Data struct {
		FreshSeconds   int64  `json:"fresh_seconds"`   // older, in any carrier: said in words
		TrustedSeconds int64  `json:"trusted_seconds"` // older, in every carrier: not green
		BlindLevel     string `json:"blind_level"`     // instead of green
		BlindColour    string `json:"blind_colour"`    // shown for it
		BlindWord      Text   `json:"blind_word"`
		StaleMark      Text   `json:"stale_mark"` // behind the word of any stale answer
	} `json:"data"`

	// Restrictions says, for each cause, what level it asks for and for how
	// long, where whoever imposes it does not say.
	Restrictions map[string]Duration `json:"restrictions"`

	Display map[string]Display `json:"display"` // by level
	Words   map[Code]Text      `json:"words"`   // sentences by reason; missing ones are the built-in ones

	ready compiled
}

// Duration is a level that holds for a number of hours.
type Duration struct {
	Level string `json:"level"`
	Hours int    `json:"hours"`
}

// compiled is a rule set as Evaluate uses it.
type compiled struct {
	ref           string // "guizhou@3"
	effectiveFrom int64
	validity      int64
	unproven      Level
	blind         Level
	blindColour   Colour
	fresh         int64
	trusted       int64
	level         [Purple + 1]shown
	words         [codeCount][2]template

	poolPositive, positive, conflict, inconclusive, symptoms, contact span
}

type span struct {
	level Level
	ms    int64
}

type shown struct {
	colour  Colour
	managed bool
	word    Text
}

const (
	hour = int64(time.Hour / time.Millisecond)
	// maxHours bounds every duration of a rule set: ten years.
	maxHours = 10 * 366 * 24
	// MaxRuleSet bounds the document of a rule set, in bytes.
	MaxRuleSet = 64 << 10
)

//go:embed guizhou.json
var builtin []byte

// Builtin is the rule set in force where none was ever published: version 0,
// from the beginning of time.
func Builtin() *RuleSet {
	rs, err := ParseRuleSet(builtin)
	if err != nil {
		panic("colour: built-in rule set: " + err.Error())
	}
	return rs
}

// ParseRuleSet reads the document of a rule set and reports every fault at
// once. A field this build does not know is a fault: rules that are half
// understood would colour people by accident.
func ParseRuleSet(document []byte) (*RuleSet, error) {
	if len(document) > MaxRuleSet {
		return nil, fmt.Errorf("the rule set has %d bytes; at most %d", len(document), MaxRuleSet)
	}
	dec := json.NewDecoder(bytes.NewReader(document))
	dec.DisallowUnknownFields()
	rs := new(RuleSet)
	if err := dec.Decode(rs); err != nil {
		return nil, fmt.Errorf("the rule set is not readable: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("the rule set is followed by something else")
	}
	return rs, rs.compile()
}

// Ref names the rule set and its version: "guizhou@3".
func (rs *RuleSet) Ref() string { return rs.ready.ref }

// Fresh reports whether data as of a moment is still fresh at another.
func (rs *RuleSet) Fresh(now, asOf int64) bool { return now-asOf <= rs.ready.fresh }

// For is the level and the duration that a cause asks for.
func (rs *RuleSet) For(cause string) (Level, time.Duration, bool) {
	d, ok := rs.Restrictions[cause]
	l, _ := ParseLevel(d.Level)
	return l, time.Duration(d.Hours) * time.Hour, ok
}

// compile checks the rule set and prepares it for Evaluate.
func (rs *RuleSet) compile() error {
	c := compiler{rs: rs}
	c.head()
	c.tests()
	c.data()
	c.display()
	c.causes()
	c.words()
	return errors.Join(c.faults...)
}

type compiler struct {
	rs     *RuleSet
	faults []error
}

func (c *compiler) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Errorf(format, args...))
}

func (c *compiler) head() {
	rs := c.rs
	if !isName(rs.Name) {
		c.fault("name: want 1 to 32 lowercase letters, digits and dashes")
	}
	rs.ready.ref = rs.Name + "@" + strconv.FormatUint(uint64(rs.Version), 10)
	rs.ready.effectiveFrom = rs.EffectiveFrom.UnixMilli()
}

func isName(s string) bool {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-') {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 32
}

func (c *compiler) tests() {
	rs, r := c.rs, &c.rs.ready
	r.validity = c.hours("validity", rs.Validity.Hours)
	switch rs.Validity.CountedFrom {
	case FromSampled, FromReceived, FromReported:
	default:
		c.fault("validity.counted_from: want sampled, received or reported")
	}
	r.unproven = c.level("unproven", rs.Unproven)
	r.poolPositive = c.span("pool_positive", rs.PoolPositive, Yellow)
	r.positive = c.span("positive", rs.Positive, Orange)
	r.conflict = c.span("conflict", rs.Conflict, Yellow)
	r.inconclusive = c.span("inconclusive", rs.Inconclusive, Green)
	r.symptoms = c.span("symptoms", rs.Symptoms, Green)
	r.contact = c.span("contact", rs.Contact, Green)
}

func (c *compiler) data() {
	d, r := &c.rs.Data, &c.rs.ready
	if d.FreshSeconds < 1 || d.TrustedSeconds < d.FreshSeconds || d.TrustedSeconds > maxHours*3600 {
		c.fault("data: want 1 <= fresh_seconds <= trusted_seconds")
	}
	r.fresh, r.trusted = d.FreshSeconds*1000, d.TrustedSeconds*1000
	r.blind = c.level("data.blind_level", d.BlindLevel)
	colour, ok := parseColour(d.BlindColour)
	if !ok || r.blind == Green || colour == ShowGreen {
		c.fault("data: blind_level and blind_colour must be stated and must not be green")
	}
	r.blindColour = colour
	c.text("data.blind_word", d.BlindWord)
	c.text("data.stale_mark", d.StaleMark)
}

func (c *compiler) display() {
	for l := Green; l <= Purple; l++ {
		d, ok := c.rs.Display[l.String()]
		colour, known := parseColour(d.Colour)
		switch {
		case !ok || !known:
			c.fault("display.%s: want a colour: green, yellow, orange or red", l)
		case l >= Orange && colour < ShowOrange:
			c.fault("display.%s: may not be shown as %s", l, d.Colour)
		case colour == ShowGreen && l > Green && !d.Managed:
			c.fault("display.%s: shown as green, it must say that it is managed", l)
		}
		c.text("display."+l.String(), d.Word)
		c.rs.ready.level[l] = shown{colour, d.Managed, d.Word}
	}
	if len(c.rs.Display) != int(Purple) {
		c.fault("display: want exactly the five levels")
	}
}

func (c *compiler) causes() {
	for cause, d := range c.rs.Restrictions {
		c.span("restrictions."+cause, d, Yellow)
	}
}

func (c *compiler) words() {
	for code := range c.rs.Words {
		if _, ok := codeNumber[code]; !ok {
			c.fault("words.%s: no such reason", code)
		}
	}
	for i, code := range codes {
		text, ok := c.rs.Words[code]
		if !ok {
			text = defaultWords[code]
		}
		c.text("words."+string(code), text)
		c.rs.ready.words[i] = [2]template{parseTemplate(text.ZH), parseTemplate(text.EN)}
	}
}

func (c *compiler) hours(name string, h int) int64 {
	if h < 1 || h > maxHours {
		c.fault("%s: hours must be 1 to %d", name, maxHours)
	}
	return int64(h) * hour
}

func (c *compiler) level(name, s string) Level {
	l, ok := ParseLevel(s)
	if !ok {
		c.fault("%s: want green, yellow, orange, red or purple", name)
	}
	return l
}

func (c *compiler) span(name string, d Duration, least Level) span {
	l := c.level(name+".level", d.Level)
	if l < least {
		c.fault("%s.level: at least %s", name, least)
	}
	return span{l, c.hours(name, d.Hours)}
}

func (c *compiler) text(name string, t Text) {
	if t.ZH == "" || t.EN == "" || len(t.ZH) > 300 || len(t.EN) > 300 {
		c.fault("%s: want a text of 1 to 300 bytes in zh and in en", name)
	}
}

// Active is the rule set in force at a moment (Unix milliseconds): of those
// that have begun, the one that began last; of those, the highest version. The
// sets come ordered by nothing; the answer does not depend on their order as
// long as no two share both a beginning and a version.
func Active(sets []*RuleSet, now int64) *RuleSet {
	var best *RuleSet
	for _, rs := range sets {
		from := rs.ready.effectiveFrom
		if from > now {
			continue
		}
		if best == nil || from > best.ready.effectiveFrom || from == best.ready.effectiveFrom && rs.Version > best.Version {
			best = rs
		}
	}
	return best
}
