package replica

import (
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// refoldMax bounds how many facts are tried in one batch.
const refoldMax = 4096

// refold tries the facts that were set aside once more.
func (f *fsm) refold() error {
	from := []byte{spaceAside}
	for from != nil {
		keys, err := f.asideFrom(from)
		if err != nil {
			return err
		}
		from = nil
		if len(keys) == refoldMax {
			from = append(keys[len(keys)-1], 0)
		}
		f.begin()
		for _, k := range keys {
			f.tx.fail(f.refoldOne(k))
		}
		if err := f.commit(); err != nil {
			return err
		}
	}
	return nil
}

func (f *fsm) asideFrom(from []byte) (keys [][]byte, err error) {
	it, err := f.gen.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: []byte{spaceAside + 1}})
	if err != nil {
		return nil, err
	}
	for it.First(); it.Valid() && len(keys) < refoldMax; it.Next() {
		keys = append(keys, append([]byte(nil), it.Key()...))
	}
	return keys, errors.Join(it.Error(), it.Close())
}

func (f *fsm) refoldOne(key []byte) error {
	if len(key) != blockKeySize {
		return errState
	}
	id, seq := binary.BigEndian.Uint32(key[1:]), binary.BigEndian.Uint64(key[5:])
	blocks, err := readBlocks(f.gen.db, id, seq-1, 1)
	if err != nil {
		return err
	}
	if len(blocks) == 0 {
		return errState
	}
	return blocks[0].Facts(func(at uint64, data []byte) bool {
		if at != seq {
			return true
		}
		f.tx.mark()
		if f.safeFold(data) != nil {
			f.tx.rollback()
			f.machine.Reset()
			return false
		}
		f.led.aside--
		f.tx.fail(f.batch.Delete(key, nil))
		return false
	})
}
