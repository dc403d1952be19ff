package replica

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"qianma/cluster/fact"
	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

// The calls between replicas of one subsystem are flat records: a version,
// then fields in a fixed order. A reader ignores what follows the fields it
// knows, so a newer peer may append fields; one that must be understood gets a
// new version.

const wireVersion = 1

var errWire = errors.New("replica: malformed message")

type enc struct{ b []byte }

func newEnc() *enc { return &enc{b: []byte{wireVersion}} }

func (e *enc) num(v uint64)     { e.b = binary.AppendUvarint(e.b, v) }
func (e *enc) flag(v bool)      { e.b = append(e.b, map[bool]byte{true: 1}[v]) }
func (e *enc) str(s string)     { e.num(uint64(len(s))); e.b = append(e.b, s...) }
func (e *enc) mark(m fact.Mark) { e.num(m.Seq); e.b = append(e.b, m.Digest[:]...) }

func (e *enc) marks(m map[fact.Origin]fact.Mark) {
	e.num(uint64(len(m)))
	for o, at := range m {
		e.str(o.String())
		e.mark(at)
	}
}

// catalog appends the age behind the marks; a reader that does not know of it
// ignores it.
func (e *enc) catalog(c *fact.Catalog) {
	e.marks(c.Marks)
	e.flag(c.Vouched)
	e.num(uint64(max(c.Age, 0)))
}

type dec struct {
	p   []byte
	bad bool
}

func newDec(p []byte) *dec {
	if len(p) == 0 || p[0] != wireVersion {
		return &dec{bad: true}
	}
	return &dec{p: p[1:]}
}

func (d *dec) err() error {
	if d.bad {
		return errWire
	}
	return nil
}

func (d *dec) num() uint64 {
	v, w := binary.Uvarint(d.p)
	if d.bad || w <= 0 {
		d.bad = true
		return 0
	}
	d.p = d.p[w:]
	return v
}

// count reads the length of a list whose elements take at least one byte.
func (d *dec) count() int {
	n := d.num()
	if n > uint64(len(d.p)) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *dec) take(n int) []byte {
	if d.bad || n > len(d.p) {
		d.bad = true
		return nil
	}
	out := d.p[:n:n]
	d.p = d.p[n:]
	return out
}

func (d *dec) flag() bool {
	b := d.take(1)
	return len(b) == 1 && b[0] != 0
}

func (d *dec) raw() []byte { return d.take(d.count()) }
func (d *dec) str() string { return string(d.raw()) }

func (d *dec) mark() (m fact.Mark) {
	m.Seq = d.num()
	copy(m.Digest[:], d.take(len(m.Digest)))
	return m
}

func (d *dec) origin() fact.Origin {
	o, err := fact.ParseOrigin(d.str())
	if err != nil {
		d.bad = true
	}
	return o
}

func (d *dec) marks() map[fact.Origin]fact.Mark {
	out := map[fact.Origin]fact.Mark{}
	for n := d.count(); n > 0 && !d.bad; n-- {
		o := d.origin()
		out[o] = d.mark()
	}
	return out
}

// catalog reads what is vouched for too, if the other end is of a build that
// says it.
func (d *dec) catalog() (c fact.Catalog) {
	c.Marks = d.marks()
	if d.bad || len(d.p) == 0 {
		return c
	}
	c.Vouched, c.Age = d.flag(), time.Duration(min(d.num(), math.MaxInt64))
	return c
}

// hello is what a process says of one of its groups.
type hello struct {
	life    string // of its directory
	formed  bool   // it has a configuration: the group exists
	leader  string // process, as far as it knows
	leads   bool   // it is the leader, and ready
	term    uint64
	applied uint64
	last    uint64 // newest entry of its log
	members []Member
	silent  time.Duration // since it last heard from a leader
}

func (h *hello) encode() []byte {
	e := newEnc()
	e.str(h.life)
	e.flag(h.formed)
	e.str(h.leader)
	e.flag(h.leads)
	e.num(h.term)
	e.num(h.applied)
	e.num(h.last)
	e.num(uint64(len(h.members)))
	for _, m := range h.members {
		e.str(m.Name)
		e.str(m.Life)
		e.flag(m.Voter)
	}
	e.num(uint64(max(h.silent, 0)))
	return e.b
}

func decodeHello(p []byte) (h hello, err error) {
	d := newDec(p)
	h.life, h.formed, h.leader, h.leads = d.str(), d.flag(), d.str(), d.flag()
	h.term, h.applied, h.last = d.num(), d.num(), d.num()
	for n := d.count(); n > 0 && !d.bad; n-- {
		h.members = append(h.members, Member{Name: d.str(), Life: d.str(), Voter: d.flag()})
	}
	if len(d.p) > 0 { // an older peer does not say
		h.silent = time.Duration(d.num())
	}
	return h, d.err()
}

// A forwarded call carries proposals as an entry does, and brings back what
// became of each.
func encodeForward(shard int, calls []*call) []byte {
	size := 16
	for _, c := range calls {
		size += c.size
	}
	e := &enc{b: make([]byte, 0, size)}
	e.b = append(e.b, wireVersion)
	e.num(uint64(shard))
	e.num(uint64(len(calls)))
	for _, c := range calls {
		e.b = appendProposal(e.b, &c.proposal)
	}
	return e.b
}

func decodeForward(p []byte) (shard int, out []machine.Proposal, err error) {
	d := newDec(p)
	shard = int(d.num())
	for n := d.count(); n > 0 && !d.bad; n-- {
		one, rest, err := nextProposal(d.p)
		if err != nil {
			return 0, nil, err
		}
		d.p = rest
		out = append(out, one.proposal())
	}
	return shard, out, d.err()
}

// verdict is what became of one proposal, at whoever asks: a receipt or an error.
type verdict struct {
	receipt machine.Receipt
	err     error
}

func encodeVerdicts(vs []verdict) []byte {
	e := newEnc()
	e.num(uint64(len(vs)))
	for i := range vs {
		v := &vs[i]
		if v.err != nil {
			p := problem.From(v.err)
			e.flag(true)
			e.str(string(p.Code))
			e.str(p.Message)
			e.str(p.Fix)
			e.num(uint64(p.RetryAfter.Milliseconds()))
			continue
		}
		e.flag(false)
		e.str(v.receipt.Origin)
		e.num(v.receipt.First)
		e.num(v.receipt.Last)
		e.num(uint64(v.receipt.Level))
		e.flag(v.receipt.Replayed)
		e.b = appendRows(e.b, v.receipt.Rows)
	}
	return e.b
}

func decodeVerdicts(p []byte) (out []verdict, err error) {
	d := newDec(p)
	n := d.count()
	origin := "" // most verdicts name the same one: make the string once
	for ; n > 0 && !d.bad; n-- {
		if d.flag() {
			q := problem.New(problem.Code(d.str()), d.str(), d.str())
			out = append(out, verdict{err: q.After(millis(d.num()))})
			continue
		}
		var v verdict
		if raw := d.raw(); string(raw) != origin {
			origin = string(raw)
		}
		v.receipt.Origin = origin
		v.receipt.First, v.receipt.Last = d.num(), d.num()
		v.receipt.Level, v.receipt.Replayed = machine.Level(d.num()), d.flag()
		if d.bad {
			break
		}
		if v.receipt.Rows, d.p, err = decodeRows(d.p); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, d.err()
}
