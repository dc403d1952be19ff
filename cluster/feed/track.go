package feed

import (
	"errors"
	"time"

	"qianma/cluster/fact"
)

// track is what a follower knows of one origin. It is plain data: the
// follower's loop drives it.
//
//	sink holds ..held | ready: chained, waiting for the sink ..tail | (hole) ahead
type track struct {
	origin fact.Origin
	line   *line // how its live blocks come; nil: they do not

	held  fact.Mark // what the sink has
	tail  fact.Mark // end of ready; held when ready is empty
	ready []item
	ahead map[uint64]item // blocks behind a hole, by First

	readyBytes, aheadBytes int

	known   uint64        // highest sequence number anyone told of
	want    uint64        // highest sequence number a source told of: pull up to here
	due     time.Duration // when to see whether a pull is needed; zero: no reason to
	pulling bool
	settled bool             // has been level with its sources once: what is missing now is news, not history
	tried   map[*source]bool // sources that had nothing for us since the last progress
	// barred are the sources that contradict what is held, each with the time
	// before which it is not asked for this origin. The nil source is the sink.
	barred map[*source]time.Duration

	foldAt    time.Duration // not before, after a failed fold
	foldDelay time.Duration

	confirmed time.Time // the last moment for which the origin's own carrier vouched, and all of it was held
	newest    int64     // Stamp of the newest block folded
}

// item is a block on its way to the sink.
type item struct {
	block fact.Block
	live  bool
}

// line is how the broker is doing for one topic.
type line struct {
	topic      Topic
	subscribed bool
	stalled    bool // sources told of blocks that the broker did not bring
}

// verdict is what became of an offered block.
type verdict int

const (
	taken    verdict = iota // ready for the sink, and perhaps more behind it
	repeated                // held already
	kept                    // behind a hole
	dropped                 // behind a hole, and no room to keep it
	refused                 // contradicts the tail
)

// offer takes a block in. room is how many bytes may still be kept ahead.
func (t *track) offer(it item, room int) verdict {
	b := &it.block
	t.known = max(t.known, b.Last())
	switch err := b.Follows(t.tail); {
	case err == nil:
		t.push(it)
		t.join()
		return taken
	case errors.Is(err, fact.ErrRepeat):
		return repeated
	case errors.Is(err, fact.ErrGap):
		return t.keep(it, room)
	}
	return refused
}

func (t *track) push(it item) {
	t.ready = append(t.ready, it)
	t.readyBytes += sizeOf(&it.block)
	t.tail = it.block.Mark()
	t.tried = nil
}

// join moves blocks that the tail has reached. One that contradicts the tail
// is dropped: it came from a broker, and a source will say what is true.
func (t *track) join() {
	for {
		it, ok := t.ahead[t.tail.Seq+1]
		if !ok {
			return
		}
		t.forget(it)
		if it.block.Follows(t.tail) != nil {
			return
		}
		t.push(it)
	}
}

func (t *track) keep(it item, room int) verdict {
	if _, ok := t.ahead[it.block.First]; ok {
		return repeated
	}
	if sizeOf(&it.block) > room {
		return dropped
	}
	if t.ahead == nil {
		t.ahead = map[uint64]item{}
	}
	t.ahead[it.block.First] = it
	t.aheadBytes += sizeOf(&it.block)
	return kept
}

func (t *track) forget(it item) {
	delete(t.ahead, it.block.First)
	t.aheadBytes -= sizeOf(&it.block)
}

// try notes that a source had nothing for us.
func (t *track) try(s *source) {
	if t.tried == nil {
		t.tried = map[*source]bool{}
	}
	t.tried[s] = true
}

// sweep forgets blocks ahead that the tail has passed.
func (t *track) sweep() {
	for first, it := range t.ahead {
		if first <= t.tail.Seq {
			t.forget(it)
		}
	}
}

// needs says whether a pull would help.
func (t *track) needs() bool { return t.tail.Seq < t.want || len(t.ahead) > 0 }

// arm sees to it that the need for a pull is looked at by then.
func (t *track) arm(at time.Duration) {
	if t.due == 0 || at < t.due {
		t.due = at
	}
}

// liveExpected says whether the broker should bring the missing blocks by
// itself.
func (t *track) liveExpected() bool { return t.line != nil && t.line.subscribed && !t.line.stalled }

// follow moves to where the sink says it is. What is ready beyond it stays, if
// it still chains.
func (t *track) follow(m fact.Mark) {
	if m == t.held {
		return
	}
	for i := range t.ready {
		if t.ready[i].block.Last() == m.Seq && t.digestAfter(i) == m.Digest {
			t.cut(i + 1)
			return
		}
	}
	t.reset(m)
}

// digestAfter is the running digest behind ready[i]: the next block names it.
func (t *track) digestAfter(i int) fact.Digest {
	if i+1 < len(t.ready) {
		return t.ready[i+1].block.Prev
	}
	return t.tail.Digest
}

// cut moves the front of ready behind held.
func (t *track) cut(n int) {
	t.held = fact.Mark{Seq: t.ready[n-1].block.Last(), Digest: t.digestAfter(n - 1)}
	t.newest = max(t.newest, t.ready[n-1].block.Stamp)
	t.readyBytes -= bytesOf(t.ready[:n])
	clear(t.ready[:n]) // let go of the bodies
	t.ready = t.ready[n:]
	if len(t.ready) == 0 {
		t.ready = nil
	}
}

// reset moves to a mark the sink says it holds and drops what was chained to
// the old one.
func (t *track) reset(m fact.Mark) {
	t.held, t.tail, t.ready, t.readyBytes = m, m, nil, 0
	t.known = max(t.known, m.Seq)
	t.sweep()
	t.join()
}

// folded notes that the sink took the first n ready blocks.
func (t *track) folded(n int) {
	t.cut(n)
	t.foldAt, t.foldDelay = 0, 0
}

func bytesOf(items []item) int {
	n := 0
	for i := range items {
		n += sizeOf(&items[i].block)
	}
	return n
}
