package rules

import (
	"bytes"

	"qianma/cluster/machine"
	"qianma/nucleic/nucleicpb"
)

// Machine is the nucleic subsystem's machine.Machine. It is used by one
// goroutine at a time.
type Machine struct {
	cache *cache
	fact  nucleicpb.Fact // the one being worked on
	key   [256]byte
	value []byte
}

var (
	_ machine.Machine = (*Machine)(nil)
	_ machine.Seeker  = (*Machine)(nil)
)

// New returns a machine that holds tubes of about so many bytes in memory, and as
// yet none.
func New(bytes int) *Machine { return &Machine{cache: newCache(max(1, bytes/tubeBytes))} }

// Reset implements machine.Machine.
func (m *Machine) Reset() { m.cache = newCache(m.cache.limit) }

// Sought implements machine.Seeker: a tube is asked for when its first person is
// registered, and again only when it has left the cache.
func (m *Machine) Sought() []byte { return []byte{tableHead} }

// tube is what is held of a tube, from the cache or from r.
func (m *Machine) tube(r machine.Reader, code []byte) *tube {
	t, ok := m.cache.get(code)
	if !ok {
		t = load(r, code)
		m.cache.add(t)
	}
	return t
}

// Decide implements machine.Machine: the policy of a door.
func (m *Machine) Decide(r machine.Reader, at int64, command []byte) machine.Decision {
	f := &m.fact
	if _, err := f.Decode(command); err != nil {
		return rejected(Malformed)
	}
	if code := Check(f, at); code != "" {
		return rejected(code)
	}
	switch f.Kind {
	case nucleicpb.KindSiteOpened:
		return m.decideSite(r, f, command)
	case nucleicpb.KindTubeOpened:
		return m.decideTubeOpened(r, f, command)
	case nucleicpb.KindRegistered:
		return m.decideRegistered(r, &f.Registered, command)
	case nucleicpb.KindTubeSealed:
		return m.decideTubeSealed(r, f, command)
	case nucleicpb.KindBoxed:
		return m.decideBoxed(r, f, command)
	case nucleicpb.KindLabReceived:
		return m.decideLabReceived(r, f, command)
	case nucleicpb.KindResulted:
		return m.decideResulted(r, &f.Resulted, command)
	}
	return m.decideCorrected(r, &f.Corrected)
}

func rejected(code string) machine.Decision {
	return machine.Decision{Status: machine.Rejected, Code: code}
}

func accepted(fact []byte) machine.Decision {
	return machine.Decision{Status: machine.Accepted, Fact: fact}
}

func conflicts(code string, fact []byte) machine.Decision {
	return machine.Decision{Status: machine.Conflicts, Code: code, Fact: fact}
}

var duplicate = machine.Decision{Status: machine.Duplicate}

// decideSite takes any opening that says something new of a site.
func (m *Machine) decideSite(r machine.Reader, f *nucleicpb.Fact, command []byte) machine.Decision {
	old, ok := r.Get(plainKey(m.key[:], tableSite, f.SiteOpened.Site))
	if !ok {
		return accepted(command)
	}
	var held nucleicpb.Fact
	_, _ = held.Decode(old)
	if sameSite(&held.SiteOpened, &f.SiteOpened) || !nucleicpb.Stands(f, command, &held, old) {
		return duplicate
	}
	return accepted(command)
}

func sameSite(a, b *nucleicpb.SiteOpened) bool {
	return bytes.Equal(a.Name, b.Name) && bytes.Equal(a.Division, b.Division)
}

func (m *Machine) decideTubeOpened(r machine.Reader, f *nucleicpb.Fact, command []byte) machine.Decision {
	t := m.tube(r, f.TubeOpened.Tube)
	pool := f.TubeOpened.Pool
	c := t.crowd()
	switch {
	case t.sum.opened == pool:
		return duplicate
	case t.sum.opened != nucleicpb.PoolUnknown, c.live > 0 && c.pool != pool:
		return rejected(PoolMismatch)
	case t.sum.facts >= MaxTubeFacts:
		return rejected(TubeCrowded)
	}
	return accepted(command)
}

// decideRegistered guards the tube: its pool, its cap, its seal. What the
// person is, or how the person was read, is never a reason to refuse a swab.
func (m *Machine) decideRegistered(r machine.Reader, reg *nucleicpb.Registered, command []byte) machine.Decision {
	t := m.tube(r, reg.Tube)
	if held := t.find(reg.Person); held != nil {
		switch {
		case held.voided >= reg.Rev():
			return rejected(RegistrationVoid)
		case held.revision >= reg.Rev():
			return duplicate
		}
	}
	c := t.crowd()
	switch {
	case !t.takes(reg):
		return rejected(TubeSealed)
	case t.poolFor(&c, reg.Pool) != reg.Pool:
		return rejected(PoolMismatch)
	case c.live >= reg.Pool.Cap():
		return rejected(TubeFull)
	case len(t.members) >= MaxMembers:
		return rejected(TubeCrowded)
	case t.sum.resulted && nucleicpb.Stale(reg.SampledAt, t.sum.verdict.TestedAt):
		return conflicts(SampledAfterTest, command)
	}
	return accepted(command)
}

