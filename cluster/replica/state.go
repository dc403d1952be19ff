package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"qianma/cluster/fact"
)

// The spaces of a state store. A subsystem's keys live in their own.
const (
	spaceMeta    = 'm' // one value: meta
	spaceOrigin  = 'o' // origin id (4) -> name, mark
	spaceBlock   = 'b' // origin id (4), first sequence (8) -> block
	spaceReceipt = 'k' // generation (4), key digest (16) -> stored receipt
	spaceAside   = 'q' // origin id (4), sequence (8) -> nothing: a fact no build here understood yet
	spaceUser    = 'u' // the machine's keys
)

// errState says that the store holds what this code never writes.
var errState = errors.New("replica: damaged state")

// meta is what the state knows of itself. It changes with every batch, in it.
type meta struct {
	index, term uint64 // of the last raft entry applied
	stamp       int64  // proposer's time of that entry
	incarnation uint64 // of the group's own origin; 0 before genesis
	generation  uint32 // of idempotency keys being written
	rotated     int64  // when that generation began
	aside       uint64 // facts set aside
}

const metaVersion = 1

func (m *meta) append(dst []byte) []byte {
	dst = append(dst, metaVersion)
	for _, v := range []uint64{m.index, m.term, uint64(m.stamp), m.incarnation, uint64(m.generation), uint64(m.rotated), m.aside} {
		dst = binary.BigEndian.AppendUint64(dst, v)
	}
	return dst
}

func (m *meta) decode(p []byte) error {
	var v [7]uint64
	if len(p) < 1+8*len(v) || p[0] != metaVersion {
		return fmt.Errorf("%w: meta", errState)
	}
	for i := range v {
		v[i] = binary.BigEndian.Uint64(p[1+8*i:])
	}
	*m = meta{v[0], v[1], int64(v[2]), v[3], uint32(v[4]), int64(v[5]), v[6]}
	return nil
}

// chain is one origin as this store holds it.
type chain struct {
	id     uint32
	origin fact.Origin
	name   string // origin.String(), made once
	mark   fact.Mark
	stamp  int64 // of the last block
}

func (c *chain) append(dst []byte) []byte {
	dst = append(dst, byte(len(c.name)))
	dst = append(dst, c.name...)
	dst = binary.BigEndian.AppendUint64(dst, c.mark.Seq)
	dst = append(dst, c.mark.Digest[:]...)
	return binary.BigEndian.AppendUint64(dst, uint64(c.stamp))
}

func decodeChain(id uint32, p []byte) (*chain, error) {
	bad := fmt.Errorf("%w: origin %d", errState, id)
	if len(p) < 1 || len(p) < 1+int(p[0])+8+32+8 {
		return nil, bad
	}
	name, p := string(p[1:1+int(p[0])]), p[1+int(p[0]):]
	o, err := fact.ParseOrigin(name)
	if err != nil {
		return nil, bad
	}
	c := &chain{id: id, origin: o, name: name}
	c.mark.Seq = binary.BigEndian.Uint64(p)
	copy(c.mark.Digest[:], p[8:])
	c.stamp = int64(binary.BigEndian.Uint64(p[40:]))
	return c, nil
}

func originKey(id uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{spaceOrigin}, id)
}

const blockKeySize = 1 + 4 + 8

func putSeqKey(dst []byte, space byte, id uint32, seq uint64) {
	dst[0] = space
	binary.BigEndian.PutUint32(dst[1:], id)
	binary.BigEndian.PutUint64(dst[5:], seq)
}

func seqKey(space byte, id uint32, seq uint64) []byte {
	k := make([]byte, blockKeySize)
	putSeqKey(k, space, id, seq)
	return k
}

const receiptKeySize = 1 + 4 + 16

func appendReceiptKey(dst []byte, generation uint32, key [16]byte) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, spaceReceipt), generation)
	return append(dst, key[:]...)
}

// receipts are the stored receipts of every generation.
var receipts = pebble.KeyRange{Start: []byte{spaceReceipt}, End: []byte{spaceReceipt + 1}}

// keyOfReceipt is the idempotency key of a stored receipt.
func keyOfReceipt(stored []byte) (key [16]byte, ok bool) {
	if ok = len(stored) == receiptKeySize; ok {
		copy(key[:], stored[receiptKeySize-16:])
	}
	return key, ok
}

// ledger is the small part of the state that is kept in memory: it is read at
// Open and after a snapshot was installed, and changes with the store.
type ledger struct {
	meta
	chains []*chain // by id
	byName map[fact.Origin]*chain
}

func loadLedger(db *pebble.DB) (*ledger, error) {
	l := &ledger{byName: map[fact.Origin]*chain{}}
	v, closer, err := db.Get([]byte{spaceMeta})
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return l, nil
	case err != nil:
		return nil, err
	}
	err = l.meta.decode(v)
	if err = errors.Join(err, closer.Close()); err != nil {
		return nil, err
	}
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceOrigin}, UpperBound: []byte{spaceOrigin + 1}})
	if err != nil {
		return nil, err
	}
	for it.First(); it.Valid(); it.Next() {
		id := binary.BigEndian.Uint32(it.Key()[1:])
		c, err := decodeChain(id, it.Value())
		if err != nil || int(id) != len(l.chains) {
			return nil, errors.Join(fmt.Errorf("%w: origin %d", errState, id), err, it.Close())
		}
		l.chains = append(l.chains, c)
		l.byName[c.origin] = c
	}
	return l, errors.Join(it.Error(), it.Close())
}

// findOrigin looks up the id of an origin. There are few: a handful of
// incarnations of two carriers.
func findOrigin(db pebble.Reader, o fact.Origin) (id uint32, ok bool, err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceOrigin}, UpperBound: []byte{spaceOrigin + 1}})
	if err != nil {
		return 0, false, err
	}
	name := o.String()
	for it.First(); it.Valid() && !ok; it.Next() {
		v := it.Value()
		if len(v) > len(name) && int(v[0]) == len(name) && string(v[1:1+len(name)]) == name {
			id, ok = binary.BigEndian.Uint32(it.Key()[1:]), true
		}
	}
	return id, ok, errors.Join(it.Error(), it.Close())
}
