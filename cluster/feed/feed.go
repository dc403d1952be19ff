// Package feed carries committed facts from where they were born to whoever
// follows them, and promises that a follower ends with exactly what its
// sources hold: every block once, in order per origin.
//
// The broker is the road and may do anything: drop, repeat, reorder, lose its
// store, be absent for ever. The truth is what the sources hold, and a
// follower that sees a gap, a stall or no broker pulls the missing range from
// them. So nothing here trusts a broker for correctness; a broker only makes
// it fast.
//
// Promises to the sink: blocks of one origin arrive in order, each extends
// what the sink says it holds, and a block that contradicts what is held is
// reported and never folded. Between origins there is no order. A follower
// calls its sink from one goroutine.
//
// The package knows blocks and marks; it refuses to know what a fact means,
// who stores it, and which broker carries it.
package feed

import (
	"context"
	"fmt"

	"qianma/cluster/fact"
)

// Topic is what a broker carries as one ordered line: the facts of one shard
// of one subsystem at one carrier, whatever their incarnation.
type Topic struct {
	Carrier   string
	Subsystem string
	Shard     int
}

// TopicOf is the topic an origin publishes to.
func TopicOf(o fact.Origin) Topic { return Topic{o.Carrier, o.Subsystem, int(o.Shard)} }

// String is "unicom/nucleic/0".
func (t Topic) String() string { return fmt.Sprintf("%s/%s/%d", t.Carrier, t.Subsystem, t.Shard) }

// Source holds committed blocks and hands out ranges of them: a replica of
// the origin, or of the other carrier that has taken them in. Implementations
// are safe for concurrent use and honour ctx.
type Source interface {
	// Catalog says how far the source holds each origin it knows, and for
	// which moment it vouches.
	Catalog(ctx context.Context) (fact.Catalog, error)
	// Pull returns the blocks of o behind sequence number after, in order and
	// without a gap, up to about maxBytes and at least one if there is one. No
	// blocks and no error means the source holds nothing behind after. The
	// caller may keep the blocks.
	Pull(ctx context.Context, o fact.Origin, after uint64, maxBytes int) ([]fact.Block, error)
}

// Sink takes what a follower found.
type Sink interface {
	// Marks says how far the sink holds each origin, all that Fold has taken
	// included. The map is the caller's. It must be quick.
	Marks() map[fact.Origin]fact.Mark
	// Fold takes blocks in order per origin. When it returns nil they are
	// durable, or the sink will answer Marks without them after a crash. When
	// it fails any part may have been taken: the follower asks Marks again and
	// repeats what is missing. The sink may keep the blocks.
	Fold(ctx context.Context, blocks []fact.Block) error
}

// Broker carries blocks from publishers to subscribers and owes them nothing
// but an honest try. Implementations are safe for concurrent use.
type Broker interface {
	// Publish carries blocks of one origin and returns when the broker has
	// stored them. After an error any part may have been stored; repeating is
	// harmless. A block too large for the broker is left out: its absence is a
	// gap like any other. Blocks are not kept after the call.
	Publish(ctx context.Context, blocks []fact.Block) error
	// Last is the sequence number of the last fact of the newest message the
	// broker holds of o; 0 when it holds none.
	Last(ctx context.Context, o fact.Origin) (uint64, error)
	// Subscribe calls fn with the blocks of a topic, from a little before now
	// on, until stop is called; fn is not called after stop has returned. fn
	// may keep the blocks, and may block: the broker then waits or skips. The
	// subscription outlives a broker that goes away and comes back. stop is
	// safe to call twice, but not from inside fn.
	Subscribe(ctx context.Context, carrier, subsystem string, shard int, fn func([]fact.Block)) (stop func(), err error)
}

// sizeOf is about what a block weighs in a queue.
func sizeOf(b *fact.Block) int { return len(b.Body) + 128 }

// SizeOf is about what blocks weigh in a queue or a message.
func SizeOf(blocks []fact.Block) int {
	n := 0
	for i := range blocks {
		n += sizeOf(&blocks[i])
	}
	return n
}
