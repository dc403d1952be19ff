package source_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"qianma/cluster/clock"
	"qianma/cluster/leaktest"
	"qianma/display/source"
	pb "qianma/middle-store/middlestorepb"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var origin = pb.OriginKey("unicom/nucleic/0/1")

func person(n byte) pb.PersonID { return pb.PersonID{n} }

// stores plays the middle stores of a province: each answers as its function
// says, and every call is noted.
type stores struct {
	mu    sync.Mutex
	plays map[string]func(ctx context.Context, req *pb.LookupRequest) (*pb.LookupResponse, error)
	calls []string
	sizes []int
	ring  func(peer string, req pb.ChangesRequest) (*pb.ChangesResponse, error) // nil: a build that has no such call
}

func (s *stores) Call(ctx context.Context, peer, method string, raw []byte) ([]byte, error) {
	if method == pb.MethodChanges {
		return s.changes(peer, raw)
	}
	var req pb.LookupRequest
	if err := req.Decode(raw); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.calls, s.sizes = append(s.calls, peer), append(s.sizes, len(req.Persons))
	play := s.plays[peer]
	s.mu.Unlock()
	resp, err := play(ctx, &req)
	if err != nil {
		return nil, err
	}
	return resp.Append(nil), nil
}

func (s *stores) changes(peer string, raw []byte) ([]byte, error) {
	var req pb.ChangesRequest
	if err := req.Decode(raw); err != nil {
		return nil, err
	}
	if s.ring == nil {
		return nil, errors.New("no such method")
	}
	resp, err := s.ring(peer, req)
	if err != nil {
		return nil, err
	}
	return resp.Append(nil), nil
}

func (s *stores) called() ([]string, []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.calls...), append([]int(nil), s.sizes...)
}

// holds answers with a store that has folded seq facts; the tube of each
// person carries the person's own number.
func holds(seq uint64) func(context.Context, *pb.LookupRequest) (*pb.LookupResponse, error) {
	return func(_ context.Context, req *pb.LookupRequest) (*pb.LookupResponse, error) {
		resp := &pb.LookupResponse{Marks: pb.Marks{{Origin: origin, Seq: seq}}, Freshness: []pb.Freshness{{Carrier: "unicom", Subsystem: "nucleic", AsOf: int64(seq)}}}
		resp.Behind = !resp.Marks.Covers(req.Seen)
		if resp.Behind && !req.StaleOK {
			return nil, errors.New(pb.CodeBehind)
		}
		for _, p := range req.Persons {
			resp.Persons = append(resp.Persons, pb.Person{Tubes: []pb.Tube{{Pool: uint32(p[0])}}})
		}
		return resp, nil
	}
}

func dead(context.Context, *pb.LookupRequest) (*pb.LookupResponse, error) {
	return nil, errors.New("connection refused")
}

func frozen(ctx context.Context, _ *pb.LookupRequest) (*pb.LookupResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

type play = func(context.Context, *pb.LookupRequest) (*pb.LookupResponse, error)

// standing is a clock that does not move, on which no store is ever slow: a busy
// machine must not have the next one asked.
func standing() *clock.Manual { return clock.NewManual(time.Unix(1641340800, 0)) }

// brisk is a clock on which the pause between two calls has passed already.
type brisk struct{ *clock.Manual }

func (b brisk) After(d time.Duration) <-chan time.Time {
	if d > source.Linger {
		return b.Manual.After(d)
	}
	passed := make(chan time.Time, 1)
	passed <- b.Now()
	return passed
}

// outvote has peers say that this machine is two hours ahead: its time goes back.
func outvote(c *clock.Common) { c.Hear([]time.Duration{-2 * time.Hour, -2 * time.Hour}) }

// open starts a source over two own stores and one of the other carrier.
func open(t *testing.T, c clock.Clock, cp *source.Copy, own1, own2, other play) (*source.Source, *stores) {
	t.Helper()
	s := &stores{plays: map[string]play{"own1": own1, "own2": own2, "other": other}}
	src, err := source.Open(source.Config{Caller: s, Own: []string{"own1", "own2"}, Others: []string{"other"}, Clock: c, Copy: cp})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(src.Close(), src.Close()); err != nil {
			t.Error(err)
		}
	})
	return src, s
}

