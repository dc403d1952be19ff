package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/clock"
	"qianma/cluster/fact"
	"qianma/cluster/leaktest"
	"qianma/middle-store/fold"
	"qianma/middle-store/middlestorepb"
	"qianma/middle-store/store"
	"qianma/nucleic/nucleicpb"
	"qianma/vaccine/vaccinepb"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const noon = int64(1646107200000)

var ctx = context.Background()

// chain cuts the blocks of one origin.
type chain struct {
	origin fact.Origin
	mark   fact.Mark
	stamp  int64
}

func chainOf(carrier, subsystem string) *chain {
	return &chain{origin: fact.Origin{Carrier: carrier, Subsystem: subsystem, Incarnation: 1}, stamp: noon * 1e6}
}

func (c *chain) cut(facts ...[]byte) fact.Block {
	c.stamp += int64(time.Second)
	b := fact.Block{Origin: c.origin, First: c.mark.Seq + 1, Count: uint32(len(facts)), Stamp: c.stamp, Prev: c.mark.Digest}
	for _, f := range facts {
		b.Body = fact.AppendFact(b.Body, f)
	}
	c.mark = b.Mark()
	return b
}

func person(n int) []byte {
	p := make([]byte, 16)
	p[0], p[1], p[2], p[3] = byte(n*37), byte(n>>16), byte(n>>8), byte(n)
	return p
}

func tubeName(n int) []byte { return fmt.Appendf(nil, "5201%010d", n) }

func registered(who, tube int, at int64) []byte {
	return (&nucleicpb.Registered{Tube: tubeName(tube), Person: person(who), Pool: nucleicpb.PoolTen, SampledAt: at, Site: []byte("520103-01"), Channel: 1, Operator: []byte("n17"), DoorAt: at}).AppendFact(nil)
}

func resulted(tube int, o nucleicpb.Outcome) []byte {
	return (&nucleicpb.Resulted{Tube: tubeName(tube), Lab: []byte("L1"), Revision: 1, Outcome: o, ReportedAt: noon + 3600_000}).AppendFact(nil)
}

func dose(who int) []byte {
	return vaccinepb.AppendDoseGiven(nil, &vaccinepb.DoseGiven{Person: vaccinepb.Person(person(who)), Dose: 1, Day: 18900, Product: "A", Batch: "B", Site: "S"})
}

// history cuts blocks of two carriers and two subsystems, each in order.
func history(seed uint64, blocks int) []fact.Block {
	rng := rand.New(rand.NewPCG(seed, 1))
	chains := []*chain{chainOf("unicom", fold.Nucleic), chainOf("mobile", fold.Nucleic), chainOf("unicom", fold.Vaccine), chainOf("mobile", fold.Vaccine)}
	var out []fact.Block
	for range blocks {
		c := chains[rng.IntN(len(chains))]
		var facts [][]byte
		for range 1 + rng.IntN(20) {
			switch {
			case rng.IntN(50) == 0:
				facts = append(facts, []byte{0x9a, 0x01, 0x00}) // of a kind no build knows
			case c.origin.Subsystem == fold.Vaccine:
				facts = append(facts, dose(rng.IntN(200)))
			case rng.IntN(5) == 0:
				facts = append(facts, resulted(rng.IntN(100), nucleicpb.Outcome(1+rng.IntN(4))))
			default:
				facts = append(facts, registered(rng.IntN(200), rng.IntN(100), noon+rng.Int64N(1e6)))
			}
		}
		out = append(out, c.cut(facts...))
	}
	return out
}

