package source_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"qianma/cluster/clock"
	"qianma/cluster/problem"
	"qianma/display/source"
	pb "qianma/middle-store/middlestorepb"
)

// ledger is a middle store that names its changes: persons have one tube each,
// whose pool is how often the person was changed, and rest on their own number.
type ledger struct {
	mu      sync.Mutex
	epoch   uint64
	pools   map[pb.PersonID]uint32
	changed []uint32
	asked   []pb.ChangesRequest
	silent  bool
	late    int // questions about changes that end in hurried
	hurried error
	insists int  // questions of one reader who has seen more
	all     bool // forgets what it has named
}

func newLedger(epoch uint64) *ledger { return &ledger{epoch: epoch, pools: map[pb.PersonID]uint32{}} }

func subject(p pb.PersonID) uint32 { return 1000 + uint32(p[0]) }

func (l *ledger) change(p pb.PersonID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pools[p]++
	l.changed = append(l.changed, subject(p))
}

func (l *ledger) set(edit func(l *ledger)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	edit(l)
}

func (l *ledger) looks() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.asked)
}

// head is what an answer is not older than; the marks are the position.
func (l *ledger) head() pb.LookupResponse {
	n := uint64(len(l.changed))
	return pb.LookupResponse{Epoch: l.epoch, Position: n, Marks: pb.Marks{{Origin: origin, Seq: n}}, ServedBy: "store"}
}

func (l *ledger) lookup(_ context.Context, req *pb.LookupRequest) (*pb.LookupResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent {
		return nil, errors.New("connection refused")
	}
	if len(req.Seen) > 0 {
		l.insists++
	}
	resp := l.head()
	for _, p := range req.Persons {
		one := pb.Person{Tubes: []pb.Tube{{Tube: "T", Pool: l.pools[p]}}}
		if req.Subjects {
			one.Subjects = []uint32{subject(p)}
		}
		resp.Persons = append(resp.Persons, one)
	}
	return &resp, nil
}

func (l *ledger) changes(req pb.ChangesRequest) (*pb.ChangesResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, req)
	if l.silent {
		return nil, errors.New("connection refused")
	}
	if l.late > 0 {
		l.late--
		return nil, fmt.Errorf("changes: %w", l.hurried)
	}
	resp := &pb.ChangesResponse{Head: l.head()}
	if !l.all && req.Epoch == l.epoch {
		resp.Changed = append(resp.Changed, l.changed[req.After:]...)
	}
	return resp, nil
}

// street is a source before two own stores, on a clock that only the test moves,
// and of which peers may say that it is wrong.
type street struct {
	*source.Source
	t      *testing.T
	clock  *clock.Manual
	common *clock.Common
	stores *stores
	own    [2]*ledger
}

func newStreet(t *testing.T) *street {
	x := &street{t: t, clock: standing(), own: [2]*ledger{newLedger(11), newLedger(22)}}
	x.common = clock.NewCommon(brisk{x.clock})
	x.Source, x.stores = open(t, x.common, nil, x.own[0].lookup, x.own[1].lookup, dead)
	x.stores.ring = func(peer string, req pb.ChangesRequest) (*pb.ChangesResponse, error) {
		switch peer {
		case "own1":
			return x.own[0].changes(req)
		case "own2":
			return x.own[1].changes(req)
		}
		return nil, errors.New("a store that is not of this carrier was asked what had changed")
	}
	return x
}

// show is what a person is shown, and whether a store was asked for it.
func (x *street) show(p pb.PersonID, seen pb.Marks) (a source.Answer, asked bool) {
	x.t.Helper()
	before, _ := x.stores.called()
	a = x.Get(context.Background(), p, seen)
	after, _ := x.stores.called()
	if a.Kind != source.MiddleStore {
		x.t.Fatalf("an answer of %v", a.Kind)
	}
	return a, len(after) > len(before)
}

