package rules

import (
	"qianma/cluster/machine"
	"qianma/vaccine/vaccinepb"
)

// Fold implements machine.Machine. It does not look at what is held: the key
// is made of the fact, the value is the fact.
func (Rules) Fold(tx machine.Tx, fact []byte) error {
	f, err := vaccinepb.Decode(fact)
	if err != nil {
		return err
	}
	tx.Set(factKey(f.PersonOf(), vaccinepb.IDOf(fact)), fact)
	return nil
}
