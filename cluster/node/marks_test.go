package node

import (
	"maps"
	"testing"

	"qianma/cluster/fact"
)

func TestMarksCross(t *testing.T) {
	in := map[fact.Origin]fact.Mark{
		{Carrier: "unicom", Subsystem: "nucleic", Shard: 1, Incarnation: 7}: {Seq: 9, Digest: fact.Digest{1}},
		{Carrier: "unicom", Subsystem: "nucleic", Shard: 1, Incarnation: 8}: {Seq: 1 << 40, Digest: fact.Digest{2}},
	}
	shard, out, err := decodeMarks(encodeMarks(1, in))
	if err != nil || shard != 1 || !maps.Equal(in, out) {
		t.Errorf("%d %v %v", shard, out, err)
	}
}

func FuzzMarks(f *testing.F) {
	f.Add(encodeMarks(3, map[fact.Origin]fact.Mark{{Carrier: "a", Subsystem: "b"}: {Seq: 1}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		shard, marks, err := decodeMarks(raw)
		if err != nil {
			return
		}
		again, out, err := decodeMarks(encodeMarks(shard, marks))
		if err != nil || again != shard || !maps.Equal(marks, out) {
			t.Errorf("%d %v became %d %v (%v)", shard, marks, again, out, err)
		}
	})
}
