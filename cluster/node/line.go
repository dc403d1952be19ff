package node

import (
	"context"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"qianma/cluster/broker"
	"qianma/cluster/fact"
	"qianma/cluster/feed"
	"qianma/cluster/replica"
)

// Gather is how long facts may collect at each step on their way to the other
// carrier and to the middle stores. Each step adds it once at most to the time
// until a fact is visible, and under load it saves most of the cost of moving
// one.
const Gather = 100 * time.Millisecond

// line moves the facts of one shard: out to the broker while this node leads
// the shard, in from the other carriers while it does, and word back of how
// far it has got.
type line struct {
	node      *Node
	shard     int
	topic     string
	publisher *feed.Publisher
	open      func() (*feed.Follower, error) // follow, or what a test puts in its place
	follower  atomic.Pointer[feed.Follower]  // nil while this node does not lead
}

func (n *Node) openLine(shard int) (*line, error) {
	l := &line{node: n, shard: shard, topic: fmt.Sprintf("%s/%d", n.Config.Subsystem, shard)}
	l.open = l.follow
	if n.Broker != nil {
		var err error
		if l.publisher, err = feed.OpenPublisher(feed.PublisherConfig{
			Outbox: outbox{n.Replica, shard}, Broker: n.Broker,
			Clock: n.Clock, Logger: n.Log, Metrics: n.Web.Metrics(), Name: l.topic, Gather: Gather,
		}); err != nil {
			return nil, err
		}
	}
	n.wg.Go(l.lead)
	// Only where no backbone of ours does it, and one line of each subsystem is
	// plenty.
	if n.road != nil && shard == 0 && len(n.Topology.Select(n.Config.Carrier, "backbone")) == 0 {
		n.wg.Go(l.tend)
	}
	for _, carrier := range n.Topology.Others(n.Config.Carrier) {
		for _, p := range n.Topology.Select(carrier, n.Config.Subsystem) {
			n.wg.Go(func() { l.report(p.Name, p.Carrier) })
		}
	}
	return l, nil
}

func (l *line) close() error {
	if l.publisher == nil {
		return nil
	}
	return l.publisher.Close()
}

// A follower that cannot be opened is tried again after a pause that doubles,
// whatever else happens: nothing may ever be committed here until it runs.
const (
	followRetryMin = 100 * time.Millisecond
	followRetryMax = 10 * time.Second
)

// lead runs a follower of the other carriers while this node leads the shard,
// because only a leader can take facts in.
func (l *line) lead() {
	defer l.rest()
	wait := followRetryMin
	for {
		changed := l.node.Replica.Changed(l.shard)
		_, leads := l.node.Replica.Leader(l.shard)
		var again <-chan time.Time
		switch {
		case !leads:
			l.rest()
			wait = followRetryMin
		case l.follower.Load() == nil:
			f, err := l.open()
			l.follower.Store(f)
			if err != nil {
				l.log("follower", err)
				again, changed = l.node.Clock.After(wait), nil
				wait = min(2*wait, followRetryMax)
			}
		}
		select {
		case <-changed:
		case <-again:
		case <-l.node.stop:
			return
		}
	}
}

// tendEvery is between two looks at the road.
const tendEvery = 5 * time.Second

// tend keeps the road from the other carriers open while this node leads.
func (l *line) tend() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l.node.wg.Go(func() { <-l.node.stop; cancel() })
	var k *broker.Keeper
	for {
		switch _, leads := l.node.Replica.Leader(l.shard); {
		case !leads:
			k = nil
		case k == nil:
			k = l.node.road.Keeper(broker.KeeperConfig{})
		}
		if k != nil {
			if err := k.Keep(ctx); err != nil {
				l.node.Log.Debug("tending the road", "error", err)
			}
		}
		select {
		case <-l.node.Clock.After(tendEvery):
		case <-l.node.stop:
			return
		}
	}
}

// rest ends the follower, if one runs.
func (l *line) rest() {
	if f := l.follower.Swap(nil); f != nil {
		l.log("follower", f.Close())
	}
}

func (l *line) log(part string, err error) {
	if err != nil {
		l.node.Log.Warn("moving facts", "line", l.topic, "part", part, "error", err)
	}
}

// follow takes in the facts of every other origin of this shard, this
// carrier's own former incarnations among them.
func (l *line) follow() (*feed.Follower, error) {
	n := l.node
	others := n.Topology.Others(n.Config.Carrier)
	if len(others) == 0 {
		return nil, nil
	}
	cfg := feed.FollowerConfig{
		Name: l.topic, Broker: n.Broker, Sink: ingest{n.Replica, l.shard}, Want: l.foreign,
		Clock: n.Clock, Logger: n.Log, Metrics: n.Web.Metrics(), Gather: Gather,
	}
	for _, carrier := range others {
		cfg.Topics = append(cfg.Topics, feed.Topic{Carrier: carrier, Subsystem: n.Config.Subsystem, Shard: l.shard})
		cfg.Sources = append(cfg.Sources, n.Sources(carrier, n.Config.Subsystem, l.shard)...)
	}
	// A reader of this carrier may have asked a carrier that burned for facts a
	// moment before we would have (feed.Tail).
	cfg.Sources = append(cfg.Sources, n.Sources(n.Config.Carrier, reader, l.shard)...)
	return feed.OpenFollower(cfg)
}

