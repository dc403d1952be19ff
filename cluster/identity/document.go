// Package identity turns a document that a person holds up into the 16-byte
// pseudonym the system knows that person by.
//
// Promises: the same document, however it was typed (spaces, lower case,
// full-width digits), gives the same pseudonym under the same key at every
// carrier for ever; a wrong check digit is flagged and never a reason to
// refuse, because a booth must be able to swab whoever stands before it; a
// number never leaves this package through a log, an error or a format verb.
//
// It refuses to know names, and it cannot turn a pseudonym back. Everything is
// safe for concurrent use.
package identity

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"qianma/cluster/problem"
)

// Kind is the kind of a document. Kinds are hashed: they never change.
type Kind string

// The kinds.
const (
	Resident         Kind = "resident"          // 居民身份证, GB 11643
	HKMacauPermit    Kind = "hk_macau_permit"   // 港澳居民来往内地通行证
	TaiwanPermit     Kind = "taiwan_permit"     // 台湾居民来往大陆通行证
	ResidencePermit  Kind = "residence_permit"  // 港澳台居民居住证
	ForeignPermanent Kind = "foreign_permanent" // 外国人永久居留身份证
	Passport         Kind = "passport"          // of the country that issued it
	BirthCertificate Kind = "birth_certificate" // 出生医学证明: a child without a card
	GuardianChild    Kind = "guardian_child"    // a child known only by its guardian: number is the guardian's own number and the child's ordinal, "…-1"
)

// Kinds lists every kind.
func Kinds() []Kind {
	return []Kind{Resident, HKMacauPermit, TaiwanPermit, ResidencePermit, ForeignPermanent, Passport, BirthCertificate, GuardianChild}
}

// MaxNumber bounds a number as typed, in bytes.
const MaxNumber = 96

// Document is what a person holds up. Printing one shows its kind alone.
type Document struct {
	Kind    Kind   `json:"kind"`
	Number  string `json:"number"`
	Country string `json:"country,omitempty"` // ISO 3166 alpha-3 of a passport's issuer
}

// Flags say what is odd about a document that is nevertheless taken.
type Flags uint8

// The flags.
const (
	// CheckDigit: the check digit does not fit the number. Most likely it was
	// typed wrong; compare it with the document when there is time.
	CheckDigit Flags = 1 << iota
	// BirthDate: the number contains a day that no calendar has.
	BirthDate
	// OldForm: a form that is no longer issued (15 digits, for instance).
	OldForm
)

// Has reports whether every flag of g is set.
func (f Flags) Has(g Flags) bool { return f&g == g }

// Strings names the flags, as answers show them.
func (f Flags) Strings() []string {
	var out []string
	for i, name := range [...]string{"check_digit", "birth_date", "old_form"} {
		if f.Has(1 << i) {
			out = append(out, name)
		}
	}
	return out
}

// String shows the kind alone.
func (d Document) String() string { return "document(" + d.shown() + ")" }

// Format keeps the number out of every verb, %#v among them.
func (d Document) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(d.String())) }

// LogValue keeps the number out of slog.
func (d Document) LogValue() slog.Value { return slog.StringValue(d.String()) }

// shown is the kind if it is one of ours: a stranger may have typed a number
// where the kind belongs.
func (d Document) shown() string {
	if _, ok := forms[d.Kind]; ok {
		return string(d.Kind)
	}
	return "unknown kind"
}

// Normalize returns the document in the one form that is hashed. An error is
// a problem.Invalid: it means that what was typed cannot be such a document at
// all. Everything else that is odd comes back as flags.
func (d Document) Normalize() (Document, Flags, error) {
	form, ok := forms[d.Kind]
	if !ok {
		return Document{}, 0, problem.New(problem.Invalid, "the document kind is not one we know",
			"use one of: resident, hk_macau_permit, taiwan_permit, residence_permit, foreign_permanent, passport, birth_certificate, guardian_child")
	}
	number, ok := clean(d.Number)
	if !ok {
		return Document{}, 0, malformed(form)
	}
	number, flags, ok := form.check(number)
	if !ok {
		return Document{}, 0, malformed(form)
	}
	country := ""
	if d.Kind == Passport { // everything else is issued in China, whatever was typed
		if country, ok = clean(d.Country); !ok || !alpha3(country) {
			return Document{}, 0, problem.New(problem.Invalid, "the passport's issuing country is missing or not a three-letter code",
				"give the three letters printed on the passport, such as GBR")
		}
	}
	return Document{d.Kind, number, country}, flags, nil
}

func malformed(f form) error {
	return problem.New(problem.Invalid, "the number cannot be a "+f.name, "a "+f.name+" is "+f.looks+"; check what was typed")
}

// clean drops what people type between letters and digits, and brings those to
// their plain upper-case form. ok is false when there is anything else.
func clean(s string) (string, bool) {
	if len(s) > MaxNumber {
		return "", false
	}
	if plain(s) {
		return s, true
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		r, w := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && w <= 1 {
			return "", false
		}
		i += w
		if r >= '！' && r <= '～' { // full-width forms stand at a fixed distance
			r -= '！' - '!'
		}
		switch {
		case r >= 'a' && r <= 'z':
			b.WriteByte(byte(r) - 'a' + 'A')
		case r >= '0' && r <= '9', r >= 'A' && r <= 'Z':
			b.WriteByte(byte(r))
		case r == '×': // the multiplication sign, typed for X
			b.WriteByte('X')
		case r == ' ', r == '\t', r == '\u00a0', r == '\u3000', r == '-', r == '－', r == '—', r == '(', r == ')', r == '\ufeff', r == '\'':
		default:
			return "", false
		}
	}
	return b.String(), true
}

