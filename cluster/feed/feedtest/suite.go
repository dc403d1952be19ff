package feedtest

import (
	"context"
	"sync"
	"testing"
	"time"

	"qianma/cluster/fact"
	"qianma/cluster/feed"
)

// Harness is one broker as the suite sees it. Publisher and Follower may be
// two doors of it: the suite publishes facts of Carrier at one and follows
// them at the other.
type Harness struct {
	Publisher, Follower feed.Broker
	Carrier             string
	// Stop and Start take the broker away and bring it back; Wipe makes it
	// lose its store while it runs. Nil: the suite leaves that part out.
	Stop, Start, Wipe func()
}

// RunBroker holds a broker against its contract. open makes a fresh one for
// each part and cleans up with t.Cleanup.
func RunBroker(t *testing.T, open func(t *testing.T) Harness) {
	parts := []struct {
		name string
		run  func(t *testing.T, h Harness)
	}{
		{"carries in order", carriesInOrder},
		{"keeps topics apart", keepsTopicsApart},
		{"gives every subscriber everything", everySubscriber},
		{"delivers from a little before now", littleBeforeNow},
		{"remembers the last of an origin", remembersLast},
		{"takes repeats", takesRepeats},
		{"falls silent after stop", silentAfterStop},
		{"ends with its context", endsWithContext},
		{"comes back", comesBack},
		{"carries on after losing its store", carriesOnWiped},
		{"publisher and follower over it", pipeline},
		{"publisher and follower while it dies and loses its store", pipelineUnderFire},
	}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) { p.run(t, open(t)) })
	}
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// ear collects what a subscription brings.
type ear struct {
	mu     sync.Mutex
	blocks []fact.Block
}

func listen(t *testing.T, h Harness, o fact.Origin) (*ear, func()) {
	t.Helper()
	e := new(ear)
	var stop func()
	Eventually(t, "subscribed", func() (ok bool) {
		var err error
		stop, err = h.Follower.Subscribe(bounded(t), o.Carrier, o.Subsystem, int(o.Shard), func(blocks []fact.Block) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.blocks = append(e.blocks, blocks...)
		})
		return err == nil
	})
	t.Cleanup(stop)
	return e, stop
}

// reach is the highest mark that the blocks heard so far chain up to.
func (e *ear) reach(o fact.Origin) fact.Mark {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := fact.Mark{}
	for i := range e.blocks {
		if b := &e.blocks[i]; b.Origin == o && b.Follows(m) == nil {
			m = b.Mark()
		}
	}
	return m
}

func (e *ear) len() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.blocks)
}

// publish publishes blocks, one call each.
func publish(t *testing.T, h Harness, blocks ...fact.Block) {
	t.Helper()
	for _, b := range blocks {
		together(t, h, b)
	}
}

// together publishes blocks in one call, and repeats it: a broker owes no more
// than an honest try.
func together(t *testing.T, h Harness, blocks ...fact.Block) {
	t.Helper()
	Eventually(t, "published", func() bool { return h.Publisher.Publish(bounded(t), blocks) == nil })
}

func grow(o fact.Origin, n int) (blocks []fact.Block, m fact.Mark) {
	for range n {
		b := Next(o, m, 3, 64)
		blocks, m = append(blocks, b), b.Mark()
	}
	return blocks, m
}

func carriesInOrder(t *testing.T, h Harness) {
	o := Origin(h.Carrier, 0, 7)
	e, _ := listen(t, h, o)
	blocks, want := grow(o, 50)
	publish(t, h, blocks[:10]...)
	together(t, h, blocks[10:]...)
	Eventually(t, "all blocks heard in order", func() bool { return e.reach(o) == want })
}

func keepsTopicsApart(t *testing.T, h Harness) {
	a, b := Origin(h.Carrier, 0, 7), Origin(h.Carrier, 1, 7)
	ea, _ := listen(t, h, a)
	eb, _ := listen(t, h, b)
	ba, ma := grow(a, 5)
	bb, mb := grow(b, 5)
	publish(t, h, ba...)
	publish(t, h, bb...)
	Eventually(t, "both topics heard", func() bool { return ea.reach(a) == ma && eb.reach(b) == mb })
	if (ea.reach(b) != fact.Mark{}) || (eb.reach(a) != fact.Mark{}) {
		t.Fatal("a topic carried another topic's facts")
	}
}

func everySubscriber(t *testing.T, h Harness) {
	o := Origin(h.Carrier, 0, 7)
	e1, _ := listen(t, h, o)
	e2, _ := listen(t, h, o)
	blocks, want := grow(o, 10)
	publish(t, h, blocks...)
	Eventually(t, "both heard everything", func() bool { return e1.reach(o) == want && e2.reach(o) == want })
}

func littleBeforeNow(t *testing.T, h Harness) {
	o := Origin(h.Carrier, 0, 7)
	blocks, want := grow(o, 3)
	publish(t, h, blocks...)
	e, _ := listen(t, h, o)
	Eventually(t, "what was published just before is heard", func() bool { return e.reach(o) == want })
}

