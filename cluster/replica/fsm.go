package replica

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"qianma/cluster/fact"
	"qianma/cluster/machine"
	"qianma/cluster/mishap"
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
	sieve   *sieve // of idempotency keys
	filling func() // ends what fills the sieves, and waits for it
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
	f.tx = newTx(spaceUser, soughtBy(f.machine))
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
	f.fillSieves()
	if led.aside > 0 {
		err = errors.Join(err, f.refold())
	}
	f.publish(0, true)
	return err
}

func soughtBy(m machine.Machine) []byte {
	if s, ok := m.(machine.Seeker); ok {
		return s.Sought()
	}
	return nil
}

// fillSieves begins new sieves for the generation of the store just adopted.
func (f *fsm) fillSieves() {
	if f.filling != nil {
		f.filling()
	}
	keys, rows, gen := new(sieve), new(sieve), f.gen.share()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		err := errors.Join(
			keys.fill(gen.db, []pebble.KeyRange{receipts}, keyOfReceipt, stop),
			rows.fill(gen.db, f.tx.ranges(), f.tx.nameOf, stop),
			gen.release(),
		)
		if err != nil {
			f.log.Warn("what the store holds could not be read ahead: it is asked each time", "error", err)
		}
	}()
	f.sieve, f.tx.known = keys, rows
	f.filling = func() { close(stop); <-done }
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
