package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sort"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"qianma/cluster/fact"
	"qianma/cluster/machine"
	"qianma/cluster/mishap"
	"qianma/cluster/problem"
)

// fsm is the state of one group: what committed entries have made of it. It
// sees entries and its own state, nothing else. Raft calls it from one
// goroutine; what other goroutines may see is published after each batch.
type fsm struct {
	cfg     *Config
	shard   int
	machine machine.Machine
	store   *store
	snaps   *snapshots
	log     *slog.Logger
	isLocal func(nonce uint64) bool // does somebody here wait for this entry?
	changed func()                  // something was published
	stop    func(error)             // the node must stop
	metrics *metrics

	// Owned by the goroutine that applies.
	gen     *generation
	led     *ledger
	tx      *tx
	batch   *pebble.Batch
	dirty   map[*chain]struct{}
	recent  map[[16]byte][]byte // receipts of this batch, in kept
	kept    []byte
	block   []byte // body under construction
	rows    []machine.Row
	trail   trail
	sieve   *sieve
	filling func() // ends what fills the sieve, and waits for it
	scratch []byte
	stopped error

	mu    sync.RWMutex
	shown meta
	marks map[fact.Origin]fact.Mark // replaced, never changed
	own   fact.Origin
	bytes int // entry bytes applied since the last snapshot was recorded
}

var (
	_ raft.BatchingFSM = (*fsm)(nil)

	errStopped = errors.New("replica: this node has stopped applying")
	errOwn     = errors.New("replica: a block of this group's own living origin came from elsewhere")
	errForeign = errors.New("replica: a block of another subsystem or shard")
)

// open loads what the store holds and folds what was set aside by an older build.
func (f *fsm) open() error {
	f.tx = newTx(spaceUser)
	f.dirty = map[*chain]struct{}{}
	f.recent = map[[16]byte][]byte{}
	return f.adopt(f.store.acquire())
}

// adopt takes over a generation; the fsm holds a reference on it.
func (f *fsm) adopt(gen *generation) error {
	led, err := loadLedger(gen.db)
	if err != nil {
		return errors.Join(err, gen.release())
	}
	if f.gen != nil {
		err = f.gen.release()
	}
	f.gen, f.led = gen, led
	f.trail.reset()
	if c := f.ownChain(); c != nil {
		f.trail.add(c.mark)
	}
	f.machine.Reset()
	if led.aside > 0 {
		err = errors.Join(err, f.refold())
	}
	f.fillSieve()
	f.publish(0, true)
	return err
}

// fillSieve begins a new sieve for the generation of the store just adopted.
func (f *fsm) fillSieve() {
	if f.filling != nil {
		f.filling()
	}
	s, gen := new(sieve), f.gen.share()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		if err := errors.Join(s.fill(gen.db, stop), gen.release()); err != nil {
			f.log.Warn("known idempotency keys could not be read ahead: each is looked up", "error", err)
		}
	}()
	f.sieve, f.filling = s, func() { close(stop); <-done }
}

// close flushes, so that the next start has nothing to replay.
func (f *fsm) close() error {
	if f.gen == nil {
		return nil
	}
	f.filling()
	var err error
	if f.stopped == nil && f.store.fail.Err() == nil {
		err = f.gen.flush()
	}
	return errors.Join(err, f.gen.release())
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM: many entries, one Pebble batch. The
// answer to an entry somebody here waits for is a []outcome or an error.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	mishap.BeforeApply.Hit()
	out := make([]any, len(logs))
	size := 0
	f.begin()
	for i, l := range logs {
		if l.Index <= f.led.index || f.stopped != nil {
			continue // the state holds it already: raft replays from the last snapshot
		}
		if l.Type == raft.LogCommand {
			answer, err := f.entry(l.Data)
			if err != nil {
				f.halt(fmt.Errorf("entry %d: %w", l.Index, err))
				break
			}
			out[i] = answer
			size += len(l.Data)
		}
		f.led.index, f.led.term = l.Index, l.Term
	}
	if err := f.commit(); err != nil {
		f.halt(err)
	}
	if f.stopped != nil {
		for i := range out {
			out[i] = errStopped
		}
		return out
	}
	mishap.AfterApply.Hit()
	f.publish(size, false)
	return out
}

// halt ends this node: a stopped node is cheaper than two truths.
func (f *fsm) halt(err error) {
	if f.stopped == nil {
		f.stopped = err
		f.stop(err)
	}
}

