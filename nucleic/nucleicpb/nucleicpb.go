package nucleicpb

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// Kind says which message a fact is. The numbers are those of the contract.
type Kind uint8

// The kinds of facts.
const (
	KindUnknown     Kind = 0
	KindSiteOpened  Kind = 1
	KindTubeOpened  Kind = 2
	KindRegistered  Kind = 3
	KindTubeSealed  Kind = 4
	KindBoxed       Kind = 5
	KindLabReceived Kind = 6
	KindResulted    Kind = 7
	KindCorrected   Kind = 8

	kindLast = KindCorrected
)

var kindNames = [...]string{"unknown", "site_opened", "tube_opened", "registered", "tube_sealed", "boxed", "lab_received", "resulted", "corrected"}

// String is the kind's name in the contract.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[0]
}

// Errors of decoding.
var (
	// ErrMalformed: the bytes are not of this contract.
	ErrMalformed = errors.New("nucleicpb: malformed fact")
	// ErrUnknownKind: a fact of a kind that this build does not know. A newer
	// build may.
	ErrUnknownKind = errors.New("nucleicpb: fact of an unknown kind")
)

// PersonSize is the length of a person in bytes.
const PersonSize = 16

// Flags of a registration: what was odd about the person's document. None is
// ever a reason to refuse a swab.
const (
	FlagCheckDigit uint32 = 1 << 0
	FlagBirthDate  uint32 = 1 << 1
	FlagOldForm    uint32 = 1 << 2
)

// SiteOpened: a testing site exists, under this name, from this time.
type SiteOpened struct {
	Site, Name, Division []byte
	OpenedAt             int64
	Operator             []byte
	DoorAt               int64
}

// TubeOpened: a tube is in use, for so many people.
type TubeOpened struct {
	Tube     []byte
	Pool     Pool
	Site     []byte
	OpenedAt int64
	Operator []byte
	From     []byte
	DoorAt   int64
}

// Registered: one person's swab went into one tube.
type Registered struct {
	Tube, Person []byte
	Pool         Pool
	Site         []byte
	SampledAt    int64
	Channel      Channel
	Operator     []byte
	Device       []byte
	Flags        uint32
	Division     []byte
	Revision     uint32
	DoorAt       int64
}

// Rev is the revision of the binding; the contract lets 0 stand for 1.
func (m *Registered) Rev() uint32 { return max(1, m.Revision) }

// TubeSealed: no more swabs go into the tube.
type TubeSealed struct {
	Tube     []byte
	SealedAt int64
	Operator []byte
	Count    uint32
	DoorAt   int64
}

// Boxed: a tube was packed into a box.
type Boxed struct {
	Box, Tube []byte
	PackedAt  int64
	Operator  []byte
	DoorAt    int64
}

// LabReceived: a lab took in one tube or one whole box.
type LabReceived struct {
	Lab, Tube, Box []byte
	ReceivedAt     int64
	Operator       []byte
	DoorAt         int64
}

// Resulted: a lab says what a tube holds.
type Resulted struct {
	Tube, Lab  []byte
	Revision   uint32
	Outcome    Outcome
	ReceivedAt int64
	TestedAt   int64
	ReportedAt int64
	Method     []byte
	Operator   []byte
	DoorAt     int64
}

// Corrected voids a registration (Person set) or a result.
type Corrected struct {
	Tube, Person []byte
	Revision     uint32
	Lab          []byte
	Outcome      Outcome
	Rebind       []byte // an encoded Registered; nil: nobody takes the place
	CorrectedAt  int64
	Operator     []byte
	Reason       []byte
	DoorAt       int64
}

// Bound is the registration that takes the place of the voided one; ok is
// false where there is none.
func (m *Corrected) Bound() (r Registered, ok bool) {
	ok = m.Rebind != nil && r.Unmarshal(m.Rebind) == nil
	return r, ok
}

