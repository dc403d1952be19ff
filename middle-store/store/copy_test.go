package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/clock"
	"qianma/cluster/problem"
	"qianma/middle-store/fold"
	"qianma/middle-store/middlestorepb"
	"qianma/middle-store/store"
)

// peer is a store as a peer sees it, without a network between. onRead sees
// every part and may change it.
type peer struct {
	s      *store.Store
	onOpen func(*middlestorepb.CheckpointOpenResponse)
	onRead func(*middlestorepb.CheckpointReadResponse) error
	closed int
}

func (p *peer) OpenCopy(context.Context) (middlestorepb.CheckpointOpenResponse, error) {
	out, err := p.s.OpenCopy()
	if p.onOpen != nil {
		p.onOpen(&out)
	}
	return out, err
}

func (p *peer) ReadCopy(_ context.Context, r middlestorepb.CheckpointReadRequest) (middlestorepb.CheckpointReadResponse, error) {
	out, err := p.s.ReadCopy(r)
	if err == nil && p.onRead != nil {
		err = p.onRead(&out)
	}
	return out, err
}

func (p *peer) CloseCopy(_ context.Context, id uint64) error {
	p.closed++
	p.s.CloseCopy(id)
	return nil
}

func mustComplete(t *testing.T, s *store.Store) {
	t.Helper()
	if err := s.SetComplete(); err != nil {
		t.Fatal(err)
	}
}

// TestReplayAndCopyGiveTheSameBytes rebuilds an empty replica in both ways
// while the peer goes on folding, and compares all three.
func TestReplayAndCopyGiveTheSameBytes(t *testing.T) {
	blocks := history(11, 200)
	s := open(t, vfs.NewMem())
	mustFold(t, s, blocks[:120]...)
	mustComplete(t, s)

	fs := vfs.NewMem()
	next := blocks[120:]
	p := &peer{s: s, onRead: func(*middlestorepb.CheckpointReadResponse) error {
		if len(next) > 0 {
			mustFold(t, s, next[0])
			next = next[1:]
		}
		return nil
	}}
	facts, err := store.Take(ctx, store.Config{Dir: "middle", FS: fs}, p)
	if err != nil || facts == 0 || p.closed != 1 {
		t.Fatalf("%d facts, closed %d times, %v", facts, p.closed, err)
	}
	mustFold(t, s, next...)
	copied := open(t, fs)
	if len(missing(blocks, copied.Marks())) != 80 {
		t.Fatalf("the copy is not of the moment it was opened: %d blocks missing", len(missing(blocks, copied.Marks())))
	}
	if !copied.Complete() {
		t.Fatal("the copy does not know that it is complete")
	}
	sameAsReplay(t, copied, blocks)
	mustFold(t, copied, blocks...)

	replayed := open(t, vfs.NewMem())
	mustFold(t, replayed, blocks...)
	want, rows := digest(t, s)
	for name, other := range map[string]*store.Store{"copied": copied, "replayed": replayed} {
		if got, n := digest(t, other); got != want || fmt.Sprint(other.Marks()) != fmt.Sprint(s.Marks()) {
			t.Errorf("%s: %d rows, want %d", name, n, rows)
		}
	}
}

// TestCopyCutShortChangesNothing crashes the copying replica after each part,
// and fails the peer there: both must leave the store as it was.
func TestCopyCutShortChangesNothing(t *testing.T) {
	s := open(t, vfs.NewMem())
	mustFold(t, s, history(12, 60)...)
	mustComplete(t, s)
	parts := 0
	count := &peer{s: s, onRead: func(*middlestorepb.CheckpointReadResponse) error { parts++; return nil }}
	if _, err := store.Take(ctx, store.Config{Dir: "middle", FS: vfs.NewMem()}, count); err != nil {
		t.Fatal(err)
	}
	old := history(13, 5)
	for at := range parts {
		fs := vfs.NewCrashableMem()
		before := open(t, fs)
		mustFold(t, before, old...)
		want, _ := digest(t, before)
		if err := before.Close(); err != nil {
			t.Fatal(err)
		}
		var crashed *vfs.MemFS
		left := at
		p := &peer{s: s, onRead: func(*middlestorepb.CheckpointReadResponse) error {
			if left--; left < 0 {
				crashed = fs.CrashClone(vfs.CrashCloneCfg{})
				return errors.New("the line is cut")
			}
			return nil
		}}
		if _, err := store.Take(ctx, store.Config{Dir: "middle", FS: fs}, p); err == nil || p.closed != 1 {
			t.Fatalf("part %d: error %v, closed %d times", at, err, p.closed)
		}
		for name, fs := range map[string]*vfs.MemFS{"crashed": crashed, "failed": fs} {
			after := open(t, fs)
			if got, _ := digest(t, after); got != want {
				t.Fatalf("part %d, %s: the store changed", at, name)
			}
			if err := after.Close(); err != nil {
				t.Fatal(err)
			}
			names, err := fs.List("middle")
			if err != nil || len(names) != 2 {
				t.Fatalf("part %d, %s: left behind %v, %v", at, name, names, err)
			}
		}
	}
}

