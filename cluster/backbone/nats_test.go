package backbone

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"qianma/cluster/feed/feedtest"
	"qianma/cluster/topology/topologytest"
)

// TestOneFaultOneRestart: keepers that find fault with one server at the same
// time replace it once. Two at it together would empty the directory under the
// server that the other has just started.
func TestOneFaultOneRestart(t *testing.T) {
	dir := feedtest.Dir(t)
	var faults []error
	host, port := split(topologytest.Addrs(t, 1)[0], &faults)
	h := &natsHost{dir: dir, log: slog.New(slog.DiscardHandler), ready: time.Minute, opts: func() (*server.Options, error) {
		return &server.Options{ServerName: "one", Host: host, Port: port, NoLog: true, NoSigs: true, JetStream: true, StoreDir: dir}, nil
	}}
	if err := h.start(); err != nil || len(faults) > 0 {
		t.Fatal(err, faults)
	}
	defer h.stop()
	old := h.server()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if err := h.restart(old, "a test", i%2 == 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s := h.server(); h.restarts != 1 || s == nil || s == old || !s.Running() {
		t.Errorf("%d restarts, the server is %v", h.restarts, s)
	}
}