func open(t testing.TB, fs vfs.FS, edit ...func(*store.Config)) *store.Store {
	t.Helper()
	cfg := store.Config{Dir: "middle", FS: fs, FlushInterval: time.Hour, Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
	for _, f := range edit {
		f(&cfg)
	}
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func mustFold(t testing.TB, s *store.Store, blocks ...fact.Block) {
	t.Helper()
	if err := s.Fold(ctx, blocks); err != nil {
		t.Fatal(err)
	}
}

func digest(t testing.TB, s *store.Store) (fact.Digest, int) {
	t.Helper()
	d, rows, err := s.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d, rows
}

func status(t testing.TB, s *store.Store, who int) middlestorepb.Status {
	t.Helper()
	var got middlestorepb.Status
	_, err := s.Read([]middlestorepb.PersonID{middlestorepb.PersonID(person(who))}, 6, func(_ int, p *middlestorepb.Person) { got = p.Status })
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestFoldThenRead(t *testing.T) {
	s := open(t, vfs.NewMem())
	n, v := chainOf("unicom", fold.Nucleic), chainOf("mobile", fold.Vaccine)
	mustFold(t, s, n.cut(registered(1, 7, noon), registered(2, 7, noon), resulted(7, nucleicpb.OutcomeNegative)), v.cut(dose(1)))
	var got []middlestorepb.Person
	state, err := s.Read([]middlestorepb.PersonID{middlestorepb.PersonID(person(2)), middlestorepb.PersonID(person(1)), {}}, 6, func(_ int, p *middlestorepb.Person) {
		got = append(got, middlestorepb.Person{Status: p.Status, HasDoses: p.HasDoses})
	})
	if err != nil || len(got) != 3 || got[0].Status != middlestorepb.StatusNegative || got[0].HasDoses || got[1].Status != middlestorepb.StatusNegative || !got[1].HasDoses || got[2].Status != middlestorepb.StatusNone {
		t.Fatalf("got %+v, %v", got, err)
	}
	if marks := state.Marks; marks.Seq(middlestorepb.OriginKey(n.origin.String())) != 3 || marks.Seq(middlestorepb.OriginKey(v.origin.String())) != 1 {
		t.Fatalf("marks %v", marks)
	}
	if want := map[fact.Origin]fact.Mark{n.origin: n.mark, v.origin: v.mark}; fmt.Sprint(s.Marks()) != fmt.Sprint(want) {
		t.Fatalf("marks %v, want %v", s.Marks(), want)
	}
	if got := s.Newest()[n.origin].UnixNano(); got != n.stamp {
		t.Fatalf("newest %d, want %d", got, n.stamp)
	}
}

func TestRepeatsAreDroppedAndStrangersRefused(t *testing.T) {
	s := open(t, vfs.NewMem())
	c := chainOf("unicom", fold.Nucleic)
	one, two, three := c.cut(registered(1, 1, noon)), c.cut(registered(2, 1, noon)), c.cut(registered(3, 1, noon))
	mustFold(t, s, one, two, one)
	before, _ := digest(t, s)
	mustFold(t, s, two, one)
	if after, _ := digest(t, s); after != before || s.Status().Repeats != 3 {
		t.Fatalf("repeats changed the rows, or were not counted: %+v", s.Status())
	}

	other := chainOf("unicom", fold.Nucleic)
	other.cut(registered(9, 9, noon))
	other.cut(registered(9, 9, noon))
	stranger := other.cut(registered(9, 9, noon))
	if err := s.Fold(ctx, []fact.Block{stranger}); !errors.Is(err, fact.ErrDivergent) {
		t.Fatalf("a block of another history was taken: %v", err)
	}
	four := c.cut(registered(4, 1, noon))
	if err := s.Fold(ctx, []fact.Block{four}); !errors.Is(err, fact.ErrGap) {
		t.Fatalf("a block behind a gap was taken: %v", err)
	}
	if err := s.Fold(ctx, []fact.Block{three, stranger}); !errors.Is(err, fact.ErrDivergent) {
		t.Fatalf("got %v", err)
	}
	if got := s.Marks()[c.origin].Seq; got != 3 {
		t.Fatalf("what came before the stranger was not folded: at %d", got)
	}
	if after, _ := digest(t, s); after == before {
		t.Fatal("the third block left no rows")
	}
}

// TestAnyWayLeavesTheSameBytes folds one history in many ways: in large and
// small parcels, origins in other orders, with repeats and restarts between.
func TestAnyWayLeavesTheSameBytes(t *testing.T) {
	blocks := history(1, 120)
	straight := open(t, vfs.NewMem())
	mustFold(t, straight, blocks...)
	want, rows := digest(t, straight)
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 2))
		fs := vfs.NewMem()
		s := open(t, fs)
		for left := shuffled(blocks, rng); len(left) > 0; {
			n := min(len(left), 1+rng.IntN(10))
			mustFold(t, s, left[:n]...)
			mustFold(t, s, left[rng.IntN(n)])
			left = left[n:]
			switch rng.IntN(6) {
			case 0:
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, fs)
			case 1:
				if err := s.Compact(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got, n := digest(t, s); got != want {
			t.Fatalf("seed %d: %d rows, want %d", seed, n, rows)
		}
		if s.Status().Aside != straight.Status().Aside || s.Status().Aside == 0 {
			t.Fatalf("seed %d: %d facts aside, want %d", seed, s.Status().Aside, straight.Status().Aside)
		}
	}
}

// shuffled mixes origins and keeps the order inside each.
func shuffled(blocks []fact.Block, rng *rand.Rand) []fact.Block {
	by := map[fact.Origin][]fact.Block{}
	var turns []fact.Origin
	for _, b := range blocks {
		by[b.Origin] = append(by[b.Origin], b)
		turns = append(turns, b.Origin)
	}
	rng.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
	var out []fact.Block
	for _, o := range turns {
		out, by[o] = append(out, by[o][0]), by[o][1:]
	}
	return out
}

// TestCrashLeavesMarksAndRowsTogether crashes a store at random places, keeping
// a random part of what was not synced. What is left must be exactly the rows
// of the marks that are left: no mark without its rows, no row without its
// mark. Then the store goes on, and ends like one that never crashed.
func TestCrashLeavesMarksAndRowsTogether(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			blocks := history(seed, 150)
			fs := vfs.NewCrashableMem()
			s := open(t, fs, func(c *store.Config) { c.MemTableBytes = 32 << 10 })
			for left := blocks; len(left) > 0; {
				n := min(len(left), 1+rng.IntN(20))
				mustFold(t, s, left[:n]...)
				left = left[n:]
				if rng.IntN(4) == 0 {
					if err := s.Flush(); err != nil {
						t.Fatal(err)
					}
				}
				if rng.IntN(4) != 0 {
					continue
				}
				fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 25 * rng.IntN(5), RNG: rng})
				_ = s.Close() // of the machine that is no more
				s = open(t, fs, func(c *store.Config) { c.MemTableBytes = 32 << 10 })
				sameAsReplay(t, s, blocks)
				left = missing(blocks, s.Marks())
			}
			sameAsReplay(t, s, blocks)
			if len(missing(blocks, s.Marks())) != 0 {
				t.Fatal("the end is missing")
			}
		})
	}
}

