package node

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"qianma/cluster/clock"
	"qianma/cluster/topology"
)

// methodClock tells what a process's machine shows for the time.
const methodClock = "node.Clock"

var errClock = errors.New("node: malformed time")

// The paces of comparing clocks, quick until the first comparison, and the
// longest way to an answer that still says something: half of it is the error.
const (
	clockEager = 200 * time.Millisecond
	clockPace  = 2 * time.Second
	clockWay   = 200 * time.Millisecond
	clockPeers = 6 // asked at most
)

// keepTime makes the process's clock the one that it and its peers agree on.
func (b *Base) keepTime(machine clock.Clock) {
	b.common = clock.NewCommon(machine)
	b.Clock = b.common
}

// tellTime lets peers compare, and operators see.
func (b *Base) tellTime() {
	b.RPC.Handle(methodClock, func(context.Context, []byte) ([]byte, error) {
		return binary.BigEndian.AppendUint64(nil, uint64(b.common.Machine().UnixNano())), nil
	})
	b.Web.Metrics().MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "qianma_clock_off_seconds",
		Help: "How far this machine's clock is from those of its peers; 0 while it is close enough. The peers' time is used meanwhile.",
	}, func() float64 { return b.common.Off().Seconds() }))
}

// compareClocks asks the peers for their time until ctx ends.
func (b *Base) compareClocks(ctx context.Context) {
	peers := b.clockPeers()
	if len(peers) < clock.PeersMin {
		return
	}
	pace := clockEager
	for off := time.Duration(0); ctx.Err() == nil; {
		if ahead := b.askTime(ctx, peers); len(ahead) >= clock.PeersMin {
			pace = clockPace
			off = b.noteClock(off, b.common.Hear(ahead))
		}
		select {
		case <-time.After(pace):
		case <-ctx.Done():
		}
	}
}

// noteClock says so when the machine's clock goes wrong or right.
func (b *Base) noteClock(was, off time.Duration) time.Duration {
	switch {
	case off != 0 && was == 0:
		b.Log.Error("this machine's clock is wrong: the time of its peers is used until it is put right", "off", off.Round(time.Millisecond).String())
	case off == 0 && was != 0:
		b.Log.Info("this machine's clock is right again")
	}
	return off
}

// clockPeers are the processes of the same subsystem at every carrier.
func (b *Base) clockPeers() (out []topology.Process) {
	for _, carrier := range append([]string{b.Config.Carrier}, b.Topology.Others(b.Config.Carrier)...) {
		for _, p := range b.Topology.Select(carrier, b.Config.Subsystem) {
			if p.Name != b.Config.Name && len(out) < clockPeers {
				out = append(out, p)
			}
		}
	}
	return out
}

// askTime is how far the clocks of those that answer in time are ahead.
func (b *Base) askTime(ctx context.Context, peers []topology.Process) (ahead []time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, clockWay)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, p := range peers {
		wg.Go(func() {
			d, err := b.askClock(ctx, p.Name)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ahead = append(ahead, d)
		})
	}
	wg.Wait()
	return ahead
}

// askClock compares with one peer, as of the middle of the way there and back.
func (b *Base) askClock(ctx context.Context, peer string) (ahead time.Duration, err error) {
	asked := time.Now()
	raw, err := b.Calls.Call(ctx, peer, methodClock, nil)
	now := b.common.Machine()
	way := time.Since(asked) // last: a process that was stopped on the way has taken too long
	switch {
	case err != nil:
		return 0, err
	case len(raw) != 8:
		return 0, errClock
	case way > clockWay:
		return 0, context.DeadlineExceeded
	}
	told := time.Unix(0, int64(binary.BigEndian.Uint64(raw)))
	return told.Sub(now.Add(-way / 2).Round(0)), nil
}

// Heard is replica.Heard by the common clock.
func (n *Node) Heard(shard int) time.Time {
	return since(n.Clock, n.Replica.Heard(shard))
}

// since is a moment that was read from the machine's clock, by another one:
// the time that has passed is the same for both.
func since(c clock.Clock, at time.Time) time.Time {
	if at.IsZero() {
		return at
	}
	return c.Now().Add(-time.Since(at))
}
