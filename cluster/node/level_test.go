package node

import (
	"context"
	"testing"
	"time"

	"qianma/cluster/clock"
	"qianma/cluster/fact"
	"qianma/cluster/problem"
	"qianma/cluster/topology"
)

// What is said of a carrier's facts, as it is or is not heard from.
func TestLevelIsNeverClaimed(t *testing.T) {
	now := clock.NewManual(time.Unix(1_000_000, 0))
	n := &Node{Base: &Base{Clock: now, Config: Config{Carrier: "unicom"}, Topology: &topology.Topology{Carriers: []string{"unicom", "mobile"}}}}
	l := &Level{node: n, keys: levelKeys([]string{"mobile"}, 2), at: map[string]int64{}, heard: map[string]bool{}, started: now.Elapsed()}
	if at, applies := l.AsOf(0); !applies || !at.IsZero() {
		t.Errorf("nothing heard yet: %v %v, want the zero time", at, applies)
	}
	if _, err := (honest{level: l}).View(t.Context(), 0, true); !problem.Is(err, problem.Unavailable) {
		t.Errorf("a view of a shard that nobody can vouch for: %v", err)
	}
	now.Set(now.Now().Add(-2 * time.Hour)) // outvoted: patience is not two hours longer for it
	now.Advance(levelPatience)
	if at, _ := l.AsOf(0); !at.Equal(now.Now().Add(-levelDoubt)) {
		t.Errorf("never heard from: %v, want to be called old", at)
	}
	l.heard[levelKey("mobile", 0)] = true
	if at, _ := l.AsOf(0); !at.IsZero() {
		t.Errorf("heard from and not level: %v, want the zero time", at)
	}
	l.at[levelKey("mobile", 0)] = now.Now().UnixNano()
	if at, _ := l.AsOf(0); !at.Equal(now.Now()) {
		t.Errorf("level: %v", at)
	}
	if at, _ := l.AsOf(1); !at.IsZero() && at.Equal(now.Now()) {
		t.Error("one shard speaks for another")
	}
	l.keys = levelKeys(nil, 2)
	if _, applies := l.AsOf(0); applies {
		t.Error("another carrier is missed where there is none")
	}
}

// levelOfTwo watches a carrier with two replicas, which hold one origin.
func levelOfTwo() (*Level, fact.Origin) {
	top := &topology.Topology{Carriers: []string{"unicom", "mobile"}}
	for _, name := range []string{"mobile-words-1", "mobile-words-2"} {
		top.Processes = append(top.Processes, topology.Process{Name: name, Carrier: "mobile", Subsystem: "words"})
	}
	l := &Level{node: &Node{Base: &Base{Config: Config{Carrier: "unicom", Subsystem: "words"}, Topology: top}}}
	return l, fact.Origin{Carrier: "mobile", Subsystem: "words"}
}

// Each replica that is asked has a limit of its own: one that is paused, so
// that a call to it ends with its time, does not use up that of the others.
func TestLevelPassesOverAPausedReplica(t *testing.T) {
	l, held := levelOfTwo()
	l.marks = func(ctx context.Context, process string, _ int) (fact.Catalog, error) {
		if process == "mobile-words-1" {
			<-ctx.Done()
		}
		return fact.Catalog{Marks: map[fact.Origin]fact.Mark{held: {Seq: 7}}, Vouched: true}, ctx.Err()
	}
	if told, ok := l.ask("mobile", 0); !ok || told.Marks[held].Seq != 7 {
		t.Errorf("%v %v, want the word of the replica that answers", told, ok)
	}
}

// The word of a replica that does not know whether it lacks something is passed
// over, and is not made up for by itself.
func TestLevelPassesOverALaggingReplica(t *testing.T) {
	l, held := levelOfTwo()
	lags := map[string]bool{"mobile-words-1": true}
	l.marks = func(_ context.Context, process string, _ int) (fact.Catalog, error) {
		if lags[process] {
			return fact.Catalog{Marks: map[fact.Origin]fact.Mark{held: {Seq: 3}}}, nil
		}
		return fact.Catalog{Marks: map[fact.Origin]fact.Mark{held: {Seq: 7}}, Vouched: true}, nil
	}
	if told, ok := l.ask("mobile", 0); !ok || told.Marks[held].Seq != 7 {
		t.Errorf("%v %v, want the word of the replica that vouches", told, ok)
	}
	lags["mobile-words-2"] = true
	if told, ok := l.ask("mobile", 0); ok {
		t.Errorf("%v passes for knowledge, and nobody vouches for it", told)
	}
}
