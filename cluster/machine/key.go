package machine

import (
	"crypto/sha256"

	"github.com/google/uuid"
)

// KeyOf is the form in which an idempotency key is kept. A UUID of version 7 (RFC
// 9562) is kept as it is: it begins with its time, so the keys of one moment lie
// side by side in a store, where those of a hash are strewn over all that was ever
// kept. Every other key is hashed. Like every UUID, one of version 7 is the same
// key in upper and in lower case.
func KeyOf(key string) (k [16]byte) {
	if u, err := uuid.Parse(key); err == nil && len(key) == len(u.String()) && u.Version() == 7 && u.Variant() == uuid.RFC4122 {
		return u
	}
	sum := sha256.Sum256([]byte(key))
	copy(k[:], sum[:])
	return k
}

// ShardOfRequest is the shard that keeps an idempotency key: by its end, because
// it may begin with a time, which all of a moment have in common.
func ShardOfRequest(key [16]byte, shards int) int { return ShardOfKey(key[14:], shards) }
