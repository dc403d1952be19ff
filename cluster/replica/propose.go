package replica

import (
	"errors"
	"fmt"

	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

// outcome is what became of one proposal.
type outcome struct {
	receipt machine.Receipt
	refused problem.Code // "" or why nothing was done
}

// propose judges each proposal's commands in order and commits the facts they
// became as one block (or more, at a block's bounds).
func (f *fsm) propose(h *header, p []byte) (any, error) {
	c := f.ownChain()
	if c == nil {
		return nil, errors.New("a proposal stands before genesis")
	}
	local := f.isLocal(h.nonce)
	w := blockWriter{f: f, chain: c, stamp: h.stamp, next: c.mark.Seq + 1}
	var out []outcome
	for len(p) > 0 {
		var one proposal
		var err error
		if one, p, err = nextProposal(p); err != nil {
			return nil, err
		}
		res, err := f.one(&w, &one, local)
		if err != nil {
			return nil, err
		}
		if local {
			out = append(out, res)
		}
	}
	if err := w.seal(); err != nil {
		return nil, err
	}
	if !local {
		return nil, nil
	}
	return out, nil
}

func (f *fsm) one(w *blockWriter, p *proposal, local bool) (outcome, error) {
	if p.keyed {
		s, known, err := f.receipt(p.key)
		switch {
		case err != nil:
			return outcome{}, err
		case known && s.body != p.body:
			return outcome{refused: problem.KeyReused}, nil
		case known:
			return f.replay(&s)
		}
	}
	rows := f.rows[:0]
	if local {
		rows = make([]machine.Row, 0, p.count)
	}
	first, before := w.next, w.next
	rest := p.commands
	for range p.count {
		var command []byte
		command, rest, _ = nextCommand(rest)
		row, err := f.command(w, command)
		if err != nil {
			return outcome{}, err
		}
		if local || p.keyed {
			rows = append(rows, row)
		}
	}
	if !local {
		f.rows = rows
	}
	last := w.next - 1
	if w.next == before {
		first, last = 0, 0
	}
	if p.keyed {
		f.keep(p.key, stored{body: p.body, origin: w.chain.id, first: first, last: last, rows: rows})
	}
	return outcome{receipt: machine.Receipt{Origin: w.chain.name, First: first, Last: last, Level: machine.Committed, Rows: rows}}, nil
}

func (f *fsm) replay(s *stored) (outcome, error) {
	if int(s.origin) >= len(f.led.chains) {
		return outcome{}, errReceipt
	}
	return outcome{receipt: machine.Receipt{
		Origin: f.led.chains[s.origin].name, First: s.first, Last: s.last,
		Level: machine.Committed, Replayed: true, Rows: s.rows,
	}}, nil
}

// receipt looks a key up in the batch and in both living generations.
func (f *fsm) receipt(key [16]byte) (s stored, known bool, err error) {
	if raw, ok := f.recent[key]; ok {
		s, err = decodeStored(raw)
		return s, true, err
	}
	if !f.sieve.maybe(&key) {
		return s, false, nil
	}
	oldest := f.led.generation
	if oldest > 1 {
		oldest--
	}
	for g := f.led.generation; g >= oldest; g-- {
		f.scratch = appendReceiptKey(f.scratch[:0], g, key)
		if raw, ok := f.tx.lookup(f.scratch); ok {
			s, err = decodeStored(raw)
			return s, true, err
		}
	}
	return s, false, f.tx.err
}

func (f *fsm) keep(key [16]byte, s stored) {
	n := len(f.kept)
	f.kept = s.append(f.kept)
	raw := f.kept[n:len(f.kept):len(f.kept)]
	f.scratch = appendReceiptKey(f.scratch[:0], f.led.generation, key)
	f.tx.fail(f.batch.Set(f.scratch, raw, nil))
	f.recent[key] = raw
	f.sieve.add(&key)
}

// command judges one command and folds the fact it became.
func (f *fsm) command(w *blockWriter, command []byte) (machine.Row, error) {
	d := f.decide(w.stamp, command)
	switch d.Status {
	case machine.Accepted, machine.Conflicts:
		if len(d.Fact) == 0 || len(d.Fact) > maxFact {
			return machine.Row{Status: machine.Rejected, Code: string(problem.TooLarge)}, nil
		}
		if err := w.add(d.Fact); err != nil {
			return machine.Row{}, err
		}
	case machine.Duplicate, machine.Rejected:
	default:
		d = machine.Decision{Status: machine.Rejected, Code: string(problem.Internal)}
	}
	if len(d.Code) > maxCode {
		d.Code = d.Code[:maxCode]
	}
	return machine.Row{Status: d.Status, Code: d.Code}, nil
}

// decide shields the group from rules that panic: every replica would, for
// ever, on the same entry.
func (f *fsm) decide(at int64, command []byte) (d machine.Decision) {
	defer func() {
		if r := recover(); r != nil {
			f.log.Error("the rules panicked on a command", "panic", fmt.Sprint(r))
			f.machine.Reset()
			d = machine.Decision{Status: machine.Rejected, Code: string(problem.Internal)}
		}
	}()
	return f.machine.Decide(f.tx, at, command)
}

// fold merges one fact, or sets it aside: in its place in the block, without
// effect, counted, and tried again when the store is next opened.
func (f *fsm) fold(c *chain, seq uint64, fact []byte) error {
	f.tx.mark()
	err := f.safeFold(fact)
	if err == nil {
		return nil
	}
	f.tx.rollback()
	f.machine.Reset()
	f.led.aside++
	f.log.Warn("a fact was set aside", "origin", c.name, "seq", seq, "error", err)
	return f.batch.Set(seqKey(spaceAside, c.id, seq), nil, nil)
}

func (f *fsm) safeFold(fact []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the rules panicked: %v", r)
		}
	}()
	return f.machine.Fold(f.tx, fact)
}
