package broker

import (
	"bytes"
	"testing"

	"github.com/nats-io/nats.go"

	"qianma/cluster/fact"
)

// FuzzUnpack: whatever stands in a message, unpacking it does not panic, and
// what it takes is exactly what was packed.
func FuzzUnpack(f *testing.F) {
	b := fact.Block{Origin: fact.Origin{Carrier: "unicom", Subsystem: "ledger", Incarnation: 1}, First: 1, Count: 1, Body: fact.AppendFact(nil, []byte("a"))}
	f.Add(b.Append(nil), true)
	f.Add(b.Append(b.Append(nil)), true)
	f.Add(b.Append(nil)[:20], true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, data []byte, summed bool) {
		h := nats.Header{}
		if summed {
			h.Set(sumHeader, sumOf(data))
		}
		blocks, ok := unpack(h, data)
		if !ok {
			return
		}
		if !summed {
			t.Fatal("took a message without a sum")
		}
		var again []byte
		for i := range blocks {
			again = blocks[i].Append(again)
		}
		if !bytes.Equal(again, data) {
			t.Fatal("what was taken is not what was sent")
		}
	})
}