func (f *fsm) begin() {
	f.tx.begin(f.gen.db)
	f.batch = f.gen.db.NewBatch()
	clear(f.recent)
	f.kept = f.kept[:0]
}

// commit writes the batch. Nothing is synced: the raft log is, and the state
// is flushed before the log is cut.
func (f *fsm) commit() error {
	defer func() {
		f.batch.Close()
		f.batch = nil
	}()
	if err := f.tx.end(); err != nil {
		return err
	}
	if f.stopped != nil {
		return f.stopped
	}
	f.tx.flush(f.batch)
	for c := range f.dirty {
		f.scratch = c.append(f.scratch[:0])
		f.tx.fail(f.batch.Set(originKey(c.id), f.scratch, nil))
	}
	f.scratch = f.led.meta.append(f.scratch[:0])
	f.tx.fail(f.batch.Set([]byte{spaceMeta}, f.scratch, nil))
	if f.tx.err != nil {
		return f.tx.err
	}
	if err := f.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	return f.store.fail.Err()
}

// publish shows other goroutines what is now in the store.
func (f *fsm) publish(size int, all bool) {
	f.mu.Lock()
	f.shown = f.led.meta
	f.bytes += size
	if len(f.dirty) > 0 || all {
		marks := make(map[fact.Origin]fact.Mark, len(f.led.chains))
		for _, c := range f.led.chains {
			marks[c.origin] = c.mark
		}
		f.marks = marks
		f.own = f.ownOrigin()
	}
	f.mu.Unlock()
	clear(f.dirty)
	f.changed()
}

// entry applies one entry. An error means that this build must not go on.
func (f *fsm) entry(data []byte) (any, error) {
	h, payload, err := decodeHeader(data)
	if err != nil {
		return nil, err
	}
	if err := f.compare(&h); err != nil {
		return nil, err
	}
	f.led.stamp = h.stamp
	switch h.kind {
	case kindGenesis:
		return nil, f.genesis(&h, payload)
	case kindPropose:
		return f.propose(&h, payload)
	case kindIngest:
		return f.ingest(payload)
	case kindRotate:
		return nil, f.rotate(&h, payload)
	case kindReincarnate:
		return nil, f.reincarnate(payload)
	}
	return nil, fmt.Errorf("entry of kind %d is not understood by this build", h.kind)
}

// compare holds the proposer's history of our own origin against ours. Two
// replicas that applied the same entries and hold other digests are a fault in
// the rules or in the hardware; the one that disagrees with the leader stops.
func (f *fsm) compare(h *header) error {
	if h.held.Seq == 0 || h.incarnation != f.led.incarnation {
		return nil
	}
	if c := f.ownChain(); c == nil || !f.trail.agrees(h.held) || c.mark.Seq < h.held.Seq {
		return fmt.Errorf("this replica's facts differ from the leader's at sequence %d: %w", h.held.Seq, fact.ErrDivergent)
	}
	return nil
}

func (f *fsm) ownOrigin() fact.Origin {
	if f.led.incarnation == 0 {
		return fact.Origin{}
	}
	return fact.Origin{Carrier: f.cfg.Carrier, Subsystem: f.cfg.Subsystem, Shard: uint16(f.shard), Incarnation: f.led.incarnation}
}

// ownChain is nil before genesis.
func (f *fsm) ownChain() *chain {
	if f.led.incarnation == 0 {
		return nil
	}
	return f.led.byName[f.ownOrigin()]
}

func (f *fsm) addChain(o fact.Origin) *chain {
	c := &chain{id: uint32(len(f.led.chains)), origin: o, name: o.String()}
	f.led.chains = append(f.led.chains, c)
	f.led.byName[o] = c
	f.dirty[c] = struct{}{}
	return c
}

// genesis begins the group's first life. A second one is a late proposal of a
// former leader.
func (f *fsm) genesis(h *header, p []byte) error {
	if len(p) != 8 {
		return errEntry
	}
	if f.led.incarnation != 0 {
		return nil
	}
	f.led.incarnation = binary.BigEndian.Uint64(p)
	f.led.generation, f.led.rotated = 1, h.stamp
	f.addChain(f.ownOrigin())
	return nil
}

// reincarnate ends the life in which addresses might be given out twice.
func (f *fsm) reincarnate(p []byte) error {
	if len(p) != 16 {
		return errEntry
	}
	from, to := binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])
	if f.led.incarnation != from || from == to {
		return nil
	}
	f.led.incarnation = to
	f.trail.reset()
	if f.ownChain() == nil {
		f.addChain(f.ownOrigin())
	}
	f.dirty[f.ownChain()] = struct{}{}
	return nil
}

