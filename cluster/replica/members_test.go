package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/fact"
	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

func (w *world) voters() (names []string) {
	for _, m := range w.leader().Status()[0].Members {
		if m.Voter {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Goal: members come and go while writes go on; a new one is filled by a
// snapshot, because the others' logs begin behind it.
func TestMembersWhileRunning(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	a := &acks{at: map[string]string{}}
	ctx, cancel := context.WithCancel(ctxFor(t))
	var wg sync.WaitGroup
	for i := range 3 {
		w.write(ctx, t, a, i, &wg)
	}
	until(t, "writes", func() bool { return len(a.copy()) > 50 })
	for _, n := range w.up() {
		snapshotNow(t, n)
	}
	w.disks["d"] = vfs.NewCrashableMem()
	d := w.start("d")
	add := func() error { return w.follower().AddMember(ctxFor(t), 0, "d") }
	if err := w.settle("a member to be added", add); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.names = append(w.names, "d")
	w.mu.Unlock()
	if got := w.voters(); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Fatalf("voters %v", got)
	}
	if err := w.settle("it to be added again", add); err != nil {
		t.Fatalf("added a second time: %v", err)
	}
	lead := w.leader()
	if err := w.settle("the leader to leave", func() error {
		return w.node(w.besides(lead)[0]).RemoveMember(ctxFor(t), 0, lead.name)
	}); err != nil {
		t.Fatal(err)
	}
	until(t, "another leader", func() bool { return w.leader() != lead })
	if got := w.voters(); len(got) != 3 || slices.Contains(got, lead.name) {
		t.Fatalf("voters %v after %s left", got, lead.name)
	}
	before := len(a.copy())
	until(t, "writes with the new members", func() bool { return len(a.copy()) > before+50 })
	cancel()
	wg.Wait()
	lead.shut()
	w.equal()
	a.check(t, a.copy(), d)
	if meta := d.group0().store.snapshot(); meta == nil {
		t.Fatal("the new member was not filled by a snapshot")
	}
}

// Goal: a member that lost its disk comes back by itself, under the same name
// and with a new life; what it promised in its former life is not held against
// the group.
func TestLostDisk(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	for i := range 30 {
		w.leader().put(t, toyCommand(uint64(i), "x"))
	}
	for _, n := range w.up() {
		snapshotNow(t, n)
	}
	for _, name := range []string{w.follower().name, w.leader().name} {
		w.node(name).shut()
		w.disks[name] = vfs.NewCrashableMem()
		back := w.start(name)
		w.leader().put(t, toyCommand(rand.Uint64(), "y"))
		until(t, "the empty node to be a voter again", func() bool {
			for _, m := range w.leader().Status()[0].Members {
				if m.Name == name {
					return m.Life == back.life && m.Voter
				}
			}
			return false
		})
		w.equal()
	}
}

// Goal: a node that comes back empty while the others are away does not form a
// group of its own: it would give out addresses anew.
func TestEmptyNodeWaits(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	w.leader().put(t, toyCommand(1, "x"))
	w.equal()
	own, _ := w.leader().Own(0)
	w.stop()
	w.disks["a"] = vfs.NewCrashableMem() // a is the one that would form the group
	a := w.start("a")
	b := w.start("b")
	ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
	defer cancel()
	if _, err := a.Propose(ctx, 0, machine.Proposal{Commands: [][]byte{toyCommand(2, "x")}}); !problem.Is(err, problem.Unavailable) {
		t.Fatalf("a lone empty node answered: %v", err)
	}
	if _, ok := a.Own(0); ok {
		t.Fatal("an empty node began a new origin beside the living one")
	}
	_ = b
	w.start("c")
	w.leader().put(t, toyCommand(3, "x"))
	w.equal()
	if now, _ := w.leader().Own(0); now != own {
		t.Fatalf("origin %s, want %s", now, own)
	}
}

// Goal: a carrier that lost all its disks comes back as a new incarnation and
// takes its old facts from the other carrier, at their old addresses.
func TestLostCarrier(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	for i := range 10 {
		w.leader().put(t, toyCommand(uint64(i), "x"))
	}
	old, _ := w.leader().Own(0)
	blocks, err := w.leader().Blocks(0, old, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	mark := w.leader().Marks(0)[old]
	w.stop()
	for _, n := range abc {
		w.disks[n] = vfs.NewCrashableMem()
	}
	w.startAll()
	lead := w.leader()
	own, _ := lead.Own(0)
	if own == old || own.Incarnation <= old.Incarnation {
		t.Fatalf("origin %s after %s", own, old)
	}
	if err := w.ingest(blocks); err != nil {
		t.Fatal(err)
	}
	w.equal()
	if got := w.leader().Marks(0)[old]; got != mark {
		t.Fatalf("old origin at %v, want %v", got, mark)
	}
	if r := w.leader().put(t, toyCommand(1, "x")); r.Rows[0].Status != machine.Duplicate {
		t.Fatalf("an old fact is %v", r.Rows[0].Status)
	}
}

// tenAndABackup puts ten facts and returns what the disks hold then.
func tenAndABackup(t *testing.T, w *world) map[string]vfs.FS {
	t.Helper()
	for i := range 10 {
		w.leader().put(t, toyCommand(uint64(i), "x"))
	}
	w.equal()
	backup := map[string]vfs.FS{}
	for n, fs := range w.disks {
		backup[n] = fs.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
	}
	return backup
}

// Goal: a carrier restored from a backup, which the other carrier remembers
// more of than it does itself, ends its origin before it gives an address a
// second time that the other has seen.
func TestRestoredFromBackup(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	backup := tenAndABackup(t, w)
	for i := range 5 {
		w.leader().put(t, toyCommand(uint64(i), "y"))
	}
	old, _ := w.leader().Own(0)
	mark := w.leader().Marks(0)[old]
	blocks, err := w.leader().Blocks(0, old, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.disks = backup
	w.startAll()
	w.leader()
	until(t, "a new incarnation", func() bool {
		w.leader().PeerMark(0, map[fact.Origin]fact.Mark{old: mark})
		now, _ := w.leader().Own(0)
		return now != old
	})
	if err := w.ingest(blocks); err != nil {
		t.Fatal(err)
	}
	r := w.leader().put(t, toyCommand(77, "z"))
	if r.Origin == old.String() || r.First != 1 {
		t.Fatalf("receipt %+v after the origin ended", r)
	}
	w.equal()
	if got := w.leader().Marks(0)[old]; got != mark {
		t.Fatalf("old origin at %v, want %v", got, mark)
	}
	// A mark that is not ahead changes nothing. With it all that is held here is there,
	// what came back under the old origin too.
	own, _ := w.leader().Own(0)
	w.leader().PeerMark(0, map[fact.Origin]fact.Mark{own: w.leader().Marks(0)[own], old: mark})
	repeat := w.leader().put(t, toyCommand(77, "z"))
	repeat.Level, repeat.Last = machine.Committed, 0
	if got := w.leader().Await(t.Context(), repeat, machine.Replicated); got != machine.Replicated {
		t.Errorf("all is over there, and a repeat is %v", got)
	}
	w.leader().put(t, toyCommand(78, "z"))
	if now, _ := w.leader().Own(0); now != own {
		t.Fatal("an origin ended without need")
	}
}

// Goal: nothing is called replicated of which the other carrier has other facts.
// Method: a carrier restored from a backup writes before the other one's word comes,
// to an address that was taken; then the word comes. Neither that receipt nor a
// repeat of it, which names no address, is over there, while what both have is.
func TestOtherFactsAtAnAddressAreNotReplicated(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	backup := tenAndABackup(t, w)
	old, _ := w.leader().Own(0)
	both := w.leader().Marks(0)[old]
	for i := range 5 {
		w.leader().put(t, toyCommand(uint64(i), "y"))
	}
	there := w.leader().Marks(0)[old]
	w.stop()
	w.disks = backup
	w.startAll()
	lead := w.leader()
	receipt := lead.put(t, toyCommand(100, "only here"))
	if receipt.Origin != old.String() || receipt.Last <= both.Seq || receipt.Last > there.Seq {
		t.Fatalf("%+v is not at an address that was taken", receipt)
	}
	lead.PeerMark(0, map[fact.Origin]fact.Mark{old: both})
	g := lead.group0()
	level := func(last uint64) machine.Level {
		return g.level(&machine.Receipt{Origin: old.String(), First: last, Last: last})
	}
	if got := level(both.Seq); got != machine.Replicated {
		t.Errorf("what both have is %v", got)
	}
	until(t, "a new incarnation", func() bool {
		lead.PeerMark(0, map[fact.Origin]fact.Mark{old: there})
		now, _ := lead.Own(0)
		return now != old
	})
	if got := level(receipt.Last); got == machine.Replicated {
		t.Errorf("%+v is %v: the other carrier has other facts there", receipt, got)
	}
	if got := level(both.Seq); got != machine.Replicated {
		t.Errorf("what both have is %v once more was said", got)
	}
	if g.mirrored(g.marks()) {
		t.Error("all that is held is over there, it says, and some of it never will be")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got := lead.Await(ended, receipt, machine.Replicated); got == machine.Replicated {
		t.Errorf("awaited, %+v is %v", receipt, got)
	}
	repeat := receipt
	repeat.Last = 0
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got := lead.Await(short, repeat, machine.Replicated); got == machine.Replicated {
		t.Errorf("a repeat of it is %v", got)
	}
}

// Goal: a mark of ours that is behind is taken for what it is: part of our
// history, or of another. Method: every such mark, true and with another digest,
// while it is remembered and when only the store has it.
func TestAMarkBehindIsHeldAgainstOurHistory(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	for i := range 6 {
		w.leader().put(t, toyCommand(uint64(i), "x"))
	}
	w.equal()
	g := w.node(abc[0]).group0()
	own, _ := g.own()
	blocks, err := g.blocks(own, 0, 1<<20)
	if err != nil || len(blocks) < 2 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	var history []fact.Mark
	for _, b := range blocks[1:] {
		history = append(history, fact.Mark{Seq: b.First - 1, Digest: b.Prev})
	}
	for _, remembered := range []bool{true, false} {
		g.fsm.trail.reset()
		for _, m := range history {
			if remembered {
				g.fsm.trail.add(m)
			}
		}
		for _, m := range history {
			if _, ok := g.fsm.trail.at(m.Seq); ok != remembered {
				t.Fatalf("the mark at %d is remembered: %v, want %v", m.Seq, ok, remembered)
			}
			other := m
			other.Digest[0]++
			if g.forgot(own, m) || !g.forgot(own, other) {
				t.Errorf("remembered %v: at %d our own mark is forgotten %v, another %v", remembered, m.Seq, g.forgot(own, m), g.forgot(own, other))
			}
		}
	}
}

// Goal: whatever happens to nodes and links, replicas that can talk again end
// with equal marks and keys, no acknowledged fact is missing, and none is held
// twice.
// Method: seeded steps under writers with idempotency keys that repeat.
func TestRandomFaults(t *testing.T) {
	t.Parallel()
	for seed := uint64(1); seed <= 3; seed++ {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 2))
			w := three(t, func(c *Config) { c.Tuning.SnapshotEntries = 50 })
			a := &acks{at: map[string]string{}}
			ctx, cancel := context.WithCancel(ctxFor(t))
			var wg sync.WaitGroup
			for i := range 4 {
				w.writeKeyed(ctx, t, a, seed, i, &wg)
			}
			for range 8 {
				before := len(a.copy())
				switch n := w.up()[rng.IntN(3)]; rng.IntN(4) {
				case 0:
					n.crash()
					until(t, "writes without it", func() bool { return len(a.copy()) > before+10 })
					w.start(n.name)
				case 1:
					n.shut()
					w.start(n.name)
				case 2:
					rest := slices.DeleteFunc(slices.Clone(abc), func(s string) bool { return s == n.name })
					w.split([]string{n.name}, rest)
					pause(ctx, time.Duration(rng.IntN(900))*time.Millisecond)
					w.heal()
				case 3:
					_ = raftOf(n).Snapshot().Error()
				}
				w.leader()
				until(t, "writes", func() bool { return len(a.copy()) > before+20 })
			}
			cancel()
			wg.Wait()
			w.leader().put(t, toyCommand(rng.Uint64(), "last"))
			w.equal()
			seen := map[string]bool{}
			for _, f := range w.leader().history(t) {
				if seen[f] {
					t.Fatalf("fact %q is held twice", f)
				}
				seen[f] = true
			}
			for _, n := range w.up() {
				a.check(t, a.copy(), n)
			}
		})
	}
}

// writeKeyed proposes under keys and repeats each until it has an answer.
func (w *world) writeKeyed(ctx context.Context, t *testing.T, a *acks, seed uint64, writer int, wg *sync.WaitGroup) {
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(seed, uint64(writer)))
		for i := 1; ctx.Err() == nil; i++ {
			c := toyCommand(uint64(writer)<<32|uint64(i), "x")
			p := machine.Proposal{Key: [16]byte(append(c[:8:8], c[:8]...)), Body: [16]byte{1}, Commands: [][]byte{c}}
			for answered := false; !answered && ctx.Err() == nil; {
				up := w.up()
				if len(up) == 0 {
					return
				}
				one, done := context.WithTimeout(ctx, 2*time.Second)
				r, err := up[rng.IntN(len(up))].Propose(one, 0, p)
				done()
				if err == nil {
					r.Replayed = false // the receipt of then is as good
					a.add(t, r, string(c))
					answered = true
				} else if problem.Is(err, problem.KeyReused) || problem.Is(err, problem.Internal) {
					t.Errorf("writer %d: %v", writer, err)
					return
				}
			}
		}
	})
}