// plain reports whether s is already in its plain form: nearly always.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !digit(c) && !letter(c) {
			return false
		}
	}
	return true
}

func digit(c byte) bool  { return c-'0' <= 9 }
func letter(c byte) bool { return c-'A' <= 'Z'-'A' }

func digits(s string) bool {
	for i := 0; i < len(s); i++ {
		if !digit(s[i]) {
			return false
		}
	}
	return true
}

// form is what a kind of document looks like.
type form struct {
	name, looks string
	// check returns the number as it is hashed; ok is false where a clean
	// number cannot be of this kind.
	check func(number string) (hashed string, odd Flags, ok bool)
}

var forms = map[Kind]form{
	Resident:         {"resident identity number", "18 characters: 17 digits and a digit or X (or 15 digits in the old form)", resident},
	HKMacauPermit:    {"Hong Kong or Macau travel permit number", "H or M and 8 digits, with 2 more digits on old permits", hkMacau},
	TaiwanPermit:     {"Taiwan travel permit number", "8 digits, or 10 on old permits", taiwan},
	ResidencePermit:  {"Hong Kong, Macau or Taiwan residence permit number", "18 characters that open with 810000, 820000 or 830000", residencePermit},
	ForeignPermanent: {"foreign permanent resident number", "18 characters that open with 9, or 3 letters and 12 digits in the old form", foreignPermanent},
	Passport:         {"passport number", "5 to 20 letters and digits", passport},
	BirthCertificate: {"birth certificate number", "a letter and 9 digits", birthCertificate},
	GuardianChild:    {"child of a guardian", "the guardian's own number with the child's place among the children, 1 to 9, right behind it, such as 5201031990030745141", guardianChild},
}

func alpha3(country string) bool {
	return len(country) == 3 && letter(country[0]) && letter(country[1]) && letter(country[2])
}

// resident brings the old form to the new one: the same person keeps one
// pseudonym whichever card is at hand.
func resident(n string) (string, Flags, bool) {
	switch {
	case len(n) == 15 && digits(n) && n[0] != '0':
		long := n[:6] + "19" + n[6:]
		return long + string(mod11Digit(long)), OldForm | day(long[6:]), true
	case mod11Form(n) && n[0] != '0':
		return n, mod11(n) | day(n[6:]), true
	}
	return "", 0, false
}

// day flags a number that does not go on with a day (YYYYMMDD) that some
// calendar has.
func day(s string) Flags {
	year, month, d := number(s[:4]), time.Month(number(s[4:6])), number(s[6:8])
	t := time.Date(year, month, d, 0, 0, 0, 0, time.UTC)
	if t.Year() != year || t.Month() != month || t.Day() != d {
		return BirthDate
	}
	return 0
}

func number(digits string) (n int) {
	for i := range len(digits) {
		n = n*10 + int(digits[i]-'0')
	}
	return n
}

// mod11Form: 17 digits, and a digit or X.
func mod11Form(n string) bool {
	return len(n) == 18 && digits(n[:17]) && (digit(n[17]) || n[17] == 'X')
}

var weights = [17]int{7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2}

// mod11Digit is the check character behind 17 digits: ISO 7064 MOD 11-2, as
// GB 11643 words it.
func mod11Digit(n string) byte {
	sum := 0
	for i, w := range weights {
		sum += w * int(n[i]-'0')
	}
	return "10X98765432"[sum%11]
}

func mod11(n string) Flags {
	if mod11Digit(n) != n[17] {
		return CheckDigit
	}
	return 0
}

// hkMacau keeps the nine characters a holder has for life; behind them an old
// permit counts how often it was issued.
func hkMacau(n string) (string, Flags, bool) {
	if len(n) < 9 || (n[0] != 'H' && n[0] != 'M') || !digits(n[1:]) {
		return "", 0, false
	}
	odd, ok := old(len(n), 9, 11)
	return n[:9], odd, ok
}

// taiwan keeps an old permit's ten digits as they are: no source we trust says
// that the first eight are for life, and to take two people for one is worse
// than to take one for two.
func taiwan(n string) (string, Flags, bool) {
	odd, ok := old(len(n), 8, 10)
	return n, odd, ok && digits(n)
}

// old flags the length that is no longer issued.
func old(n, now, then int) (Flags, bool) {
	switch n {
	case now:
		return 0, true
	case then:
		return OldForm, true
	}
	return 0, false
}

func residencePermit(n string) (string, Flags, bool) {
	if !mod11Form(n) {
		return "", 0, false
	}
	switch n[:6] {
	case "810000", "820000", "830000":
		return n, mod11(n) | day(n[6:]), true
	}
	return "", 0, false
}

func foreignPermanent(n string) (string, Flags, bool) {
	switch {
	case mod11Form(n) && n[0] == '9':
		return n, mod11(n) | day(n[6:]), true
	case len(n) == 15 && letter(n[0]) && letter(n[1]) && letter(n[2]) && digits(n[3:]):
		return n, OldForm, true
	}
	return "", 0, false
}

func passport(n string) (string, Flags, bool) { return n, 0, len(n) >= 5 && len(n) <= 20 }

func birthCertificate(n string) (string, Flags, bool) {
	return n, 0, len(n) == 10 && letter(n[0]) && digits(n[1:])
}

// guardianChild: the guardian's number, and one digit.
func guardianChild(n string) (string, Flags, bool) {
	ok := len(n) >= 6 && len(n) <= 24 && n[len(n)-1] >= '1' && n[len(n)-1] <= '9'
	return n, 0, ok
}
