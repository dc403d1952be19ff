// Package source finds out what is known about persons' tests and doses: from
// a middle store of this carrier, else of the other, else from this process's
// own last-known copy.
//
// It promises an answer within a second whatever is dead, paused or cut off, and
// that the answer says where it comes from and how old it is. What a store
// answered is given again while the store says that nothing of it has changed
// (standing). Requests that come together travel together: one call asks for up
// to Batch persons, and a request waits for company only within linger behind
// the call before. What a store answered is written to the last-known copy lazily; losing the end of it
// in a crash only makes it older.
//
// It refuses to interpret: colours and words are made elsewhere. Everything
// here is safe for concurrent use; an Answer is shared by all who asked
// together and must not be changed.
package source

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"qianma/cluster/clock"
	pb "qianma/middle-store/middlestorepb"
)

// Kind says where an answer comes from.
type Kind uint8

// The kinds, best first.
const (
	None         Kind = 0 // nobody answered and there is no copy
	MiddleStore  Kind = 1
	OtherCarrier Kind = 2
	LastKnown    Kind = 3
)

var kindNames = [...]string{"none", "middle_store", "other_carrier", "last_known"}

// String is the kind as the API shows it.
func (k Kind) String() string { return kindNames[k] }

// Answer is what is known about one person.
type Answer struct {
	Kind   Kind
	Person *pb.Person
	// Batch is the response the person came in: marks and freshness.
	Batch *pb.LookupResponse
	// Behind: older than the marks that were asked for.
	Behind bool
}

// Bounds.
const (
	Batch = 256 // persons in one call
	// Tubes is how many of a person's newest tubes are looked at: enough for
	// one a day over the time a positive holds.
	Tubes = 16

	// A request waits at most slotLimit for its batch to leave, and its batch
	// callLimit and a few hedges for the stores: then the last-known copy
	// answers. The bounds are kept by the few who carry batches, so that the
	// many who wait need no timer each.
	slotLimit = 400 * time.Millisecond
	callLimit = 400 * time.Millisecond // one call to one store
	hedge     = 40 * time.Millisecond  // before the next store is asked as well
	// linger lies between two batches at least. It costs a request that comes
	// meanwhile half of it, and saves a call for each but the first.
	linger   = 10 * time.Millisecond
	inFlight = 4     // batches under way
	maxWait  = 16384 // requests waiting; over it the last-known copy answers at once
)

// Caller calls another process; *rpc.Pool is one.
type Caller interface {
	Call(ctx context.Context, peer, method string, req []byte) ([]byte, error)
}

// Guard runs a call unless its peer has been failing; *breaker.Set is one.
type Guard interface {
	Do(ctx context.Context, peer, kind string, fn func(ctx context.Context) error) error
}

// Config is what a Source is made of.
type Config struct {
	Caller  Caller
	Guard   Guard    // nil: every call is tried
	Own     []string // middle stores of this carrier, the preferred one first
	Others  []string // middle stores of the other carriers
	Copy    *Copy    // last-known copy; nil: none
	Fell    func()   // told of every answer that is not from an own store; nil: nobody is
	Clock   clock.Clock
	Logger  *slog.Logger
	Metrics prometheus.Registerer // nil: none
}

// Source answers; Close ends it.
type Source struct {
	cfg    Config
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	batch  *batcher
	chain  *chain
	stands *standing
	met    *meters
}

