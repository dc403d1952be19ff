package feed_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"qianma/cluster/clock"
	"qianma/cluster/fact"
	"qianma/cluster/feed"
	"qianma/cluster/feed/feedtest"
)

// quick makes a follower's waits short; what it waits for stays the same.
func quick(c feed.FollowerConfig) feed.FollowerConfig {
	c.WatchInterval, c.PollInterval = 10*time.Millisecond, 5*time.Millisecond
	c.GapDelay, c.StallDelay = time.Millisecond, 5*time.Millisecond
	c.RetryMin, c.RetryMax, c.BarDelay = time.Millisecond, 10*time.Millisecond, 50*time.Millisecond
	return c
}

func follow(t *testing.T, c feed.FollowerConfig) *feed.Follower {
	t.Helper()
	f, err := feed.OpenFollower(quick(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func topics(o fact.Origin) []feed.Topic { return []feed.Topic{feed.TopicOf(o)} }

func peer(name, carrier string, s feed.Source) feed.Peer {
	return feed.Peer{Name: name, Carrier: carrier, Source: s}
}

func growth(s *feedtest.Store, o fact.Origin, n int) {
	for range n {
		s.Grow(o, 2, 50)
	}
}

// recorder keeps the divergences that were reported.
type recorder struct {
	mu   sync.Mutex
	seen []feed.Divergence
}

func (r *recorder) note(d feed.Divergence) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, d)
}

func (r *recorder) list() []feed.Divergence {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]feed.Divergence(nil), r.seen...)
}

func TestNoBrokerAtAll(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	source, sink := feedtest.NewStore(), feedtest.NewStore()
	growth(source, o, 100)
	f := follow(t, feed.FollowerConfig{Topics: topics(o), Sink: sink, Sources: []feed.Peer{peer("a", "unicom", source)}, PullBytes: 500})
	feedtest.Level(t, source, sink)
	growth(source, o, 100)
	feedtest.Level(t, source, sink)
	if !f.Status().Polling {
		t.Error("a follower without a broker does not say that it polls")
	}
}

// Goal: a follower goes on asking when this machine, which began two hours ahead,
// is outvoted. Method: a clock that the test moves is put back by its peers between
// two rounds; then less than the two hours pass by it, a round's wait at a time.
func TestAFollowerAsksOnThoughTheClockWasPutBack(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	source, sink := feedtest.NewStore(), feedtest.NewStore()
	var asked atomic.Int32
	source.Fail = func(call string) bool {
		if call == "catalog" {
			asked.Add(1)
		}
		return false
	}
	machine := clock.NewManual(time.Unix(1641340800, 0))
	c := clock.NewCommon(machine)
	follow(t, feed.FollowerConfig{Topics: topics(o), Sink: sink, Sources: []feed.Peer{peer("a", "unicom", source)}, Clock: c})
	round := func(what string) {
		t.Helper()
		before := asked.Load()
		feedtest.Eventually(t, what, func() bool {
			machine.Advance(10 * time.Millisecond)
			return asked.Load() > before
		})
	}
	round("a round by the machine's own clock")
	c.Hear([]time.Duration{-2 * time.Hour, -2 * time.Hour})
	round("a round since it was outvoted") // one may have begun before
	round("another")
	growth(source, o, 1)
	feedtest.Eventually(t, "what is new is pulled", func() bool {
		machine.Advance(10 * time.Millisecond)
		return sink.Marks()[o] == source.Marks()[o]
	})
}

// A source that contradicts what is held is reported once and not believed;
// another source that agrees is followed on.
func TestDivergentSourceIsReportedAndNeverFolded(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	honest, liar, sink := feedtest.NewStore(), feedtest.NewStore(), feedtest.NewStore()
	growth(honest, o, 5)
	for _, b := range mustBlocks(honest, o) {
		sink.Give(b)
	}
	liar.Grow(o, 10, 9) // as many facts, but others
	growth(liar, o, 20)
	var r recorder
	var pulls atomic.Int32 // of the liar
	liar.Fail = func(call string) bool {
		if call == "pull" {
			pulls.Add(1)
		}
		return false
	}
	f := follow(t, feed.FollowerConfig{
		Topics: topics(o), Sink: sink, OnDivergence: r.note,
		Sources: []feed.Peer{peer("liar", "mobile", liar), peer("honest", "unicom", honest)},
	})
	feedtest.Eventually(t, "the liar is caught again and again", func() bool { return pulls.Load() > 3 })
	growth(honest, o, 5)
	feedtest.Level(t, honest, sink)
	for _, d := range r.list() {
		if d.Source != "liar" || d.Origin != o {
			t.Errorf("blamed %q for %v", d.Source, d.Origin)
		}
	}
	if n := len(r.list()); n != 1 {
		t.Errorf("reported %d times", n)
	}
	if l := f.Status().Of(o); !l.Diverged {
		t.Error("the status does not show the divergence")
	}
}

