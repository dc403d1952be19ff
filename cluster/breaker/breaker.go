// Package breaker keeps calls away from a peer that has been failing, one
// breaker for each (peer, kind of call), so that a dead process costs its
// callers nothing while their fallback answers.
//
// Promises: a call that is kept away fails at once as problem.Unavailable and
// was not made; a breaker opens on what has failed lately, stays open for
// about a second, then lets one call through to see; a caller that gave up
// counts for nothing, and an answer that says no is an answer; every kind
// names the fallback that takes its place, and states and counts are shown.
//
// It refuses to know what a call does and never makes one twice. A Set is safe
// for concurrent use and starts no goroutine.
package breaker

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"

	"qianma/cluster/problem"
)

// Config tunes a set; the zero value is good.
type Config struct {
	// Open is how long a breaker stays open before it lets one call through.
	// 0: 1 s.
	Open time.Duration
	// Window is how far back failures count. 0: 10 s.
	Window time.Duration
	// Consecutive failures open a breaker, however few calls there were. 0: 3.
	Consecutive uint32
	// Calls within the window of which half failed open a breaker. 0: 20.
	Calls uint32
	// Metrics receives the set's metrics. Nil: none.
	Metrics prometheus.Registerer
	// Logger hears when a breaker opens and closes. Nil: nobody does.
	Logger *slog.Logger
}

// buckets is how many parts the window rolls in.
const buckets = 10

// State is one breaker as status shows it.
type State struct {
	Peer     string    `json:"peer"`
	Kind     string    `json:"kind"`
	State    string    `json:"state"` // closed, half-open, open
	Since    time.Time `json:"since"`
	Calls    uint32    `json:"calls"`    // within the window
	Failures uint32    `json:"failures"` // of them
	Refused  uint64    `json:"refused"`  // kept away, since the start
	Fallback string    `json:"fallback,omitempty"`
}

// Set holds the breakers of a process.
type Set struct {
	cfg Config

	mu        sync.RWMutex
	breakers  map[key]*one
	fallbacks map[string]string

	refused *prometheus.CounterVec
	opened  *prometheus.CounterVec
	fell    *prometheus.CounterVec
}

type key struct{ peer, kind string }

// one is a breaker and what is known of it.
type one struct {
	cb      *gobreaker.CircuitBreaker[struct{}]
	since   atomic.Int64 // of its state, Unix nanoseconds
	asked   atomic.Int64 // when it was last used
	refused atomic.Uint64
}

// NewSet returns a set without breakers: each is made at its first call.
func NewSet(cfg Config) *Set {
	cfg.Open = cmp.Or(cfg.Open, time.Second)
	cfg.Window = cmp.Or(cfg.Window, 10*time.Second)
	cfg.Consecutive = cmp.Or(cfg.Consecutive, 3)
	cfg.Calls = cmp.Or(cfg.Calls, 20)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	s := &Set{
		cfg: cfg, breakers: map[key]*one{}, fallbacks: map[string]string{},
		refused: counter("qianma_breaker_refused_total", "Calls kept away from a failing peer.", "peer", "kind"),
		opened:  counter("qianma_breaker_opened_total", "Times a breaker opened.", "peer", "kind"),
		fell:    counter("qianma_breaker_fallbacks_total", "Times a fallback answered.", "kind", "fallback"),
	}
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(s.refused, s.opened, s.fell, collector{s})
	}
	return s
}

// Do makes the call unless the peer has been failing at this kind of call.
// fn must end when ctx does. Its error is returned as it is.
func (s *Set) Do(ctx context.Context, peer, kind string, fn func(ctx context.Context) error) error {
	b := s.get(key{peer, kind})
	b.asked.Store(time.Now().UnixNano())
	_, err := b.cb.Execute(func() (struct{}, error) { return struct{}{}, judge(ctx, fn(ctx)) })
	switch v := err.(type) {
	case nil:
		return nil
	case *judged:
		return v.err
	}
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		b.refused.Add(1)
		s.refused.WithLabelValues(peer, kind).Inc()
		return problem.Wrap(err, problem.Unavailable, "a part of the system that this needs has been failing", "wait a moment and repeat").After(s.cfg.Open)
	}
	return err
}

// Fallback names what takes the place of a kind of call that fails.
func (s *Set) Fallback(kind, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fallbacks[kind] = name
}

// Fell counts that the fallback of a kind has answered.
func (s *Set) Fell(kind string) {
	s.mu.RLock()
	name := s.fallbacks[kind]
	s.mu.RUnlock()
	s.fell.WithLabelValues(kind, name).Inc()
}