func missing(blocks []fact.Block, marks map[fact.Origin]fact.Mark) []fact.Block {
	return slices.DeleteFunc(slices.Clone(blocks), func(b fact.Block) bool { return b.Last() <= marks[b.Origin].Seq })
}

// sameAsReplay compares a store with an empty one that folds the blocks of its
// marks.
func sameAsReplay(t *testing.T, s *store.Store, blocks []fact.Block) {
	t.Helper()
	marks := s.Marks()
	replay := open(t, vfs.NewMem())
	mustFold(t, replay, slices.DeleteFunc(slices.Clone(blocks), func(b fact.Block) bool { return b.Last() > marks[b.Origin].Seq })...)
	want, rows := digest(t, replay)
	got, n := digest(t, s)
	if got != want || s.Status().Aside != replay.Status().Aside {
		t.Fatalf("marks %v: %d rows and %d facts aside, want %d and %d", marks, n, s.Status().Aside, rows, replay.Status().Aside)
	}
	if err := replay.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFlushMakesItDurable(t *testing.T) {
	fs := vfs.NewCrashableMem()
	clk := clock.NewManual(time.UnixMilli(noon))
	s := open(t, fs, func(c *store.Config) { c.Clock, c.FlushInterval = clk, time.Second })
	c := chainOf("unicom", fold.Nucleic)
	mustFold(t, s, c.cut(registered(1, 1, noon)))
	until(t, func() bool { return clk.Waiting() > 0 })
	clk.Advance(time.Second)
	until(t, func() bool { return clk.Waiting() > 0 }) // the flush is over when it waits again
	after := open(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	if got := after.Marks()[c.origin]; got != c.mark {
		t.Fatalf("got %v, want %v", got, c.mark)
	}
}

func until(t testing.TB, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("it never came to be")
		}
		<-time.After(time.Millisecond)
	}
}

