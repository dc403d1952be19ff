package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/raftlog"
)

// TestATableHoldsBlocksOfOneChainOrNone: blocks that share a table with rows, or
// with another chain, are merged again whenever those are.
func TestATableHoldsBlocksOfOneChainOrNone(t *testing.T) {
	cache := pebble.NewCache(8 << 20)
	defer cache.Unref()
	s, err := openStore(vfs.NewMem(), "state", raftlog.NewFailure(slog.New(slog.DiscardHandler), nil), cache, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	g := s.acquire()
	defer func() {
		if err := errors.Join(g.release(), s.close(5*time.Second)); err != nil {
			t.Error(err)
		}
	}()

	kind := func(key []byte) any {
		if key[0] != spaceBlock {
			return key[0] < spaceBlock
		}
		return string(key[:5])
	}
	apart := func(when string) (tables int) {
		levels, err := g.db.SSTables()
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range slices.Concat(levels...) {
			if kind(table.Smallest.UserKey) != kind(table.Largest.UserKey) {
				t.Errorf("%s: a table holds % x to % x", when, table.Smallest.UserKey, table.Largest.UserKey)
			}
			tables++
		}
		return tables
	}
	for seq := range uint64(3) {
		for _, key := range [][]byte{{'a'}, seqKey(spaceBlock, 0, seq), seqKey(spaceBlock, 1, seq), originKey(0), {spaceUser, 1}} {
			if err := g.db.Set(key, make([]byte, 100), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.db.Flush(); err != nil {
			t.Fatal(err)
		}
		apart("flushed")
	}
	if err := g.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	if tables := apart("compacted"); tables != 4 {
		t.Errorf("%d tables, want one before the blocks, one for each chain and one behind them", tables)
	}
}

// BenchmarkCompaction tells what a store does with what it is given: blocks of
// 840 registrations as nucleic writes them (90 bytes in the block and 33 + 46 as a
// row; one tube to eight people), as fast as they are compacted; without
// idempotency keys, as in batches, and with one for each, hashed or of its time.
// It says little below a thousand blocks: -benchtime 3000x is 2.5 million tests.
func BenchmarkCompaction(b *testing.B) {
	digest := func(rng *rand.Rand, _ int) (k [16]byte) { return randomKey(rng) }
	timed := func(rng *rand.Rand, n int) (k [16]byte) { // ten in a millisecond
		k = randomKey(rng)
		binary.BigEndian.PutUint64(k[:], (1_790_000_000_000+uint64(n)/10)<<16|7<<12|rng.Uint64()>>52)
		return k
	}
	b.Run("keys=none", func(b *testing.B) { benchmarkCompaction(b, nil) })
	b.Run("keys=hashed", func(b *testing.B) { benchmarkCompaction(b, digest) })
	b.Run("keys=timed", func(b *testing.B) { benchmarkCompaction(b, timed) })
}

func benchmarkCompaction(b *testing.B, receipt func(*rand.Rand, int) [16]byte) {
	const facts, people = 840, 8
	cache := pebble.NewCache(64 << 20)
	defer cache.Unref()
	s, err := openStore(vfs.Default, b.TempDir(), raftlog.NewFailure(slog.New(slog.DiscardHandler), nil), cache, 16<<20)
	if err != nil {
		b.Fatal(err)
	}
	g := s.acquire()
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, facts*90)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	o := s.options()
	settled := func() {
		until(b, "what was flushed is compacted", func() bool {
			m := g.db.Metrics() // Pebble begins at half of the threshold
			return m.Compact.NumInProgress == 0 && int(m.Levels[0].Sublevels) < o.L0CompactionThreshold/2
		})
	}
	blocks, keys, begun := uint64(0), 0, processorTime(b)
	for b.Loop() {
		batch := g.db.NewBatch()
		set := func(key []byte, size int) {
			if err := batch.Set(key, noise[:size], nil); err != nil {
				b.Fatal(err)
			}
		}
		set(seqKey(spaceBlock, uint32(blocks%2), blocks*facts), len(noise))
		for range facts / people {
			tube := fmt.Sprintf("%014d", rng.Int64N(1e14))
			set([]byte("uh"+tube), 72)
			for range people {
				set(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte("um\x0e"+tube), rng.Uint64()), rng.Uint64()), 46)
				if receipt != nil {
					set(appendReceiptKey(nil, 1, receipt(rng, keys)), 28)
					keys++
				}
			}
		}
		if err := batch.Commit(pebble.NoSync); err != nil {
			b.Fatal(err)
		}
		if blocks++; blocks%100 == 0 {
			settled()
		}
	}
	settled()
	m, tests := g.db.Metrics(), float64(blocks*facts)
	compacted := uint64(0)
	for _, level := range m.Levels {
		compacted += level.TableBytesCompacted
	}
	b.ReportMetric(float64(m.Levels[0].TableBytesFlushed)/tests, "flushed-B/test")
	b.ReportMetric(float64(compacted)/tests, "compacted-B/test")
	b.ReportMetric(float64((processorTime(b)-begun).Nanoseconds())/tests, "cpu-ns/test")
	if err := errors.Join(g.release(), s.close(time.Minute)); err != nil {
		b.Error(err)
	}
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestEveryKeyHasAnEndOfItsTable: a table that ended at or before its first key
// would never be written.
func TestEveryKeyHasAnEndOfItsTable(t *testing.T) {
	for _, key := range [][]byte{{}, {'a'}, {spaceBlock}, {spaceBlock, 0, 0}, seqKey(spaceBlock, 0, 0), seqKey(spaceBlock, 255, 1<<60), originKey(3), {spaceUser}} {
		_, end, err := blocksApart(key)
		if err != nil || end != nil && string(end) <= string(key) {
			t.Errorf("% x ends at % x, %v", key, end, err)
		}
	}
}
