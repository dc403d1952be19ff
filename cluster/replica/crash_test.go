package replica

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"qianma/cluster/machine"
	"qianma/cluster/problem"
	"qianma/cluster/raftlog"
)

// acks remembers what was acknowledged: address -> fact.
type acks struct {
	mu sync.Mutex
	at map[string]string
}

func (a *acks) add(t *testing.T, r machine.Receipt, facts ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Replayed || r.Last == 0 {
		return
	}
	for i, f := range facts {
		k := fmt.Sprint(r.Origin, "#", r.First+uint64(i))
		if old, ok := a.at[k]; ok && old != f {
			t.Errorf("address %s was given to two facts", k)
		}
		a.at[k] = f
	}
}

func (a *acks) copy() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.at)
}

// check demands that a replica holds every acknowledged fact at its address.
func (a *acks) check(t *testing.T, want map[string]string, n *node) {
	t.Helper()
	o, _ := n.Own(0)
	have := map[string]string{}
	for i, f := range n.history(t) {
		have[fmt.Sprint(o, "#", i+1)] = f
	}
	for k, f := range want {
		if have[k] != f {
			t.Fatalf("%s: acknowledged fact at %s is %q, want %q", n.name, k, have[k], f)
		}
	}
}

// write keeps proposing until ctx ends.
func (w *world) write(ctx context.Context, t *testing.T, a *acks, writer int, wg *sync.WaitGroup) {
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			up := w.up()
			if len(up) == 0 {
				return
			}
			n := up[(writer+i)%len(up)]
			c := toyCommand(uint64(writer)<<32|uint64(i), "x")
			r, err := n.Propose(ctx, 0, machine.Proposal{Commands: [][]byte{c}})
			if err == nil {
				a.add(t, r, string(c))
			}
		}
	})
}

// Goal: after the power fails everywhere at once, every acknowledged fact is
// at its address, and what is written afterwards takes new addresses.
// Method: several power cuts under writers, on disks that keep what was synced
// and a random part of what was not; some cuts fall right behind a snapshot.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for seed := uint64(1); seed <= 3; seed++ {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			w := three(t, func(c *Config) { c.Tuning.SnapshotEntries = 20 })
			a := &acks{at: map[string]string{}}
			for range 3 {
				ctx, cancel := context.WithCancel(ctxFor(t))
				var wg sync.WaitGroup
				for i := range 4 {
					w.write(ctx, t, a, i, &wg)
				}
				before := len(a.copy())
				until(t, "writes", func() bool { return len(a.copy()) > before+60 })
				if rng.IntN(2) == 0 {
					for _, n := range w.up() {
						_ = raftOf(n).Snapshot().Error()
					}
				}
				want := a.copy() // acknowledged before the cut
				disks := map[string]vfs.FS{}
				for _, n := range w.up() {
					// One instant for all: whoever is cloned later may only hold more.
					disks[n.name] = w.disks[n.name].(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
				}
				cancel()
				wg.Wait()
				w.stop()
				w.mu.Lock()
				maps.Copy(w.disks, disks)
				w.mu.Unlock()
				a.mu.Lock()
				a.at = want // what came after the cut was acknowledged by the dead
				a.mu.Unlock()
				w.startAll()
				w.leader().put(t, toyCommand(rng.Uint64(), "after"))
				w.equal()
				for _, n := range w.up() {
					a.check(t, want, n)
				}
			}
		})
	}
}

// Goal: nodes that lose power one after another, leaders too, lose nothing
// that was acknowledged while a majority stands.
func TestRollingPowerCuts(t *testing.T) {
	t.Parallel()
	w := three(t, func(c *Config) { c.Tuning.SnapshotEntries = 30 })
	a := &acks{at: map[string]string{}}
	ctx, cancel := context.WithCancel(ctxFor(t))
	var wg sync.WaitGroup
	for i := range 4 {
		w.write(ctx, t, a, i, &wg)
	}
	for i := range 5 {
		before := len(a.copy())
		n := w.leader()
		if i%2 == 1 {
			n = w.follower()
		}
		n.crash()
		w.leader()
		until(t, "writes without it", func() bool { return len(a.copy()) > before+20 })
		w.start(n.name)
		until(t, "writes with it", func() bool { return len(a.copy()) > before+40 })
	}
	cancel()
	wg.Wait()
	w.leader()
	w.equal()
	for _, n := range w.up() {
		a.check(t, a.copy(), n)
	}
}

