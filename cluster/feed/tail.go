package feed

import (
	"context"
	"maps"
	"sync"

	"qianma/cluster/fact"
)

// Tail keeps the newest blocks that a Sink has taken, and is a Source of them.
//
// It is for a reader that keeps what facts mean and not the facts. Such a reader
// may be the last that has some: it asked a carrier a moment before that carrier
// burned, and the replicas of its own had not asked yet. What it shows would
// then never be level with them again. So it hands on what it took last. The
// blocks are in memory alone and bounded: who was away for longer pulls from
// replicas, as ever, and what is forgotten here was owed to nobody, because
// nothing is `replicated` before a replica has it.
//
// It is safe for concurrent use.
type Tail struct {
	limit int

	mu    sync.Mutex // protects the fields below
	kept  map[fact.Origin][]fact.Block
	marks map[fact.Origin]fact.Mark // of the last block kept
	order []fact.Origin             // of each block, the oldest first
	bytes int
}

// NewTail keeps about so many bytes.
func NewTail(limit int) *Tail {
	return &Tail{limit: limit, kept: map[fact.Origin][]fact.Block{}, marks: map[fact.Origin]fact.Mark{}}
}

// Before is a Sink that hands all to the one it is given, and has the tail keep
// what that took.
func (t *Tail) Before(sink Sink) Sink { return tapped{sink, t} }

type tapped struct {
	Sink
	tail *Tail
}

// Fold implements Sink. Where it fails some blocks may have been taken that the
// tail has not: to whoever pulls, that hole is a gap.
func (s tapped) Fold(ctx context.Context, blocks []fact.Block) error {
	if err := s.Sink.Fold(ctx, blocks); err != nil {
		return err
	}
	s.tail.keep(blocks, s.Sink.Marks())
	return nil
}

func (t *Tail) keep(blocks []fact.Block, marks map[fact.Origin]fact.Mark) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range blocks {
		if have := t.kept[b.Origin]; len(have) > 0 && b.First <= have[len(have)-1].Last() {
			continue // a repeat
		}
		t.kept[b.Origin] = append(t.kept[b.Origin], b)
		t.marks[b.Origin] = marks[b.Origin]
		t.order = append(t.order, b.Origin)
		t.bytes += sizeOf(&b)
	}
	for t.bytes > t.limit {
		t.drop()
	}
}

// drop lets the oldest block go.
func (t *Tail) drop() {
	o := t.order[0]
	list := t.kept[o]
	t.bytes -= sizeOf(&list[0])
	list[0], t.order = fact.Block{}, t.order[1:]
	if t.kept[o] = list[1:]; len(list) == 1 {
		delete(t.kept, o)
		delete(t.marks, o)
	}
}

// Catalog implements Source. It vouches for no moment.
func (t *Tail) Catalog(context.Context) (fact.Catalog, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fact.Catalog{Marks: maps.Clone(t.marks)}, nil
}

// Pull implements Source. Where the tail does not reach back to after it gives
// nothing, as one that holds nothing behind it.
func (t *Tail) Pull(_ context.Context, o fact.Origin, after uint64, maxBytes int) ([]fact.Block, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []fact.Block
	size, next := 0, after+1
	for _, b := range t.kept[o] {
		if b.First < next {
			continue
		}
		if b.First > next || len(out) > 0 && size+sizeOf(&b) > maxBytes {
			break
		}
		out = append(out, b)
		size, next = size+sizeOf(&b), b.Last()+1
	}
	return out, nil
}
