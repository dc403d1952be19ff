package source

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"qianma/cluster/clock"
	"qianma/cluster/problem"
	"qianma/display/lru"
	pb "qianma/middle-store/middlestorepb"
)

// standing keeps what a middle store has answered for as long as it stands. While
// people ask, one call a pace asks that store for the subjects that have changed;
// an answer of which none was named is what the store would say now. So a person
// who looks again costs no question, and is shown nothing that a question to the
// store, stands ago, would not have shown.
//
// It is a help: where the store is silent, has forgotten or is another one, nothing
// stands, and the stores are asked as if there were no such thing.
type standing struct {
	ctx   context.Context
	clock clock.Clock
	calls Caller
	peers []string // of which one is followed
	met   *meters

	kept      *lru.Map[pb.PersonID, record]
	account   atomic.Pointer[account] // nil: no store was ever followed
	asked     atomic.Int64            // since the last look
	strangers atomic.Int64            // answers of other stores since the last of the one that is followed
	wake      chan struct{}
	wg        sync.WaitGroup
	peer      int // the goroutine's own
	late      int // and its own: questions in a row that the peer let pass
}

const (
	// stands bounds how long ago the store has said what had changed. Answers may
	// take 0.45 s each, as of a store short of a processor, before there is a time
	// between two of them in which nothing stands: in that time everybody asks, and
	// the store is slower still.
	stands = time.Second
	// pace is between two such questions.
	pace = 100 * time.Millisecond
	// followLimit is for one of them. An answer that comes later is of little use.
	followLimit = 800 * time.Millisecond
	// lateAfter is how many in a row the store lets pass, or is too busy for, before
	// another is followed, of which nothing is kept yet. One that cannot be reached is
	// left at once.
	lateAfter = 3
	// worth is how many must ask within a pace for it to be worth a call, and
	// restAfter how many paces in a row fewer do before the calls end.
	worth     = 4
	restAfter = 10
	// turnAfter is how many batches other stores answer, and the one that is followed
	// none, before another is followed. They count over as many paces as they take:
	// where few ask there is less than one in a pace, and nothing would stand again.
	turnAfter = 8
	// slots is how many positions are remembered: one for all subjects whose
	// numbers meet there, so that one person's change may cost another a question.
	slots = 1 << 19
	// standingBytes bounds what is kept.
	standingBytes = 32 << 20
)

// record is one person's answer. It is kept encoded: a decoded one would hold on
// to the strings of everybody it came with.
type record struct {
	raw             []byte
	epoch, position uint64
}

// account is what the store that is followed has said last.
type account struct {
	asked   time.Duration // when it was asked, as elapsed
	head    *pb.LookupResponse
	floor   uint64          // what was answered before this position may have changed since
	changed []atomic.Uint64 // by subject: the position of its last change
}

func newStanding(ctx context.Context, cfg Config, met *meters) *standing {
	s := &standing{ctx: ctx, clock: cfg.Clock, calls: cfg.Caller, peers: cfg.Own, met: met, wake: make(chan struct{}, 1)}
	s.kept = lru.New[pb.PersonID, record](standingBytes)
	if len(s.peers) > 0 {
		s.wg.Go(s.run)
	}
	return s
}

func (s *standing) wait() { s.wg.Wait() }

// get returns the answer about a person, if one stands.
func (s *standing) get(p pb.PersonID) (a Answer, ok bool) {
	if s.asked.Add(1) == worth {
		signal(s.wake)
	}
	now := s.account.Load()
	if now == nil || s.clock.Elapsed()-now.asked > stands {
		return a, false
	}
	r, ok := s.kept.Get(p)
	if !ok || r.epoch != now.head.Epoch || r.position < now.floor || r.position > now.head.Position {
		return a, false
	}
	person := new(pb.Person)
	if person.Decode(r.raw) != nil || now.touched(person.Subjects, r.position) {
		return a, false
	}
	s.met.stood.Inc()
	return Answer{Kind: MiddleStore, Person: person, Batch: now.head}, true
}

