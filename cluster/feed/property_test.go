package feed_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"qianma/cluster/fact"
	"qianma/cluster/feed"
	"qianma/cluster/feed/feedtest"
)

// Goal: whatever the road does, the sink ends with exactly the source's
// blocks, each folded once and in order per origin. Method: a seeded world of
// several origins, a broker that drops, repeats and reorders, sources that
// fail and lag, a sink that fails half-way, and a story of growth, broker
// deaths, wiped stores and changes of leader. The sink itself checks every
// fold.
func TestAnyRoadLeadsToTheSourcesMarks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt, rapid.Uint64().Draw(rt, "seed"))
		defer w.close()
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			w.step(rapid.SampledFrom([]string{"grow", "grow", "grow", "elsewhere", "stop", "start", "wipe", "lead", "reborn", "level", "restore"}).Draw(rt, "step"))
		}
		w.settle(rt)
	})
}

// world is one run: carrier unicom writes, carrier mobile follows.
type world struct {
	origin  fact.Origin
	truth   *feedtest.Store // the leader's
	lagging *feedtest.Store // a replica that holds a prefix
	sink    *feedtest.Store
	broker  *feed.Memory
	pub     *feed.Publisher
	fol     *feed.Follower
	healed  bool // the sink was restored once: it may then see a block out of place

	mu    sync.Mutex
	rng   *rand.Rand
	kind  bool // no more injected failures
	lossy float64
}

func newWorld(rt *rapid.T, seed uint64) *world {
	w := &world{
		origin: feedtest.Origin("unicom", 0, 1), truth: feedtest.NewStore(), lagging: feedtest.NewStore(), sink: feedtest.NewStore(),
		broker: feed.NewMemory(rapid.IntRange(4, 200).Draw(rt, "broker keeps")),
		rng:    rand.New(rand.NewPCG(seed, 2)), lossy: rapid.Float64Range(0, 0.3).Draw(rt, "failures"),
	}
	w.truth.Fail, w.lagging.Fail, w.sink.Fail = w.fail, w.fail, w.fail
	bad := rapid.Float64Range(0, 0.5)
	road := feedtest.NewUnruly(w.broker, seed, bad.Draw(rt, "drop"), bad.Draw(rt, "repeat"), bad.Draw(rt, "swap"))
	var err error
	w.pub, err = feed.OpenPublisher(feed.PublisherConfig{
		Outbox: w.truth, Broker: w.broker, RetryMin: time.Millisecond, RetryMax: 5 * time.Millisecond,
		BatchBytes: rapid.IntRange(1, 4000).Draw(rt, "batch"), BacklogFacts: 60,
	})
	if err != nil {
		rt.Fatal(err)
	}
	w.fol, err = feed.OpenFollower(feed.FollowerConfig{
		Topics: []feed.Topic{feed.TopicOf(w.origin)}, Broker: road, Sink: w.sink,
		Want: func(o fact.Origin) bool { return o.Carrier == "unicom" || o.Carrier == "mobile" },
		Sources: []feed.Peer{
			{Name: "near", Carrier: "mobile", Source: w.lagging},
			{Name: "leader", Carrier: "unicom", Source: w.truth},
		},
		WatchInterval: 4 * time.Millisecond, PollInterval: 2 * time.Millisecond, GapDelay: time.Millisecond,
		StallDelay: 2 * time.Millisecond, RetryMin: time.Millisecond, RetryMax: 4 * time.Millisecond, BarDelay: 20 * time.Millisecond,
		FoldBytes:   rapid.IntRange(1, 5000).Draw(rt, "fold"),
		PullBytes:   rapid.IntRange(1, 5000).Draw(rt, "pull"),
		BufferBytes: rapid.IntRange(300, 9000).Draw(rt, "buffer"),
	})
	if err != nil {
		rt.Fatal(err)
	}
	w.truth.Lead(w.origin, true)
	return w
}

func (w *world) fail(string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.kind && w.rng.Float64() < w.lossy
}

func (w *world) pick(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

func (w *world) step(name string) {
	switch name {
	case "grow":
		for range 1 + w.pick(30) {
			b := w.truth.Grow(w.origin, uint32(1+w.pick(4)), 8+w.pick(60))
			if w.lagging.Marks()[w.origin].Seq+1 == b.First && w.pick(3) > 0 {
				w.lagging.Give(b)
			}
		}
	case "elsewhere": // an origin that never travels by the broker
		w.truth.Grow(feedtest.Origin("mobile", 0, 3), 2, 20)
	case "stop":
		w.broker.Stop()
	case "start":
		w.broker.Start()
	case "wipe":
		w.broker.Wipe()
	case "lead":
		w.truth.Lead(w.origin, w.pick(2) == 0)
	case "reborn":
		w.origin.Incarnation++
		w.truth.Lead(w.origin, true)
	case "level":
		w.await(15*time.Second, func() bool { return maps.Equal(w.truth.Marks(), w.sink.Marks()) })
	case "restore": // the sink wakes up with an older state
		w.healed = true
		if n := len(mustBlocks(w.sink, w.origin)); n > 0 {
			w.sink.Forget(w.origin, w.pick(n))
		}
	}
}

func mustBlocks(s *feedtest.Store, o fact.Origin) []fact.Block {
	blocks, _ := s.Blocks(o, 0, 1<<30)
	return blocks
}

// await waits for a fact and reports whether it came true.
func (w *world) await(most time.Duration, cond func() bool) bool {
	for deadline := time.Now().Add(most); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func (w *world) settle(rt *rapid.T) {
	w.mu.Lock()
	w.kind = true
	w.mu.Unlock()
	if !w.await(3*time.Minute, func() bool { return maps.Equal(w.truth.Marks(), w.sink.Marks()) }) {
		rt.Fatalf("never level: source %v sink %v status %+v", w.truth.Marks(), w.sink.Marks(), w.fol.Status())
	}
	for o := range w.truth.Marks() {
		same := slices.EqualFunc(mustBlocks(w.truth, o), mustBlocks(w.sink, o), func(a, b fact.Block) bool { return a.Sum() == b.Sum() })
		if !same {
			rt.Fatalf("%s: blocks differ though marks agree", o)
		}
	}
	if faults := w.sink.Faults(); len(faults) > 0 && !w.healed {
		rt.Fatalf("the follower broke its promise: %v", faults)
	}
	if n := w.fol.Status().Divergences; n != 0 {
		rt.Fatalf("%d divergences reported where there are none", n)
	}
}

func (w *world) close() {
	w.pub.Close()
	w.fol.Close()
}
