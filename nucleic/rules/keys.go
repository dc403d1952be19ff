package rules

import (
	"encoding/binary"

	"qianma/cluster/machine"
)

// Every key begins with one byte that says which table it is of.
//
//	h tube                  head: every fact of the tube but its registrations
//	m len tube person       member: voided revision, the registration that stands
//	                        without the tube and the person that it begins with
//	x box                   box: how many tubes, and its receptions
//	b len box tube          tube of a box (no value)
//	s site                  the opening that stands
//	w sampled tube          worklist: registrations without result (no value)
//	u reported tube         worklist: results without registration (no value)
//	p packed tube           worklist: packed but not received (no value)
//	c tube                  worklist: conflicts, with their kinds as bits
const (
	tableHead   = 'h'
	tableMember = 'm'
	tableBox    = 'x'
	tableInBox  = 'b'
	tableSite   = 's'

	tableWaiting      = 'w'
	tableUnregistered = 'u'
	tablePacked       = 'p'
	tableConflict     = 'c'
)

func plainKey(dst []byte, table byte, id []byte) []byte {
	return append(append(dst[:0], table), id...)
}

// pairKey is a key of two parts, of which the first may be scanned for.
func pairKey(dst []byte, table byte, first, second []byte) []byte {
	dst = append(dst[:0], table, byte(len(first)))
	return append(append(dst, first...), second...)
}

// timeKey sorts by time, then by tube.
func timeKey(dst []byte, table byte, ms int64, tube []byte) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst[:0], table), uint64(ms)^1<<63)
	return append(dst, tube...)
}

// after is the end of the keys that begin with prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// ShardOf is the shard that owns a tube or a site: FNV-1a with its bits mixed
// once more, because tubes are numbered one after the other and FNV's upper
// bytes hardly notice the last digit.
func ShardOf(id []byte, shards int) int {
	if shards <= 1 {
		return 0
	}
	h := uint64(14695981039346656037)
	for _, b := range id {
		h = (h ^ uint64(b)) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h ^= h >> 33
	var sum [8]byte
	binary.BigEndian.PutUint64(sum[:], h)
	return machine.ShardOfKey(sum[:], shards)
}
