package node

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"qianma/cluster/fact"
	"qianma/cluster/machine"
	"qianma/cluster/problem"
	"qianma/cluster/replica"
)

// Level tells how far this process has taken in what the other carriers hold.
// A replica of a carrier that comes back empty hears from its own majority at
// once, and still knows nothing: whoever shows people what is held here must
// be able to say so.
//
// It asks every other carrier how far it holds each origin, and notes the
// moment that is vouched for once all of that is held here too. The times are kept in a
// file beside the data, because a process that restarts while the other
// carrier is away has lost nothing; the file goes when the disks go.
type Level struct {
	node  *Node
	path  string
	keys  [][]string                                                                 // of each shard, those of the other carriers: a code asks with every answer
	marks func(ctx context.Context, process string, shard int) (fact.Catalog, error) // of one replica elsewhere

	mu      sync.Mutex
	at      map[string]int64 // carrier/shard -> Unix nanoseconds
	heard   map[string]bool  // has answered since the start
	started time.Duration    // of Elapsed
}

// The paces of asking: quick until level, then easy; and of keeping the file.
const (
	levelEager = 100 * time.Millisecond
	levelPace  = 2 * time.Second
	levelLimit = 2 * time.Second
	levelAsk   = 700 * time.Millisecond
	levelKeep  = 5 * time.Second
	// levelPatience is how long a carrier that has never answered may keep a
	// process from believing what it holds; and levelDoubt how old that is
	// then said to be.
	levelPatience = 15 * time.Second
	levelDoubt    = time.Hour
)

// WatchLevel starts asking. It ends with the node.
func (n *Node) WatchLevel() *Level {
	l := &Level{node: n, path: filepath.Join(n.Config.Dir, "level.json"), at: map[string]int64{}, heard: map[string]bool{}, started: n.Clock.Elapsed(), marks: n.marksAt}
	if raw, err := os.ReadFile(l.path); err == nil && json.Unmarshal(raw, &l.at) != nil {
		l.at = map[string]int64{}
	}
	others := n.Topology.Others(n.Config.Carrier)
	l.keys = levelKeys(others, n.Replica.Shards())
	for _, carrier := range others {
		for shard := range n.Replica.Shards() {
			n.wg.Go(func() { l.watch(carrier, shard) })
		}
	}
	n.wg.Go(l.keep)
	return l
}

// AsOf is the moment up to which this process surely holds what every other
// carrier held of the shard; applies is false where there is no other carrier.
// The zero time means that others are known to hold more, or may, and nothing
// of it was ever taken in.
func (l *Level) AsOf(shard int) (at time.Time, applies bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range l.keys[shard] {
		if t := l.asOf(key); !applies || t.Before(at) {
			at, applies = t, true
		}
	}
	return at, applies
}

func (l *Level) asOf(key string) time.Time {
	switch t := l.at[key]; {
	case t != 0:
		return time.Unix(0, t)
	case l.heard[key] || l.node.Clock.Elapsed()-l.started < levelPatience:
		return time.Time{}
	}
	// Nobody can say whether there is more. What is here is shown, and called old.
	return l.node.Clock.Now().Add(-levelDoubt)
}

func levelKeys(carriers []string, shards int) [][]string {
	keys := make([][]string, shards)
	for shard := range keys {
		for _, c := range carriers {
			keys[shard] = append(keys[shard], levelKey(c, shard))
		}
	}
	return keys
}

func levelKey(carrier string, shard int) string {
	return fact.Origin{Carrier: carrier, Subsystem: "shard", Shard: uint16(shard)}.String()
}

// watch asks one carrier about one shard until the node closes.
func (l *Level) watch(carrier string, shard int) {
	key := levelKey(carrier, shard)
	for {
		asked, begun := l.node.Clock.Now(), l.node.Clock.Elapsed()
		target, ok := l.ask(carrier, shard)
		vouched := target.Since(asked)
		if ok {
			l.mu.Lock()
			l.heard[key] = true
			l.mu.Unlock()
		}
		for ok && !l.holds(shard, target.Marks) {
			if !l.sleep(levelEager) {
				return
			}
			if l.node.Clock.Elapsed()-begun > levelLimit {
				ok = false // it may have moved on, or be gone: ask again
			}
		}
		pace := levelEager
		if ok {
			l.mu.Lock()
			l.at[key] = vouched.UnixNano()
			l.mu.Unlock()
			pace = levelPace
		}
		if !l.sleep(pace) {
			return
		}
	}
}

func (l *Level) sleep(d time.Duration) bool {
	select {
	case <-l.node.Clock.After(d):
		return true
	case <-l.node.stop:
		return false
	}
}

// ask returns the word of the first replica at the carrier that vouches for
// what it says: one that lags, or is cut off from its leader, does not know
// what the carrier holds.
func (l *Level) ask(carrier string, shard int) (fact.Catalog, bool) {
	for _, p := range l.node.Topology.Select(carrier, l.node.Config.Subsystem) {
		// Each has a limit of its own: one that is paused must not use up the
		// time of those that would answer.
		ctx, cancel := context.WithTimeout(context.Background(), levelAsk)
		told, err := l.marks(ctx, p.Name, shard)
		cancel()
		if err == nil && told.Vouched {
			return told, true
		}
	}
	return fact.Catalog{}, false
}

// marksAt asks one replica how far it holds each origin but the one this group
// itself is writing.
func (n *Node) marksAt(ctx context.Context, process string, shard int) (fact.Catalog, error) {
	own, _ := n.Replica.Own(shard)
	told, err := replica.Remote{Calls: n.Calls, Process: process, Shard: shard}.Catalog(ctx)
	maps.DeleteFunc(told.Marks, func(o fact.Origin, _ fact.Mark) bool { return o == own })
	return told, err
}

func (l *Level) holds(shard int, target map[fact.Origin]fact.Mark) bool {
	have := l.node.Replica.Marks(shard)
	for o, m := range target {
		if have[o].Seq < m.Seq {
			return false
		}
	}
	return true
}

// keep writes the file now and then. It is not synced: after a power cut it
// may be older than it was, which errs on the side of calling data old.
func (l *Level) keep() {
	for l.sleep(levelKeep) {
		l.mu.Lock()
		raw, err := json.Marshal(l.at)
		empty := len(l.at) == 0
		l.mu.Unlock()
		if err != nil || empty {
			continue
		}
		if err = os.WriteFile(l.path+".new", raw, 0o600); err == nil {
			err = os.Rename(l.path+".new", l.path)
		}
		if err != nil {
			l.node.Log.Debug("the level was not kept", "error", err)
		}
	}
}

// Proposer is the node's replica for those who show what it holds: it refuses
// a linearizable view of a shard that has come back empty and is not level
// with the other carriers yet. Its own group agrees on what little it has, and
// to show that as everything would be a lie. Writes are taken at once.
func (n *Node) Proposer(l *Level) machine.Proposer { return honest{n.Replica, l} }

type honest struct {
	*replica.Replica
	level *Level
}

// View implements machine.Proposer.
func (h honest) View(ctx context.Context, shard int, linearizable bool) (machine.View, error) {
	if at, applies := h.level.AsOf(shard); linearizable && applies && at.IsZero() {
		return nil, problem.New(problem.Unavailable, "this carrier has come back and has not taken in yet what the other one holds",
			"read it at the other carrier, or here in a moment").After(time.Second)
	}
	return h.Replica.View(ctx, shard, linearizable)
}