// rotate begins a new generation of idempotency keys and forgets the one
// before the last.
func (f *fsm) rotate(h *header, p []byte) error {
	if len(p) != 4 {
		return errEntry
	}
	if g := binary.BigEndian.Uint32(p); g != f.led.generation || g == 0 {
		return nil
	}
	var zero [16]byte
	gone := f.led.generation - 1
	err := f.batch.DeleteRange(appendReceiptKey(nil, gone, zero)[:5], appendReceiptKey(nil, gone+1, zero)[:5], nil)
	f.led.generation++
	f.led.rotated = h.stamp
	f.sieve.rotate()
	return err
}

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

// blockWriter gathers the facts of one entry into blocks of the own origin.
type blockWriter struct {
	f     *fsm
	chain *chain
	stamp int64
	next  uint64 // sequence number of the next fact
	first uint64 // of the block under construction
	count uint32
}

func (w *blockWriter) add(data []byte) error {
	f := w.f
	if w.count == fact.MaxFacts || (w.count > 0 && len(f.block)+len(data)+binary.MaxVarintLen32 > fact.MaxBody) {
		if err := w.seal(); err != nil {
			return err
		}
	}
	if w.count == 0 {
		w.first, f.block = w.next, f.block[:0]
	}
	f.block = fact.AppendFact(f.block, data)
	w.count++
	w.next++
	return f.fold(w.chain, w.next-1, data)
}

func (w *blockWriter) seal() error {
	if w.count == 0 {
		return nil
	}
	b := fact.Block{Origin: w.chain.origin, First: w.first, Count: w.count, Stamp: w.stamp, Prev: w.chain.mark.Digest, Body: w.f.block}
	w.count = 0
	w.f.put(w.chain, &b)
	w.f.trail.add(w.chain.mark)
	return nil
}

// put stores a block, encoded straight into the batch.
func (f *fsm) put(c *chain, b *fact.Block) {
	size := blockHead(c) + len(b.Body)
	op := f.batch.SetDeferred(blockKeySize, size)
	putSeqKey(op.Key, spaceBlock, c.id, b.First)
	if got := b.Append(op.Value[:0]); len(got) != size {
		f.tx.fail(fmt.Errorf("%w: a block of %d bytes took %d", errState, size, len(got)))
	}
	f.tx.fail(op.Finish())
	c.mark, c.stamp = b.Mark(), b.Stamp
	f.dirty[c] = struct{}{}
	f.metrics.facts.Add(float64(b.Count))
}

// blockHead is what a block's encoding adds to its body.
func blockHead(c *chain) int {
	return 1 + 1 + len(c.origin.Carrier) + 1 + len(c.origin.Subsystem) + 2 + 8 + 8 + 4 + 8 + len(fact.Digest{}) + 4
}

// ingest takes in blocks of other origins: repeats are dropped, and what does
// not follow is refused without an effect. The answer is the first refusal.
func (f *fsm) ingest(p []byte) (any, error) {
	var refused error
	for len(p) > 0 {
		b, rest, err := fact.Decode(p)
		if err != nil {
			return nil, err
		}
		p = rest
		if err := f.take(&b); err != nil && refused == nil {
			refused = err
		}
	}
	if refused != nil {
		return refused, nil
	}
	return nil, nil
}

func (f *fsm) take(b *fact.Block) error {
	if err := f.welcome(b.Origin); err != nil {
		return err
	}
	var at fact.Mark
	c := f.led.byName[b.Origin]
	if c != nil {
		at = c.mark
	}
	switch err := b.Follows(at); {
	case errors.Is(err, fact.ErrRepeat):
		return nil
	case err != nil:
		return err
	}
	if c == nil {
		c = f.addChain(b.Origin)
	}
	var failed error
	err := b.Facts(func(seq uint64, data []byte) bool {
		failed = f.fold(c, seq, data)
		return failed == nil
	})
	f.put(c, b)
	f.tx.fail(errors.Join(err, failed))
	return nil
}

// welcome says whether blocks of an origin may come from elsewhere.
func (f *fsm) welcome(o fact.Origin) error {
	switch {
	case o.Subsystem != f.cfg.Subsystem || int(o.Shard) != f.shard:
		return errForeign
	case o == f.ownOrigin():
		return errOwn
	}
	return nil
}

// refoldMax bounds how many facts are tried in one batch.
const refoldMax = 4096