// look has enough people ask for a look at what has changed, and lets the pace
// pass after which it comes.
func (x *street) look() {
	x.t.Helper()
	before := x.looks()
	for range 4 {
		x.show(person(200), nil)
	}
	eventually(x.t, "a look at what has changed", func() bool {
		if x.looks() == before && x.clock.Waiting() > 0 {
			x.clock.Advance(100 * time.Millisecond)
		}
		return x.looks() > before
	})
}

func (x *street) looks() int { return x.own[0].looks() + x.own[1].looks() }

// shown waits until a person is shown from what stands, or from a store.
func (x *street) shown(p pb.PersonID, wantAsked bool) (a source.Answer) {
	x.t.Helper()
	what := "what was kept is shown"
	if wantAsked {
		what = "a store is asked"
	}
	eventually(x.t, what, func() bool {
		var asked bool
		a, asked = x.show(p, nil)
		return asked == wantAsked
	})
	return a
}

// stand makes the answer about a person stand.
func (x *street) stand(p pb.PersonID) {
	x.t.Helper()
	x.look()
	x.shown(p, false)
}

func TestAnAnswerStandsUntilItsSubjectIsNamed(t *testing.T) {
	x := newStreet(t)
	one, two := person(1), person(2)
	x.stand(one)
	x.stand(two)
	x.own[0].change(one)
	x.look()
	if a := x.shown(one, true); a.Person.Tubes[0].Pool != 1 {
		t.Fatalf("a person who was changed is shown %+v", a.Person)
	}
	a, asked := x.show(two, nil)
	if asked || a.Person.Tubes[0].Pool != 0 {
		t.Fatalf("a person who was not changed is shown %+v, asked %v", a.Person, asked)
	}
	if got := a.Batch.Marks.Seq(origin); got != 1 || a.Batch.ServedBy != "store" {
		t.Fatalf("what stands is as of %d, of %q; the store has said 1", got, a.Batch.ServedBy)
	}
}

// TestNothingStandsLongerThanItWasSaid: the store falls silent, perhaps just when
// this machine's clock is put back, is another run, another store, or has
// forgotten.
func TestNothingStandsLongerThanItWasSaid(t *testing.T) {
	for name, c := range map[string]func(x *street){
		"silent": func(x *street) {
			x.own[0].set(func(l *ledger) { l.silent = true })
			x.clock.Advance(1001 * time.Millisecond)
		},
		"silent, and outvoted": func(x *street) {
			x.own[0].set(func(l *ledger) { l.silent = true })
			outvote(x.common)
			x.clock.Advance(1001 * time.Millisecond)
		},
		"another run": func(x *street) {
			x.own[0].set(func(l *ledger) { l.epoch = 12 })
			x.look()
		},
		"forgotten": func(x *street) {
			x.own[0].change(person(9))
			x.own[0].set(func(l *ledger) { l.all = true })
			x.look()
		},
		"another store": func(x *street) {
			x.own[0].set(func(l *ledger) { l.silent = true })
			x.look()
			x.look()
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newStreet(t)
			x.stand(person(1))
			c(x)
			x.shown(person(1), true)
		})
	}
}

// TestTheStoreThatAnswersIsFollowed: the first store is away, and comes back.
func TestTheStoreThatAnswersIsFollowed(t *testing.T) {
	x := newStreet(t)
	x.stand(person(1))
	x.own[0].set(func(l *ledger) { l.silent = true })
	x.look() // it does not say
	x.stand(person(1))
	if x.own[1].looks() == 0 {
		t.Fatal("it stands, and the store that answers has not been asked whether it does")
	}
	x.own[0].set(func(l *ledger) { l.silent = false })
	eventually(t, "the first store is followed again", func() bool {
		for n := range byte(8) { // it is asked first: answers of a store that is not followed
			x.show(person(100+n), nil)
		}
		x.look()
		_, asked := x.show(person(1), nil)
		return !asked
	})
	second := x.own[1].looks()
	x.look()
	x.look()
	if again := x.own[1].looks(); again != second {
		t.Fatal("the first store answers, and the second is followed")
	}
}

