// Package serve answers for a middle store: lookups and copies over RPC, and a
// few HTTP endpoints for operations.
//
// Promises: an answer's marks are never ahead of its rows; a reader that
// brings the marks of what it has seen is never shown anything older without
// being told; an answer says of every carrier and subsystem how old it is, and
// an age that is not known is said to be unknown, never to be young; a
// process that has no store yet says so at once.
//
// It refuses to know how the store is fed. A Server is safe for concurrent
// use.
package serve

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"qianma/cluster/clock"
	"qianma/cluster/problem"
	"qianma/cluster/rpc"
	"qianma/middle-store/middlestorepb"
	"qianma/middle-store/store"
)

// Config is what a server stands on.
type Config struct {
	Name  string      // of the process, told in every answer
	Clock clock.Clock // nil: the machine's
	// Freshness says how new the data is. It is asked a few times a second at
	// most. nil: nothing is known.
	Freshness func() []middlestorepb.Freshness
}

// freshFor is how long an account of freshness is good for: a lookup costs
// microseconds, the account takes locks.
const freshFor = 50 * time.Millisecond

// Server answers from the store it has been given.
type Server struct {
	cfg   Config
	store atomic.Pointer[store.Store]

	asking sync.Mutex
	fresh  atomic.Pointer[account]
	work   sync.Pool // of *work
}

// account is what was known of freshness at a time.
type account struct {
	at   time.Duration // as elapsed
	list []middlestorepb.Freshness
}

// work is the scratch space of one lookup.
type work struct {
	req  middlestorepb.LookupRequest
	size int // of the last answer: a hint for the next
}

// New returns a server that has no store yet.
func New(cfg Config) *Server {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real
	}
	if cfg.Freshness == nil {
		cfg.Freshness = func() []middlestorepb.Freshness { return nil }
	}
	s := &Server{cfg: cfg}
	s.work.New = func() any { return &work{size: 1 << 10} }
	return s
}

// Use makes the server answer from a store; nil: from none.
func (s *Server) Use(st *store.Store) { s.store.Store(st) }

// Ready reports whether there is a store to answer from.
func (s *Server) Ready() bool { return s.store.Load() != nil }

// Register puts the methods on a server of calls.
func (s *Server) Register(r *rpc.Server) {
	r.Handle(middlestorepb.MethodLookup, s.lookup)
	r.Handle(middlestorepb.MethodChanges, s.changes)
	r.Handle(middlestorepb.MethodCheckpointOpen, s.openCopy)
	r.Handle(middlestorepb.MethodCheckpointRead, s.readCopy)
	r.Handle(middlestorepb.MethodCheckpointClose, s.closeCopy)
}

// current is the store to answer from.
func (s *Server) current() (*store.Store, error) {
	if st := s.store.Load(); st != nil {
		return st, nil
	}
	return nil, problem.New(problem.Unavailable, "this middle store is still being opened or rebuilt", "ask another replica").After(time.Second)
}

// lookup is MethodLookup.
func (s *Server) lookup(_ context.Context, raw []byte) ([]byte, error) {
	w := s.work.Get().(*work)
	defer s.work.Put(w)
	if w.req.Decode(raw) != nil {
		return nil, problem.New(problem.Malformed, "not a lookup of middlestore.proto", "check that both processes run versions that belong together")
	}
	out, err := s.Answer(&w.req, make([]byte, 0, w.size))
	if err == nil {
		w.size = len(out) + len(out)/8
	}
	return out, err
}

// Answer encodes a LookupResponse to the request behind dst.
func (s *Server) Answer(req *middlestorepb.LookupRequest, dst []byte) ([]byte, error) {
	if len(req.Persons) > middlestorepb.MaxPersons || req.Tubes > middlestorepb.MaxTubes {
		return nil, problem.New(problem.TooLarge, "a lookup over its bounds", "ask for at most 1000 persons and 32 tubes at a time")
	}
	st, err := s.current()
	if err != nil {
		return nil, err
	}
	tail := middlestorepb.LookupResponse{AnsweredAt: s.cfg.Clock.Now().UnixMilli(), ServedBy: s.cfg.Name}
	if len(req.Seen) > 0 && !st.SeenMarks().Covers(req.Seen) {
		if tail.Behind = true; !req.StaleOK {
			return nil, behind()
		}
	}
	tail.Freshness = s.freshness() // before the rows: what was fresh then is in them
	tubes := int(req.Tubes)
	if tubes == 0 {
		tubes = middlestorepb.DefaultTubes
	}
	state, err := st.Read(req.Persons, tubes, func(_ int, p *middlestorepb.Person) {
		if !req.Subjects {
			p.Subjects = p.Subjects[:0]
		}
		dst = middlestorepb.AppendPerson(dst, p)
	})
	if err != nil {
		return nil, problem.Wrap(err, problem.Unavailable, "this middle store cannot read its rows", "ask another replica")
	}
	tail.Marks, tail.Epoch, tail.Position = state.Marks, state.Epoch, state.Position
	return tail.AppendTail(dst), nil
}

