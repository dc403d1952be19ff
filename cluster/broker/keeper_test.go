package broker_test

import (
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"qianma/cluster/broker"
	"qianma/cluster/feed/feedtest"
	"qianma/cluster/topology/topologytest"
)

// pair is two carriers' servers, joined by a leaf link.
func pair(t *testing.T) (unicom, mobile *broker.JetStream, raw jetstream.JetStream) {
	t.Helper()
	run := func(carrier string, change func(*server.Options)) *server.Server {
		opts := &server.Options{
			ServerName: carrier, Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
			JetStream: true, StoreDir: feedtest.Dir(t), JetStreamDomain: carrier,
		}
		change(opts)
		s, err := server.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		if !s.ReadyForConnections(time.Minute) {
			t.Fatal("the server never became ready")
		}
		return s
	}
	at, err := url.Parse("nats-leaf://" + topologytest.Addrs(t, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(at.Port())
	if err != nil {
		t.Fatal(err)
	}
	hub := run("unicom", func(o *server.Options) { o.LeafNode.Host, o.LeafNode.Port = at.Hostname(), port })
	leaf := run("mobile", func(o *server.Options) {
		o.LeafNode.Remotes = []*server.RemoteLeafOpts{{URLs: []*url.URL{at}}}
	})
	connect := func(s *server.Server, carrier, other string) *broker.JetStream {
		j, err := broker.Connect(broker.Config{Name: "test", Carrier: carrier, Others: []string{other}, URLs: []string{s.ClientURL()}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { j.Close() })
		return j
	}
	conn, err := nats.Connect(hub.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if raw, err = jetstream.New(conn); err != nil {
		t.Fatal(err)
	}
	return connect(hub, "unicom", "mobile"), connect(leaf, "mobile", "unicom"), raw
}

// TestKeeperMakesASilentStreamAnew: a stream that no longer takes in what the
// other carrier publishes is made anew, one that was just made is left alone,
// and so is one that works.
func TestKeeperMakesASilentStreamAnew(t *testing.T) {
	unicom, mobile, raw := pair(t)
	there := mobile.Keeper(broker.KeeperConfig{})
	arrives := func() bool {
		if err := there.Keep(bounded(t)); err != nil {
			return false
		}
		seq, err := unicom.BeatOf(bounded(t), "mobile")
		return err == nil && seq > 0
	}
	made := func() (at time.Time) {
		feedtest.Eventually(t, "there is a stream", func() bool {
			s, err := raw.Stream(bounded(t), broker.In("mobile"))
			if err == nil {
				at = s.CachedInfo().Created
			}
			return err == nil
		})
		return at
	}
	// keep has a keeper look, once it can.
	keep := func(k *broker.Keeper) {
		feedtest.Eventually(t, "it is looked after", func() bool { return k.Keep(bounded(t)) == nil })
	}
	// Whoever keeps makes what is missing.
	if err := unicom.Keeper(broker.KeeperConfig{}).Keep(bounded(t)); err == nil {
		t.Log("the streams were there at once")
	}
	feedtest.Eventually(t, "beats arrive", arrives)

	// A stream without its source holds nothing new, as one that is stalled.
	if err := raw.DeleteStream(bounded(t), broker.In("mobile")); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.CreateStream(bounded(t), jetstream.StreamConfig{Name: broker.In("mobile")}); err != nil {
		t.Fatal(err)
	}
	deaf := made()
	patient := unicom.Keeper(broker.KeeperConfig{QuietMax: time.Nanosecond, ActAfter: time.Hour})
	if keep(patient); !made().Equal(deaf) {
		t.Error("a stream that was just made was made anew")
	}
	here := unicom.Keeper(broker.KeeperConfig{QuietMax: 200 * time.Millisecond, ActAfter: 200 * time.Millisecond})
	feedtest.Eventually(t, "the stream is made anew", func() bool { _ = here.Keep(bounded(t)); return made().After(deaf) })
	feedtest.Eventually(t, "beats arrive again", arrives)

	works := made()
	calm := unicom.Keeper(broker.KeeperConfig{QuietMax: time.Hour, ActAfter: time.Nanosecond})
	if keep(calm); !made().Equal(works) {
		t.Error("a stream that works was made anew")
	}
}
