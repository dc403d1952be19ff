// Package middlestorepb is the middle store's contract: what display asks,
// what it is told, and how an empty replica copies a peer
// (middlestore.proto), with a coder made for many lookups a second.
//
// It promises that the coder writes what the contract says, byte for byte,
// that a decoder given a used message reuses its memory, and that unknown
// fields are skipped. Strings of a decoded message share one copy of the
// bytes they came from. The package knows no store and no clock, and imports
// nothing of ours.
package middlestorepb

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// RPC methods of a middle store.
const (
	MethodLookup          = "middlestore.Lookup"
	MethodChanges         = "middlestore.Changes"
	MethodCheckpointOpen  = "middlestore.CheckpointOpen"
	MethodCheckpointRead  = "middlestore.CheckpointRead"
	MethodCheckpointClose = "middlestore.CheckpointClose"
)

// Bounds of a lookup.
const (
	MaxPersons   = 1000
	MaxTubes     = 32
	DefaultTubes = 6
)

// CodeBehind is the problem code of a replica that has folded less than the
// reader has already seen: ask another one.
const CodeBehind = "behind"

// PersonID is the 16-byte keyed hash of a document.
type PersonID [16]byte

// Status is what a person's tubes come to.
type Status uint8

// The statuses; the numbers are those of nucleic's contract.
const (
	StatusNone               Status = 0 // never sampled
	StatusPending            Status = 1 // sampled, nothing decided yet
	StatusNegative           Status = 2
	StatusPoolPositiveRetest Status = 3 // a single retest decides
	StatusPositive           Status = 4
	StatusConflict           Status = 5
)

// String is the status as answers show it.
func (s Status) String() string {
	return name(s, "none", "pending", "negative", "pool_positive_retest", "positive", "conflict")
}

// Outcome is what a tube's results come to.
type Outcome uint8

// The outcomes; the numbers are those of nucleic's contract.
const (
	OutcomePending      Outcome = 0 // no result counts yet
	OutcomeNegative     Outcome = 1
	OutcomePositive     Outcome = 2
	OutcomeInconclusive Outcome = 3
	OutcomeInvalid      Outcome = 4
)

// String is the outcome as answers show it.
func (o Outcome) String() string {
	return name(o, "pending", "negative", "positive", "inconclusive", "invalid")
}

func name[T ~uint8](i T, names ...string) string {
	if int(i) < len(names) {
		return names[i]
	}
	return "unknown"
}

// LookupRequest asks about many persons at once.
type LookupRequest struct {
	Persons []PersonID
	Seen    Marks
	Tubes   uint32 // newest tubes wanted for each; 0: DefaultTubes
	StaleOK bool   // answer even from behind Seen, and say so
	// Subjects: say what each answer rests on.
	Subjects bool
}

// LookupResponse answers in the order asked.
type LookupResponse struct {
	Persons    []Person
	Marks      Marks
	Freshness  []Freshness
	Behind     bool
	AnsweredAt int64 // Unix ms
	ServedBy   string
	// What was changed up to Position of Epoch is in the answer. A position is
	// of one run of one process, its epoch; 0: it is not known.
	Epoch    uint64
	Position uint64
}

// Person is what is known about one person; the zero value is a person nobody
// has heard of.
type Person struct {
	Status    Status
	Tubes     []Tube // newest sampled first
	MoreTubes bool
	DecidedBy uint32 // index into Tubes, plus one; 0: none
	HasDoses  bool
	Doses     Doses
	Subjects  []uint32 // what the answer rests on, if that was asked
}

// Tube is one tube a person's swab went into. Times are Unix ms, 0 unknown.
type Tube struct {
	Tube       string
	Pool       uint32 // 99: a household
	SampledAt  int64
	ReceivedAt int64
	TestedAt   int64
	ReportedAt int64
	Outcome    Outcome
	Conflict   bool
	Revision   uint32
}

// PoolName is the pool as people write it.
func (t *Tube) PoolName() string {
	if t.Pool == household {
		return "household"
	}
	return strconv.FormatUint(uint64(t.Pool), 10)
}

const household = 99 // of nucleic's contract

// OutcomeName is the outcome as answers show it; a contradiction is
// "conflict".
func (t *Tube) OutcomeName() string {
	if t.Conflict {
		return "conflict"
	}
	return t.Outcome.String()
}

// Doses is what a person's dose records come to.
type Doses struct {
	Count    uint32
	LastDay  int32 // days since 1970-01-01
	Conflict bool
	Doses    []Dose
}

// Dose is one standing record of a dose.
type Dose struct {
	Dose     uint32
	Day      int32
	Product  string
	Batch    string
	Site     string
	Conflict bool
}

