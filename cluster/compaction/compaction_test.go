package compaction

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// store stands for Pebble: it allows, wants and runs compactions.
type store struct {
	mu       sync.Mutex // protects the fields below
	allowed  int
	waiting  int
	accepts  bool
	asked    int // how often it was asked what it allows
	schedule int // compactions that were granted later
}

func (d *store) GetAllowedWithoutPermission() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	return d.allowed
}

func (d *store) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting > 0, pebble.WaitingCompaction{}
}

func (d *store) Schedule(pebble.CompactionGrantHandle) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.accepts {
		d.waiting--
		d.schedule++
	}
	return d.accepts
}

func (d *store) look(see func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	see()
}

// All but the last run on a clock that moves only when everybody waits.
func with(t *testing.T, test func(d *store, s *scheduler)) {
	synctest.Test(t, func(*testing.T) {
		d, s := &store{allowed: 1, accepts: true}, newScheduler()
		s.Register(1, d)
		defer s.Unregister()
		test(d, s)
	})
}

// refused has one compaction run, and another wait for it.
func refused(t *testing.T, d *store, s *scheduler) {
	t.Helper()
	if ok, _ := s.TrySchedule(); !ok {
		t.Fatal("the first was refused")
	}
	d.look(func() { d.waiting++ })
	if ok, _ := s.TrySchedule(); ok {
		t.Fatal("more were granted than are allowed")
	}
}

func (d *store) scheduled(t *testing.T, want int, when string) {
	t.Helper()
	synctest.Wait()
	d.look(func() {
		if d.schedule != want {
			t.Fatalf("%s: %d were granted later, want %d", when, d.schedule, want)
		}
	})
}

func TestWhoWaitedIsNextAtOnce(t *testing.T) {
	with(t, func(d *store, s *scheduler) {
		refused(t, d, s)
		d.scheduled(t, 0, "while the first runs")
		s.Done()
		d.scheduled(t, 1, "after it")
	})
}

func TestWhatIsAllowedGrows(t *testing.T) {
	with(t, func(d *store, s *scheduler) {
		refused(t, d, s)
		d.look(func() { d.allowed = 2 })
		s.UpdateGetAllowedWithoutPermission()
		d.scheduled(t, 1, "with a word")
		d.look(func() { d.waiting++; d.allowed = 3 })
		time.Sleep(lookAgain + 1)
		d.scheduled(t, 2, "without one")
	})
}

// What the store does not take now it may take later, and it says no more.
func TestOneThatWaitsIsNotForgotten(t *testing.T) {
	with(t, func(d *store, s *scheduler) {
		refused(t, d, s)
		d.look(func() { d.accepts = false })
		s.Done()
		d.scheduled(t, 0, "not accepted")
		d.look(func() { d.accepts = true })
		time.Sleep(lookAgain + 1)
		d.scheduled(t, 1, "accepted later")
	})
}

// The reason of this package.
func TestIdleIsIdle(t *testing.T) {
	with(t, func(d *store, s *scheduler) {
		refused(t, d, s)
		s.Done()
		d.scheduled(t, 1, "after the first")
		s.Done()
		time.Sleep(2 * lookAgain)
		before := 0
		d.look(func() { before = d.asked })
		time.Sleep(time.Hour)
		d.look(func() {
			if d.asked != before {
				t.Fatalf("looked %d times in an hour in which nothing was done", d.asked-before)
			}
		})
	})
}

func TestNothingIsGrantedAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := &store{allowed: 1, accepts: true}, newScheduler()
		s.Register(1, d)
		refused(t, d, s)
		s.Unregister()
		s.Done()
		time.Sleep(time.Minute)
		d.scheduled(t, 0, "after the end")
		if ok, _ := s.TrySchedule(); ok {
			t.Fatal("granted after the end")
		}
	})
}

// With the real store: small tables pile up and are compacted away, by its own
// will and by order.
func TestAStoreCompacts(t *testing.T) {
	db := opened(t, vfs.NewMem())
	for i := range 20 {
		for k := range 100 {
			if err := db.Set(fmt.Appendf(nil, "%d", k*7%100), fmt.Appendf(nil, "%d", i), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Compact(t.Context(), []byte("0"), []byte("z"), false); err != nil {
		t.Fatal(err)
	}
	if m := db.Metrics(); m.Compact.DefaultCount == 0 || m.Levels[0].TablesCount != 0 {
		t.Fatalf("%d compactions, %d tables on top", m.Compact.DefaultCount, m.Levels[0].TablesCount)
	}
}

func opened(t *testing.T, fs vfs.FS) *pebble.DB {
	t.Helper()
	o := &pebble.Options{FS: fs, MemTableSize: 64 << 10, L0CompactionThreshold: 2, Logger: quiet{}}
	db, _, err := Open("db", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// Goal: opening a store waits for no compaction, however much there is to be
// compacted: at a walk that took minutes.
func TestOpeningWaitsForNoCompaction(t *testing.T) {
	d := gated{vfs.NewMem(), make(chan struct{})}
	compacted := make(chan struct{}, 1)
	options := func() *pebble.Options {
		return &pebble.Options{FS: d, MemTableSize: 64 << 10, L0CompactionThreshold: 2, Logger: quiet{}, DisableWAL: true,
			EventListener: &pebble.EventListener{CompactionEnd: func(pebble.CompactionInfo) {
				select {
				case compacted <- struct{}{}:
				default:
				}
			}}}
	}
	o := options()
	o.DisableAutomaticCompactions = true
	db, err := pebble.Open("db", o)
	if err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 32<<10)
	for i := range 200 { // 20 keys, so that tables overlap
		if err := errors.Join(db.Set([]byte{byte(i % 20)}, value, pebble.NoSync), db.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(time.Minute, func() { close(d.open) })
	db, _, err = Open("db", options())
	if err != nil {
		t.Fatal(err)
	}
	if late.Stop() {
		close(d.open)
	} else {
		t.Error("it waited for a compaction")
	}
	<-compacted // it comes when the store is open
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// gated is a disk on which no compaction writes until it is opened.
type gated struct {
	vfs.FS
	open chan struct{}
}

func (g gated) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if c == categoryCompaction {
		<-g.open
	}
	return g.FS.Create(name, c)
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(f string, a ...any) {
	panic(fmt.Sprintf(f, a...))
}
