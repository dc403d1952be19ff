package broker_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"qianma/cluster/broker"
	"qianma/cluster/fact"
	"qianma/cluster/feed/feedtest"
)

// heard collects what a subscription brings.
type heard struct {
	mu     sync.Mutex
	blocks []fact.Block
}

func (h *heard) note(blocks []fact.Block) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blocks = append(h.blocks, blocks...)
}

func (h *heard) has(b fact.Block) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.blocks {
		if h.blocks[i].Sum() == b.Sum() {
			return true
		}
	}
	return false
}

func (h *heard) onlyOf(b fact.Block) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !slices.ContainsFunc(h.blocks, func(x fact.Block) bool { return x.Sum() != b.Sum() })
}

func (h *heard) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.blocks)
}

// What the road delivers must be what was sent, and where it was sent.
func TestDamagedAndMisplacedMessagesAreDropped(t *testing.T) {
	h := newHost(t)
	reg := prometheus.NewRegistry()
	j := h.connect(t, func(c *broker.Config) { c.Metrics = reg })
	o := feedtest.Origin("unicom", 0, 1)
	b := feedtest.Next(o, fact.Mark{}, 3, 64)
	if _, err := j.Ensure(bounded(t), true); err != nil {
		t.Fatal(err)
	}
	var ear heard
	stop, err := j.Subscribe(bounded(t), "unicom", "ledger", 0, ear.note)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	raw, err := nats.Connect(h.s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(raw.Close)
	send := func(data []byte, sum string) {
		m := nats.NewMsg("fact.unicom.ledger.0")
		m.Data = data
		if sum != "" {
			m.Header.Set("Qianma-Crc", sum)
		}
		if _, err := raw.RequestMsgWithContext(bounded(t), m); err != nil {
			t.Fatal(err)
		}
	}
	good := b.Append(nil)
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)-1] ^= 1 // still a well-formed block
	elsewhere := feedtest.Next(feedtest.Origin("mobile", 0, 1), fact.Mark{}, 1, 64)
	send(good, "")
	send(flipped, broker.Sum(good))
	send(good[:len(good)-1], broker.Sum(good[:len(good)-1]))
	send(nil, broker.Sum(nil))
	send(elsewhere.Append(nil), broker.Sum(elsewhere.Append(nil)))
	if err := j.Publish(bounded(t), []fact.Block{b}); err != nil {
		t.Fatal(err)
	}
	feedtest.Eventually(t, "the sound message is heard", func() bool { return ear.has(b) })
	again := value(t, reg, "qianma_broker_resubscriptions_total") // each brings everything anew
	if n := ear.len(); !ear.onlyOf(b) || n != 1 && again == 0 {
		t.Errorf("heard %d blocks, want the sound one alone", n)
	}
	if n := value(t, reg, "qianma_broker_damaged_messages_total"); n < 5 || n > 5 && again == 0 {
		t.Errorf("counted %v damaged messages, want 5", n)
	}
}