func TestCloseKeepsWhatWasFolded(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs)
	blocks := history(5, 30)
	mustFold(t, s, blocks...)
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := s.Fold(ctx, nil); !errors.Is(err, store.ErrClosed) {
		t.Fatalf("a closed store folds: %v", err)
	}
	after := open(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	if left := missing(blocks, after.Marks()); len(left) != 0 {
		t.Fatalf("%d blocks lost", len(left))
	}
	sameAsReplay(t, after, blocks)
}

// TestCompleteIsNeverAheadOfTheRows: after a power cut a store believes itself
// complete only if it kept the rows that made it so.
func TestCompleteIsNeverAheadOfTheRows(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs)
	if s.Complete() {
		t.Fatal("an empty store is complete")
	}
	c := chainOf("unicom", fold.Nucleic)
	mustFold(t, s, c.cut(registered(1, 1, noon)))
	if err := s.SetComplete(); err != nil {
		t.Fatal(err)
	}
	if cut := open(t, fs.CrashClone(vfs.CrashCloneCfg{})); cut.Complete() || len(cut.Marks()) != 0 {
		t.Fatalf("complete %v with marks %v", cut.Complete(), cut.Marks())
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if cut := open(t, fs.CrashClone(vfs.CrashCloneCfg{})); !cut.Complete() || cut.Marks()[c.origin] != c.mark {
		t.Fatalf("complete %v with marks %v", cut.Complete(), cut.Marks())
	}
}

