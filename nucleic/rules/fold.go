package rules

import (
	"bytes"
	"encoding/binary"
	"errors"

	"qianma/cluster/machine"
	"qianma/nucleic/nucleicpb"
)

// errStrange: the fact is of our contract, but holds something this build has
// no place for, such as a pool of a newer one.
var errStrange = errors.New("nucleic: this build has no place for the fact")

// Fold implements machine.Machine. It never refuses what a door, here or at
// the other carrier, has let in: policy is Decide's.
func (m *Machine) Fold(tx machine.Tx, raw []byte) error {
	kind, body, err := nucleicpb.Split(raw)
	if err != nil {
		return err
	}
	if kind == nucleicpb.KindRegistered {
		reg := &m.fact.Registered
		if err := reg.Unmarshal(body); err != nil {
			return err
		}
		if !foldableRegistration(reg.Tube, reg) {
			return errStrange
		}
		return m.foldRegistered(tx, reg, body)
	}
	f := &m.fact
	if _, err := f.Decode(raw); err != nil {
		return err
	}
	if !foldable(f) {
		return errStrange
	}
	switch kind {
	case nucleicpb.KindSiteOpened:
		m.foldSite(tx, f, raw)
	case nucleicpb.KindBoxed:
		m.foldBoxed(tx, f, raw)
	case nucleicpb.KindLabReceived:
		if len(f.LabReceived.Box) > 0 {
			m.foldBoxReceived(tx, f, raw)
			break
		}
		m.foldHead(tx, m.tube(tx, f.Tube()), f, raw)
	case nucleicpb.KindCorrected:
		m.foldCorrected(tx, f, raw)
	case nucleicpb.KindResulted:
		t := m.tube(tx, f.Tube())
		m.foldHead(tx, t, f, raw)
		m.cache.drop(t) // most are asked for no more
	default:
		m.foldHead(tx, m.tube(tx, f.Tube()), f, raw)
	}
	return nil
}

// foldable reports whether there is a place for the fact. It looks only at
// what a key or a merge needs, never at policy.
func foldable(f *nucleicpb.Fact) bool {
	switch f.Kind {
	case nucleicpb.KindSiteOpened:
		return keyable(f.SiteOpened.Site)
	case nucleicpb.KindTubeOpened:
		return keyable(f.TubeOpened.Tube) && f.TubeOpened.Pool.Known()
	case nucleicpb.KindTubeSealed:
		return keyable(f.TubeSealed.Tube)
	case nucleicpb.KindBoxed:
		return keyable(f.Boxed.Box) && keyable(f.Boxed.Tube)
	case nucleicpb.KindLabReceived:
		box, tube := f.LabReceived.Box, f.LabReceived.Tube
		return (len(box) == 0) != (len(tube) == 0) && (keyable(box) || keyable(tube))
	case nucleicpb.KindResulted:
		return keyable(f.Resulted.Tube) && f.Resulted.Outcome.Known()
	}
	c := &f.Corrected
	if len(c.Person) == 0 {
		return keyable(c.Tube) && c.Rebind == nil
	}
	bound, ok := c.Bound()
	return keyable(c.Tube) && len(c.Person) == nucleicpb.PersonSize && (!ok || foldableRegistration(c.Tube, &bound))
}

func foldableRegistration(tube []byte, reg *nucleicpb.Registered) bool {
	return keyable(tube) && len(reg.Person) == nucleicpb.PersonSize && reg.Pool.Known()
}

func keyable(id []byte) bool { return len(id) > 0 && len(id) <= MaxID }

func (m *Machine) foldRegistered(tx machine.Tx, reg *nucleicpb.Registered, body []byte) error {
	t := m.tube(tx, reg.Tube)
	m.bind(tx, t, reg, body)
	m.settle(tx, t, false)
	return nil
}

// bind merges a registration into its member.
func (m *Machine) bind(tx machine.Tx, t *tube, reg *nucleicpb.Registered, body []byte) {
	held := t.find(reg.Person)
	switch {
	case held == nil:
		held = t.add(reg.Person, reg.Pool.Cap())
	case held.revision > 0 && !m.standsOver(tx, t, reg, body):
		return
	}
	held.set(reg)
	m.storeMember(tx, t, held, body)
}

// standsOver compares a registration with the stored one of the same person.
func (m *Machine) standsOver(tx machine.Tx, t *tube, reg *nucleicpb.Registered, body []byte) bool {
	value, _ := tx.Get(pairKey(m.key[:], tableMember, t.code, reg.Person))
	_, old := splitMember(t.code, reg.Person, value)
	var held nucleicpb.Registered
	return old == nil || held.Unmarshal(old) != nil || reg.StandsOver(body, &held, old)
}

func (m *Machine) storeMember(tx machine.Tx, t *tube, held *member, body []byte) {
	m.value = appendMember(m.value[:0], t.code, held.person[:], held.voided, body)
	tx.Set(pairKey(m.key[:], tableMember, t.code, held.person[:]), m.value)
}

// foldHead merges a fact into a tube's head.
func (m *Machine) foldHead(tx machine.Tx, t *tube, f *nucleicpb.Fact, raw []byte) {
	m.settle(tx, t, t.merge(f, raw))
}

// merge puts a fact into the head and sums it up again if that changed it.
func (t *tube) merge(f *nucleicpb.Fact, raw []byte) bool {
	head, changed := mergeFact(t.head, f, raw)
	if changed {
		t.head, t.sum = head, summarise(head)
	}
	return changed
}

