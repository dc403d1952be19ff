package rules

import (
	"bytes"
	"encoding/binary"
	"slices"

	"qianma/cluster/machine"
	"qianma/nucleic/nucleicpb"
)

// tube is what is held of one tube, as far as rules need it: enough to decide
// and to work out the index without reading anything back.
type tube struct {
	code    []byte
	exists  bool     // a head is stored
	head    []byte   // as stored
	members []member // in no order that matters
	sum     summary  // of the head
	index   index    // as stored
	newer   *tube    // neighbours in the cache
	older   *tube
}

// summary is what the facts of a head come to.
type summary struct {
	facts      int
	opened     nucleicpb.Pool // PoolUnknown: nobody said
	sealed     bool
	sealedAt   int64
	packed     bool
	packedAt   int64 // earliest
	received   bool
	resulted   bool              // some result is not void
	reportedAt int64             // earliest of those
	verdict    nucleicpb.Verdict // of those
	rebinds    []rebind
}

// rebind is one correction that put another person in a member's place.
type rebind struct {
	from, to [nucleicpb.PersonSize]byte
	revision uint32
}

// Kinds of conflicts, as bits of the conflict index. They are stored: a bit
// never changes its meaning.
const (
	ConflictOutcome  = 1 << 0 // the highest revision has two outcomes
	ConflictOverfull = 1 << 1 // more swabs than the pool allows
	ConflictPool     = 1 << 2 // registrations name different pools
	ConflictSealed   = 1 << 3 // sampled after the tube was sealed
	ConflictRebound  = 1 << 4 // one registration was given to two people
	ConflictStale    = 1 << 5 // tested before a swab in it was taken
)

var conflictNames = [...]string{"outcome", "overfull", "pool", "after_seal", "rebound_twice", "tested_before_swab"}

