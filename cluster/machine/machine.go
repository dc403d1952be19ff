// Package machine is the contract between a subsystem's rules and the floor
// that replicates them.
//
// A subsystem decides (may this command become a fact?) and folds (what does
// this fact change?). Both see a transaction over the subsystem's own keys and
// nothing else: no clock, no randomness, no map order, no I/O. Whoever
// proposes has stamped time and ids into the command.
//
// Fold is where two carriers become one: the same facts in any order, with
// any repetition and any grouping, must leave the same keys and values. So a
// folded value may depend on the facts alone, never on when or where they
// arrived. Decide may look at what is held here and now: it guards the door of
// one carrier, and what two doors let in separately, Fold must still merge.
package machine

import (
	"context"
	"time"
)

// Reader sees one consistent version of a subsystem's keys. Keys and values
// handed out are copies or immutable; they may be kept. A Reader made outside
// a transaction must be closed; it is safe for one goroutine at a time.
type Reader interface {
	// Get returns the value of key; ok is false where there is none.
	Get(key []byte) (value []byte, ok bool)
	// Scan calls fn for the keys from start (included) up to end (excluded;
	// nil: to the last), in order, until fn returns false. The slices are
	// valid only during the call. fn must not write.
	Scan(start, end []byte, fn func(key, value []byte) bool)
}

// Tx is a Reader that sees its own writes. The floor commits them together
// with the log position that caused them. Slices given are copied.
type Tx interface {
	Reader
	Set(key, value []byte)
	Delete(key []byte)
}

// Status is what became of one command. The numbers are stored and cross the
// wire: they never change.
type Status uint8

// What can become of a command.
const (
	Accepted  Status = 1 // became a fact
	Duplicate Status = 2 // the same fact is already held; nothing changed
	Conflicts Status = 3 // became a fact that contradicts another; both are kept and shown
	Rejected  Status = 4 // breaks a rule; nothing changed
)

// String is the status as receipts show it.
func (s Status) String() string {
	switch s {
	case Accepted:
		return "accepted"
	case Duplicate:
		return "duplicate"
	case Conflicts:
		return "conflict"
	case Rejected:
		return "rejected"
	}
	return "unknown"
}

// Decision is the answer to one command.
type Decision struct {
	Status Status
	// Code is the problem code of a row that was not plainly accepted
	// ("tube_full"). It is at most 64 bytes; the subsystem's API turns it into
	// a sentence.
	Code string
	// Fact is what to commit (Accepted, Conflicts). It may alias the command.
	Fact []byte
}

// Machine is a subsystem's rules. A machine is used by one goroutine at a
// time. It may keep caches of what it reads, but Reset must drop them.
type Machine interface {
	// Decide judges a command at the proposer's time (Unix nanoseconds). It
	// does not write. When the decision carries a fact, the floor folds it
	// before the next command is judged.
	Decide(r Reader, at int64, command []byte) Decision
	// Fold merges a fact. An error means "this build does not understand the
	// fact": the floor keeps it in its place, sets it aside, shows it, and
	// folds it when a build that understands it starts.
	Fold(tx Tx, fact []byte) error
	// Reset drops every cache, because the keys below were replaced.
	Reset()
}

// Seeker is a Machine that mostly asks for rows before they are there.
type Seeker interface {
	// Sought returns the tables of such rows: the first bytes of their keys. The
	// floor remembers in memory which rows of them there may be, so that most such
	// questions never reach the store. It is called once.
	Sought() []byte
}

// Level says how safe a receipt's facts are known to be.
type Level uint8

// The levels of a receipt.
const (
	None       Level = 0
	Committed  Level = 1 // fsynced by a majority at this carrier
	Replicated Level = 2 // committed at the other carrier too
)

// String is the level as receipts show it.
func (l Level) String() string {
	switch l {
	case Committed:
		return "committed"
	case Replicated:
		return "replicated"
	}
	return "none"
}

// Proposal is a group of commands that one caller sends together. They commit
// together or not at all.
type Proposal struct {
	// Key is the caller's idempotency key as KeyOf has it; zero: no key.
	Key [16]byte
	// Body is the digest of what the caller sent under that key.
	Body [16]byte
	// Commands are judged in order.
	Commands [][]byte
	// Wait bounds how long Propose waits, beside its context; 0: as long as that
	// lasts. It costs less than a context that is made for one proposal.
	Wait time.Duration
}

// Row is what became of one command of a proposal.
type Row struct {
	Status Status
	Code   string
}

// Receipt says what became of a proposal. First and Last are 0 when no
// command became a fact.
type Receipt struct {
	Origin      string // of the facts: fact.Origin.String()
	First, Last uint64 // sequence numbers of the first and last new fact
	Level       Level  // reached so far; never more than is known
	Replayed    bool   // the key had been seen with this body: this is the receipt of then
	Rows        []Row  // one for each command
}

// Proposer is the door to a replicated subsystem, the same at every node.
type Proposer interface {
	// Shards is how many groups the subsystem is cut into.
	Shards() int
	// Propose commits the commands in one shard and returns when they are
	// committed. Problems: problem.Unavailable and problem.Overloaded (nothing
	// was done), problem.Unknown (may have been done: repeat with the same
	// key), problem.KeyReused.
	Propose(ctx context.Context, shard int, p Proposal) (Receipt, error)
	// Claim takes an idempotency key in the shard the key itself belongs to,
	// for a proposal whose commands go to other shards. It returns
	// problem.KeyReused when the key is known with another body, and nil both
	// the first time and on a repeat.
	Claim(ctx context.Context, key, body [16]byte) error
	// Await blocks until the receipt has reached the level or ctx ends, and
	// returns the level that was reached. It never fails.
	Await(ctx context.Context, r Receipt, level Level) Level
	// View opens a consistent reader on a shard. A linearizable view sees
	// every write acknowledged before the call, or fails with
	// problem.Unavailable; the other kind sees what this replica has, at once.
	View(ctx context.Context, shard int, linearizable bool) (View, error)
	// Peek reads one key as this replica has it, at once: what a view that is not
	// linearizable would read, without the cost of one. The value is the caller's.
	Peek(shard int, key []byte) (value []byte, found bool, err error)
}

// View is a Reader that must be closed.
type View interface {
	Reader
	Close() error
	// AsOf is the proposer's time of the newest entry this view contains, in
	// Unix nanoseconds; 0 when the shard is empty.
	AsOf() int64
}