// foldCorrected voids, and binds whoever takes the place.
func (m *Machine) foldCorrected(tx machine.Tx, f *nucleicpb.Fact, raw []byte) {
	c := &f.Corrected
	t := m.tube(tx, c.Tube)
	changed := t.merge(f, raw)
	if len(c.Person) > 0 {
		m.void(tx, t, c)
		if bound, ok := c.Bound(); ok {
			m.bind(tx, t, &bound, c.Rebind)
		}
	}
	m.settle(tx, t, changed)
}

// void raises the revision up to which a member's bindings do not count. The
// correction may come before what it corrects.
func (m *Machine) void(tx machine.Tx, t *tube, c *nucleicpb.Corrected) {
	held := t.find(c.Person)
	revision := max(1, c.Revision)
	if held != nil && held.voided >= revision {
		return
	}
	var body []byte
	if held == nil {
		held = t.add(c.Person, 1)
	} else {
		value, _ := tx.Get(pairKey(m.key[:], tableMember, t.code, c.Person))
		_, body = splitMember(t.code, c.Person, value)
	}
	held.voided = revision
	m.storeMember(tx, t, held, bytes.Clone(body))
}

func (m *Machine) foldSite(tx machine.Tx, f *nucleicpb.Fact, raw []byte) {
	key := plainKey(m.key[:], tableSite, f.SiteOpened.Site)
	if old, ok := tx.Get(key); ok {
		var held nucleicpb.Fact
		if _, err := held.Decode(old); err == nil && !nucleicpb.Stands(f, raw, &held, old) {
			return
		}
	}
	tx.Set(key, raw)
}

// A tube's head holds its own receptions and those of every box it is in, so
// the index stays a function of the head. Both ways of learning of a box's
// reception lead there: the tube that is packed later reads the box's record,
// the reception that comes later visits the box's tubes.

func (m *Machine) foldBoxed(tx machine.Tx, f *nucleicpb.Fact, raw []byte) {
	box, code := bytes.Clone(f.Boxed.Box), f.Boxed.Tube
	t := m.tube(tx, code)
	changed := t.merge(f, raw)
	key := pairKey(m.key[:], tableInBox, box, code)
	if _, ok := tx.Get(key); !ok {
		tx.Set(key, nil)
		count, receptions := readBox(tx, m.key[:], box)
		m.storeBox(tx, box, count+1, receptions)
		eachFact(receptions, func(reception []byte) bool {
			_, _ = f.Decode(reception)
			changed = t.merge(f, reception) || changed
			return true
		})
	}
	m.settle(tx, t, changed)
}

func (m *Machine) foldBoxReceived(tx machine.Tx, f *nucleicpb.Fact, raw []byte) {
	box := f.LabReceived.Box
	count, receptions := readBox(tx, m.key[:], box)
	receptions, changed := mergeFact(receptions, f, raw)
	if !changed {
		return
	}
	m.storeBox(tx, box, count, receptions)
	for _, code := range tubesOf(tx, box) {
		m.foldHead(tx, m.tube(tx, code), f, raw)
	}
}

// readBox reads a box: how many tubes are in it here, and its receptions.
func readBox(r machine.Reader, key, box []byte) (count int, receptions []byte) {
	value, _ := r.Get(plainKey(key, tableBox, box))
	n, w := binary.Uvarint(value)
	if w <= 0 {
		return 0, nil
	}
	return int(n), bytes.Clone(value[w:])
}

func (m *Machine) storeBox(tx machine.Tx, box []byte, count int, receptions []byte) {
	m.value = append(binary.AppendUvarint(m.value[:0], uint64(count)), receptions...)
	tx.Set(plainKey(m.key[:], tableBox, box), m.value)
}

func tubesOf(r machine.Reader, box []byte) (codes [][]byte) {
	prefix := pairKey(nil, tableInBox, box, nil)
	r.Scan(prefix, after(prefix), func(key, _ []byte) bool {
		codes = append(codes, bytes.Clone(key[len(prefix):]))
		return true
	})
	return codes
}

// settle stores the head if it is new or changed, works the index out again
// and writes where it differs from what is stored.
func (m *Machine) settle(tx machine.Tx, t *tube, changed bool) {
	if changed || !t.exists {
		t.exists = true
		tx.Set(plainKey(m.key[:], tableHead, t.code), t.head)
	}
	next, last := t.derive(), t.index
	if next == last {
		return
	}
	t.index = next
	m.move(tx, t, tableWaiting, last.waiting, last.waitingAt, next.waiting, next.waitingAt)
	m.move(tx, t, tableUnregistered, last.unregistered, last.unregisteredAt, next.unregistered, next.unregisteredAt)
	m.move(tx, t, tablePacked, last.packed, last.packedAt, next.packed, next.packedAt)
	if next.conflicts != last.conflicts {
		m.mark(tx, t, next.conflicts)
	}
}

// move puts a tube on a worklist, takes it off, or to another place on it.
func (m *Machine) move(tx machine.Tx, t *tube, table byte, was bool, wasAt int64, is bool, isAt int64) {
	if was == is && wasAt == isAt {
		return
	}
	if was {
		tx.Delete(timeKey(m.key[:], table, wasAt, t.code))
	}
	if is {
		tx.Set(timeKey(m.key[:], table, isAt, t.code), nil)
	}
}

func (m *Machine) mark(tx machine.Tx, t *tube, bits uint64) {
	key := plainKey(m.key[:], tableConflict, t.code)
	if bits == 0 {
		tx.Delete(key)
		return
	}
	m.value = binary.AppendUvarint(m.value[:0], bits)
	tx.Set(key, m.value)
}
