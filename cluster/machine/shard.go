package machine

import "encoding/binary"

// ShardOfKey is the shard that owns a key or a hashed entity: its first two
// bytes, big-endian, modulo the number of shards. Every caller uses this one
// rule, so a key and its receipt are always looked up where they were left.
func ShardOfKey(key []byte, shards int) int {
	if shards <= 1 || len(key) < 2 {
		return 0
	}
	return int(binary.BigEndian.Uint16(key)) % shards
}