// TestAFewBatchesAPaceTurnBack: as above, where so few ask that no pace brings as
// many answers of the other store as it takes to turn. Method: seven in a pace, one
// less than that.
func TestAFewBatchesAPaceTurnBack(t *testing.T) {
	x := newStreet(t)
	x.stand(person(1))
	x.own[0].set(func(l *ledger) { l.silent = true })
	x.look()
	x.stand(person(1))
	x.own[0].set(func(l *ledger) { l.silent = false })
	for range 60 {
		asked := false
		for n := range byte(3) { // and four in look
			_, again := x.show(person(100+n), nil)
			asked = asked || again
		}
		if !asked {
			return
		}
		x.look()
	}
	t.Fatal("the first store answers everybody, the second is followed: nothing stands again")
}

// TestALateStoreIsFollowedOn: a store that is short of a processor lets questions
// pass, or says that it is full. Twice in a row costs nobody what was kept, however
// often it happens; the third time the other store is followed.
func TestALateStoreIsFollowedOn(t *testing.T) {
	for name, hurried := range map[string]error{
		"late": context.DeadlineExceeded,
		"full": problem.New(problem.Overloaded, "too many calls to one process are waiting", "wait"),
	} {
		t.Run(name, func(t *testing.T) {
			x := newStreet(t)
			x.stand(person(1))
			for range 3 {
				x.own[0].set(func(l *ledger) { l.late, l.hurried = 2, hurried })
				x.look()
				x.look()
				x.look() // is answered
				x.shown(person(1), false)
			}
			if n := x.own[1].looks(); n > 0 {
				t.Fatalf("the other store was asked %d times what had changed", n)
			}
			x.own[0].set(func(l *ledger) { l.late = 3 })
			eventually(t, "the other store is followed", func() bool {
				x.look()
				return x.own[1].looks() > 0
			})
		})
	}
}

// TestAReaderWhoKnowsMoreIsNotToldWhatStands: what the store said a moment ago is
// behind what the reader has seen elsewhere.
func TestAReaderWhoKnowsMoreIsNotToldWhatStands(t *testing.T) {
	x := newStreet(t)
	x.stand(person(1))
	x.own[0].change(person(9))
	a, asked := x.show(person(1), pb.Marks{{Origin: origin, Seq: 1}})
	if !asked || a.Behind || a.Batch.Marks.Seq(origin) != 1 {
		t.Fatalf("asked %v, behind %v, marks %v", asked, a.Behind, a.Batch.Marks)
	}
	if x.own[0].insists > 0 {
		t.Fatal("the reader cost a call alone, and could have travelled with others")
	}
}

// TestNobodyAsksNobodyLooks: calls end when too few ask for them to be worth it,
// and begin again when enough do.
func TestNobodyAsksNobodyLooks(t *testing.T) {
	x := newStreet(t)
	x.stand(person(1))
	before := x.looks()
	for range 100 {
		x.clock.Advance(100 * time.Millisecond)
		for end := time.Now().Add(2 * time.Millisecond); x.clock.Waiting() == 0 && time.Now().Before(end); { // it may look, or be at rest
			runtime.Gosched()
		}
	}
	if looks := x.looks() - before; looks > 25 { // ten, and ten more of those who asked while it looked
		t.Fatalf("%d looks in 100 paces in which nobody asked", looks)
	}
	x.stand(person(1))
}

// TestAStoreThatNamesNothing is of a build from before.
func TestAStoreThatNamesNothing(t *testing.T) {
	x := newStreet(t)
	x.stores.ring = nil
	for range 20 {
		if _, asked := x.show(person(1), nil); !asked {
			t.Fatal("it stands, and nobody said so")
		}
	}
}
