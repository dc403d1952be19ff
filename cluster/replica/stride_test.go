package replica

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// TestStride: an entry of others' facts holds what is taken in within a moment.
func TestStride(t *testing.T) {
	t.Parallel()
	var s stride
	if s.most() != strideMin {
		t.Errorf("it begins with %d", s.most())
	}
	for _, step := range []struct {
		what  string
		bytes int
		took  time.Duration
		want  int
	}{
		{"quick: the next is twice as large", strideMin, time.Millisecond, 2 * strideMin},
		{"small and slow says nothing", strideMin / 2, time.Minute, 2 * strideMin},
		{"quick again", 2 * strideMin, time.Millisecond, 4 * strideMin},
		{"a little too slow: what fits", 4 * strideMin, strideTime * 4 / 3, 3 * strideMin},
		{"quick", 3 * strideMin, time.Millisecond, 6 * strideMin},
		{"up to the most", 6 * strideMin, 0, strideMax},
		{"and no further", strideMax, 0, strideMax},
		{"very slow: the least", strideMax, time.Minute, strideMin},
		{"and no less", strideMin, time.Hour, strideMin},
	} {
		if s.took(step.bytes, step.took); s.most() != step.want {
			t.Errorf("%s: %d, want %d", step.what, s.most(), step.want)
		}
	}
}

// TestCatchingUpComesInStrides: a write waits behind what is in the log before
// it, so a long way to catch up must not stand there as one entry. The first is
// small, and none more than twice as large as those before it.
func TestCatchingUpComesInStrides(t *testing.T) {
	t.Parallel()
	home, away := three(t, nil), three(t, func(c *Config) { c.Carrier = "mobile" })
	const blockSize = strideMin / 4
	for i := range 32 {
		away.leader().put(t, toyCommand(uint64(i), strings.Repeat("x", blockSize)))
	}
	o, _ := away.leader().Own(0)
	blocks, err := away.leader().Blocks(0, o, 0, 4<<20)
	if err != nil || len(blocks) != 32 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	from := raftOf(home.leader()).LastIndex()
	if err := home.ingest(blocks); err != nil {
		t.Fatal(err)
	}
	most, entries := strideMin, 0
	for i := from + 1; i <= raftOf(home.leader()).LastIndex(); i++ {
		var l raft.Log
		if err := home.leader().group0().logs.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		if h, p, err := decodeHeader(l.Data); err == nil && h.kind == kindIngest {
			entries++
			if len(p) > most+blockSize {
				t.Errorf("entry %d holds %d bytes, at most %d fit", entries, len(p), most)
			}
			most = min(2*most, strideMax)
		}
	}
	if entries < 3 {
		t.Errorf("only %d entries", entries)
	}
}

// TestCatchingUpMakesWayForWrites: while a write is under way, whoever leads rests
// between two entries of others' facts.
func TestCatchingUpMakesWayForWrites(t *testing.T) {
	t.Parallel()
	home, away := three(t, nil), three(t, func(c *Config) { c.Carrier = "mobile" })
	const n = 8
	for i := range n {
		away.leader().put(t, toyCommand(uint64(i), strings.Repeat("x", strideMin)))
	}
	o, _ := away.leader().Own(0)
	blocks, err := away.leader().Blocks(0, o, 0, 2*n*strideMin)
	if err != nil || len(blocks) != n {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	for _, node := range home.up() {
		node.group0().slots <- struct{}{} // what a write holds while it is under way
	}
	if err := home.ingest(blocks); err != nil {
		t.Fatal(err)
	}
	rests := 0.0
	for _, node := range home.up() { // another may have been elected meanwhile
		<-node.group0().slots
		rests += counted(t, node.group0().r.metrics.madeWay)
	}
	if rests == 0 {
		t.Error("no rest between the entries that take in eight blocks beside a write")
	}
}

// TestWayIsMadeForWritesOnly: a carrier that nobody writes to catches up without
// a rest.
func TestWayIsMadeForWritesOnly(t *testing.T) {
	t.Parallel()
	g := &group{r: &Replica{metrics: newMetrics(nil)}, ctx: t.Context(), queue: newQueue(2, 1<<20), slots: make(chan struct{}, 2)}
	rests := func() float64 {
		g.makeWay(time.Nanosecond)
		return counted(t, g.r.metrics.madeWay)
	}
	if n := rests(); n != 0 {
		t.Errorf("%v rests for nobody", n)
	}
	g.slots <- struct{}{}
	if n := rests(); n != 1 {
		t.Errorf("%v rests for a write that is under way", n)
	}
	<-g.slots
	if err := g.queue.push(&call{size: 1}); err != nil {
		t.Fatal(err)
	}
	if n := rests(); n != 2 {
		t.Errorf("%v rests when a write waits as well", n)
	}
}

func counted(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	told, err := reg.Gather()
	if err != nil || len(told) != 1 {
		t.Fatalf("%v, %v", told, err)
	}
	return told[0].GetMetric()[0].GetCounter().GetValue()
}