// Open starts a Source.
func Open(cfg Config) (*Source, error) {
	if cfg.Caller == nil {
		return nil, errors.New("source: no caller")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Guard == nil {
		cfg.Guard = unguarded{}
	}
	s := &Source{cfg: cfg, met: newMeters(cfg.Metrics)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.chain = newChain(s.ctx, cfg, s.met)
	s.stands = newStanding(s.ctx, cfg, s.met)
	s.batch = newBatcher(s.ctx, cfg.Clock, s.met, s.ask)
	return s, nil
}

// Close stops asking and waits for what is under way. It may be called twice.
func (s *Source) Close() error {
	s.cancel()
	s.batch.wait()
	s.chain.wait()
	s.stands.wait()
	return nil
}

// Get finds out about one person. It always returns an answer; with seen, one
// that is older than seen only if no store reached has more, and says so.
func (s *Source) Get(ctx context.Context, person pb.PersonID, seen pb.Marks) Answer {
	a, ok := s.stands.get(person)
	if !ok || !a.Batch.Marks.Covers(seen) {
		a = s.batch.get(ctx, person)
	}
	if a.Kind == None {
		a = s.lastKnown(person)
	}
	if len(seen) > 0 && (a.Batch == nil || !a.Batch.Marks.Covers(seen)) {
		a = s.insist(ctx, person, seen, a)
	}
	s.met.answers[a.Kind].Inc()
	if a.Kind != MiddleStore && s.cfg.Fell != nil {
		s.cfg.Fell()
	}
	return a
}

// ask is the batcher's way to the stores.
func (s *Source) ask(persons []pb.PersonID) (*pb.LookupResponse, Kind) {
	resp, kind, err := s.chain.ask(&pb.LookupRequest{Persons: persons, Tubes: Tubes, StaleOK: true, Subjects: true})
	if err != nil {
		s.cfg.Logger.Warn("no middle store answers; showing what was last known here", "error", err)
		return nil, None
	}
	if kind == MiddleStore {
		s.stands.put(persons, resp)
	}
	return resp, kind
}

// insist asks for an answer not older than what the reader has seen.
func (s *Source) insist(ctx context.Context, person pb.PersonID, seen pb.Marks, have Answer) Answer {
	req := &pb.LookupRequest{Persons: []pb.PersonID{person}, Tubes: Tubes, Seen: seen}
	if ctx.Err() == nil {
		resp, kind, err := s.chain.ask(req)
		if err == nil && len(resp.Persons) == 1 && resp.Marks.Covers(seen) {
			return Answer{Kind: kind, Person: &resp.Persons[0], Batch: resp}
		}
	}
	if known := s.lastKnown(person); known.Batch != nil && known.Batch.Marks.Covers(seen) {
		return known
	}
	have.Behind = true
	return have
}

func (s *Source) lastKnown(person pb.PersonID) Answer {
	if s.cfg.Copy == nil {
		return Answer{}
	}
	resp, ok := s.cfg.Copy.Get(person)
	if !ok {
		return Answer{}
	}
	return Answer{Kind: LastKnown, Person: &resp.Persons[0], Batch: resp}
}

// Keep writes what a store answered about a person to the last-known copy,
// some time soon.
func (s *Source) Keep(person pb.PersonID, a *Answer) {
	if s.cfg.Copy != nil && (a.Kind == MiddleStore || a.Kind == OtherCarrier) {
		s.cfg.Copy.Put(person, a.Person, a.Batch)
	}
}

type unguarded struct{}

func (unguarded) Do(ctx context.Context, _, _ string, fn func(context.Context) error) error {
	return fn(ctx)
}

// meters are what the package counts.
type meters struct {
	answers [LastKnown + 1]prometheus.Counter
	batches prometheus.Counter
	persons prometheus.Counter
	hedges  prometheus.Counter
	stood   prometheus.Counter
	follows [lost + 1]prometheus.Counter
	turns   prometheus.Counter
}

func newMeters(reg prometheus.Registerer) *meters {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "qianma_display_answers_total", Help: "Answers about a person, by where they come from.",
	}, []string{"source"})
	follows := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "qianma_display_follows_total", Help: "Questions to the followed middle store about what has changed, by how they ended.",
	}, []string{"end"})
	m := &meters{
		batches: counter("qianma_display_lookups_total", "Calls made for batches of persons."),
		persons: counter("qianma_display_lookup_persons_total", "Persons asked about in them."),
		hedges:  counter("qianma_display_lookup_hedges_total", "Times a second store was asked because the first was slow."),
		stood:   counter("qianma_display_answers_stood_total", "Answers that were kept and stood: no store was asked."),
		turns:   counter("qianma_display_follow_turns_total", "Times another middle store was followed: what was kept does not stand there."),
	}
	for k := range m.answers {
		m.answers[k] = answers.WithLabelValues(Kind(k).String())
	}
	for e := range m.follows {
		m.follows[e] = follows.WithLabelValues(ending(e).String())
	}
	if reg != nil {
		reg.MustRegister(answers, m.batches, m.persons, m.hedges, m.stood, follows, m.turns)
	}
	return m
}