func remembersLast(t *testing.T, h Harness) {
	old, o := Origin(h.Carrier, 0, 7), Origin(h.Carrier, 0, 8)
	last := func(o fact.Origin) (n uint64) {
		Eventually(t, "an answer", func() bool {
			var err error
			n, err = h.Publisher.Last(bounded(t), o)
			return err == nil
		})
		return n
	}
	if n := last(old); n != 0 {
		t.Fatalf("an origin never published has last %d", n)
	}
	blocks, m := grow(old, 4)
	publish(t, h, blocks...)
	if n := last(old); n != m.Seq {
		t.Fatalf("last is %d, want %d", n, m.Seq)
	}
	if n := last(o); n != 0 {
		t.Fatalf("a new incarnation has last %d", n)
	}
}

func takesRepeats(t *testing.T, h Harness) {
	o := Origin(h.Carrier, 0, 7)
	e, _ := listen(t, h, o)
	blocks, want := grow(o, 6)
	publish(t, h, blocks[:4]...)
	publish(t, h, blocks[2:]...)
	together(t, h, blocks...)
	Eventually(t, "repeats do not hide what is new", func() bool { return e.reach(o) == want })
}

func silentAfterStop(t *testing.T, h Harness) {
	o := Origin(h.Carrier, 0, 7)
	e1, stop := listen(t, h, o)
	e2, _ := listen(t, h, o)
	blocks, want := grow(o, 10)
	publish(t, h, blocks[:5]...)
	Eventually(t, "something heard", func() bool { return e1.len() > 0 })
	stop()
	stop()
	n := e1.len()
	publish(t, h, blocks[5:]...)
	Eventually(t, "the other goes on hearing", func() bool { return e2.reach(o) == want })
	if e1.len() != n {
		t.Fatal("heard something after stop had returned")
	}
}

func endsWithContext(t *testing.T, h Harness) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	blocks, _ := grow(Origin(h.Carrier, 0, 7), 1)
	if err := h.Publisher.Publish(ctx, blocks); err == nil {
		t.Fatal("published with a dead context")
	}
}

func comesBack(t *testing.T, h Harness) {
	if h.Stop == nil {
		t.Skip("this broker cannot be stopped")
	}
	o := Origin(h.Carrier, 0, 7)
	e, _ := listen(t, h, o)
	blocks, want := grow(o, 10)
	publish(t, h, blocks[:5]...)
	h.Stop()
	short, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := h.Publisher.Publish(short, blocks[5:6]); err == nil {
		t.Fatal("a stopped broker took a block")
	}
	h.Start()
	Eventually(t, "published after the return", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return h.Publisher.Publish(ctx, blocks[5:]) == nil
	})
	Eventually(t, "an old subscription hears on", func() bool { return e.reach(o) == want })
}

func carriesOnWiped(t *testing.T, h Harness) {
	if h.Wipe == nil {
		t.Skip("this broker cannot lose its store")
	}
	o := Origin(h.Carrier, 0, 7)
	blocks, want := grow(o, 10)
	publish(t, h, blocks[:5]...)
	e, _ := listen(t, h, o)
	Eventually(t, "heard before", func() bool { return e.reach(o) == blocks[4].Mark() })
	h.Wipe()
	// Repeating is the publisher's job: what the dying store took is lost.
	Eventually(t, "an old subscription hears on", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = h.Publisher.Publish(ctx, blocks[5:])
		return e.reach(o) == want
	})
}

// line opens a publisher and a follower over the harness.
func line(t *testing.T, h Harness, o fact.Origin) (source, sink *Store) {
	t.Helper()
	source, sink = NewStore(), NewStore()
	p, err := feed.OpenPublisher(feed.PublisherConfig{Outbox: source, Broker: h.Publisher})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	f, err := feed.OpenFollower(feed.FollowerConfig{
		Topics: []feed.Topic{feed.TopicOf(o)}, Broker: h.Follower,
		Sources: []feed.Peer{{Name: "source", Carrier: o.Carrier, Source: source}}, Sink: sink,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	source.Lead(o, true)
	return source, sink
}

func pipeline(t *testing.T, h Harness) {
	o := Origin(h.Carrier, 0, 9)
	source, sink := line(t, h, o)
	for range 200 {
		source.Grow(o, 5, 100)
	}
	Level(t, source, sink)
}

func pipelineUnderFire(t *testing.T, h Harness) {
	if h.Stop == nil || h.Wipe == nil {
		t.Skip("this broker cannot be hurt")
	}
	o := Origin(h.Carrier, 0, 9)
	source, sink := line(t, h, o)
	grow := func() {
		for range 50 {
			source.Grow(o, 5, 100)
		}
	}
	grow()
	Level(t, source, sink)
	h.Stop()
	grow()
	Level(t, source, sink) // no broker at all: pulled
	h.Start()
	grow()
	Level(t, source, sink)
	h.Wipe()
	grow()
	Level(t, source, sink)
}
