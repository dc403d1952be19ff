package broker_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"qianma/cluster/broker"
	"qianma/cluster/feed/feedtest"
	"qianma/cluster/leaktest"
	"qianma/cluster/topology/topologytest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// host is a NATS server in this process that can be stopped, started again on
// the same port, and made to lose its store.
type host struct {
	t    *testing.T
	dir  string
	port int
	s    *server.Server
}

func newHost(t *testing.T) *host {
	at, err := net.ResolveTCPAddr("tcp", topologytest.Addrs(t, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: feedtest.Dir(t), port: at.Port}
	h.start()
	t.Cleanup(func() { h.stop() })
	return h
}

func (h *host) start() {
	h.t.Helper()
	s, err := server.NewServer(&server.Options{
		ServerName: "host", Host: "127.0.0.1", Port: h.port, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: h.dir, JetStreamDomain: "unicom", SyncAlways: true, MaxPayload: 2 << 20,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		h.t.Fatal("the server never became ready")
	}
	h.s = s
}

func (h *host) stop() {
	h.s.Shutdown()
	h.s.WaitForShutdown()
}

// wipe loses the store as a replaced disk would: the server comes back empty.
func (h *host) wipe() {
	h.stop()
	feedtest.Remove(h.t, h.dir)
	h.start()
}

func (h *host) connect(t *testing.T, change func(*broker.Config)) *broker.JetStream {
	t.Helper()
	cfg := broker.Config{Name: "test", Carrier: "unicom", URLs: []string{h.s.ClientURL()}}
	if change != nil {
		change(&cfg)
	}
	j, err := broker.Connect(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	feedtest.Eventually(t, "connected", j.Connected)
	return j
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestJetStreamPassesTheSuite(t *testing.T) {
	feedtest.RunBroker(t, func(t *testing.T) feedtest.Harness {
		h := newHost(t)
		j := h.connect(t, nil)
		if _, err := j.Ensure(bounded(t), true); err != nil {
			t.Fatal(err)
		}
		return feedtest.Harness{Publisher: j, Follower: j, Carrier: "unicom", Stop: h.stop, Start: h.start, Wipe: h.wipe}
	})
}