// TestSetAsideIsFoldedByABuildThatUnderstands: an older build has set aside a
// fact that this one understands.
func TestSetAsideIsFoldedByABuildThatUnderstands(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	c := chainOf("unicom", fold.Nucleic)
	mustFold(t, s, c.cut([]byte{0x9a, 0x01, 0x00}, registered(1, 7, noon)))
	if got := s.Status().Aside; got != 1 {
		t.Fatalf("%d aside", got)
	}
	if err := s.Set(store.AsideKey(c.origin, 99), resulted(7, nucleicpb.OutcomePositive)); err != nil {
		t.Fatal(err)
	}
	if got := status(t, s, 1); got != middlestorepb.StatusPending {
		t.Fatalf("got %v", got)
	}
	// Compact makes sure that something was flushed: the store believes it is clean.
	if err := errors.Join(s.Compact(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, fs)
	if got := status(t, s, 1); got != middlestorepb.StatusPoolPositiveRetest || s.Status().Aside != 1 {
		t.Fatalf("got %v, %d aside", got, s.Status().Aside)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s = open(t, fs); s.Status().Aside != 1 || status(t, s, 1) != middlestorepb.StatusPoolPositiveRetest {
		t.Fatal("what was folded late was set aside again")
	}
}

func TestOtherLayoutStartsEmpty(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	mustFold(t, s, history(6, 10)...)
	if err := errors.Join(s.SetLayout(fold.Layout+1), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, fs)
	if _, rows := digest(t, s); rows != 0 || len(s.Marks()) != 0 {
		t.Fatalf("%d rows, marks %v", rows, s.Marks())
	}
}

// TestDamageCondemnsTheStore flips bits in a table. The node must be told, and
// the next start must be an empty, working store.
func TestDamageCondemnsTheStore(t *testing.T) {
	fs := vfs.NewMem()
	blocks := history(7, 400)
	s := open(t, fs)
	mustFold(t, s, blocks...)
	if err := errors.Join(s.Compact(), s.Close()); err != nil {
		t.Fatal(err)
	}
	flipTables(t, fs, "middle/rows-000001", 0.3, 0.4) // marks stand in front
	told := make(chan error, 1)
	s = open(t, fs, func(c *store.Config) { c.Fatal = func(err error) { told <- err } })
	if len(s.Marks()) == 0 {
		t.Fatal("the damage was found too early for this test")
	}
	for who := range 200 {
		_, _ = s.Read([]middlestorepb.PersonID{middlestorepb.PersonID(person(who))}, 6, func(int, *middlestorepb.Person) {})
	}
	select {
	case <-told:
	default:
		t.Fatal("nobody was told of the damage")
	}
	if _, err := s.Read(nil, 6, nil); !errors.Is(err, store.ErrFailed) {
		t.Fatalf("a damaged store answers: %v", err)
	}
	_ = s.Close()
	s = open(t, fs)
	if len(s.Marks()) != 0 {
		t.Fatal("a damaged store was opened again")
	}
	mustFold(t, s, blocks...)
}

// TestDamageFoundAtOpenStartsEmpty: whoever opens is not told that the node
// must stop, because it need not.
func TestDamageFoundAtOpenStartsEmpty(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	mustFold(t, s, history(7, 60)...)
	if err := errors.Join(s.Compact(), s.Close()); err != nil {
		t.Fatal(err)
	}
	flipTables(t, fs, "middle/rows-000001", 0, 0.5)
	if s = open(t, fs); len(s.Marks()) != 0 {
		t.Fatal("damaged marks were believed")
	}
	mustFold(t, s, history(7, 60)...)
}

// flipTables changes every 50th byte of a part of every table.
func flipTables(t *testing.T, fs vfs.FS, dir string, from, to float64) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		path := fs.PathJoin(dir, name)
		info, err := fs.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		size := float64(info.Size())
		for at := int64(from * size); at < int64(to*size); at += 50 {
			if _, err := f.WriteAt([]byte{0xa5}, at); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// foldOneByOne folds blocks while the test goes on; block n registers person n
// alone.
func foldOneByOne(t *testing.T, s *store.Store, c *chain, blocks int) *sync.WaitGroup {
	folding := new(sync.WaitGroup)
	folding.Go(func() {
		for i := 1; i <= blocks; i++ {
			if err := s.Fold(ctx, []fact.Block{c.cut(registered(i, i, noon))}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	return folding
}

// TestReadIsNeverOlderThanItsMarks reads while blocks are folded. Block n holds
// person n alone, so marks that cover n promise person n.
func TestReadIsNeverOlderThanItsMarks(t *testing.T) {
	s := open(t, vfs.NewMem())
	c := chainOf("unicom", fold.Nucleic)
	key := middlestorepb.OriginKey(c.origin.String())
	const blocks = 400
	defer foldOneByOne(t, s, c, blocks).Wait()
	seen := middlestorepb.Marks{}
	for seen.Seq(key) < blocks {
		n := int(s.SeenMarks().Seq(key))
		known := false
		state, err := s.Read([]middlestorepb.PersonID{middlestorepb.PersonID(person(max(n, 1)))}, 6, func(_ int, p *middlestorepb.Person) { known = len(p.Tubes) == 1 })
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 && !known {
			t.Fatalf("marks of %d, but its rows cannot be read", n)
		}
		if !state.Marks.Covers(seen) {
			t.Fatalf("marks went back from %v to %v", seen, state.Marks)
		}
		seen = state.Marks
		if t.Failed() {
			return
		}
	}
}

// TestHalfABlockIsNoBlock: a block that turns out to be malformed leaves none of
// its rows, and those before it all of theirs.
func TestHalfABlockIsNoBlock(t *testing.T) {
	s := open(t, vfs.NewMem())
	c := chainOf("unicom", fold.Nucleic)
	good := c.cut(registered(1, 1, noon))
	bad := c.cut(registered(2, 2, noon), registered(3, 3, noon))
	bad.Body = bad.Body[:len(bad.Body)-1]
	if err := s.Fold(ctx, []fact.Block{good, bad}); !errors.Is(err, fact.ErrCorrupt) {
		t.Fatalf("got %v", err)
	}
	if _, rows := digest(t, s); rows != 1 || s.Marks()[c.origin] != good.Mark() {
		t.Fatalf("%d rows, marks %v", rows, s.Marks())
	}
}

func TestCanceledFoldTakesNothing(t *testing.T) {
	s := open(t, vfs.NewMem())
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Fold(ended, history(1, 1)); !errors.Is(err, context.Canceled) || len(s.Marks()) != 0 {
		t.Fatalf("got %v, marks %v", err, s.Marks())
	}
}

// BenchmarkFoldRegistrations folds parcels of 2000 registrations of people
// drawn from eight million, as a busy follower hands them over.
func BenchmarkFoldRegistrations(b *testing.B) {
	s := open(b, vfs.Default, func(c *store.Config) { c.Dir = b.TempDir() })
	c := chainOf("unicom", fold.Nucleic)
	rng := rand.New(rand.NewPCG(1, 1))
	const per, blocks, ahead = 500, 4, 200
	n := 0
	parcel := func() (p []fact.Block) {
		for range blocks {
			var facts [][]byte
			for range per {
				who := rng.IntN(8e6)
				facts = append(facts, registered(who, who/10, noon+int64(n)))
				n++
			}
			p = append(p, c.cut(facts...))
		}
		return p
	}
	var waiting [][]fact.Block
	busy := processor(b)
	b.ReportAllocs()
	for b.Loop() {
		if len(waiting) == 0 {
			b.StopTimer()
			before := processor(b)
			for range ahead {
				waiting = append(waiting, parcel())
			}
			busy += processor(b) - before
			b.StartTimer()
		}
		mustFold(b, s, waiting[0]...)
		waiting = waiting[1:]
	}
	each := float64(b.N) * per * blocks
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/each, "ns/registration")
	b.ReportMetric(float64((processor(b)-busy).Nanoseconds())/each, "cpu-ns/registration") // flushes and compactions too
}

// processor is the processor time this process has used.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkLookup64(b *testing.B) {
	for _, people := range []int{200_000, 1_000_000} { // what the cache holds, and what it does not
		b.Run(fmt.Sprintf("people=%d", people), func(b *testing.B) { lookup64(b, people) })
	}
}

func lookup64(b *testing.B, people int) {
	s := open(b, vfs.Default, func(c *store.Config) { c.Dir = b.TempDir() })
	c, v := chainOf("unicom", fold.Nucleic), chainOf("unicom", fold.Vaccine)
	for at := 0; at < people; at += 1000 {
		var facts, doses [][]byte
		for i := at; i < at+1000; i++ {
			facts = append(facts, registered(i, i/10, noon))
			if i%10 == 0 {
				facts = append(facts, resulted(i/10, nucleicpb.OutcomeNegative))
			}
			doses = append(doses, dose(i))
		}
		mustFold(b, s, c.cut(facts...), v.cut(doses...))
	}
	if err := s.Compact(); err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	ids := make([]middlestorepb.PersonID, 64)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		for i := range ids {
			ids[i] = middlestorepb.PersonID(person(rng.IntN(people)))
		}
		out = out[:0]
		if _, err := s.Read(ids, 6, func(_ int, p *middlestorepb.Person) { out = middlestorepb.AppendPerson(out, p) }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/person")
}
