package replica

import (
	"encoding/binary"
	"errors"

	"qianma/cluster/fact"
	"qianma/cluster/machine"
)

// kind says what an entry of the raft log asks the state to do. The numbers
// are on disk: they never change.
type kind byte

const (
	kindGenesis     kind = 1 // payload: incarnation
	kindPropose     kind = 2 // payload: proposals
	kindIngest      kind = 3 // payload: blocks
	kindRotate      kind = 4 // payload: the generation of keys to end
	kindReincarnate kind = 5 // payload: the incarnation to end, the one to begin
)

// header stands before every payload.
type header struct {
	kind  kind
	stamp int64  // the proposer's time
	nonce uint64 // by which the proposer knows its own entry again
	// A mark of the group's own origin that the proposer held. A replica that
	// has been there and saw another digest has diverged, and stops.
	incarnation uint64
	held        fact.Mark
}

const headerSize = 1 + 8 + 8 + 8 + 8 + len(fact.Digest{})

var errEntry = errors.New("replica: malformed log entry")

func (h *header) append(dst []byte) []byte {
	dst = append(dst, byte(h.kind))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.stamp))
	dst = binary.BigEndian.AppendUint64(dst, h.nonce)
	dst = binary.BigEndian.AppendUint64(dst, h.incarnation)
	dst = binary.BigEndian.AppendUint64(dst, h.held.Seq)
	return append(dst, h.held.Digest[:]...)
}

func decodeHeader(p []byte) (h header, payload []byte, err error) {
	if len(p) < headerSize {
		return h, nil, errEntry
	}
	h.kind = kind(p[0])
	h.stamp = int64(binary.BigEndian.Uint64(p[1:]))
	h.nonce = binary.BigEndian.Uint64(p[9:])
	h.incarnation = binary.BigEndian.Uint64(p[17:])
	h.held.Seq = binary.BigEndian.Uint64(p[25:])
	copy(h.held.Digest[:], p[33:])
	return h, p[headerSize:], nil
}

// A proposal in an entry (and in a forwarded call): a flag, the key and body
// digests if it has them, the number of commands, and each command behind its
// length.
const flagKeyed = 1

func appendProposal(dst []byte, p *machine.Proposal) []byte {
	if p.Key != ([16]byte{}) {
		dst = append(dst, flagKeyed)
		dst = append(dst, p.Key[:]...)
		dst = append(dst, p.Body[:]...)
	} else {
		dst = append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(len(p.Commands)))
	for _, c := range p.Commands {
		dst = binary.AppendUvarint(dst, uint64(len(c)))
		dst = append(dst, c...)
	}
	return dst
}

// proposalSize is an upper bound of what appendProposal adds.
func proposalSize(p *machine.Proposal) int {
	n := 1 + 32 + binary.MaxVarintLen32
	for _, c := range p.Commands {
		n += binary.MaxVarintLen32 + len(c)
	}
	return n
}

// proposal is a decoded proposal whose commands are walked in place.
type proposal struct {
	key, body [16]byte
	keyed     bool
	count     int
	commands  []byte
}

// nextProposal reads one proposal from the front of p.
func nextProposal(p []byte) (out proposal, rest []byte, err error) {
	if len(p) == 0 || p[0] > flagKeyed {
		return out, nil, errEntry
	}
	out.keyed, p = p[0] == flagKeyed, p[1:]
	if out.keyed {
		if len(p) < 32 {
			return out, nil, errEntry
		}
		copy(out.key[:], p)
		copy(out.body[:], p[16:])
		p = p[32:]
	}
	n, w := binary.Uvarint(p)
	if w <= 0 || n > MaxCommands {
		return out, nil, errEntry
	}
	out.count, p = int(n), p[w:]
	out.commands = p
	for range out.count {
		if _, p, err = nextCommand(p); err != nil {
			return out, nil, err
		}
	}
	out.commands = out.commands[:len(out.commands)-len(p)]
	return out, p, nil
}

// nextCommand reads one command; the slice aliases p.
func nextCommand(p []byte) (command, rest []byte, err error) {
	n, w := binary.Uvarint(p)
	if w <= 0 || n > uint64(len(p)-w) {
		return nil, nil, errEntry
	}
	return p[w : w+int(n) : w+int(n)], p[w+int(n):], nil
}

// proposal turns what was decoded back into what a caller hands in; the
// commands alias the payload.
func (p *proposal) proposal() machine.Proposal {
	out := machine.Proposal{Key: p.key, Body: p.body, Commands: make([][]byte, p.count)}
	rest := p.commands
	for i := range out.Commands {
		out.Commands[i], rest, _ = nextCommand(rest)
	}
	return out
}
