package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"qianma/cluster/fact"
)

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