// refold tries the facts that were set aside once more.
func (f *fsm) refold() error {
	from := []byte{spaceAside}
	for from != nil {
		keys, err := f.asideFrom(from)
		if err != nil {
			return err
		}
		from = nil
		if len(keys) == refoldMax {
			from = append(keys[len(keys)-1], 0)
		}
		f.begin()
		for _, k := range keys {
			f.tx.fail(f.refoldOne(k))
		}
		if err := f.commit(); err != nil {
			return err
		}
	}
	return nil
}

func (f *fsm) asideFrom(from []byte) (keys [][]byte, err error) {
	it, err := f.gen.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: []byte{spaceAside + 1}})
	if err != nil {
		return nil, err
	}
	for it.First(); it.Valid() && len(keys) < refoldMax; it.Next() {
		keys = append(keys, append([]byte(nil), it.Key()...))
	}
	return keys, errors.Join(it.Error(), it.Close())
}

func (f *fsm) refoldOne(key []byte) error {
	if len(key) != blockKeySize {
		return errState
	}
	id, seq := binary.BigEndian.Uint32(key[1:]), binary.BigEndian.Uint64(key[5:])
	blocks, err := readBlocks(f.gen.db, id, seq-1, 1)
	if err != nil {
		return err
	}
	if len(blocks) == 0 {
		return errState
	}
	return blocks[0].Facts(func(at uint64, data []byte) bool {
		if at != seq {
			return true
		}
		f.tx.mark()
		if f.safeFold(data) != nil {
			f.tx.rollback()
			f.machine.Reset()
			return false
		}
		f.led.aside--
		f.tx.fail(f.batch.Delete(key, nil))
		return false
	})
}

// readBlocks returns the blocks of an origin from the one that holds after+1
// on, up to about maxBytes and at least one if there is one.
func readBlocks(db pebble.Reader, id uint32, after uint64, maxBytes int) ([]fact.Block, error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: seqKey(spaceBlock, id, 0), UpperBound: seqKey(spaceBlock, id+1, 0)})
	if err != nil {
		return nil, err
	}
	var out []fact.Block
	size := 0
	for ok := it.SeekLT(seqKey(spaceBlock, id, after+2)) || it.First(); ok && (len(out) == 0 || size < maxBytes); ok = it.Next() {
		b, _, err := fact.Decode(append([]byte(nil), it.Value()...))
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		if b.Last() <= after {
			continue
		}
		out = append(out, b)
		size += len(b.Body)
	}
	return out, errors.Join(it.Error(), it.Close())
}

// Snapshot implements raft.FSM. The state is on disk but for its memtables, so
// there is nothing to capture: Persist flushes them.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.stopped != nil {
		return nil, f.stopped
	}
	gen := f.gen.share()
	f.mu.Lock()
	f.bytes = 0
	f.mu.Unlock()
	return &frozen{gen: gen}, nil
}

// Restore implements raft.FSM: the snapshot was unpacked while it was
// received; what is read here is its name.
func (f *fsm) Restore(r io.ReadCloser) error {
	id, err := io.ReadAll(io.LimitReader(r, 256))
	if err != nil {
		return err
	}
	if f.stopped != nil {
		return f.stopped
	}
	return f.snaps.install(string(id), f)
}

// trail remembers the newest marks of the own origin, to compare with others'.
// It is written by the goroutine that applies, before what it says is published.
type trail struct {
	mu    sync.Mutex
	marks []fact.Mark // ascending
}

const trailMax = 1024

func (t *trail) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.marks = t.marks[:0]
}

func (t *trail) add(m fact.Mark) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.marks) == 2*trailMax {
		t.marks = append(t.marks[:0], t.marks[trailMax:]...)
	}
	t.marks = append(t.marks, m)
}

// at is the mark that ends in seq, where one is remembered.
func (t *trail) at(seq uint64) (m fact.Mark, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.find(seq)
	if i == len(t.marks) || t.marks[i].Seq != seq {
		return m, false
	}
	return t.marks[i], true
}

func (t *trail) find(seq uint64) int {
	return sort.Search(len(t.marks), func(i int) bool { return t.marks[i].Seq >= seq })
}

// agrees is true where nothing is known: before the trail begins.
func (t *trail) agrees(m fact.Mark) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.marks) == 0 || m.Seq < t.marks[0].Seq {
		return true
	}
	i := t.find(m.Seq)
	return i < len(t.marks) && t.marks[i] == m
}