func openCopy(t *testing.T, fs vfs.FS, maxBytes int64) *source.Copy {
	t.Helper()
	c, err := source.OpenCopy(source.CopyConfig{Dir: "copy", FS: fs, MaxBytes: maxBytes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// eventually polls until ok, or fails.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestChainOfFallbacks(t *testing.T) {
	for _, c := range []struct {
		name              string
		clock             clock.Clock
		own1, own2, other play
		want              source.Kind
	}{
		{"all well", standing(), holds(1), holds(1), holds(1), source.MiddleStore},
		{"first dead", standing(), dead, holds(1), holds(1), source.MiddleStore},
		{"own dead", standing(), dead, dead, holds(1), source.OtherCarrier},
		{"own frozen", clock.Real, frozen, frozen, holds(1), source.OtherCarrier},
		{"one dead, one frozen", clock.Real, dead, frozen, holds(1), source.OtherCarrier},
		{"all dead", standing(), dead, dead, dead, source.None},
		{"all frozen", clock.Real, frozen, frozen, frozen, source.None},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			src, _ := open(t, c.clock, nil, c.own1, c.own2, c.other)
			a := src.Get(context.Background(), person(7), nil)
			if a.Kind != c.want || (a.Kind != source.None && a.Person.Tubes[0].Pool != 7) || a.Behind {
				t.Fatalf("%+v", a)
			}
		})
	}
}

func TestHealthyStoreIsTheOnlyOneAsked(t *testing.T) {
	src, s := open(t, standing(), nil, holds(1), holds(1), holds(1))
	src.Get(context.Background(), person(1), nil)
	if calls, _ := s.called(); len(calls) != 1 || calls[0] != "own1" {
		t.Fatal(calls)
	}
}

// TestSlowStoreIsHedged freezes the first store and moves a manual clock by
// the hedge alone: the second must answer while the first call still hangs.
func TestSlowStoreIsHedged(t *testing.T) {
	c := standing()
	release := make(chan struct{})
	hangs := func(context.Context, *pb.LookupRequest) (*pb.LookupResponse, error) {
		<-release
		return nil, errors.New("too late")
	}
	defer close(release)
	src, _ := open(t, c, nil, hangs, holds(1), dead)
	got := make(chan source.Answer, 1)
	go func() { got <- src.Get(context.Background(), person(1), nil) }()
	eventually(t, "the hedge is armed", func() bool { return c.Waiting() > 0 })
	c.Advance(time.Second)
	if a := <-got; a.Kind != source.MiddleStore {
		t.Fatalf("%+v", a)
	}
}