// touched reports whether any of the subjects, or one that shares its number, has
// changed behind a position.
func (a *account) touched(subjects []uint32, position uint64) bool {
	for _, subject := range subjects {
		if a.changed[subject%slots].Load() > position {
			return true
		}
	}
	return false
}

// put keeps what a store of this carrier has answered about persons.
func (s *standing) put(persons []pb.PersonID, resp *pb.LookupResponse) {
	now := s.account.Load()
	if now == nil || resp.Epoch == 0 {
		return
	}
	if resp.Epoch != now.head.Epoch {
		s.strangers.Add(1)
		return
	}
	s.strangers.Store(0)
	for i := range resp.Persons {
		if p := &resp.Persons[i]; len(p.Subjects) > 0 {
			raw := p.Append(nil)
			s.kept.Put(persons[i], record{raw, resp.Epoch, resp.Position}, len(raw))
		}
	}
}

func (s *standing) run() {
	for {
		select {
		case <-s.wake:
			s.follow()
		case <-s.ctx.Done():
			return
		}
	}
}

// follow keeps the account while it is worth it.
func (s *standing) follow() {
	for few := 0; few < restAfter; few++ {
		if s.strangers.Load() >= turnAfter {
			s.turn()
		}
		if !s.heard(s.look()) {
			s.turn()
		}
		select {
		case <-s.clock.After(pace):
		case <-s.ctx.Done():
			return
		}
		if s.asked.Swap(0) >= worth {
			few = -1
		}
	}
}

// heard counts what became of a question, and is false when another store is to
// be followed.
func (s *standing) heard(end ending) bool {
	s.met.follows[end].Inc()
	switch end {
	case said:
		s.late = 0
	case late:
		s.late++
	case lost:
		return false
	}
	return s.late < lateAfter
}

func (s *standing) turn() {
	s.late = 0
	s.strangers.Store(0)
	if len(s.peers) > 1 {
		s.peer = (s.peer + 1) % len(s.peers)
		s.met.turns.Inc()
	}
}

// ending is how a question about what has changed ended.
type ending int

const (
	said ending = iota
	late        // it was not answered in time, or the store or the way to it was full
	lost        // it could not be asked, or the answer was none
)

func (e ending) String() string { return [...]string{"said", "late", "lost"}[e] }

// look asks the store that is followed what has changed since it was last asked.
func (s *standing) look() ending {
	ctx, cancel := context.WithTimeout(s.ctx, followLimit)
	defer cancel()
	var req pb.ChangesRequest
	last := s.account.Load()
	if last != nil {
		req.Epoch, req.After = last.head.Epoch, last.head.Position
	}
	asked := s.clock.Elapsed() // what the store says is no older than this
	raw, err := s.calls.Call(ctx, s.peers[s.peer], pb.MethodChanges, req.Append(nil))
	var resp pb.ChangesResponse
	if err == nil {
		err = resp.Decode(raw)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), problem.Is(err, problem.Overloaded), ctx.Err() != nil && err != nil:
		return late
	case err != nil || resp.Head.Epoch == 0:
		return lost
	}
	s.account.Store(last.next(asked, req, &resp))
	if last == nil || last.head.Epoch != resp.Head.Epoch {
		s.strangers.Store(0) // those were strangers to the account before
	}
	return said
}

// next is the account after the store has said what had changed.
func (a *account) next(asked time.Duration, req pb.ChangesRequest, said *pb.ChangesResponse) *account {
	n := &account{asked: asked, head: &said.Head, floor: said.Head.Position}
	switch {
	case a == nil || a.head.Epoch != said.Head.Epoch:
		n.changed = make([]atomic.Uint64, slots) // positions of another run mean nothing
	case said.All(req):
		n.changed = a.changed
	default:
		n.changed, n.floor = a.changed, a.floor
		for i, subject := range said.Changed { // before anybody sees the new position
			n.changed[subject%slots].Store(req.After + uint64(i) + 1)
		}
	}
	return n
}