func value(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue() + f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// A block that no message can hold is left out, and what stands behind it
// still travels.
func TestOversizeBlockIsLeftOut(t *testing.T) {
	h := newHost(t)
	reg := prometheus.NewRegistry()
	j := h.connect(t, func(c *broker.Config) { c.Metrics = reg })
	if _, err := j.Ensure(bounded(t), true); err != nil {
		t.Fatal(err)
	}
	var ear heard
	stop, err := j.Subscribe(bounded(t), "unicom", "ledger", 0, ear.note)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	o := feedtest.Origin("unicom", 0, 1)
	huge := feedtest.Next(o, fact.Mark{}, 1, 3<<20)
	small := feedtest.Next(o, huge.Mark(), 1, 64)
	if err := j.Publish(bounded(t), []fact.Block{huge, small}); err != nil {
		t.Fatal(err)
	}
	feedtest.Eventually(t, "the small block is heard", func() bool { return ear.has(small) })
	if n := value(t, reg, "qianma_broker_oversize_blocks_total"); n != 1 {
		t.Errorf("counted %v oversize blocks", n)
	}
}

// Blocks travel many to a message, and a leader that repeats the start of a
// message with more behind it loses nothing to the server's memory of ids.
func TestBlocksShareMessages(t *testing.T) {
	h := newHost(t)
	reg := prometheus.NewRegistry()
	j := h.connect(t, func(c *broker.Config) { c.Metrics = reg })
	if _, err := j.Ensure(bounded(t), true); err != nil {
		t.Fatal(err)
	}
	o := feedtest.Origin("unicom", 0, 1)
	var blocks []fact.Block
	m := fact.Mark{}
	for range 100 {
		b := feedtest.Next(o, m, 4, 256)
		blocks, m = append(blocks, b), b.Mark()
	}
	if err := j.Publish(bounded(t), blocks[:10]); err != nil {
		t.Fatal(err)
	}
	if err := j.Publish(bounded(t), blocks); err != nil {
		t.Fatal(err)
	}
	if n := value(t, reg, "qianma_broker_published_messages_total"); n != 2 {
		t.Errorf("110 small blocks took %v messages", n)
	}
	if n, err := j.Last(bounded(t), o); err != nil || n != m.Seq {
		t.Errorf("last is %d (%v), want %d", n, err, m.Seq)
	}
}

// Streams that nobody made are made by whoever misses them.
func TestMissingStreamsAreMade(t *testing.T) {
	h := newHost(t)
	j := h.connect(t, func(c *broker.Config) { c.Others = []string{"mobile"} })
	b := feedtest.Next(feedtest.Origin("unicom", 0, 1), fact.Mark{}, 3, 64)
	feedtest.Eventually(t, "published", func() bool { return j.Publish(bounded(t), []fact.Block{b}) == nil })
	streams, err := j.Streams(bounded(t))
	if err != nil || len(streams) != 2 || streams[0].Name != "OUT_unicom" || streams[1].Name != "IN_mobile" || !streams[1].Sourced {
		t.Errorf("streams: %+v (%v)", streams, err)
	}
}

// Limits that were changed in the configuration reach streams that exist.
func TestEnsureMendsLimits(t *testing.T) {
	h := newHost(t)
	old := h.connect(t, func(c *broker.Config) { c.MaxBytes = 1 << 20 })
	if made, err := old.Ensure(bounded(t), true); err != nil || len(made) != 1 {
		t.Fatal(made, err)
	}
	j := h.connect(t, func(c *broker.Config) { c.MaxBytes = 2 << 20 })
	if made, err := j.Ensure(bounded(t), true); err != nil || len(made) != 0 {
		t.Fatal(made, err)
	}
	if got := maxBytes(t, h); got != 2<<20 {
		t.Errorf("the stream is limited to %d bytes", got)
	}
}

func maxBytes(t *testing.T, h *host) int64 {
	t.Helper()
	conn, err := nats.Connect(h.s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(bounded(t), "OUT_unicom")
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config.MaxBytes
}

func TestConnectNeedsNoServer(t *testing.T) {
	j, err := broker.Connect(broker.Config{Carrier: "unicom", URLs: []string{"nats://127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if j.Connected() {
		t.Error("connected to nothing")
	}
	if _, err := j.Subscribe(bounded(t), "unicom", "ledger", 0, func([]fact.Block) {}); err == nil {
		t.Error("subscribed to nothing")
	}
	if err := j.Publish(context.Background(), []fact.Block{feedtest.Next(feedtest.Origin("unicom", 0, 1), fact.Mark{}, 1, 8)}); err == nil {
		t.Error("published to nothing")
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	for name, cfg := range map[string]broker.Config{
		"no server":     {Carrier: "unicom"},
		"a dot in name": {Carrier: "uni.com", URLs: []string{"nats://127.0.0.1:1"}},
		"no carrier":    {URLs: []string{"nats://127.0.0.1:1"}},
	} {
		if _, err := broker.Connect(cfg); err == nil {
			t.Errorf("%s: connected", name)
		}
	}
}