// Two stores of the same length that hold different facts are told apart by
// their digests alone, without a block being moved.
func TestDivergenceAtEqualLengthIsSeen(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	source, sink := feedtest.NewStore(), feedtest.NewStore()
	source.Grow(o, 3, 50)
	sink.Grow(o, 3, 60)
	var r recorder
	follow(t, feed.FollowerConfig{Topics: topics(o), Sink: sink, OnDivergence: r.note, Sources: []feed.Peer{peer("a", "unicom", source)}})
	feedtest.Eventually(t, "the divergence is reported", func() bool { return len(r.list()) == 1 })
}

// A broker is never believed against what is held: a block of it that does
// not fit is dropped, and a source says what follows.
func TestForgedLiveBlockIsDropped(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	source, sink, broker := feedtest.NewStore(), feedtest.NewStore(), feed.NewMemory(0)
	growth(source, o, 3)
	var r recorder
	follow(t, feed.FollowerConfig{
		Topics: topics(o), Broker: broker, Sink: sink, OnDivergence: r.note,
		Sources: []feed.Peer{peer("a", "unicom", source)},
	})
	feedtest.Level(t, source, sink)
	forged := feedtest.Next(o, fact.Mark{Seq: source.Marks()[o].Seq, Digest: fact.Digest{1}}, 1, 50)
	if err := broker.Publish(context.Background(), []fact.Block{forged}); err != nil {
		t.Fatal(err)
	}
	growth(source, o, 3)
	feedtest.Level(t, source, sink)
	if len(r.list()) != 0 {
		t.Error("a broker's block was reported as a divergence of stores")
	}
}

// hung is a source that answers nothing until its caller gives up.
type hung struct{ asked atomic.Int32 }

func (h *hung) Catalog(ctx context.Context) (fact.Catalog, error) {
	h.asked.Add(1)
	<-ctx.Done()
	return fact.Catalog{}, ctx.Err()
}

