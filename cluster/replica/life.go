package replica

import (
	"encoding/binary"

	"qianma/cluster/fact"
)

func (f *fsm) ownOrigin() fact.Origin {
	if f.led.incarnation == 0 {
		return fact.Origin{}
	}
	return fact.Origin{Carrier: f.cfg.Carrier, Subsystem: f.cfg.Subsystem, Shard: uint16(f.shard), Incarnation: f.led.incarnation}
}

// ownChain is nil before genesis.
func (f *fsm) ownChain() *chain {
	if f.led.incarnation == 0 {
		return nil
	}
	return f.led.byName[f.ownOrigin()]
}

func (f *fsm) addChain(o fact.Origin) *chain {
	c := &chain{id: uint32(len(f.led.chains)), origin: o, name: o.String()}
	f.led.chains = append(f.led.chains, c)
	f.led.byName[o] = c
	f.dirty[c] = struct{}{}
	return c
}

// genesis begins the group's first life. A second one is a late proposal of a
// former leader.
func (f *fsm) genesis(h *header, p []byte) error {
	if len(p) != 8 {
		return errEntry
	}
	if f.led.incarnation != 0 {
		return nil
	}
	f.led.incarnation = binary.BigEndian.Uint64(p)
	f.led.generation, f.led.rotated = 1, h.stamp
	f.addChain(f.ownOrigin())
	return nil
}

// reincarnate ends the life in which addresses might be given out twice.
func (f *fsm) reincarnate(p []byte) error {
	if len(p) != 16 {
		return errEntry
	}
	from, to := binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])
	if f.led.incarnation != from || from == to {
		return nil
	}
	f.led.incarnation = to
	f.trail.reset()
	if f.ownChain() == nil {
		f.addChain(f.ownOrigin())
	}
	f.dirty[f.ownChain()] = struct{}{}
	return nil
}

// rotate begins a new generation of idempotency keys and forgets the one
// before the last.
func (f *fsm) rotate(h *header, p []byte) error {
	if len(p) != 4 {
		return errEntry
	}
	if g := binary.BigEndian.Uint32(p); g != f.led.generation || g == 0 {
		return nil
	}
	var zero [16]byte
	gone := f.led.generation - 1
	err := f.batch.DeleteRange(appendReceiptKey(nil, gone, zero)[:5], appendReceiptKey(nil, gone+1, zero)[:5], nil)
	f.led.generation++
	f.led.rotated = h.stamp
	f.sieve.rotate()
	return err
}