func TestCopyTakenIsDurable(t *testing.T) {
	s := open(t, vfs.NewMem())
	mustFold(t, s, history(14, 60)...)
	mustComplete(t, s)
	want, _ := digest(t, s)
	fs := vfs.NewCrashableMem()
	if _, err := store.Take(ctx, store.Config{Dir: "a/b/middle", FS: fs}, &peer{s: s}); err != nil {
		t.Fatal(err)
	}
	after := open(t, fs.CrashClone(vfs.CrashCloneCfg{}), func(c *store.Config) { c.Dir = "a/b/middle" })
	if got, _ := digest(t, after); got != want {
		t.Fatal("a power cut after the copy lost it")
	}
}

func TestCopiesThatAreRefused(t *testing.T) {
	s := open(t, vfs.NewMem())
	take := func(p *peer) error {
		_, err := store.Take(ctx, store.Config{Dir: "middle", FS: vfs.NewMem()}, p)
		return err
	}
	if err := take(&peer{s: s}); !errors.Is(err, store.ErrNothing) {
		t.Errorf("an empty peer: %v", err)
	}
	mustFold(t, s, history(15, 20)...)
	if err := take(&peer{s: s}); !errors.Is(err, store.ErrNothing) {
		t.Errorf("a peer that is not complete: %v", err)
	}
	mustComplete(t, s)
	type opened = middlestorepb.CheckpointOpenResponse
	type part = middlestorepb.CheckpointReadResponse
	for name, p := range map[string]*peer{
		"other layout":  {s: s, onOpen: func(o *opened) { o.Layout++ }},
		"way out":       {s: s, onOpen: func(o *opened) { o.Files[0].Name = "../CURRENT" }},
		"parent":        {s: s, onOpen: func(o *opened) { o.Files[0].Name = ".." }},
		"no name":       {s: s, onOpen: func(o *opened) { o.Files[0].Name = "" }},
		"twice":         {s: s, onOpen: func(o *opened) { o.Files[0].Name = o.Files[1].Name }},
		"no files":      {s: s, onOpen: func(o *opened) { o.Files = nil }},
		"damaged part":  {s: s, onRead: func(p *part) error { p.Data[0]++; return nil }},
		"endless part":  {s: s, onRead: func(p *part) error { p.Data = append(p.Data, 1); return nil }},
		"empty part":    {s: s, onRead: func(p *part) error { p.Data = nil; return nil }},
		"larger file":   {s: s, onOpen: func(o *opened) { o.Files[0].Size++ }},
		"peer vanished": {s: s, onRead: func(*part) error { return errors.New("gone") }},
	} {
		if err := take(p); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestCopiesAreBoundedAndEndByThemselves(t *testing.T) {
	fs := vfs.NewMem()
	clk := clock.NewManual(time.UnixMilli(noon))
	s := open(t, fs, func(c *store.Config) { c.Clock, c.FlushInterval, c.CopyIdle = clk, 30*time.Second, time.Minute })
	mustFold(t, s, history(16, 20)...)
	mustComplete(t, s)
	first, err := s.OpenCopy()
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.OpenCopy()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenCopy(); !problem.Is(err, problem.Overloaded) {
		t.Fatalf("a third copy: %v", err)
	}
	s.CloseCopy(second.ID)
	s.CloseCopy(second.ID)
	if _, err := s.ReadCopy(middlestorepb.CheckpointReadRequest{ID: second.ID}); !problem.Is(err, problem.NotFound) {
		t.Fatalf("a closed copy is read: %v", err)
	}
	clk.Set(clk.Now().Add(-2 * time.Hour)) // its peers have outvoted it: nobody reads the copy for that
	for range 3 {                          // the first is left alone
		until(t, func() bool { return clk.Waiting() > 0 })
		clk.Advance(31 * time.Second)
	}
	until(t, func() bool { return s.Status().Copies == 0 })
	if _, err := s.ReadCopy(middlestorepb.CheckpointReadRequest{ID: first.ID}); !problem.Is(err, problem.NotFound) {
		t.Fatalf("a forgotten copy is read: %v", err)
	}
	until(t, func() bool { names, err := fs.List("middle"); return err == nil && len(names) == 2 })
}

func TestCopyReadsStayInside(t *testing.T) {
	s := open(t, vfs.NewMem())
	mustFold(t, s, history(17, 20)...)
	mustComplete(t, s)
	c, err := s.OpenCopy()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []middlestorepb.CheckpointReadRequest{{ID: c.ID, File: uint32(len(c.Files))}, {ID: c.ID, Offset: c.Files[0].Size + 1}} {
		if _, err := s.ReadCopy(r); !problem.Is(err, problem.Invalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if c.Layout != fold.Layout {
		t.Errorf("layout %d", c.Layout)
	}
}