// Freshness says how new the data of one carrier's subsystem is.
type Freshness struct {
	Carrier   string
	Subsystem string
	AsOf      int64 // Unix ms: all committed there before is folded here; 0: not known
	Behind    uint64
	Newest    int64 // Unix ms: when the newest folded block was committed
}

// Append encodes the request behind dst.
func (r *LookupRequest) Append(dst []byte) []byte {
	for i := range r.Persons {
		dst = protowire.AppendTag(dst, 1, protowire.BytesType)
		dst = append(append(dst, 16), r.Persons[i][:]...)
	}
	if len(r.Seen) > 0 {
		dst = appendSub(dst, 2, r.Seen.Append)
	}
	dst = appendUint(dst, 3, uint64(r.Tubes))
	dst = appendBool(dst, 4, r.StaleOK)
	return appendBool(dst, 5, r.Subjects)
}

// Decode reads the request, reusing what r held.
func (r *LookupRequest) Decode(p []byte) error {
	*r = LookupRequest{Persons: r.Persons[:0], Seen: r.Seen[:0]}
	var f field
	for m := open(p); len(m.p) > 0; {
		if !m.next(&f) {
			return ErrMalformed
		}
		switch {
		case f.is(1, protowire.BytesType):
			if len(f.bytes) != 16 {
				return ErrMalformed
			}
			r.Persons = append(r.Persons, PersonID(f.bytes))
		case f.is(2, protowire.BytesType):
			if err := r.Seen.merge(f.bytes); err != nil {
				return err
			}
		case f.uint(3):
			r.Tubes = uint32(f.varint)
		case f.uint(4):
			r.StaleOK = f.varint != 0
		case f.uint(5):
			r.Subjects = f.varint != 0
		}
	}
	return nil
}

// Append encodes the response behind dst.
func (r *LookupResponse) Append(dst []byte) []byte {
	for i := range r.Persons {
		dst = appendSub(dst, 1, r.Persons[i].Append)
	}
	return r.AppendTail(dst)
}

// AppendTail encodes everything but the persons, for a writer that encodes
// them one by one.
func (r *LookupResponse) AppendTail(dst []byte) []byte {
	if len(r.Marks) > 0 {
		dst = appendSub(dst, 2, r.Marks.Append)
	}
	for i := range r.Freshness {
		dst = appendSub(dst, 3, r.Freshness[i].append)
	}
	dst = appendBool(dst, 4, r.Behind)
	dst = appendInt(dst, 5, r.AnsweredAt)
	dst = appendText(dst, 6, r.ServedBy)
	return appendUint(appendUint(dst, 7, r.Epoch), 8, r.Position)
}

// AppendPerson encodes one person as the next of a response.
func AppendPerson(dst []byte, p *Person) []byte { return appendSub(dst, 1, p.Append) }

// Decode reads the response, reusing what r held.
func (r *LookupResponse) Decode(p []byte) error {
	*r = LookupResponse{Persons: r.Persons[:0], Marks: r.Marks[:0], Freshness: r.Freshness[:0]}
	if !r.mergeFrom(open(p)) {
		return ErrMalformed
	}
	return nil
}

// mergeFrom reads fields behind those that were read before, as an embedded
// message comes that was written in parts.
func (r *LookupResponse) mergeFrom(m message) bool {
	var f field
	for len(m.p) > 0 {
		ok := m.next(&f)
		switch {
		case !ok:
		case f.is(1, protowire.BytesType):
			ok = grow(&r.Persons).decode(f.sub())
		case f.is(2, protowire.BytesType):
			ok = r.Marks.merge(f.bytes) == nil
		case f.is(3, protowire.BytesType):
			ok = grow(&r.Freshness).decode(f.sub())
		case f.uint(4):
			r.Behind = f.varint != 0
		case f.uint(5):
			r.AnsweredAt = int64(f.varint)
		case f.string(6):
			r.ServedBy, ok = f.text, f.utf8()
		case f.uint(7):
			r.Epoch = f.varint
		case f.uint(8):
			r.Position = f.varint
		}
		if !ok {
			return false
		}
	}
	return true
}

// Append encodes the person behind dst.
func (p *Person) Append(dst []byte) []byte {
	dst = appendUint(dst, 1, uint64(p.Status))
	for i := range p.Tubes {
		dst = appendSub(dst, 2, p.Tubes[i].append)
	}
	dst = appendBool(dst, 3, p.MoreTubes)
	dst = appendUint(dst, 4, uint64(p.DecidedBy))
	if p.HasDoses {
		dst = appendSub(dst, 5, p.Doses.append)
	}
	return appendNumbers(dst, 6, p.Subjects)
}

// Decode reads a person by itself, reusing what p held.
func (p *Person) Decode(raw []byte) error {
	if !p.decode(open(raw)) {
		return ErrMalformed
	}
	return nil
}