// Goal: a disk that fails stops its node, which says why and acknowledges
// nothing more; the cluster goes on; the node comes back when its disk does.
func TestFailedDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, abc...)
	var broken errorfs.Toggle
	broken.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpFileFlush:
			return errorfs.ErrInjected
		}
		return nil
	})
	sound := w.disks["b"]
	w.disks["b"] = errorfs.Wrap(sound, &broken)
	w.startAll()
	w.leader().put(t, toyCommand(1, "x"))
	b := w.node("b")
	until(t, "b to be in the group", func() bool { return len(b.Marks(0)) > 0 })
	b.doomed = true
	broken.On()
	until(t, "b to stop", func() bool {
		ctx, cancel := context.WithTimeout(ctxFor(t), time.Second) // b may lead: then they are not answered
		defer cancel()
		_, _ = w.leader().Propose(ctx, 0, machine.Proposal{Commands: [][]byte{toyCommand(rand.Uint64(), "y")}})
		return b.fatal.Load() != nil
	})
	if !errors.Is(*b.fatal.Load(), errorfs.ErrInjected) && (*b.fatal.Load()).Error() == "" {
		t.Fatalf("why: %v", *b.fatal.Load())
	}
	if s := b.Status()[0]; s.Role != "stopped" || s.Failed == "" {
		t.Fatalf("status of the failed node: %+v", s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := b.Propose(ctx, 0, machine.Proposal{Commands: [][]byte{toyCommand(3, "x")}}); !problem.Is(err, problem.Unavailable) && !problem.Is(err, problem.Unknown) {
		t.Fatalf("propose at a failed node: %v", err)
	}
	b.shut()
	w.leader().put(t, toyCommand(4, "x"))
	w.disks["b"] = sound
	w.start("b")
	w.equal()
}

// Goal: a replica whose files were damaged sets them aside, comes back as a
// new life, is taken in by the others without an operator, and has everything.
func TestDamagedReplicaIsRefilled(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	for i := range 30 {
		w.leader().put(t, toyCommand(uint64(i), "x"))
	}
	w.equal()
	for _, n := range w.up() {
		snapshotNow(t, n)
	}
	out := w.follower()
	life := out.life
	out.shut()
	fs := w.disks[out.name]
	path := fs.PathJoin("data/"+out.name, "shard-0", currentFile)
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("00000000\n{}"))
	f.Close()
	back := w.start(out.name)
	if back.life == life {
		t.Fatal("a replica that lost its promises kept its name in the group")
	}
	w.leader().put(t, toyCommand(99, "x"))
	until(t, "the new life to have a vote", func() bool {
		for _, m := range w.leader().Status()[0].Members {
			if m.Life == back.life {
				return m.Voter
			}
		}
		return false
	})
	if m := w.leader().Status()[0].Members; len(m) != 3 {
		t.Fatalf("members %+v", m)
	}
	w.equal()
	// What it was sent it knows, as if it had written it: nothing is new a second time.
	until(t, "the new life to know what it holds", func() bool { return isFilled(back) })
	for i := range 30 {
		r := w.leader().put(t, toyCommand(uint64(i), "x"))
		if r.Rows[0].Status != machine.Duplicate {
			t.Fatalf("value %d is %v", i, r.Rows[0].Status)
		}
	}
	w.equal()
	aside, err := raftlog.Open(raftlog.Config{Dir: fs.PathJoin("data/"+out.name, "damaged", "log"), FS: fs, Logger: w.log})
	if err != nil {
		t.Fatalf("what was set aside is not there to look at: %v", err)
	}
	aside.Close()
}

// isFilled reports whether a node knows which rows its store holds.
func isFilled(n *node) bool {
	s := n.group0().fsm.tx.known
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.filled
}
