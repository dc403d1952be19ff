package machine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// Goal: keys that begin with a time are kept in the order of it, and no others
// are taken for such.
func TestOnlyAUUIDOfATimeIsKeptAsItIs(t *testing.T) {
	const early, late = "0199a000-0000-7abc-8def-0123456789ab", "0199a000-0001-7000-8000-000000000000"
	a, b := KeyOf(early), KeyOf(late)
	if fmt.Sprintf("%x", a) != strings.ReplaceAll(early, "-", "") || bytes.Compare(a[:], b[:]) >= 0 {
		t.Errorf("%x, %x", a, b)
	}
	if KeyOf(strings.ToUpper(early)) != a {
		t.Error("in upper case it is another key")
	}
	for _, other := range []string{
		"0199a000-0000-4abc-8def-0123456789ab",          // by chance
		"0199a000-0000-7abc-cdef-0123456789ab",          // of another family
		"0199a00000007abc8def0123456789ab",              // 36 characters are the only form
		"{0199a000-0000-7abc-8def-0123456789ab}",        // as above
		"urn:uuid:0199a000-0000-7abc-8def-0123456789ab", // as above
		"0199a000-0000-7abc-8def-0123456789aX",
		"booth-17/0001", "",
	} {
		if k := KeyOf(other); k == a || bytes.HasPrefix(k[:], a[:6]) {
			t.Errorf("%q is kept as %x", other, k)
		}
	}
}

// Goal: no shard is left out for the sake of what keys of one moment share.
func TestKeysOfAMomentGoToAllShards(t *testing.T) {
	const shards = 8
	var got [shards]int
	for i := range 800 {
		k := KeyOf(fmt.Sprintf("0199a000-0000-7000-8000-%012x", rand.Uint64()>>16))
		s := ShardOfRequest(k, shards)
		if s != ShardOfRequest(k, shards) {
			t.Fatalf("key %d has two shards", i)
		}
		got[s]++
	}
	for s, n := range got {
		if n < 50 || n > 150 {
			t.Errorf("shard %d has %d of 800 keys", s, n)
		}
	}
}
