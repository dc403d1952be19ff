package compaction

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is a file system in memory, on which a write takes a while or fails.
type disk struct {
	vfs.FS
	takes time.Duration
	fails error

	mu     sync.Mutex // protects the fields below
	writes []int      // bytes of each
}

func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, c)
	return &diskFile{f, d}, err
}

type diskFile struct {
	vfs.File
	disk *disk
}

func (f *diskFile) Write(p []byte) (int, error) {
	if f.disk.takes > 0 {
		<-time.After(f.disk.takes)
	}
	if f.disk.fails != nil {
		return 0, f.disk.fails
	}
	f.disk.mu.Lock()
	f.disk.writes = append(f.disk.writes, len(p))
	f.disk.mu.Unlock()
	return f.File.Write(p)
}

func newDisk() *disk { return &disk{FS: vfs.NewMem()} }

// write writes n steps in pieces as small as Pebble's blocks, and returns how
// long it took.
func write(t *testing.T, fs vfs.FS, category vfs.DiskWriteCategory, n int) time.Duration {
	t.Helper()
	f, err := fs.Create("table", category)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for range n * stepBytes / 4096 {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(begun)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return took
}

func TestTablesAreWrittenAtAWalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		d.takes = time.Millisecond
		fs := paced{d, &Pace{limit: 8}}
		for c, factor := range map[vfs.DiskWriteCategory]int{categoryFlush: flushFactor, categoryCompaction: compactionFactor} {
			if took, want := write(t, fs, c, 10), time.Duration(10*(1+factor))*time.Millisecond; took != want {
				t.Errorf("%s: %v, want %v", c, took, want)
			}
		}
		if n := len(d.writes); n != 20 {
			t.Errorf("20 steps were %d writes", n)
		}
		if took, want := write(t, fs, "pebble-wal", 1), stepBytes/4096*time.Millisecond; took != want {
			t.Errorf("the log: %v, want %v as ever", took, want)
		}
	})
}

func TestARestIsBounded(t *testing.T) {
	p := &Pace{limit: 8}
	for c, want := range map[vfs.DiskWriteCategory]time.Duration{categoryFlush: flushMax, categoryCompaction: compactionMax} {
		if got := p.rest(c, time.Minute); got != want {
			t.Errorf("%s: %v, want %v", c, got, want)
		}
	}
}

// What happens to a store, and what is left of the rests of either kind.
func TestAStoreThatFallsBehindRests(t *testing.T) {
	top := pebble.CompactionInfo{Input: []pebble.LevelInfo{{Level: 0}}}
	below := pebble.CompactionInfo{Input: []pebble.LevelInfo{{Level: 5}}}
	flushes := func(n int) func(pebble.EventListener) {
		return func(l pebble.EventListener) {
			for range n {
				l.FlushBegin(pebble.FlushInfo{Input: 1})
				l.FlushEnd(pebble.FlushInfo{Input: 1})
			}
		}
	}
	for name, c := range map[string]struct {
		happens           []func(pebble.EventListener)
		flush, compaction float64 // of a whole rest
	}{
		"nothing":       {nil, 1, 1},
		"writers stall": {[]func(pebble.EventListener){func(l pebble.EventListener) { l.WriteStallBegin(pebble.WriteStallBeginInfo{}) }}, 0, 0},
		"and no more": {[]func(pebble.EventListener){func(l pebble.EventListener) {
			l.WriteStallBegin(pebble.WriteStallBeginInfo{})
			l.WriteStallEnd()
		}}, 1, 1},
		"two memtables at once": {[]func(pebble.EventListener){func(l pebble.EventListener) { l.FlushBegin(pebble.FlushInfo{Input: 2}) }}, 0, 1},
		"then one again": {[]func(pebble.EventListener){
			func(l pebble.EventListener) { l.FlushBegin(pebble.FlushInfo{Input: 2}) },
			func(l pebble.EventListener) { l.FlushBegin(pebble.FlushInfo{Input: 1}) },
		}, 1, 1},
		"two flushes":      {[]func(pebble.EventListener){flushes(2)}, 1, .75},
		"seven":            {[]func(pebble.EventListener){flushes(7)}, 1, .125},
		"eight, a backlog": {[]func(pebble.EventListener){flushes(8)}, 1, 0},
		"more than that":   {[]func(pebble.EventListener){flushes(9)}, 1, 0},
		"which ends with its compaction": {[]func(pebble.EventListener){flushes(8),
			func(l pebble.EventListener) { l.CompactionBegin(top) }}, 1, 1},
		"but not with another": {[]func(pebble.EventListener){flushes(8),
			func(l pebble.EventListener) { l.CompactionBegin(below) }}, 1, 0},
	} {
		p := &Pace{limit: 8}
		for _, h := range c.happens {
			h(p.listener())
		}
		const took = time.Millisecond
		if got, want := p.rest(categoryFlush, took), time.Duration(c.flush*flushFactor*float64(took)); got != want {
			t.Errorf("%s: a flush rests %v, want %v", name, got, want)
		}
		if got, want := p.rest(categoryCompaction, took), time.Duration(c.compaction*compactionFactor*float64(took)); got != want {
			t.Errorf("%s: a compaction rests %v, want %v", name, got, want)
		}
	}
}

