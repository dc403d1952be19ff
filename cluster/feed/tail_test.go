package feed_test

import (
	"context"
	"slices"
	"testing"

	"qianma/cluster/fact"
	"qianma/cluster/feed"
	"qianma/cluster/feed/feedtest"
)

// TestATailFillsWhoCameTooLate: a reader took facts from a source that is gone
// now; whoever is behind gets them from the reader's tail, and ends with the
// same marks.
func TestATailFillsWhoCameTooLate(t *testing.T) {
	gone, reader, late := feedtest.NewStore(), feedtest.NewStore(), feedtest.NewStore()
	o := feedtest.Origin("mobile", 0, 1)
	growth(gone, o, 5)
	first, err := gone.Pull(t.Context(), o, 0, 1<<20)
	if err != nil || late.Fold(t.Context(), first[:2]) != nil {
		t.Fatal(err)
	}
	tail := feed.NewTail(1 << 20)
	taken := follow(t, feed.FollowerConfig{Name: "reader", Topics: topics(o), Sources: []feed.Peer{peer("m", "mobile", gone)}, Sink: tail.Before(reader)})
	feedtest.Level(t, gone, reader)
	taken.Close()
	follow(t, feed.FollowerConfig{Name: "late", Topics: topics(o), Sources: []feed.Peer{peer("reader", "unicom", tail)}, Sink: late})
	feedtest.Level(t, gone, late)
}

// lenient drops what it holds, as a middle store does.
type lenient struct{ *feedtest.Store }

func (l lenient) Fold(ctx context.Context, blocks []fact.Block) error {
	held := l.Marks()
	return l.Store.Fold(ctx, slices.DeleteFunc(slices.Clone(blocks), func(b fact.Block) bool { return b.Last() <= held[b.Origin].Seq }))
}

// TestATailIsBounded: the oldest blocks go first, whatever their origin, and a
// pull that would need one of them gets nothing rather than a hole.
func TestATailIsBounded(t *testing.T) {
	store := feedtest.NewStore()
	a, b := feedtest.Origin("mobile", 0, 1), feedtest.Origin("unicom", 0, 1)
	var blocks []fact.Block
	source := feedtest.NewStore()
	for range 4 {
		blocks = append(blocks, source.Grow(a, 2, 100), source.Grow(b, 2, 100))
	}
	most := feed.SizeOf(blocks[5:])
	tail := feed.NewTail(most)
	sink := tail.Before(lenient{store})
	for i := range blocks {
		if err := sink.Fold(t.Context(), blocks[i:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := sink.Fold(t.Context(), blocks[7:]); err != nil { // again: kept once
		t.Fatal(err)
	}
	for _, c := range []struct {
		o           fact.Origin
		after       uint64
		bytes, want int
	}{
		{a, 6, 1 << 20, 1}, {a, 4, 1 << 20, 0}, {a, 8, 1 << 20, 0}, {b, 4, 1 << 20, 2}, {b, 4, 1, 1}, {b, 2, 1 << 20, 0}, {feedtest.Origin("x", 0, 1), 0, 1 << 20, 0},
	} {
		if got, err := tail.Pull(t.Context(), c.o, c.after, c.bytes); err != nil || len(got) != c.want {
			t.Errorf("%s after %d, %d bytes: %d blocks, want %d: %v", c.o, c.after, c.bytes, len(got), c.want, err)
		}
	}
	told, err := tail.Catalog(t.Context())
	if err != nil || len(told.Marks) != 2 || told.Marks[a] != store.Marks()[a] || told.Marks[b] != store.Marks()[b] || told.Vouched {
		t.Errorf("%+v: %v", told, err)
	}
	if err := sink.Fold(t.Context(), []fact.Block{source.Grow(b, 2, 2*most)}); err != nil {
		t.Fatal(err)
	}
	if told, _ := tail.Catalog(t.Context()); len(told.Marks) != 0 {
		t.Errorf("of what is larger than the bound something is kept: %+v", told)
	}
}