// Split tells a fact's kind and returns the message inside it, which aliases
// fact. A fact holds exactly one message.
func Split(fact []byte) (Kind, []byte, error) {
	var kind Kind
	var body []byte
	strange := false
	s := scanner{rest: fact}
	for s.next() {
		switch {
		case s.typ != protowire.BytesType || s.num > protowire.Number(kindLast):
			strange = true
		case kind != KindUnknown:
			return KindUnknown, nil, ErrMalformed
		default:
			kind, body = Kind(s.num), s.p
		}
	}
	switch {
	case s.bad || (kind == KindUnknown && !strange):
		return KindUnknown, nil, ErrMalformed
	case kind == KindUnknown:
		return KindUnknown, nil, ErrUnknownKind
	}
	return kind, body, nil
}

// Fact is any fact: Kind says which of the messages is filled. One Fact may be
// used for many decodings.
type Fact struct {
	Kind        Kind
	SiteOpened  SiteOpened
	TubeOpened  TubeOpened
	Registered  Registered
	TubeSealed  TubeSealed
	Boxed       Boxed
	LabReceived LabReceived
	Resulted    Resulted
	Corrected   Corrected
}

// Decode reads a fact. Only the message named by the kind is written; what it
// holds aliases fact.
func (f *Fact) Decode(fact []byte) (Kind, error) {
	kind, body, err := Split(fact)
	if err == nil {
		err = f.unmarshal(kind, body)
	}
	if err != nil {
		kind = KindUnknown
	}
	f.Kind = kind
	return kind, err
}

func (f *Fact) unmarshal(kind Kind, body []byte) error {
	switch kind {
	case KindSiteOpened:
		return f.SiteOpened.Unmarshal(body)
	case KindTubeOpened:
		return f.TubeOpened.Unmarshal(body)
	case KindRegistered:
		return f.Registered.Unmarshal(body)
	case KindTubeSealed:
		return f.TubeSealed.Unmarshal(body)
	case KindBoxed:
		return f.Boxed.Unmarshal(body)
	case KindLabReceived:
		return f.LabReceived.Unmarshal(body)
	case KindResulted:
		return f.Resulted.Unmarshal(body)
	case KindCorrected:
		return f.Corrected.Unmarshal(body)
	}
	return ErrUnknownKind
}

// Append encodes the fact behind dst.
func (f *Fact) Append(dst []byte) []byte {
	switch f.Kind {
	case KindSiteOpened:
		return f.SiteOpened.AppendFact(dst)
	case KindTubeOpened:
		return f.TubeOpened.AppendFact(dst)
	case KindRegistered:
		return f.Registered.AppendFact(dst)
	case KindTubeSealed:
		return f.TubeSealed.AppendFact(dst)
	case KindBoxed:
		return f.Boxed.AppendFact(dst)
	case KindLabReceived:
		return f.LabReceived.AppendFact(dst)
	case KindResulted:
		return f.Resulted.AppendFact(dst)
	case KindCorrected:
		return f.Corrected.AppendFact(dst)
	}
	return dst
}

// Tube is the tube the fact is about; nil for a site and for a whole box.
func (f *Fact) Tube() []byte {
	switch f.Kind {
	case KindTubeOpened:
		return f.TubeOpened.Tube
	case KindRegistered:
		return f.Registered.Tube
	case KindTubeSealed:
		return f.TubeSealed.Tube
	case KindBoxed:
		return f.Boxed.Tube
	case KindLabReceived:
		return f.LabReceived.Tube
	case KindResulted:
		return f.Resulted.Tube
	case KindCorrected:
		return f.Corrected.Tube
	}
	return nil
}

// At is when the fact happened, by whoever witnessed it.
func (f *Fact) At() int64 {
	switch f.Kind {
	case KindSiteOpened:
		return f.SiteOpened.OpenedAt
	case KindTubeOpened:
		return f.TubeOpened.OpenedAt
	case KindRegistered:
		return f.Registered.SampledAt
	case KindTubeSealed:
		return f.TubeSealed.SealedAt
	case KindBoxed:
		return f.Boxed.PackedAt
	case KindLabReceived:
		return f.LabReceived.ReceivedAt
	case KindResulted:
		return f.Resulted.ReportedAt
	case KindCorrected:
		return f.Corrected.CorrectedAt
	}
	return 0
}
