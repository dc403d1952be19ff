package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"

	"qianma/cluster/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func open(t testing.TB, fs vfs.FS, fatal func(error)) *Store {
	t.Helper()
	s, err := Open(Config{Dir: "data/log", FS: fs, Logger: quiet, Fatal: fatal})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func group(t testing.TB, s *Store, id uint16) *Group {
	t.Helper()
	g, err := s.Group(id)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func entries(from, to, term uint64) []*raft.Log {
	var out []*raft.Log
	for i := from; i <= to; i++ {
		out = append(out, &raft.Log{Index: i, Term: term, Type: raft.LogCommand,
			Data: fmt.Appendf(nil, "entry %d of term %d", i, term), AppendedAt: time.Unix(0, int64(i))})
	}
	return out
}

// check demands exactly [from, to] with those terms.
func check(t *testing.T, g *Group, from, to uint64, term func(uint64) uint64) {
	t.Helper()
	first, _ := g.FirstIndex()
	last, _ := g.LastIndex()
	if first != from || last != to {
		t.Fatalf("holds [%d, %d], want [%d, %d]", first, last, from, to)
	}
	for i := from; i <= to && to != 0; i++ {
		var l raft.Log
		if err := g.GetLog(i, &l); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		want := entries(i, i, term(i))[0]
		if l.Term != want.Term || !bytes.Equal(l.Data, want.Data) || !l.AppendedAt.Equal(want.AppendedAt) || l.Type != want.Type {
			t.Fatalf("entry %d is %+v, want %+v", i, l, want)
		}
	}
	var l raft.Log
	for _, i := range []uint64{0, from - 1, to + 1} {
		if i < from || i > to {
			if err := g.GetLog(i, &l); !errors.Is(err, raft.ErrLogNotFound) {
				t.Fatalf("entry %d: %v, want not found", i, err)
			}
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func always(term uint64) func(uint64) uint64 { return func(uint64) uint64 { return term } }

// Goal: the log behaves as raft expects through appends, truncation at either
// end, replaced tails and gaps, from memory and after a crash alike.
// Method: every step is checked live and in a crash clone of the disk.
func TestLogSurvivesCrashAtEveryStep(t *testing.T) {
	fs := vfs.NewCrashableMem()
	g := group(t, open(t, fs, nil), 7)
	both := func(from, to uint64, term func(uint64) uint64) {
		t.Helper()
		check(t, g, from, to, term)
		after := group(t, open(t, fs.CrashClone(vfs.CrashCloneCfg{}), nil), 7)
		check(t, after, from, to, term)
	}
	both(0, 0, always(1))
	must(t, g.StoreLogs(entries(1, 100, 1)))
	both(1, 100, always(1))
	must(t, g.DeleteRange(90, 100))
	must(t, g.StoreLogs(entries(90, 120, 2)))
	step := func(i uint64) uint64 {
		if i < 90 {
			return 1
		}
		return 2
	}
	both(1, 120, step)
	must(t, g.DeleteRange(0, 50))
	check(t, g, 51, 120, step)
	must(t, g.StoreLogs(entries(121, 121, 2)))
	both(51, 121, step)
	must(t, g.StoreLogs(entries(100, 105, 3))) // replaces a tail without being asked to cut it
	both(51, 105, func(i uint64) uint64 {
		if i >= 100 {
			return 3
		}
		return step(i)
	})
	must(t, g.StoreLogs(entries(500, 510, 4))) // a snapshot stands for the gap
	both(500, 510, always(4))
	must(t, g.DeleteRange(1, 1000))
	must(t, g.SetUint64([]byte("CurrentTerm"), 4))
	both(0, 0, always(4))
}

// Goal: groups share the store and nothing else.
func TestGroupsAreStrangers(t *testing.T) {
	s := open(t, vfs.NewCrashableMem(), nil)
	a, b := group(t, s, 1), group(t, s, 2)
	must(t, a.StoreLogs(entries(1, 10, 1)))
	must(t, b.StoreLogs(entries(5, 6, 9)))
	must(t, a.Set([]byte("k"), []byte("a")))
	must(t, a.DeleteRange(1, 10))
	check(t, b, 5, 6, always(9))
	if _, err := b.Get([]byte("k")); err == nil || err.Error() != "not found" {
		t.Fatalf("raft compares the text of this error: %v", err)
	}
	must(t, s.Set("life", []byte("x")))
	must(t, s.DestroyGroups())
	if v, ok, err := s.Get("life"); !ok || err != nil || string(v) != "x" {
		t.Fatalf("the process's own value is %q, %v, %v", v, ok, err)
	}
	if _, err := a.Get([]byte("k")); err == nil {
		t.Fatal("a destroyed group still has its votes")
	}
}

// Goal (hashicorp/raft#661): a crash between the two writes of a vote must not
// leave the new term beside the old candidate, because raft would then repeat
// a vote it never gave.
func TestVoteIsDurableWhole(t *testing.T) {
	fs := vfs.NewCrashableMem()
	g := group(t, open(t, fs, nil), 1)
	vote := func(g *Group) (uint64, string) {
		term, err := g.GetUint64(keyVoteTerm)
		if err != nil && err.Error() != "not found" {
			t.Fatal(err)
		}
		cand, err := g.Get(keyVoteCand)
		if err != nil && err.Error() != "not found" {
			t.Fatal(err)
		}
		return term, string(cand)
	}
	same := func(wantTerm uint64, wantCand string) {
		t.Helper()
		crashed := group(t, open(t, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))}), nil), 1)
		for _, g := range []*Group{g, crashed} {
			if term, cand := vote(g); term != wantTerm || cand != wantCand {
				t.Fatalf("vote is (%d, %q), want (%d, %q)", term, cand, wantTerm, wantCand)
			}
		}
	}
	must(t, g.SetUint64(keyVoteTerm, 3))
	must(t, g.Set(keyVoteCand, []byte("old")))
	same(3, "old")
	must(t, g.SetUint64(keyVoteTerm, 9)) // the crash that #661 is about comes here
	same(3, "old")
	must(t, g.Set(keyVoteCand, []byte("new")))
	same(9, "new")
	must(t, g.Set(keyVoteCand, []byte("other"))) // nothing is staged any more
	same(9, "other")
}

