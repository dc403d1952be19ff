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

// TestCatchingUpMakesWayForWrites: while a write is under way, what catching up
// has cost is left to the write before more of it follows. Each block is an entry
// of its own here, so there is one rest fewer than blocks.
func TestCatchingUpMakesWayForWrites(t *testing.T) {
	t.Parallel()
	home, away := three(t, nil), three(t, func(c *Config) { c.Carrier = "mobile" })
	const n = 5
	for i := range 2 * n {
		away.leader().put(t, toyCommand(uint64(i), strings.Repeat("x", strideMax)))
	}
	o, _ := away.leader().Own(0)
	blocks, err := away.leader().Blocks(0, o, 0, 3*n*strideMax)
	if err != nil || len(blocks) != 2*n {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	rests := prometheus.NewRegistry()
	for _, node := range home.up() {
		node.group0().slots <- struct{}{} // what a write holds while it is under way
	}
	rests.MustRegister(home.leader().metrics.madeWay)
	if err := home.ingest(blocks[:n]); err != nil {
		t.Fatal(err)
	}
	for _, node := range home.up() {
		<-node.group0().slots
	}
	if err := home.ingest(blocks[n:]); err != nil {
		t.Fatal(err)
	}
	told, err := rests.Gather()
	if err != nil || len(told) != 1 {
		t.Fatalf("%v, %v", told, err)
	}
	if got := told[0].GetMetric()[0].GetCounter().GetValue(); got != n-1 {
		t.Errorf("%v rests between %d entries beside a write, and as many beside none", got, n)
	}
}
