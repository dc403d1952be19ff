package feed_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"qianma/cluster/fact"
	"qianma/cluster/feed"
	"qianma/cluster/feed/feedtest"
)

func publisher(t *testing.T, c feed.PublisherConfig) *feed.Publisher {
	t.Helper()
	c.RetryMin, c.RetryMax = time.Millisecond, 5*time.Millisecond
	p, err := feed.OpenPublisher(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func last(t *testing.T, b feed.Broker, o fact.Origin) uint64 {
	t.Helper()
	n, err := b.Last(context.Background(), o)
	if err != nil {
		return 0
	}
	return n
}

func TestPublisherFollowsLeadership(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	store, broker := feedtest.NewStore(), feed.NewMemory(0)
	reg := prometheus.NewRegistry()
	p := publisher(t, feed.PublisherConfig{Outbox: store, Broker: broker, Metrics: reg, Name: "ledger/0"})
	growth(store, o, 5)
	store.Lead(o, true)
	feedtest.Eventually(t, "the leader's blocks are published", func() bool { return last(t, broker, o) == 10 })
	store.Lead(o, false)
	feedtest.Eventually(t, "it rests", func() bool { return !p.Status().Leading })
	growth(store, o, 5)
	reborn := o
	reborn.Incarnation++
	growth(store, reborn, 1)
	store.Lead(reborn, true)
	feedtest.Eventually(t, "the new incarnation is published", func() bool { return last(t, broker, reborn) == 2 })
	if n := last(t, broker, o); n != 0 {
		t.Errorf("facts that were not its own were published up to %d", n)
	}
	again := reborn
	again.Incarnation++
	growth(store, again, 1)
	store.Lead(again, true) // with no rest between
	feedtest.Eventually(t, "the next incarnation is published from its start", func() bool { return last(t, broker, again) == 2 })
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
}

// A broker that lost much is not filled with history.
func TestPublisherLeavesHistoryToPulling(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	store, broker := feedtest.NewStore(), feed.NewMemory(0)
	growth(store, o, 100)
	p := publisher(t, feed.PublisherConfig{Outbox: store, Broker: broker, BacklogFacts: 50})
	store.Lead(o, true)
	feedtest.Eventually(t, "history is skipped", func() bool { return p.Status().Skipped == 200 })
	growth(store, o, 1)
	feedtest.Eventually(t, "news is published", func() bool { return last(t, broker, o) == 202 })
	if n := p.Status().Facts; n != 2 {
		t.Errorf("published %d facts", n)
	}
}

func TestPublisherOutlivesTheBroker(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	store, broker := feedtest.NewStore(), feed.NewMemory(0)
	p := publisher(t, feed.PublisherConfig{Outbox: store, Broker: broker})
	store.Lead(o, true)
	broker.Stop()
	growth(store, o, 5)
	feedtest.Eventually(t, "the fault shows", func() bool { return p.Status().Fault != "" })
	broker.Start()
	feedtest.Eventually(t, "it goes on", func() bool { return last(t, broker, o) == 10 && p.Status().Fault == "" })
	p.Close()
	p.Close()
}

// After an absence the publisher asks the broker anew where it stands, and
// leaves a long absence to pulling.
func TestPublisherAsksAgainAfterAnAbsence(t *testing.T) {
	o := feedtest.Origin("unicom", 0, 1)
	store, broker := feedtest.NewStore(), feed.NewMemory(0)
	p := publisher(t, feed.PublisherConfig{Outbox: store, Broker: broker, BacklogFacts: 50})
	store.Lead(o, true)
	growth(store, o, 1)
	feedtest.Eventually(t, "published before", func() bool { return last(t, broker, o) == 2 })
	broker.Stop()
	growth(store, o, 1)
	feedtest.Eventually(t, "the fault shows", func() bool { return p.Status().Fault != "" })
	growth(store, o, 100)
	broker.Start()
	feedtest.Eventually(t, "the absence is skipped", func() bool { return p.Status().Skipped == 202 })
}