// States lists the breakers in order of kind and peer. One that is not closed
// and that nobody has used for a window is forgotten instead: nothing is known
// of its peer any more.
func (s *Set) States() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]State, 0, len(s.breakers))
	stale := time.Now().Add(-s.cfg.Window).UnixNano()
	for k, b := range s.breakers {
		state, counts := b.cb.State(), b.cb.Counts()
		if state != gobreaker.StateClosed && b.asked.Load() < stale {
			delete(s.breakers, k)
			continue
		}
		out = append(out, State{
			Peer: k.peer, Kind: k.kind, State: state.String(), Since: time.Unix(0, b.since.Load()).UTC(),
			Calls: counts.TotalSuccesses + counts.TotalFailures, Failures: counts.TotalFailures,
			Refused: b.refused.Load(), Fallback: s.fallbacks[k.kind],
		})
	}
	slices.SortFunc(out, func(a, b State) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Peer, b.Peer))
	})
	return out
}

func (s *Set) get(k key) *one {
	s.mu.RLock()
	b := s.breakers[k]
	s.mu.RUnlock()
	if b != nil {
		return b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b = s.breakers[k]; b == nil {
		b = s.make(k)
		s.breakers[k] = b
	}
	return b
}

func (s *Set) make(k key) *one {
	b := &one{}
	b.since.Store(time.Now().UnixNano())
	b.cb = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:         k.kind,
		MaxRequests:  1,
		Interval:     s.cfg.Window,
		BucketPeriod: s.cfg.Window / buckets,
		Timeout:      s.cfg.Open,
		ReadyToTrip:  s.trips,
		IsSuccessful: func(err error) bool { return verdictOf(err) != failure },
		IsExcluded:   func(err error) bool { return verdictOf(err) == nobody },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			b.since.Store(time.Now().UnixNano())
			if to == gobreaker.StateOpen {
				s.opened.WithLabelValues(k.peer, k.kind).Inc()
			}
			s.cfg.Logger.Info("breaker", "peer", k.peer, "kind", k.kind, "from", from.String(), "to", to.String())
		},
	})
	return b
}

// trips: a few failures in a row are enough where calls are rare; where they
// are many, half of them.
func (s *Set) trips(c gobreaker.Counts) bool {
	calls := c.TotalSuccesses + c.TotalFailures
	return c.ConsecutiveFailures >= s.cfg.Consecutive || (calls >= s.cfg.Calls && 2*c.TotalFailures >= calls)
}

// verdict is what a call's outcome says about the peer.
type verdict uint8

const (
	success verdict = iota // it answered, be it with a no
	failure                // it did not answer, or said it cannot now
	nobody                 // the caller gave up: nothing is known
)

// judged carries the verdict through gobreaker beside the caller's error.
type judged struct {
	err     error
	verdict verdict
}

func (j *judged) Error() string { return j.err.Error() }
func (j *judged) Unwrap() error { return j.err }

func judge(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	// A deadline that passed counts against the peer: that is how a slow one
	// looks. A caller that hung up says nothing about anybody.
	if errors.Is(ctx.Err(), context.Canceled) {
		return &judged{err, nobody}
	}
	var p *problem.Problem
	if !errors.As(err, &p) {
		return &judged{err, failure}
	}
	switch p.Code {
	case problem.Unavailable, problem.Unknown, problem.Overloaded, problem.Internal:
		return &judged{err, failure}
	}
	return &judged{err, success}
}

func verdictOf(err error) verdict {
	switch v := err.(type) {
	case nil:
		return success
	case *judged:
		return v.verdict
	}
	return failure // gobreaker's own word for a call that panicked
}

// collector shows each breaker's state: 0 closed, 1 half-open, 2 open.
type collector struct{ s *Set }

var stateDesc = prometheus.NewDesc("qianma_breaker_state", "0 closed, 1 half-open, 2 open.", []string{"peer", "kind"}, nil)

func (collector) Describe(ch chan<- *prometheus.Desc) { ch <- stateDesc }

func (c collector) Collect(ch chan<- prometheus.Metric) {
	value := map[string]float64{"closed": 0, "half-open": 1, "open": 2}
	for _, st := range c.s.States() {
		ch <- prometheus.MustNewConstMetric(stateDesc, prometheus.GaugeValue, value[st.State], st.Peer, st.Kind)
	}
}
