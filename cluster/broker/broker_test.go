package broker_test

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"qianma/cluster/broker"
	"qianma/cluster/feed/feedtest"
	"qianma/cluster/leaktest"
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
	h := &host{t: t, dir: t.TempDir(), port: server.RANDOM_PORT}
	h.start()
	h.port = h.s.Addr().(*net.TCPAddr).Port
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
	if !s.ReadyForConnections(10 * time.Second) {
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
	if err := os.RemoveAll(h.dir); err != nil {
		h.t.Fatal(err)
	}
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
	return j
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
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
