package machine

import "encoding/binary"

// ShardOfKey is the shard that owns a hashed entity: its first two bytes,
// big-endian, modulo the number of shards. Every caller uses this one rule, so
// what was left is always looked up where it lies.
func ShardOfKey(key []byte, shards int) int {
	if shards <= 1 || len(key) < 2 {
		return 0
	}
	return int(binary.BigEndian.Uint16(key)) % shards
}
