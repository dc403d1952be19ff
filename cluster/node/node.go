package node

import (
	"errors"
	"path/filepath"
	"sync"
	"time"

	"qianma/cluster/machine"
	"qianma/cluster/replica"
)

// Node is a Base with the replicated groups of one subsystem.
type Node struct {
	*Base
	Replica *replica.Replica

	lines []*line // one for each shard
	stop  chan struct{}
	wg    sync.WaitGroup
}

// Open makes a node whose shards follow the rules that machines returns. The
// subsystem adds its handlers to Web and then calls Serve.
func Open(cfg Config, machines func(shard int) machine.Machine) (_ *Node, err error) {
	b, err := OpenBase(cfg)
	if err != nil {
		return nil, err
	}
	n := &Node{Base: b, stop: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.Replica, err = replica.Open(n.replicaConfig(machines)); err != nil {
		return nil, err
	}
	n.Replica.Register(b.RPC)
	n.register()
	n.publishStatus()
	for shard := range n.Replica.Shards() {
		l, err := n.openLine(shard)
		if err != nil {
			return nil, err
		}
		n.lines = append(n.lines, l)
	}
	return n, nil
}

func (n *Node) replicaConfig(machines func(int) machine.Machine) replica.Config {
	var peers []string
	for _, p := range n.Topology.Select(n.Config.Carrier, n.Config.Subsystem) {
		peers = append(peers, p.Name)
	}
	return replica.Config{
		Name:       n.Config.Name,
		Carrier:    n.Config.Carrier,
		Subsystem:  n.Config.Subsystem,
		Peers:      peers,
		Shards:     n.Topology.ShardsOf(n.Config.Subsystem),
		Dir:        filepath.Join(n.Config.Dir, "replica"),
		FS:         n.FS,
		Machine:    machines,
		Mux:        n.Mux,
		Dialer:     n.Dialer,
		Calls:      n.Calls,
		Clock:      n.Clock,
		Logger:     n.Log,
		Metrics:    n.Web.Metrics(),
		Fatal:      n.Fatal,
		Repeatable: true, // identity follows from content: a fact judged again is a duplicate
		Tuning:     replica.Tuning{Leaderless: leaderless, Lease: lease(n.Config.Subsystem)},
	}
}

// leaderless is how long a write waits for somebody to lead here before its
// sender is told to go to another carrier: the whole of this one may just be
// coming back.
const leaderless = 1500 * time.Millisecond

// lease is how long a process leads without a word from a majority; 0 leaves it
// to replica, which takes half of what followers wait before one of them stands.
// All of that is no less safe, and on a machine with more to do than it can it
// spares elections in which writes are refused (loadtest/HISTORY.md, the
// surge). Displays keep to the half: whoever leads counts as in touch, and what
// they show says how old it may be (replica.Heard).
func lease(subsystem string) time.Duration {
	if subsystem == "display" {
		return 0
	}
	return replica.Heartbeat
}

// LeaderHTTP is the base address of the process that leads the shard, as the
// public reaches it; "" while nobody is known to.
func (n *Node) LeaderHTTP(shard int) string {
	name, _ := n.Replica.Leader(shard)
	if p, ok := n.Topology.Find(name); ok && p.HTTP != "" {
		return "http://" + p.HTTP
	}
	return ""
}

// Close ends the node: doors, then what moves facts, then the groups (which
// must be able to reach their peers until they have stopped), then the rest.
func (n *Node) Close() error {
	return n.CloseAround(func() (err error) {
		close(n.stop)
		n.wg.Wait()
		for _, l := range n.lines {
			err = errors.Join(err, l.close())
		}
		if n.Replica != nil {
			err = errors.Join(err, n.Replica.Close())
		}
		return err
	})
}