// Goal: whatever was acknowledged before a crash is there after it, with
// several groups writing at once and some unsynced pages surviving.
func TestAcknowledgedSurvivesCrash(t *testing.T) {
	for seed := uint64(1); seed <= 8; seed++ {
		fs := vfs.NewCrashableMem()
		s := open(t, fs, nil)
		var mu sync.Mutex
		acked := map[uint16]uint64{}
		var wg sync.WaitGroup
		for id := uint16(0); id < 4; id++ {
			g := group(t, s, id)
			wg.Go(func() {
				for i := uint64(1); i <= 60; i++ {
					if err := g.StoreLogs(entries(i, i, 1)); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					acked[id] = i
					mu.Unlock()
				}
			})
		}
		for id := uint16(0); id < 4; { // crash somewhere in the middle
			mu.Lock()
			if acked[id] > 10*seed%50 {
				id++
			}
			mu.Unlock()
		}
		mu.Lock()
		promised := map[uint16]uint64{}
		for id, i := range acked {
			promised[id] = i
		}
		mu.Unlock()
		clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(seed, seed))})
		wg.Wait()
		after := open(t, clone, nil)
		for id, want := range promised {
			g := group(t, after, id)
			last, _ := g.LastIndex()
			if last < want {
				t.Fatalf("seed %d: group %d lost entries %d to %d", seed, id, last+1, want)
			}
			check(t, g, 1, last, always(1))
		}
	}
}

// Goal: after a failed fsync nothing is acknowledged, the owner is told once
// with the reason, and raft is not made to panic over its term.
func TestFailedSyncIsFinal(t *testing.T) {
	var broken errorfs.Toggle
	broken.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpFileFlush:
			return errorfs.ErrInjected
		}
		return nil
	})
	fs := errorfs.Wrap(vfs.NewCrashableMem(), &broken)
	told := make(chan error, 10)
	s := open(t, fs, func(err error) { told <- err })
	g := group(t, s, 1)
	must(t, g.StoreLogs(entries(1, 1, 1)))
	broken.On()
	if err := g.StoreLogs(entries(2, 2, 1)); err == nil {
		t.Fatal("an entry was acknowledged though its fsync failed")
	}
	broken.Off() // a second fsync would succeed, and prove nothing
	if err := g.StoreLogs(entries(2, 2, 1)); !errors.Is(err, ErrFailed) {
		t.Fatalf("after the failure: %v, want ErrFailed", err)
	}
	if err := g.Set(keyVoteCand, []byte("x")); !errors.Is(err, ErrFailed) {
		t.Fatalf("a vote after the failure: %v, want ErrFailed", err)
	}
	must(t, g.SetUint64(keyTerm, 8))
	if v, err := g.GetUint64(keyTerm); v != 8 || err != nil {
		t.Fatalf("term %d, %v", v, err)
	}
	if len(told) != 1 {
		t.Fatalf("the owner was told %d times, want once", len(told))
	}
	if s.Failed() == nil {
		t.Fatal("the store does not say why it stopped")
	}
}

func TestClosedStoreRefuses(t *testing.T) {
	s := open(t, vfs.NewMem(), nil)
	g := group(t, s, 1)
	must(t, s.Close())
	must(t, s.Close())
	if err := g.StoreLogs(entries(1, 1, 1)); !errors.Is(err, ErrClosed) {
		t.Fatalf("write after Close: %v", err)
	}
	if _, err := s.Group(2); !errors.Is(err, ErrClosed) {
		t.Fatalf("group after Close: %v", err)
	}
}

func FuzzDecodeLog(f *testing.F) {
	l := entries(1, 1, 3)[0]
	l.Extensions = []byte("ext")
	buf := make([]byte, logSize(l))
	encodeLog(buf, l)
	f.Add(buf)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		var l raft.Log
		if decodeLog(1, p, &l) != nil {
			return
		}
		again := make([]byte, logSize(&l))
		encodeLog(again, &l)
		if !bytes.Equal(again, p) {
			t.Fatalf("%x became %x", p, again)
		}
	})
}

func BenchmarkStoreLogs(b *testing.B) {
	s, err := Open(Config{Dir: b.TempDir(), Logger: quiet})
	must(b, err)
	defer s.Close()
	g := group(b, s, 1)
	data := make([]byte, 16<<10)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		i++
		must(b, g.StoreLogs([]*raft.Log{{Index: i, Term: 1, Data: data}}))
	}
}
