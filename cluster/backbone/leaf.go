package backbone

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"qianma/cluster/broker"
	"qianma/cluster/topology"
)

// The leaf link between two carriers has been seen to hang for hours with
// both ends believing in it. So a heartbeat travels the whole road that facts
// travel (a publish into OUT, the link, the source, the other's IN), and what
// is judged is its arrival, not what the server says of its connections.
//
// When heartbeats stop the watchdog first finds out where the road is cut.
// A line that is down needs no remedy: the server dials on by itself. What is
// left gets one remedy at a time, each with time to work: kick the link's
// connections, make the IN stream anew, restart the server.

// remedy is one step of the watchdog.
type remedy string

const (
	noRemedy      remedy = ""
	kickLink      remedy = "kick the leaf connections"
	remakeStream  remedy = "make the sourced stream anew"
	restartServer remedy = "restart the NATS server"
)

// sight is what the watchdog sees of one link at one moment.
type sight struct {
	quiet     time.Duration // since the last heartbeat from there
	solicits  bool          // we dial; else it dials us
	reachable bool          // its leaf listener greets us; on the side that is dialled: a connection stands
	connected bool          // a leaf connection stands
	answers   bool          // its JetStream answers through the link
}

// link is the watchdog's memory of one other carrier.
type link struct {
	other string

	mu    sync.Mutex
	seq   uint64    // place of the newest heartbeat heard
	beat  time.Time // when it was heard
	down  time.Time // when the line was last seen down
	acted time.Time
	tries int
	sight sight
	done  map[remedy]int
}

func newLink(other string, now time.Time) *link {
	return &link{other: other, beat: now, done: map[remedy]int{}}
}

// heard notes the place of the newest heartbeat; one that has not moved is no
// news.
func (k *link) heard(seq uint64, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if seq != 0 && seq != k.seq {
		k.seq, k.beat, k.tries = seq, now, 0
	}
}

func (k *link) quiet(now time.Time) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return now.Sub(k.beat)
}

// judge picks the remedy for what is seen, at most one per actAfter and each
// time after a longer wait: a remedy that did not help must not become the
// next outage.
func (k *link) judge(s sight, now time.Time, quietMax, actAfter time.Duration) remedy {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sight = s
	if !s.reachable {
		k.down = now
	}
	if s.quiet < quietMax || now.Sub(k.acted) < actAfter<<min(k.tries, 5) {
		return noRemedy
	}
	r := k.pick(s, now.Sub(k.down) < actAfter)
	if r != noRemedy {
		k.acted = now
		k.tries++
		k.done[r]++
	}
	return r
}

// pick goes from the mildest remedy to the strongest. Only the side that dials
// restarts its server: the other cannot know whether it is to blame. A line that
// has just come back is for the server to dial.
func (k *link) pick(s sight, back bool) remedy {
	switch {
	case !s.reachable:
		return noRemedy // the line or the other side is down
	case !s.connected && back:
		return noRemedy
	case !s.connected:
		return restartServer // it should have dialled long ago
	case s.answers && k.tries%2 == 0:
		return remakeStream // the link works, the sourcing does not
	case k.tries == 0 || !s.solicits:
		return kickLink
	}
	return restartServer
}

func (k *link) report() (s sight, done map[remedy]int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	done = map[remedy]int{}
	for r, n := range k.done {
		done[r] = n
	}
	return k.sight, done
}

// look inspects the link. Only called while it is quiet.
func (b *Backbone) look(ctx context.Context, k *link, now time.Time) sight {
	s := sight{quiet: k.quiet(now), connected: len(b.leafIDs(k.other)) > 0, solicits: b.layout.solicits(k.other)}
	if s.reachable = s.connected; s.solicits {
		s.reachable = b.greets(ctx, k.other)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s.answers = b.broker.OtherAnswers(ctx, k.other) == nil
	return s
}

// greets says whether a leaf listener of the other carrier speaks first, as
// they do. A port that merely opens may be a line that swallows everything.
func (b *Backbone) greets(ctx context.Context, other string) bool {
	for _, p := range b.layout.others[other] {
		if addr := b.cfg.leafOf(p); addr != "" && greeted(ctx, addr) {
			return true
		}
	}
	return false
}

func greeted(ctx context.Context, addr string) bool {
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	_, err = c.Read(make([]byte, 1))
	return err == nil
}

// leafIDs are the leaf connections to another carrier's backbones.
func (b *Backbone) leafIDs(other string) []uint64 {
	s := b.nats.server()
	if s == nil {
		return nil
	}
	z, err := s.Leafz(&server.LeafzOptions{})
	if err != nil {
		return nil
	}
	var ids []uint64
	for _, l := range z.Leafs {
		if slices.ContainsFunc(b.layout.others[other], func(p topology.Process) bool { return p.Name == l.Name }) {
			ids = append(ids, l.ID)
		}
	}
	return ids
}

// treat carries out a remedy.
func (b *Backbone) treat(ctx context.Context, k *link, r remedy) error {
	b.log.Warn("the link to the other carrier is stale", "other", k.other, "remedy", string(r))
	switch r {
	case kickLink:
		var faults []error
		for _, id := range b.leafIDs(k.other) {
			faults = append(faults, b.nats.server().DisconnectClientByID(id))
		}
		return errors.Join(faults...)
	case remakeStream:
		return b.broker.Remake(ctx, broker.In(k.other))
	case restartServer:
		return b.nats.restart(b.nats.server(), "the leaf link is stale", false)
	}
	return nil
}