// changes is MethodChanges.
func (s *Server) changes(_ context.Context, raw []byte) ([]byte, error) {
	var req middlestorepb.ChangesRequest
	if req.Decode(raw) != nil {
		return nil, problem.New(problem.Malformed, "not a ChangesRequest of middlestore.proto", "check that both processes run versions that belong together")
	}
	st, err := s.current()
	if err != nil {
		return nil, err
	}
	asked, fresh := s.cfg.Clock.Now().UnixMilli(), s.freshness() // before the changes: what was fresh then is in them
	out, err := st.Changes(req.Epoch, req.After)
	if err != nil {
		return nil, problem.Wrap(err, problem.Unavailable, "this middle store cannot read its rows", "ask another replica")
	}
	out.Head.AnsweredAt, out.Head.ServedBy, out.Head.Freshness = asked, s.cfg.Name, fresh
	return out.Append(make([]byte, 0, 4*len(out.Changed)+512)), nil
}

func behind() error {
	return problem.New(middlestorepb.CodeBehind, "this replica has folded less than the reader has already seen", "ask another replica, or accept an older answer").After(200 * time.Millisecond)
}

// freshness is the account of now, or of a moment ago.
func (s *Server) freshness() []middlestorepb.Freshness {
	now := s.cfg.Clock.Elapsed()
	a := s.fresh.Load()
	if a != nil && now-a.at < freshFor {
		return a.list
	}
	if a != nil && !s.asking.TryLock() {
		return a.list // somebody is asking
	}
	if a == nil {
		s.asking.Lock()
	}
	defer s.asking.Unlock()
	a = &account{now, s.cfg.Freshness()}
	s.fresh.Store(a)
	return a.list
}

// openCopy is MethodCheckpointOpen.
func (s *Server) openCopy(_ context.Context, raw []byte) ([]byte, error) {
	var req middlestorepb.CheckpointOpenRequest
	if req.Decode(raw) != nil {
		return nil, notACopy()
	}
	st, err := s.current()
	if err != nil {
		return nil, err
	}
	out, err := st.OpenCopy()
	if err != nil {
		return nil, err
	}
	return out.Append(nil), nil
}

// readCopy is MethodCheckpointRead.
func (s *Server) readCopy(_ context.Context, raw []byte) ([]byte, error) {
	var req middlestorepb.CheckpointReadRequest
	if req.Decode(raw) != nil {
		return nil, notACopy()
	}
	st, err := s.current()
	if err != nil {
		return nil, err
	}
	out, err := st.ReadCopy(req)
	if err != nil {
		return nil, err
	}
	return out.Append(make([]byte, 0, len(out.Data)+32)), nil
}

// closeCopy is MethodCheckpointClose.
func (s *Server) closeCopy(_ context.Context, raw []byte) ([]byte, error) {
	var req middlestorepb.CheckpointCloseRequest
	if req.Decode(raw) != nil {
		return nil, notACopy()
	}
	if st := s.store.Load(); st != nil {
		st.CloseCopy(req.ID)
	}
	return nil, nil
}

func notACopy() error {
	return problem.New(problem.Malformed, "not a message of middlestore.proto", "check that both processes run versions that belong together")
}

// Peer is another middle store as a place to take a copy from.
type Peer struct {
	Calls Caller
	Name  string // of the peer
	By    string // of this process
}

// Caller makes a call to a named process.
type Caller interface {
	Call(ctx context.Context, peer, method string, request []byte) ([]byte, error)
}

// Bounds of the calls of a copy.
const (
	openTimeout = 30 * time.Second // it flushes and links
	readTimeout = 10 * time.Second
)

func (p Peer) call(ctx context.Context, timeout time.Duration, method string, req []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return p.Calls.Call(ctx, p.Name, method, req)
}

// OpenCopy implements store.Peer.
func (p Peer) OpenCopy(ctx context.Context) (out middlestorepb.CheckpointOpenResponse, err error) {
	req := middlestorepb.CheckpointOpenRequest{By: p.By}
	raw, err := p.call(ctx, openTimeout, middlestorepb.MethodCheckpointOpen, req.Append(nil))
	if err == nil {
		err = out.Decode(raw)
	}
	return out, err
}

// ReadCopy implements store.Peer.
func (p Peer) ReadCopy(ctx context.Context, r middlestorepb.CheckpointReadRequest) (out middlestorepb.CheckpointReadResponse, err error) {
	raw, err := p.call(ctx, readTimeout, middlestorepb.MethodCheckpointRead, r.Append(nil))
	if err == nil {
		err = out.Decode(raw)
	}
	return out, err
}

// CloseCopy implements store.Peer.
func (p Peer) CloseCopy(ctx context.Context, id uint64) error {
	req := middlestorepb.CheckpointCloseRequest{ID: id}
	_, err := p.call(ctx, readTimeout, middlestorepb.MethodCheckpointClose, req.Append(nil))
	return err
}

var _ store.Peer = Peer{}