// Reset empties the person and keeps its memory.
func (p *Person) Reset() {
	*p = Person{Tubes: p.Tubes[:0], Doses: Doses{Doses: p.Doses.Doses[:0]}, Subjects: p.Subjects[:0]}
}

func (p *Person) decode(m message) bool {
	p.Reset()
	var f field
	for len(m.p) > 0 {
		ok := m.next(&f)
		switch {
		case !ok:
		case f.uint(1):
			p.Status = Status(f.varint)
		case f.is(2, protowire.BytesType):
			ok = grow(&p.Tubes).decode(f.sub())
		case f.uint(3):
			p.MoreTubes = f.varint != 0
		case f.uint(4):
			p.DecidedBy = uint32(f.varint)
		case f.is(5, protowire.BytesType):
			p.HasDoses = true
			ok = p.Doses.merge(f.sub())
		default:
			ok = f.numbers(6, &p.Subjects)
		}
		if !ok {
			return false
		}
	}
	return true
}

func (t *Tube) append(dst []byte) []byte {
	dst = appendText(dst, 1, t.Tube)
	dst = appendUint(dst, 2, uint64(t.Pool))
	dst = appendInt(dst, 3, t.SampledAt)
	dst = appendInt(dst, 4, t.ReceivedAt)
	dst = appendInt(dst, 5, t.TestedAt)
	dst = appendInt(dst, 6, t.ReportedAt)
	dst = appendUint(dst, 7, uint64(t.Outcome))
	dst = appendBool(dst, 8, t.Conflict)
	return appendUint(dst, 9, uint64(t.Revision))
}

func (t *Tube) decode(m message) bool {
	*t = Tube{}
	var f field
	for len(m.p) > 0 {
		ok := m.next(&f)
		switch {
		case !ok:
		case f.string(1):
			t.Tube, ok = f.text, f.utf8()
		case f.uint(2):
			t.Pool = uint32(f.varint)
		case f.uint(3):
			t.SampledAt = int64(f.varint)
		case f.uint(4):
			t.ReceivedAt = int64(f.varint)
		case f.uint(5):
			t.TestedAt = int64(f.varint)
		case f.uint(6):
			t.ReportedAt = int64(f.varint)
		case f.uint(7):
			t.Outcome = Outcome(f.varint)
		case f.uint(8):
			t.Conflict = f.varint != 0
		case f.uint(9):
			t.Revision = uint32(f.varint)
		}
		if !ok {
			return false
		}
	}
	return true
}

func (d *Doses) append(dst []byte) []byte {
	dst = appendUint(dst, 1, uint64(d.Count))
	dst = appendInt(dst, 2, int64(d.LastDay))
	dst = appendBool(dst, 3, d.Conflict)
	for i := range d.Doses {
		dst = appendSub(dst, 4, d.Doses[i].append)
	}
	return dst
}

func (d *Doses) merge(m message) bool {
	var f field
	for len(m.p) > 0 {
		ok := m.next(&f)
		switch {
		case !ok:
		case f.uint(1):
			d.Count = uint32(f.varint)
		case f.uint(2):
			d.LastDay = int32(f.varint)
		case f.uint(3):
			d.Conflict = f.varint != 0
		case f.is(4, protowire.BytesType):
			ok = grow(&d.Doses).decode(f.sub())
		}
		if !ok {
			return false
		}
	}
	return true
}

func (d *Dose) append(dst []byte) []byte {
	dst = appendUint(dst, 1, uint64(d.Dose))
	dst = appendInt(dst, 2, int64(d.Day))
	dst = appendText(dst, 3, d.Product)
	dst = appendText(dst, 4, d.Batch)
	dst = appendText(dst, 5, d.Site)
	return appendBool(dst, 6, d.Conflict)
}

func (d *Dose) decode(m message) bool {
	*d = Dose{}
	var f field
	for len(m.p) > 0 {
		ok := m.next(&f)
		switch {
		case !ok:
		case f.uint(1):
			d.Dose = uint32(f.varint)
		case f.uint(2):
			d.Day = int32(f.varint)
		case f.string(3):
			d.Product, ok = f.text, f.utf8()
		case f.string(4):
			d.Batch, ok = f.text, f.utf8()
		case f.string(5):
			d.Site, ok = f.text, f.utf8()
		case f.uint(6):
			d.Conflict = f.varint != 0
		}
		if !ok {
			return false
		}
	}
	return true
}

func (r *Freshness) append(dst []byte) []byte {
	dst = appendText(dst, 1, r.Carrier)
	dst = appendText(dst, 2, r.Subsystem)
	dst = appendInt(dst, 3, r.AsOf)
	dst = appendUint(dst, 4, r.Behind)
	return appendInt(dst, 5, r.Newest)
}

