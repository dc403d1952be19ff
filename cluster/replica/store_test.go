package replica

import (
	"errors"
	"log/slog"
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
	for seq := range uint64(3) {
		for _, key := range [][]byte{{'a'}, seqKey(spaceBlock, 0, seq), seqKey(spaceBlock, 1, seq), originKey(0), {spaceUser, 1}} {
			if err := g.db.Set(key, make([]byte, 100), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.db.Flush(); err != nil {
			t.Fatal(err)
		}
		each(t, g.db, func(table pebble.SSTableInfo) {
			if kind(table.Smallest.UserKey) != kind(table.Largest.UserKey) {
				t.Errorf("flush %d: a table holds % x to % x", seq, table.Smallest.UserKey, table.Largest.UserKey)
			}
		})
	}
	if err := g.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	tables := 0
	each(t, g.db, func(table pebble.SSTableInfo) {
		tables++
		if kind(table.Smallest.UserKey) != kind(table.Largest.UserKey) {
			t.Errorf("compacted: a table holds % x to % x", table.Smallest.UserKey, table.Largest.UserKey)
		}
	})
	if tables != 4 {
		t.Errorf("%d tables, want one before the blocks, one for each chain and one behind them", tables)
	}
}

func each(t *testing.T, db *pebble.DB, fn func(pebble.SSTableInfo)) {
	t.Helper()
	levels, err := db.SSTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, level := range levels {
		for _, table := range level {
			fn(table)
		}
	}
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
