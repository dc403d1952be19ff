package feed_test

import (
	"testing"

	"qianma/cluster/feed"
	"qianma/cluster/feed/feedtest"
	"qianma/cluster/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestMemoryPassesTheSuite(t *testing.T) {
	feedtest.RunBroker(t, func(*testing.T) feedtest.Harness {
		m := feed.NewMemory(0)
		return feedtest.Harness{Publisher: m, Follower: m, Carrier: "unicom", Stop: m.Stop, Start: m.Start, Wipe: m.Wipe}
	})
}