func (r *Freshness) decode(m message) bool {
	*r = Freshness{}
	var f field
	for len(m.p) > 0 {
		ok := m.next(&f)
		switch {
		case !ok:
		case f.string(1):
			r.Carrier, ok = f.text, f.utf8()
		case f.string(2):
			r.Subsystem, ok = f.text, f.utf8()
		case f.uint(3):
			r.AsOf = int64(f.varint)
		case f.uint(4):
			r.Behind = f.varint
		case f.uint(5):
			r.Newest = int64(f.varint)
		}
		if !ok {
			return false
		}
	}
	return true
}

// Mark is how far one origin has been folded.
type Mark struct {
	Origin uint64 // OriginKey of the origin's text form
	Seq    uint64
}

// Marks is how far each origin has been folded, by Origin. It is what a reader
// keeps between answers, so that no later answer is older.
type Marks []Mark

// OriginKey shortens an origin's text form to what travels with a reader.
func OriginKey(origin string) uint64 {
	sum := sha256.Sum256([]byte(origin))
	return binary.BigEndian.Uint64(sum[:])
}

// Append encodes the marks behind dst.
func (m Marks) Append(dst []byte) []byte {
	if len(m) == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(8*len(m)))
	size := 0
	for i := range m {
		dst = protowire.AppendFixed64(dst, m[i].Origin)
		size += protowire.SizeVarint(m[i].Seq)
	}
	dst = protowire.AppendTag(dst, 2, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(size))
	for i := range m {
		dst = protowire.AppendVarint(dst, m[i].Seq)
	}
	return dst
}

// maxMarks bounds what a stranger can make us keep.
const maxMarks = 4096

// merge adds encoded marks, packed or one by one. Sequence numbers without an
// origin, or the other way round, are malformed.
func (m *Marks) merge(p []byte) error {
	var origins, seqs []byte
	var f field
	for w := (message{p: p, text: string(p)}); len(w.p) > 0; {
		if !w.next(&f) {
			return ErrMalformed
		}
		switch {
		case f.is(1, protowire.BytesType):
			origins = append(origins, f.bytes...)
		case f.is(1, protowire.Fixed64Type):
			origins = protowire.AppendFixed64(origins, f.varint)
		case f.is(2, protowire.BytesType):
			seqs = append(seqs, f.bytes...)
		case f.uint(2):
			seqs = protowire.AppendVarint(seqs, f.varint)
		}
	}
	if len(origins)%8 != 0 || len(origins)/8 > maxMarks {
		return ErrMalformed
	}
	for ; len(origins) > 0; origins = origins[8:] {
		seq, n := protowire.ConsumeVarint(seqs)
		if n < 0 {
			return ErrMalformed
		}
		seqs = seqs[n:]
		*m = append(*m, Mark{binary.LittleEndian.Uint64(origins), seq})
	}
	if len(seqs) != 0 {
		return ErrMalformed
	}
	return nil
}

// String is the marks as an opaque word a client sends back.
func (m Marks) String() string { return base64.RawURLEncoding.EncodeToString(m.Append(nil)) }

// ParseMarks reads what String wrote.
func ParseMarks(s string) (Marks, error) {
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, errors.New("not marks of an earlier answer")
	}
	var m Marks
	if err := m.merge(raw); err != nil {
		return nil, errors.New("not marks of an earlier answer")
	}
	return m, nil
}

// Sort puts the marks in the order of their origins, as they travel.
func (m Marks) Sort() {
	slices.SortFunc(m, func(a, b Mark) int {
		switch {
		case a.Origin < b.Origin:
			return -1
		case a.Origin > b.Origin:
			return 1
		}
		return 0
	})
}

// Seq is how far an origin has been folded; 0 where it is not known.
func (m Marks) Seq(origin uint64) uint64 {
	for i := range m {
		if m[i].Origin == origin {
			return m[i].Seq
		}
	}
	return 0
}

// Covers reports whether nothing in seen is beyond m.
func (m Marks) Covers(seen Marks) bool {
	for i := range seen {
		if m.Seq(seen[i].Origin) < seen[i].Seq {
			return false
		}
	}
	return true
}

// Merge returns marks that cover both: what a reader keeps after an answer.
func (m Marks) Merge(other Marks) Marks {
	out := slices.Clone(m)
	for _, o := range other {
		i := slices.IndexFunc(out, func(x Mark) bool { return x.Origin == o.Origin })
		switch {
		case i < 0:
			out = append(out, o)
		case out[i].Seq < o.Seq:
			out[i].Seq = o.Seq
		}
	}
	out.Sort()
	return out
}