// reader is how the topology calls those that follow facts of others and serve
// the tail of what they took (replica.ServeSource).
const reader = "middlestore"

// foreign picks what this shard takes in: every origin of the same subsystem
// and shard but the one this group itself is writing.
func (l *line) foreign(o fact.Origin) bool {
	own, known := l.node.Replica.Own(l.shard)
	return known && o != own && o.Subsystem == l.node.Config.Subsystem && int(o.Shard) == l.shard
}

// Sources are the processes of a subsystem at a carrier as places to pull one
// shard's facts from.
func (b *Base) Sources(carrier, subsystem string, shard int) []feed.Peer {
	var out []feed.Peer
	for _, p := range b.Topology.Select(carrier, subsystem) {
		out = append(out, feed.Peer{Name: p.Name, Carrier: p.Carrier, Source: replica.Remote{Calls: b.Calls, Process: p.Name, Shard: shard}})
	}
	return out
}

// outbox shows one shard to its publisher.
type outbox struct {
	r     *replica.Replica
	shard int
}

func (o outbox) Own() (fact.Origin, bool) {
	if _, leads := o.r.Leader(o.shard); !leads {
		return fact.Origin{}, false
	}
	return o.r.Own(o.shard)
}

func (o outbox) Marks() map[fact.Origin]fact.Mark { return maps.Clone(o.r.Marks(o.shard)) }

func (o outbox) Blocks(origin fact.Origin, after uint64, maxBytes int) ([]fact.Block, error) {
	return o.r.Blocks(o.shard, origin, after, maxBytes)
}

func (o outbox) Changed() <-chan struct{} { return o.r.Changed(o.shard) }

// ingest is where one shard takes in the facts of others.
type ingest struct {
	r     *replica.Replica
	shard int
}

func (i ingest) Marks() map[fact.Origin]fact.Mark { return maps.Clone(i.r.Marks(i.shard)) }

func (i ingest) Fold(ctx context.Context, blocks []fact.Block) error {
	return i.r.Ingest(ctx, i.shard, blocks)
}

// The pace of telling other carriers how far we hold their facts. The first is
// the price of `replicated` in time, the second repairs a word that was lost.
const (
	reportPace   = 20 * time.Millisecond
	reportRepeat = time.Second
	reportLimit  = 2 * time.Second
)

// report tells one replica at another carrier how far this shard holds that
// carrier's facts, while this node leads it. Each replica there has a reporter
// of its own: any of them may hold a caller who waits for `replicated`, and one
// that is paused must not hold up the word to the others.
func (l *line) report(peer, carrier string) {
	told := map[fact.Origin]fact.Mark{}
	var last time.Time
	for {
		changed := l.node.Replica.Changed(l.shard)
		var repeat <-chan time.Time
		if _, leads := l.node.Replica.Leader(l.shard); leads {
			now := l.node.Clock.Now()
			marks := l.marksOf(carrier)
			if !maps.Equal(marks, told) || now.Sub(last) >= reportRepeat {
				l.tell(peer, marks)
				told, last = marks, now
			}
			repeat = l.node.Clock.After(reportRepeat)
		}
		if !l.pause(changed, repeat) {
			return
		}
	}
}

func (l *line) marksOf(carrier string) map[fact.Origin]fact.Mark {
	marks := maps.Clone(l.node.Replica.Marks(l.shard))
	maps.DeleteFunc(marks, func(o fact.Origin, _ fact.Mark) bool { return o.Carrier != carrier })
	return marks
}

// tell sends the word. One that is lost is said again: within a second, or at
// the next change.
func (l *line) tell(peer string, marks map[fact.Origin]fact.Mark) {
	ctx, cancel := context.WithTimeout(context.Background(), reportLimit)
	defer cancel()
	if _, err := l.node.Calls.Call(ctx, peer, methodMarks, encodeMarks(l.shard, marks)); err != nil {
		l.node.Log.Debug("a carrier was not told how far we hold its facts", "peer", peer, "error", err)
	}
}

// pause waits for a change or the time of a repeat, at least a pace; false when
// the node closes.
func (l *line) pause(changed <-chan struct{}, repeat <-chan time.Time) bool {
	select {
	case <-l.node.Clock.After(reportPace):
	case <-l.node.stop:
		return false
	}
	select {
	case <-changed:
	case <-repeat: // nil while another node leads: a change says that we do
	case <-l.node.stop:
		return false
	}
	return true
}