// ConflictNames spells out the bits.
func ConflictNames(bits uint64) []string {
	var out []string
	for i, name := range conflictNames {
		if bits&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// index is which worklists a tube is on, and where in them. It is a pure
// function of the tube.
type index struct {
	waiting, unregistered, packed       bool
	waitingAt, unregisteredAt, packedAt int64
	conflicts                           uint64
}

func (t *tube) find(person []byte) *member {
	for i := range t.members {
		if bytes.Equal(t.members[i].person[:], person) {
			return &t.members[i]
		}
	}
	return nil
}

// add makes room for the members that are expected, once, and adds one.
func (t *tube) add(person []byte, expected int) *member {
	if t.members == nil {
		t.members = make([]member, 0, expected)
	}
	t.members = append(t.members, member{})
	m := &t.members[len(t.members)-1]
	copy(m.person[:], person)
	return m
}

// crowd is what the live members of a tube come to.
type crowd struct {
	live        int
	first, last int64          // sampling times
	pool        nucleicpb.Pool // the largest named
	mixed       bool           // they name different pools
}

func (t *tube) crowd() crowd {
	var c crowd
	for i := range t.members {
		m := &t.members[i]
		if !m.live() {
			continue
		}
		if c.live == 0 {
			c.first, c.last, c.pool = m.sampledAt, m.sampledAt, m.pool
		}
		c.live++
		c.first, c.last = min(c.first, m.sampledAt), max(c.last, m.sampledAt)
		c.mixed = c.mixed || m.pool != c.pool
		c.pool = max(c.pool, m.pool)
	}
	return c
}

// derive works the index out of what is held.
func (t *tube) derive() index {
	c, s := t.crowd(), &t.sum
	x := index{conflicts: t.conflicts(&c)}
	if c.live > 0 && !s.resulted {
		x.waiting, x.waitingAt = true, c.first
	}
	if c.live == 0 && s.resulted {
		x.unregistered, x.unregisteredAt = true, s.reportedAt
	}
	if s.packed && !s.received {
		x.packed, x.packedAt = true, s.packedAt
	}
	return x
}

func (t *tube) conflicts(c *crowd) (bits uint64) {
	s := &t.sum
	set := func(is bool, bit uint64) {
		if is {
			bits |= bit
		}
	}
	set(s.verdict.Outcome == nucleicpb.OutcomeConflict, ConflictOutcome)
	set(t.reboundTwice(), ConflictRebound)
	if c.live > 0 {
		set(c.live > capOf(c), ConflictOverfull)
		set(c.mixed, ConflictPool)
		set(s.sealed && c.last > s.sealedAt+Ahead.Milliseconds(), ConflictSealed)
		set(s.resulted && nucleicpb.Stale(c.last, s.verdict.TestedAt), ConflictStale)
	}
	return bits
}

// capOf is how many swabs the members themselves say go into their tube. The
// household's number is the contract's largest, so where pools are mixed the
// cap is that of the larger tube either way.
func capOf(c *crowd) int { return c.pool.Cap() }

func (t *tube) reboundTwice() bool {
	for i, a := range t.sum.rebinds {
		for _, b := range t.sum.rebinds[:i] {
			if a.from == b.from && a.revision == b.revision && a.to != b.to && t.holds(a.to) && t.holds(b.to) {
				return true
			}
		}
	}
	return false
}

func (t *tube) holds(person [nucleicpb.PersonSize]byte) bool {
	m := t.find(person[:])
	return m != nil && m.live()
}

// eachFact walks the facts of a head or of a box. It stops at the first that
// fn returns false for.
func eachFact(head []byte, fn func(raw []byte) bool) {
	for len(head) > 0 {
		n, w := binary.Uvarint(head)
		if w <= 0 || n > uint64(len(head)-w) || !fn(head[w:w+int(n)]) {
			return
		}
		head = head[w+int(n):]
	}
}

// mergeFact puts a fact into a head: facts stand in the order of their
// identities, one for each. It returns the head unchanged when the fact, or
// one that stands over it, is there.
func mergeFact(head []byte, f *nucleicpb.Fact, raw []byte) (merged []byte, changed bool) {
	var held nucleicpb.Fact
	var room, mine [128]byte
	identity := f.AppendIdentity(mine[:0])
	at, end, keep := 0, 0, false
	eachFact(head, func(old []byte) bool {
		next := end + uvarintLen(len(old)) + len(old)
		_, _ = held.Decode(old)
		switch bytes.Compare(held.AppendIdentity(room[:0]), identity) {
		case -1:
			at, end = next, next
			return true
		case 0:
			keep = !nucleicpb.Stands(f, raw, &held, old)
			end = next
		}
		return false
	})
	if keep {
		return head, false
	}
	merged = make([]byte, 0, len(head)+len(raw)+binary.MaxVarintLen32)
	merged = append(merged, head[:at]...)
	merged = append(binary.AppendUvarint(merged, uint64(len(raw))), raw...)
	return append(merged, head[end:]...), true
}

func uvarintLen(n int) int {
	var room [binary.MaxVarintLen64]byte
	return binary.PutUvarint(room[:], uint64(n))
}

// verdicts are the facts of a head that must be read together.
type verdicts struct {
	results []nucleicpb.Resulted
	voids   []nucleicpb.Corrected
}

// void reports whether a correction voids the result.
func (v *verdicts) void(r *nucleicpb.Resulted) bool {
	return slices.ContainsFunc(v.voids, func(c nucleicpb.Corrected) bool { return c.Voids(r) })
}

// readVerdicts collects a head's results and corrections and hands every other
// fact to rest.
func readVerdicts(head []byte, rest func(f *nucleicpb.Fact)) (v verdicts) {
	if len(head) == 0 {
		return v // of most tubes nothing is known but who is in them: no room for a fact is needed
	}
	var f nucleicpb.Fact
	eachFact(head, func(raw []byte) bool {
		_, _ = f.Decode(raw)
		switch f.Kind {
		case nucleicpb.KindResulted:
			v.results = append(v.results, f.Resulted)
		case nucleicpb.KindCorrected:
			v.voids = append(v.voids, f.Corrected)
		default:
			rest(&f)
		}
		return true
	})
	return v
}

// summarise works out what a head's facts come to.
func summarise(head []byte) summary {
	var s summary
	v := readVerdicts(head, func(f *nucleicpb.Fact) {
		s.facts++
		s.add(f)
	})
	s.facts += len(v.results) + len(v.voids)
	s.correct(v.voids)
	s.judge(&v)
	return s
}

// add counts a fact that stands by itself.
func (s *summary) add(f *nucleicpb.Fact) {
	switch f.Kind {
	case nucleicpb.KindTubeOpened:
		s.opened = f.TubeOpened.Pool
	case nucleicpb.KindTubeSealed:
		s.sealed, s.sealedAt = true, f.TubeSealed.SealedAt
	case nucleicpb.KindBoxed:
		if !s.packed || f.Boxed.PackedAt < s.packedAt {
			s.packed, s.packedAt = true, f.Boxed.PackedAt
		}
	case nucleicpb.KindLabReceived:
		s.received = true
	}
}

func (s *summary) correct(voids []nucleicpb.Corrected) {
	for i := range voids {
		c := &voids[i]
		if bound, ok := c.Bound(); ok && len(c.Person) == nucleicpb.PersonSize {
			r := rebind{revision: c.Revision}
			copy(r.from[:], c.Person)
			copy(r.to[:], bound.Person)
			s.rebinds = append(s.rebinds, r)
		}
	}
}

// judge counts the results that no correction voids.
func (s *summary) judge(v *verdicts) {
	for i := range v.results {
		r := &v.results[i]
		if v.void(r) {
			continue
		}
		if !s.resulted || r.ReportedAt < s.reportedAt {
			s.resulted, s.reportedAt = true, r.ReportedAt
		}
		s.verdict.Add(r)
	}
}

// load reads a tube. A tube that nobody has said anything about is returned
// too, with exists false, so that it can be cached and filled.
func load(r machine.Reader, code []byte) *tube {
	t := &tube{code: bytes.Clone(code)}
	var room [64]byte
	head, ok := r.Get(plainKey(room[:], tableHead, code))
	if !ok {
		return t
	}
	t.exists, t.head = true, bytes.Clone(head)
	t.sum = summarise(t.head)
	prefix := pairKey(nil, tableMember, code, nil)
	r.Scan(prefix, after(prefix), func(key, value []byte) bool {
		t.members = append(t.members, readMember(code, key[len(prefix):], value))
		return true
	})
	t.index = t.derive()
	return t
}
