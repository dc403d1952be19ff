package rules

import (
	"qianma/cluster/machine"
	"qianma/vaccine/vaccinepb"
)

// HistoryOf is what the shard holds about a person.
func HistoryOf(r machine.Reader, p vaccinepb.Person) vaccinepb.History {
	return vaccinepb.HistoryOf(recordsOf(r, p))
}

// recordsOf reads a person's facts. What cannot be read is left out: Fold let
// it in, so it was well-formed once.
func recordsOf(r machine.Reader, p vaccinepb.Person) []vaccinepb.Record {
	var records []vaccinepb.Record
	prefix := personPrefix(p)
	r.Scan(prefix, after(prefix), func(key, value []byte) bool {
		f, err := vaccinepb.Decode(value)
		if err == nil && len(key) == len(prefix)+16 {
			records = append(records, vaccinepb.Record{ID: vaccinepb.ID(key[len(prefix):]), Fact: f})
		}
		return true
	})
	return records
}
