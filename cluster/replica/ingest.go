package replica

import (
	"errors"

	"qianma/cluster/fact"
)

// ingest takes in blocks of other origins: repeats are dropped, and what does
// not follow is refused without an effect. The answer is the first refusal.
func (f *fsm) ingest(p []byte) (any, error) {
	var refused error
	for len(p) > 0 {
		b, rest, err := fact.Decode(p)
		if err != nil {
			return nil, err
		}
		p = rest
		if err := f.take(&b); err != nil && refused == nil {
			refused = err
		}
	}
	if refused != nil {
		return refused, nil
	}
	return nil, nil
}

func (f *fsm) take(b *fact.Block) error {
	if err := f.welcome(b.Origin); err != nil {
		return err
	}
	var at fact.Mark
	c := f.led.byName[b.Origin]
	if c != nil {
		at = c.mark
	}
	switch err := b.Follows(at); {
	case errors.Is(err, fact.ErrRepeat):
		return nil
	case err != nil:
		return err
	}
	if c == nil {
		c = f.addChain(b.Origin)
	}
	var failed error
	err := b.Facts(func(seq uint64, data []byte) bool {
		failed = f.fold(c, seq, data)
		return failed == nil
	})
	f.put(c, b)
	f.tx.fail(errors.Join(err, failed))
	return nil
}

// welcome says whether blocks of an origin may come from elsewhere.
func (f *fsm) welcome(o fact.Origin) error {
	switch {
	case o.Subsystem != f.cfg.Subsystem || int(o.Shard) != f.shard:
		return errForeign
	case o == f.ownOrigin():
		return errOwn
	}
	return nil
}