// takes reports whether a swab may still be bound to the tube. A sealed tube
// takes only what a booth kept while it had no network, and only if the swab
// went in before the seal.
func (t *tube) takes(reg *nucleicpb.Registered) bool {
	return !t.sum.sealed ||
		(reg.Channel == nucleicpb.ChannelOffline && reg.SampledAt <= t.sum.sealedAt+Ahead.Milliseconds())
}

// poolFor is the pool a tube is held to be for: as opened, else as its members
// say, else whatever the newcomer says.
func (t *tube) poolFor(c *crowd, newcomer nucleicpb.Pool) nucleicpb.Pool {
	switch {
	case t.sum.opened != nucleicpb.PoolUnknown:
		return t.sum.opened
	case c.live > 0:
		return c.pool
	}
	return newcomer
}

func (m *Machine) decideTubeSealed(r machine.Reader, f *nucleicpb.Fact, command []byte) machine.Decision {
	t := m.tube(r, f.TubeSealed.Tube)
	live := t.crowd().live
	switch {
	case t.sum.sealed:
		return duplicate
	case live == 0 && t.sum.opened == nucleicpb.PoolUnknown:
		return rejected(TubeUnknown)
	case f.TubeSealed.Count != 0 && int(f.TubeSealed.Count) != live:
		return rejected(CountMismatch)
	case t.sum.facts >= MaxTubeFacts:
		return rejected(TubeCrowded)
	}
	return accepted(command)
}

func (m *Machine) decideBoxed(r machine.Reader, f *nucleicpb.Fact, command []byte) machine.Decision {
	t := m.tube(r, f.Boxed.Tube)
	if !t.exists {
		return rejected(TubeUnknown)
	}
	if _, ok := r.Get(pairKey(m.key[:], tableInBox, f.Boxed.Box, f.Boxed.Tube)); ok {
		return duplicate
	}
	count, _ := readBox(r, m.key[:], f.Boxed.Box)
	switch {
	case count >= MaxBox:
		return rejected(BoxFull)
	case t.sum.facts >= MaxTubeFacts:
		return rejected(TubeCrowded)
	}
	return accepted(command)
}

// decideLabReceived takes in whatever a lab holds in its hands, known or not:
// the registration may have gone through the other carrier.
func (m *Machine) decideLabReceived(r machine.Reader, f *nucleicpb.Fact, command []byte) machine.Decision {
	var held []byte
	if box := f.LabReceived.Box; len(box) > 0 {
		_, held = readBox(r, m.key[:], box)
	} else {
		held = m.tube(r, f.LabReceived.Tube).head
	}
	known, facts := lookup(held, f.AppendIdentity(nil))
	switch {
	case known:
		return duplicate
	case facts >= MaxTubeFacts:
		return rejected(TubeCrowded)
	}
	return accepted(command)
}

// lookup finds an identity among stored facts and counts them.
func lookup(held, identity []byte) (known bool, facts int) {
	var f nucleicpb.Fact
	var room [128]byte
	eachFact(held, func(raw []byte) bool {
		facts++
		_, _ = f.Decode(raw)
		known = known || bytes.Equal(f.AppendIdentity(room[:0]), identity)
		return true
	})
	return known, facts
}

// decideResulted keeps whatever a lab reports: a result that contradicts
// another becomes a fact beside it, and people are asked.
func (m *Machine) decideResulted(r machine.Reader, res *nucleicpb.Resulted, command []byte) machine.Decision {
	t := m.tube(r, res.Tube)
	v := readVerdicts(t.head, func(*nucleicpb.Fact) {})
	contradicted := false
	for i := range v.results {
		held := &v.results[i]
		void := v.void(held)
		switch {
		case held.Revision != res.Revision:
		case held.Outcome == res.Outcome && bytes.Equal(held.Lab, res.Lab):
			if void {
				return rejected(ResultVoid)
			}
			return duplicate
		case held.Outcome != res.Outcome && !void:
			contradicted = true
		}
	}
	c := t.crowd()
	counts := res.Revision >= t.sum.verdict.Revision
	switch {
	case t.sum.facts >= MaxTubeFacts:
		return rejected(TubeCrowded)
	case contradicted && counts:
		return conflicts(ResultConflict, command)
	case counts && c.live > 0 && nucleicpb.Stale(c.last, res.TestedAt):
		return conflicts(TestedBeforeSwab, command)
	}
	return accepted(command)
}