// TestRequestsTravelTogether holds the first call back while others come: all
// of them must leave in one more call.
func TestRequestsTravelTogether(t *testing.T) {
	c := standing()
	all := make(chan struct{})
	s := &stores{plays: map[string]play{"own1": func(ctx context.Context, req *pb.LookupRequest) (*pb.LookupResponse, error) {
		<-all
		return holds(1)(ctx, req)
	}}}
	src, err := source.Open(source.Config{Caller: s, Own: []string{"own1"}, Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var wg sync.WaitGroup
	get := func(n byte) {
		wg.Go(func() {
			if a := src.Get(context.Background(), person(n), nil); a.Kind != source.MiddleStore || a.Person.Tubes[0].Pool != uint32(n) {
				t.Errorf("person %d: %+v", n, a)
			}
		})
	}
	// Four batches may be under way: fill them, and the rest must gather.
	for n := range 4 {
		get(byte(10 + n))
		eventually(t, "a call of its own", func() bool { c.Advance(source.Linger); calls, _ := s.called(); return len(calls) == 1+n })
	}
	for n := range 50 {
		get(byte(100 + n))
	}
	eventually(t, "all wait", func() bool { return src.Waiting() == 50 })
	c.Advance(source.Linger)
	close(all)
	wg.Wait()
	_, sizes := s.called()
	if len(sizes) != 5 || sizes[4] != 50 {
		t.Fatalf("calls of %v persons", sizes)
	}
}

// TestACallIsFollowedByAPause: whoever comes first is asked about at once, and
// those who come behind share the next call, however few they are.
func TestACallIsFollowedByAPause(t *testing.T) {
	c := standing()
	src, s := open(t, c, nil, holds(1), dead, dead)
	src.Get(context.Background(), person(1), nil) // on a clock that stands: it waits for nothing
	var wg sync.WaitGroup
	for n := range byte(2) {
		wg.Go(func() { src.Get(context.Background(), person(2+n), nil) })
	}
	eventually(t, "both wait", func() bool { return src.Waiting() == 2 })
	c.Advance(source.Linger)
	wg.Wait()
	if _, sizes := s.called(); !slices.Equal(sizes, []int{1, 2}) {
		t.Fatalf("calls of %v persons", sizes)
	}
}

// TestABatchLeavesThoughTheClockWasPutBack: the pause behind a call is as long on a
// machine that began two hours ahead and is outvoted in it.
func TestABatchLeavesThoughTheClockWasPutBack(t *testing.T) {
	machine := standing()
	c := clock.NewCommon(machine)
	src, _ := open(t, c, nil, holds(1), dead, dead)
	src.Get(context.Background(), person(1), nil)
	outvote(c)
	armed := machine.Waiting()
	got := make(chan source.Answer, 1)
	go func() { got <- src.Get(context.Background(), person(2), nil) }()
	eventually(t, "the second waits for the pause to end", func() bool { return machine.Waiting() > armed })
	machine.Advance(source.Linger)
	eventually(t, "the second is asked about", func() bool { return len(got) == 1 })
	if a := <-got; a.Kind != source.MiddleStore {
		t.Fatalf("%+v", a)
	}
}

func TestOnePersonAskedTwiceIsOneQuestion(t *testing.T) {
	if !source.JoinsOnce() {
		t.Fatal("two questions about one person left in one batch")
	}
}

func TestReaderNeverSeesThePastAgain(t *testing.T) {
	seen := pb.Marks{{Origin: origin, Seq: 5}}
	t.Run("another store has more", func(t *testing.T) {
		src, _ := open(t, standing(), nil, holds(4), holds(5), holds(9))
		a := src.Get(context.Background(), person(1), seen)
		if a.Behind || a.Kind != source.MiddleStore || a.Batch.Marks[0].Seq != 5 {
			t.Fatalf("%+v", a)
		}
	})
	t.Run("only the other carrier has", func(t *testing.T) {
		src, _ := open(t, standing(), nil, holds(4), dead, holds(5))
		if a := src.Get(context.Background(), person(1), seen); a.Behind || a.Kind != source.OtherCarrier {
			t.Fatalf("%+v", a)
		}
	})
	t.Run("nobody has", func(t *testing.T) {
		src, _ := open(t, standing(), nil, holds(4), holds(3), dead)
		if a := src.Get(context.Background(), person(1), seen); !a.Behind || a.Kind != source.MiddleStore {
			t.Fatalf("an answer from the past must say so: %+v", a)
		}
	})
	t.Run("nobody answers", func(t *testing.T) {
		src, _ := open(t, standing(), nil, dead, dead, dead)
		if a := src.Get(context.Background(), person(1), seen); !a.Behind || a.Kind != source.None {
			t.Fatalf("%+v", a)
		}
	})
}

func TestLastKnownAnswersWhenEveryStoreIsGone(t *testing.T) {
	fs := vfs.NewMem()
	cp := openCopy(t, fs, 0)
	src, s := open(t, brisk{standing()}, cp, holds(3), dead, dead)
	a := src.Get(context.Background(), person(7), nil)
	src.Keep(person(7), &a)
	s.mu.Lock()
	s.plays["own1"] = dead
	s.mu.Unlock()
	eventually(t, "the copy answers", func() bool {
		a = src.Get(context.Background(), person(7), nil)
		return a.Kind == source.LastKnown
	})
	if a.Person.Tubes[0].Pool != 7 || a.Batch.Freshness[0].AsOf != 3 {
		t.Fatalf("%+v", a)
	}
	if a := src.Get(context.Background(), person(8), nil); a.Kind != source.None {
		t.Fatalf("a person never looked at: %+v", a)
	}
	if a := src.Get(context.Background(), person(7), pb.Marks{{Origin: origin, Seq: 3}}); a.Kind != source.LastKnown || a.Behind {
		t.Fatalf("the copy is as new as what was seen: %+v", a)
	}
	if a := src.Get(context.Background(), person(7), pb.Marks{{Origin: origin, Seq: 4}}); !a.Behind {
		t.Fatalf("the copy is older than what was seen: %+v", a)
	}
}

func put(c *source.Copy, n byte, seq uint64) {
	resp, _ := holds(seq)(context.Background(), &pb.LookupRequest{Persons: []pb.PersonID{person(n)}})
	c.Put(person(n), &resp.Persons[0], resp)
}

func TestCopySurvivesARestart(t *testing.T) {
	fs := vfs.NewMem()
	c := openCopy(t, fs, 0)
	for n := range 100 {
		put(c, byte(n), 5)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openCopy(t, fs, 0)
	for n := range 100 {
		if resp, ok := c.Get(person(byte(n))); !ok || resp.Persons[0].Tubes[0].Pool != uint32(n) || resp.Marks[0].Seq != 5 {
			t.Fatalf("person %d: %v", n, ok)
		}
	}
}

// TestCopyIsBounded writes many times the bound, in three lives: the newest
// must be there, the oldest must be gone.
func TestCopyIsBounded(t *testing.T) {
	fs := vfs.NewMem()
	for life := range 3 {
		c := openCopy(t, fs, 4000)
		for n := range 100 {
			put(c, byte(n), uint64(life+1))
			eventually(t, "it is written", func() bool {
				resp, ok := c.Get(person(byte(n)))
				return ok && resp.Marks[0].Seq == uint64(life+1)
			})
		}
		held := 0
		for n := range 100 {
			if _, ok := c.Get(person(byte(n))); ok {
				held++
			}
		}
		if held == 100 || held == 0 {
			t.Fatalf("life %d holds %d of 100", life, held)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamagedCopyIsBegunAnew(t *testing.T) {
	fs := vfs.NewMem()
	c := openCopy(t, fs, 0)
	put(c, 1, 1)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("copy")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := fs.Create("copy/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.Write([]byte("garbage"))
		_ = f.Close()
	}
	c = openCopy(t, fs, 0)
	if _, ok := c.Get(person(1)); ok {
		t.Fatal("garbage was read")
	}
	put(c, 1, 2)
	eventually(t, "it is written", func() bool { _, ok := c.Get(person(1)); return ok })
}

// TestAFullDiskEndsTheCopyAndNobodyElse: when the disk takes no more, be it while
// the copy is in use or as it closes, nothing panics or hangs, and the next one
// opens.
func TestAFullDiskEndsTheCopyAndNobodyElse(t *testing.T) {
	for _, file := range []string{"MANIFEST", ".sst"} {
		t.Run(file, func(t *testing.T) {
			var full errorfs.Toggle
			full.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
				writes := op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
				if writes && strings.Contains(op.Path, file) {
					return syscall.ENOSPC
				}
				return nil
			})
			fs, c := vfs.NewMem(), standing()
			for _, used := range []bool{true, false} {
				cp, err := source.OpenCopy(source.CopyConfig{Dir: "copy", FS: errorfs.Wrap(fs, &full), Clock: c})
				if err != nil {
					t.Fatal(err)
				}
				put(cp, 1, 1)
				eventually(t, "it is written", func() bool { _, ok := cp.Get(person(1)); return ok })
				full.On()
				if used {
					eventually(t, "the copy to end", func() bool {
						c.Advance(time.Minute) // it flushes
						_, ok := cp.Get(person(1))
						return !ok
					})
					put(cp, 2, 1)
				}
				if err := cp.Close(); !strings.Contains(fmt.Sprint(err), syscall.ENOSPC.Error()) {
					t.Fatalf("it was closed: %v", err)
				}
				full.Off()
			}
			cp := openCopy(t, fs, 0)
			put(cp, 1, 2)
			eventually(t, "it is written", func() bool { _, ok := cp.Get(person(1)); return ok })
		})
	}
}

// TestHedgesAreATenthOfTheQuestions: what is saved is spent, then one in ten.
func TestHedgesAreATenthOfTheQuestions(t *testing.T) {
	saved, later := source.HedgesOf(1000)
	if saved != 64 || later != 100 {
		t.Fatalf("%d hedges at once, then %d of 1000", saved, later)
	}
}
