package node

import (
	"context"
	"encoding/binary"
	"errors"

	"qianma/cluster/fact"
)

// methodMarks tells a replica how far another carrier holds its facts.
const methodMarks = "node.Marks"

var errMarks = errors.New("node: malformed marks")

// maxOrigins bounds one word; a shard has one origin a carrier and incarnation.
const maxOrigins = 1 << 12

func (n *Node) register() {
	n.RPC.Handle(methodMarks, func(_ context.Context, req []byte) ([]byte, error) {
		shard, marks, err := decodeMarks(req)
		if err != nil {
			return nil, err
		}
		if shard < n.Replica.Shards() {
			n.Replica.PeerMark(shard, marks)
		}
		return nil, nil
	})
}

// encodeMarks writes the shard, then each origin's name, sequence and digest.
func encodeMarks(shard int, marks map[fact.Origin]fact.Mark) []byte {
	out := binary.AppendUvarint(nil, uint64(shard))
	out = binary.AppendUvarint(out, uint64(len(marks)))
	for o, m := range marks {
		name := o.String()
		out = binary.AppendUvarint(out, uint64(len(name)))
		out = append(out, name...)
		out = binary.AppendUvarint(out, m.Seq)
		out = append(out, m.Digest[:]...)
	}
	return out
}

func decodeMarks(p []byte) (shard int, marks map[fact.Origin]fact.Mark, err error) {
	bad := false
	number := func() uint64 {
		v, n := binary.Uvarint(p)
		if n <= 0 {
			bad, p = true, nil
			return 0
		}
		p = p[n:]
		return v
	}
	take := func(n uint64) []byte {
		if n > uint64(len(p)) {
			bad, p = true, nil
			return nil
		}
		out := p[:n]
		p = p[n:]
		return out
	}
	s, count := number(), number()
	if bad || s > 1<<16 || count > maxOrigins {
		return 0, nil, errMarks
	}
	marks = make(map[fact.Origin]fact.Mark, count)
	for range count {
		o, err := fact.ParseOrigin(string(take(number())))
		m := fact.Mark{Seq: number()}
		copy(m.Digest[:], take(uint64(len(m.Digest))))
		if bad || err != nil {
			return 0, nil, errMarks
		}
		marks[o] = m
	}
	if len(p) != 0 {
		return 0, nil, errMarks
	}
	return int(s), marks, nil
}
