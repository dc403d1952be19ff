package machinetest

import (
	"context"
	"maps"
	"sync"

	"qianma/cluster/fact"
	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

// Proposer is a machine.Proposer in memory: shards, idempotency keys and
// blocks as the floor keeps them, without raft, disk or network. It is safe
// for concurrent use. It keeps every block for ever, so it is for tests.
type Proposer struct {
	// Now stamps proposals, in Unix nanoseconds. Set it before first use; nil
	// counts up from 1.
	Now func() int64
	// Origin names the blocks; the zero value gives test/test/<shard>/1. Set
	// it before first use.
	Origin fact.Origin

	mu         sync.Mutex
	shards     []*shard
	tick       int64
	refusal    error
	refusals   int
	replicated bool
}

type shard struct {
	machine machine.Machine
	mem     *Mem
	keys    map[[16]byte]outcome
	mark    fact.Mark
	blocks  []fact.Block
	asOf    int64
	aside   int // facts the machine did not understand
}

// outcome is what is remembered of an idempotency key.
type outcome struct {
	body    [16]byte
	done    bool // false: only claimed
	receipt machine.Receipt
}

// NewProposer returns a proposer over empty shards, each with a machine of its
// own.
func NewProposer(shards int, factory func(shard int) machine.Machine) *Proposer {
	p := &Proposer{}
	for i := range shards {
		p.shards = append(p.shards, &shard{machine: factory(i), mem: NewMem(), keys: map[[16]byte]outcome{}})
	}
	return p
}

// Refuse makes the next n calls of Propose, Claim and View fail with err.
func (p *Proposer) Refuse(n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusals, p.refusal = n, err
}

// Replicate makes every receipt count as committed at the other carrier.
func (p *Proposer) Replicate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replicated = true
}

// Blocks returns what the shard has committed itself, in order.
func (p *Proposer) Blocks(shard int) []fact.Block {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]fact.Block(nil), p.shards[shard].blocks...)
}

// State returns a copy of the shard's keys.
func (p *Proposer) State(shard int) *Mem {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shards[shard].mem.clone()
}

// Aside reports how many folded facts the shard's machine did not understand.
func (p *Proposer) Aside(shard int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shards[shard].aside
}

// Ingest folds another carrier's blocks into a shard, as the floor does with
// what a feed brings: Fold only, no Decide.
func (p *Proposer) Ingest(shard int, blocks []fact.Block) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shards[shard]
	for _, b := range blocks {
		err := b.Facts(func(_ uint64, f []byte) bool {
			s.fold(f)
			return true
		})
		if err != nil {
			return err
		}
		s.asOf = max(s.asOf, b.Stamp)
	}
	return nil
}

// Shards implements machine.Proposer.
func (p *Proposer) Shards() int { return len(p.shards) }

// Propose implements machine.Proposer.
func (p *Proposer) Propose(ctx context.Context, shard int, prop machine.Proposal) (machine.Receipt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.ready(ctx); err != nil {
		return machine.Receipt{}, err
	}
	s := p.shards[shard]
	if old, ok := s.keys[prop.Key]; ok && prop.Key != [16]byte{} {
		if old.body != prop.Body {
			return machine.Receipt{}, keyReused()
		}
		if old.done {
			old.receipt.Replayed = true
			return old.receipt, nil
		}
	}
	r := s.commit(p.origin(shard), p.now(), prop.Commands)
	if prop.Key != [16]byte{} {
		s.keys[prop.Key] = outcome{body: prop.Body, done: true, receipt: r}
	}
	return r, nil
}

// Claim implements machine.Proposer.
func (p *Proposer) Claim(ctx context.Context, key, body [16]byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.ready(ctx); err != nil {
		return err
	}
	s := p.shards[machine.ShardOfKey(key[:], len(p.shards))]
	old, ok := s.keys[key]
	if ok && old.body != body {
		return keyReused()
	}
	if !ok {
		s.keys[key] = outcome{body: body}
	}
	return nil
}

// Await implements machine.Proposer: without Replicate it stays committed, at
// once, as if ctx had ended.
func (p *Proposer) Await(_ context.Context, r machine.Receipt, level machine.Level) machine.Level {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.replicated && level >= machine.Replicated {
		return machine.Replicated
	}
	return max(r.Level, machine.Committed)
}

// View implements machine.Proposer. The view is a copy.
func (p *Proposer) View(ctx context.Context, shard int, _ bool) (machine.View, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.ready(ctx); err != nil {
		return nil, err
	}
	s := p.shards[shard]
	return &view{Mem: s.mem.clone(), asOf: s.asOf}, nil
}

// Peek implements machine.Proposer.
func (p *Proposer) Peek(shard int, key []byte) (value []byte, found bool, err error) {
	v, err := p.View(context.Background(), shard, false)
	if err != nil {
		return nil, false, err
	}
	value, found = v.Get(key)
	return value, found, v.Close()
}

// ready returns the error a call meets before it does anything.
func (p *Proposer) ready(ctx context.Context) error {
	if ctx.Err() != nil {
		return problem.Wrap(ctx.Err(), problem.Unavailable, "the wait ended before anything was done", "try again")
	}
	if p.refusals > 0 {
		p.refusals--
		return p.refusal
	}
	return nil
}

func (p *Proposer) now() int64 {
	if p.Now != nil {
		return p.Now()
	}
	p.tick++
	return p.tick
}

func (p *Proposer) origin(shard int) fact.Origin {
	o := p.Origin
	if o.Carrier == "" {
		o = fact.Origin{Carrier: "test", Subsystem: "test", Incarnation: 1}
	}
	o.Shard = uint16(shard)
	return o
}

// commit judges and folds the commands in order and cuts one block.
func (s *shard) commit(o fact.Origin, at int64, commands [][]byte) machine.Receipt {
	r := machine.Receipt{Origin: o.String(), Level: machine.Committed, Rows: make([]machine.Row, len(commands))}
	b := fact.Block{Origin: o, First: s.mark.Seq + 1, Stamp: at, Prev: s.mark.Digest}
	for i, c := range commands {
		d := s.machine.Decide(s.mem, at, c)
		r.Rows[i] = machine.Row{Status: d.Status, Code: d.Code}
		if d.Status != machine.Accepted && d.Status != machine.Conflicts {
			continue
		}
		b.Body = fact.AppendFact(b.Body, d.Fact)
		b.Count++
		s.fold(d.Fact)
	}
	s.asOf = max(s.asOf, at)
	if b.Count > 0 {
		r.First, r.Last = b.First, b.Last()
		s.blocks = append(s.blocks, b)
		s.mark = b.Mark()
	}
	return r
}

// fold gives the machine its own copy, because the floor reuses its buffers.
func (s *shard) fold(f []byte) {
	lent := append([]byte(nil), f...)
	if s.machine.Fold(s.mem, lent) != nil {
		s.aside++
	}
	for i := range lent {
		lent[i] = 0xdb // a machine that kept a slice of the fact will notice
	}
}

func keyReused() error {
	return problem.New(problem.KeyReused, "this Idempotency-Key was used before with a different body", "use a new key for a new request; repeat the old body exactly to get its receipt")
}

type view struct {
	*Mem
	asOf int64
}

func (v *view) AsOf() int64  { return v.asOf }
func (v *view) Close() error { return nil }

// clone shares the values, which are never written in place.
func (s *Mem) clone() *Mem { return &Mem{m: maps.Clone(s.m)} }
