package rules

import (
	"encoding/binary"

	"qianma/display/displaypb"
)

// The keys of a shard:
//
//	'p' person                      -> record
//	'c' person, time, id            -> CitizenApplied, newest last
//	's' effective from, version, id -> RuleSetPublished (in shard 0 alone)
const (
	spacePerson  = 'p'
	spaceCitizen = 'c'
	spaceRuleSet = 's'
)

// RuleSetShard is the shard every rule set belongs to.
const RuleSetShard = 0

func personKey(p displaypb.Person) []byte {
	return append(append(make([]byte, 0, 17), spacePerson), p[:]...)
}

func citizenPrefix(p displaypb.Person) []byte {
	return append(append(make([]byte, 0, 41), spaceCitizen), p[:]...)
}

func citizenKey(p displaypb.Person, at int64, id displaypb.ID) []byte {
	return append(binary.BigEndian.AppendUint64(citizenPrefix(p), uint64(at)), id[:]...)
}

// ruleSetKey orders by beginning, then by version, so that a scan meets the
// sets in the order in which they come into force.
func ruleSetKey(from int64, version uint32, id displaypb.ID) []byte {
	k := append(make([]byte, 0, 29), spaceRuleSet)
	k = binary.BigEndian.AppendUint64(k, uint64(from))
	k = binary.BigEndian.AppendUint32(k, version)
	return append(k, id[:]...)
}

// after is the first key that does not begin with the prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