func (h *hung) Pull(ctx context.Context, _ fact.Origin, _ uint64, _ int) ([]fact.Block, error) {
	h.asked.Add(1)
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestHungSourceHoldsUpNothing(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	source, sink, broker, stuck := feedtest.NewStore(), feedtest.NewStore(), feed.NewMemory(0), new(hung)
	follow(t, feed.FollowerConfig{
		Topics: topics(o), Broker: broker, Sink: sink, CallTimeout: time.Hour,
		Sources: []feed.Peer{peer("stuck", "unicom", stuck)},
	})
	feedtest.Eventually(t, "the source is asked", func() bool { return stuck.asked.Load() > 0 })
	for range 20 {
		b := source.Grow(o, 1, 20)
		if err := broker.Publish(context.Background(), []fact.Block{b}); err != nil {
			t.Fatal(err)
		}
	}
	feedtest.Level(t, source, sink)
}

// picky is a sink that refuses one carrier's facts.
type picky struct {
	*feedtest.Store
	refuse string
	err    error
}

func (p *picky) Fold(ctx context.Context, blocks []fact.Block) error {
	for _, b := range blocks {
		if b.Origin.Carrier == p.refuse {
			return p.err
		}
	}
	return p.Store.Fold(ctx, blocks)
}

func TestOneBadOriginDoesNotHoldUpOthers(t *testing.T) {
	for name, err := range map[string]error{"failing": errors.New("disk on fire"), "divergent": fact.ErrDivergent} {
		t.Run(name, func(t *testing.T) {
			good, bad := feedtest.Origin("unicom", 0, 1), feedtest.Origin("mobile", 0, 1)
			source, sink := feedtest.NewStore(), feedtest.NewStore()
			var r recorder
			follow(t, feed.FollowerConfig{
				Topics: append(topics(good), topics(bad)...), Sink: &picky{sink, "mobile", err}, OnDivergence: r.note,
				Sources: []feed.Peer{peer("a", "", source)},
			})
			for range 10 {
				growth(source, bad, 1)
				growth(source, good, 1)
				feedtest.Eventually(t, "the good origin is level", func() bool { return sink.Marks()[good] == source.Marks()[good] })
			}
			if want := errors.Is(err, fact.ErrDivergent); (len(r.list()) == 1 && r.list()[0].Source == "sink") != want {
				t.Errorf("reported: %v", r.list())
			}
		})
	}
}

// Both origins reach the sink in one fold, so that the good one shares the bad
// one's failure and must be told apart.
func TestOneBadOriginIsToldApart(t *testing.T) {
	good, bad, plug := feedtest.Origin("unicom", 0, 1), feedtest.Origin("mobile", 0, 1), feedtest.Origin("unicom", 1, 1)
	source, broker := feedtest.NewStore(), &counting{Memory: feed.NewMemory(0)}
	store := feedtest.NewStore()
	sink := &gate{Store: store, inner: &picky{store, "mobile", errors.New("disk on fire")}}
	sink.mu.Lock()
	f := follow(t, feed.FollowerConfig{Topics: append(append(topics(plug), topics(good)...), topics(bad)...), Broker: broker, Sink: sink})
	publish := func(o fact.Origin) {
		if err := broker.Publish(context.Background(), []fact.Block{source.Grow(o, 1, 20)}); err != nil {
			t.Fatal(err)
		}
	}
	publish(plug)
	feedtest.Eventually(t, "the sink is busy", func() bool { return sink.waiting.Load() == 1 })
	publish(bad)
	publish(good)
	feedtest.Eventually(t, "both wait at the door", func() bool { return broker.handed.Load() == 3 })
	sink.mu.Unlock()
	feedtest.Eventually(t, "the good origin is level", func() bool { return store.Marks()[good] == source.Marks()[good] })
	if n := f.Status().Of(bad).Held; n != 0 {
		t.Errorf("the bad origin is held up to %d", n)
	}
}

// A long backlog of one origin does not keep another's single block waiting.
func TestOriginsTakeTurns(t *testing.T) {
	long, short, plug := feedtest.Origin("unicom", 0, 1), feedtest.Origin("mobile", 0, 1), feedtest.Origin("unicom", 1, 1)
	source, broker := feedtest.NewStore(), &counting{Memory: feed.NewMemory(0)}
	sink := &gate{Store: feedtest.NewStore()}
	var behind atomic.Uint64 // how far the long one was when the short one came
	sink.saw = func(b fact.Block) {
		if b.Origin == short {
			behind.Store(sink.Marks()[long].Seq)
		}
	}
	sink.mu.Lock()
	follow(t, feed.FollowerConfig{
		Topics: append(append(topics(plug), topics(long)...), topics(short)...), Broker: broker, Sink: sink, FoldBytes: 1,
	})
	grow := func(o fact.Origin, n int) {
		var blocks []fact.Block
		for range n {
			blocks = append(blocks, source.Grow(o, 1, 20))
		}
		if err := broker.Publish(context.Background(), blocks); err != nil {
			t.Fatal(err)
		}
	}
	grow(plug, 1)
	feedtest.Eventually(t, "the sink is busy", func() bool { return sink.waiting.Load() == 1 })
	grow(long, 60)
	feedtest.Eventually(t, "the long backlog waits", func() bool { return broker.handed.Load() == 61 })
	grow(short, 1)
	feedtest.Eventually(t, "the short one waits behind it", func() bool { return broker.handed.Load() == 62 })
	sink.mu.Unlock()
	feedtest.Level(t, source, sink.Store)
	if n := behind.Load(); n > 10 {
		t.Errorf("the short one waited for %d blocks of the long one", n)
	}
}

// shy is a source that never says what it holds, but hands it out.
type shy struct{ *feedtest.Store }

func (shy) Catalog(context.Context) (fact.Catalog, error) { return fact.Catalog{}, nil }

// A source that has nothing to give does not keep the others from being asked.
func TestNextSourceIsAsked(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	source, empty, sink, broker := feedtest.NewStore(), feedtest.NewStore(), feedtest.NewStore(), feed.NewMemory(0)
	follow(t, feed.FollowerConfig{
		Topics: topics(o), Broker: broker, Sink: sink,
		Sources: []feed.Peer{peer("empty", "unicom", empty), peer("shy", "unicom", shy{source})},
	})
	source.Grow(o, 1, 20) // never published: a gap
	if err := broker.Publish(context.Background(), []fact.Block{source.Grow(o, 1, 20)}); err != nil {
		t.Fatal(err)
	}
	feedtest.Level(t, source, sink)
}

// counting is a broker that counts the blocks that subscribers have taken.
type counting struct {
	*feed.Memory
	handed atomic.Int32
}

func (c *counting) Subscribe(ctx context.Context, carrier, subsystem string, shard int, fn func([]fact.Block)) (func(), error) {
	return c.Memory.Subscribe(ctx, carrier, subsystem, shard, func(blocks []fact.Block) {
		fn(blocks)
		c.handed.Add(int32(len(blocks)))
	})
}

// gate is a sink that can be held shut.
type gate struct {
	*feedtest.Store
	inner   feed.Sink // nil: the store
	mu      sync.Mutex
	waiting atomic.Int32
	saw     func(fact.Block) // told of each block before it is folded
}

func (g *gate) Fold(ctx context.Context, blocks []fact.Block) error {
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.saw != nil {
		for _, b := range blocks {
			g.saw(b)
		}
	}
	if g.inner != nil {
		return g.inner.Fold(ctx, blocks)
	}
	return g.Store.Fold(ctx, blocks)
}

// While the sink is busy blocks gather, within bounds, and then go over in a
// few large folds.
func TestBlocksGatherWhileTheSinkIsBusy(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	source, broker := feedtest.NewStore(), feed.NewMemory(10_000)
	sink := &gate{Store: feedtest.NewStore()}
	sink.mu.Lock()
	f := follow(t, feed.FollowerConfig{Topics: topics(o), Broker: broker, Sink: sink, Sources: []feed.Peer{peer("a", "unicom", source)}})
	for range 500 {
		b := source.Grow(o, 1, 20)
		if err := broker.Publish(context.Background(), []fact.Block{b}); err != nil {
			t.Fatal(err)
		}
	}
	sink.mu.Unlock()
	feedtest.Level(t, source, sink.Store)
	if n := sink.Folds(); n > 50 {
		t.Errorf("500 blocks took %d folds", n)
	}
	feedtest.Eventually(t, "the status says level", func() bool { return f.Status().Behind() == 0 })
}

// Only the origin's own carrier can say that there is nothing newer.
func TestFreshnessNeedsTheOriginsOwnCarrier(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	store, sink := feedtest.NewStore(), feedtest.NewStore()
	growth(store, o, 1)
	for _, b := range mustBlocks(store, o) {
		sink.Give(b)
	}
	near := follow(t, feed.FollowerConfig{Topics: topics(o), Sink: sink, Sources: []feed.Peer{peer("near", "mobile", store)}})
	home := follow(t, feed.FollowerConfig{Topics: topics(o), Sink: sink, Sources: []feed.Peer{peer("home", "unicom", store)}})
	feedtest.Eventually(t, "the home carrier confirms", func() bool { return !home.Status().Of(o).AsOf().IsZero() })
	feedtest.Eventually(t, "the near carrier was asked", func() bool { return near.Status().Of(o).Known > 0 })
	if as := near.Status().Of(o).AsOf(); !as.IsZero() {
		t.Errorf("a source of another carrier confirmed freshness at %v", as)
	}
}

// A replica that lags tells old marks in good faith: its word reaches no
// further than it vouches, and what was acknowledged elsewhere since is never
// claimed.
func TestFreshnessNeedsAVouch(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	for name, age := range map[string]time.Duration{"knows nothing of now": -1, "knew an hour ago": time.Hour} {
		t.Run(name, func(t *testing.T) {
			lagging, sink := feedtest.NewStore(), feedtest.NewStore()
			lagging.Vouches = age
			var asked atomic.Int64
			lagging.Fail = func(call string) bool {
				if call == "catalog" {
					asked.Add(1)
				}
				return false
			}
			sink.Give(lagging.Grow(o, 1, 20))
			acked := time.Now() // another replica has acknowledged a fact that neither of the two holds
			f := follow(t, feed.FollowerConfig{Topics: topics(o), Sink: sink, Sources: []feed.Peer{peer("lagging", "unicom", lagging)}})
			lagging.Grow(o, 1, 20)
			feedtest.Level(t, lagging, sink)
			before := asked.Load()
			// It is asked again only when its last word has been taken in.
			feedtest.Eventually(t, "its word was heard since", func() bool { return asked.Load() >= before+2 })
			l := f.Status().Of(o)
			if l.Confirmed.After(acked) || l.Confirmed.IsZero() != (age < 0) {
				t.Errorf("confirmed as of %v, and lacks what was acknowledged at %v", l.Confirmed, acked)
			}
		})
	}
}

func TestCloseInterruptsEverything(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	stuck, broker := new(hung), feed.NewMemory(0)
	reg := prometheus.NewRegistry()
	f := follow(t, feed.FollowerConfig{
		Topics: topics(o), Broker: broker, Sink: feedtest.NewStore(), CallTimeout: time.Hour, Metrics: reg, Name: "ledger/0",
		Sources: []feed.Peer{peer("stuck", "unicom", stuck)},
	})
	feedtest.Eventually(t, "the source is asked", func() bool { return stuck.asked.Load() > 0 })
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
	f.Close()
	f.Close()
	if got, _ := reg.Gather(); len(got) != 0 {
		t.Error("metrics outlive the follower")
	}
}

func TestConfigsSayWhatIsMissing(t *testing.T) {
	if _, err := feed.OpenFollower(feed.FollowerConfig{}); err == nil {
		t.Error("a follower of nothing opened")
	}
	if _, err := feed.OpenPublisher(feed.PublisherConfig{}); err == nil {
		t.Error("a publisher of nothing opened")
	}
}