// What still runs when a store is closed does not rest.
func TestWhatACloseWaitsForDoesNotRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		d.takes = time.Millisecond
		s := newScheduler()
		s.pace.limit = 8
		s.Register(1, &store{})
		s.Unregister()
		if took, want := write(t, paced{d, &s.pace}, categoryCompaction, 10), 10*time.Millisecond; took != want {
			t.Errorf("%v, want %v", took, want)
		}
	})
}

// A flush of some hundred steps is done without a rest when somebody waits for
// it: on this clock a rest is the only thing that takes time but the disk.
func TestAFlushThatIsWaitedForDoesNotRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		d.takes = time.Millisecond
		o := &pebble.Options{FS: d, MemTableSize: 8 << 20, Logger: quiet{}, DisableWAL: true}
		db, p, err := Open("db", o)
		if err != nil {
			t.Fatal(err)
		}
		value, random := make([]byte, stepBytes), rand.NewChaCha8([32]byte{1})
		timed := func(flush func() error) time.Duration {
			for i := range 20 {
				_, _ = random.Read(value) // cannot be compressed
				if err := db.Set([]byte{byte(i)}, value, pebble.NoSync); err != nil {
					t.Fatal(err)
				}
			}
			begun := time.Now()
			if err := flush(); err != nil {
				t.Fatal(err)
			}
			return time.Since(begun)
		}
		for range 5 { // a store's first memtables are small, and several are flushed as one
			timed(db.Flush)
		}
		if walked, waited := timed(db.Flush), timed(func() error { return p.Flush(db) }); waited > walked/3 {
			t.Errorf("somebody waited for %v; at a walk it is %v", waited, walked)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatIsSyncedHasBeenWritten(t *testing.T) {
	for name, sync := range map[string]func(vfs.File) error{
		"Sync":     vfs.File.Sync,
		"SyncData": vfs.File.SyncData,
		"SyncTo":   func(f vfs.File) error { _, err := f.SyncTo(1); return err },
		"Close":    vfs.File.Close,
	} {
		mem := vfs.NewMem()
		f, err := paced{mem, &Pace{limit: 8}}.Create("table", categoryFlush)
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("0123456789"), stepBytes/10+7)
		if n, err := f.Write(slices.Clone(want)); n != len(want) || err != nil {
			t.Fatal(n, err)
		}
		if err := sync(f); err != nil {
			t.Fatal(err)
		}
		r, err := mem.Open("table")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d of %d bytes are there, %v", name, len(got), len(want), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if name != "Close" {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestAFailedWriteIsTold(t *testing.T) {
	broken := errors.New("no room")
	for name, end := range map[string]func(vfs.File) error{
		"Write":    func(f vfs.File) error { _, err := f.Write(make([]byte, stepBytes)); return err },
		"Sync":     vfs.File.Sync,
		"SyncData": vfs.File.SyncData,
		"SyncTo":   func(f vfs.File) error { _, err := f.SyncTo(1); return err },
		"Close":    vfs.File.Close,
	} {
		d := newDisk()
		d.fails = broken
		f, err := paced{d, &Pace{limit: 8}}.Create("table", categoryFlush)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("kept back")); err != nil {
			t.Fatal(err)
		}
		if err := end(f); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		d.fails = nil
		if name == "Close" {
			continue
		}
		if _, err := f.Write([]byte("more")); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); !errors.Is(err, broken) {
			t.Errorf("%s: what was dropped is called synced: %v", name, err)
		}
		_ = f.Close() // failed before
	}
}

// Pebble says for what it writes a file in words that are its own: with others,
// nothing would be paced, in silence.
func TestPebbleCallsItsTablesAsWeDo(t *testing.T) {
	d := newDisk()
	db := opened(t, d)
	value, random := make([]byte, 2*stepBytes), rand.NewChaCha8([32]byte{1})
	for range 3 {
		_, _ = random.Read(value) // cannot be compressed
		if err := db.Set([]byte("key"), value, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Compact(t.Context(), []byte("a"), []byte("z"), false); err != nil {
		t.Fatal(err)
	}
	whole := 0
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.writes {
		if n == stepBytes {
			whole++
		}
	}
	if whole <= 3*2 {
		t.Errorf("%d steps in three flushes and a compaction", whole)
	}
}

func TestCalmHearsTheStoreAndLetsOthersHear(t *testing.T) {
	heard := 0
	o := &pebble.Options{FS: vfs.NewMem(), L0CompactionThreshold: 8, Logger: quiet{},
		EventListener: &pebble.EventListener{FlushEnd: func(pebble.FlushInfo) { heard++ }}}
	db, _, err := Open("db", o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if err := errors.Join(db.Set([]byte{byte(i)}, nil, pebble.NoSync), db.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	if s := o.Experimental.CompactionScheduler.(*scheduler); heard != 8 || s.pace.owed.Load() == 0 {
		t.Errorf("%d flushes were heard of outside, %d inside", heard, s.pace.owed.Load())
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
