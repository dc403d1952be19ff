package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"qianma/cluster/clock"
	"qianma/services/qianma/internal/control"
)

// Spec is a process to keep.
type Spec struct {
	Name       string
	Carrier    string
	Subsystem  string
	Path       string   // program
	Args       []string // before --config
	ConfigFile string   // absolute; handed over as --config, last, and how the process is known again
	Dir        string   // its data directory; when it is deleted the process is started again, empty
	Log        string   // file for its output
	HTTP       string   // host:port where /readyz answers
	Stage      int      // stages stop from the highest to the lowest
	Early      bool     // is ready before those that are not early start; among the early, by stage
	Wrap       []string // command that the program is started under, e.g. in a network namespace
	Env        []string // added to ours
	Nice       int      // how many steps it gives way where processors are short
	Idle       bool     // stays down until somebody starts it
	// Prepare makes everything the process needs on disk. It runs before every
	// start and must be safe to repeat.
	Prepare func() error
}

// Tuning bounds the supervisor's waits. The zero value is made whole by
// defaults.
type Tuning struct {
	BackoffMin time.Duration // before the first restart: long enough for who deletes a directory after a kill to be done; 0: 1 s
	BackoffMax time.Duration // between restarts of what keeps dying; 0: 15 s
	Steady     time.Duration // up this long, a process starts again from BackoffMin; 0: 10 s
	Grace      time.Duration // between asking to leave and SIGKILL; 0: 15 s
	FirstWait  time.Duration // how long others wait for what is early to be ready; 0: 20 s
	ProbeFast  time.Duration // between /readyz while not ready; 0: 100 ms
	ProbeSlow  time.Duration // between /readyz once ready; 0: 2 s
	Tick       time.Duration // between looks at directories, logs and CPU; 0: 1 s
	LogMax     int64         // bytes at which a log is rotated; 0: 16 MiB
	LogKeep    int           // rotated logs kept for a process; 0: 2
}

func (t Tuning) whole() Tuning {
	set(&t.BackoffMin, time.Second)
	set(&t.BackoffMax, 15*time.Second)
	set(&t.Steady, 10*time.Second)
	set(&t.Grace, 15*time.Second)
	set(&t.FirstWait, 20*time.Second)
	set(&t.ProbeFast, 100*time.Millisecond)
	set(&t.ProbeSlow, 2*time.Second)
	set(&t.Tick, time.Second)
	set(&t.LogMax, 16<<20)
	set(&t.LogKeep, 2)
	return t
}

func set[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// Config is what a supervisor is told.
type Config struct {
	Province  string
	Specs     []Spec
	NoRestart bool         // begin with a hold on everything
	Logger    *slog.Logger // what happened to whom; nil: nowhere
	Clock     clock.Clock  // nil: the machine's
	Tuning    Tuning
}

// Supervisor keeps processes. It is safe for concurrent use.
type Supervisor struct {
	cfg     Config
	clock   clock.Clock
	log     *slog.Logger
	tune    Tuning
	since   time.Time
	keepers []*keeper
	http    *http.Client
	ctx     context.Context // ends when nothing is kept any more
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	closed  sync.Once

	mu      sync.Mutex // protects the fields below
	holds   []control.Hold
	closing bool
	changed chan struct{}
}

// Open takes charge: it adopts the processes that already run, and starts
// nothing until Start. Only one supervisor may be open on a data directory;
// the caller holds the lock.
func Open(cfg Config) (*Supervisor, error) {
	running, err := Find(configs(cfg.Specs))
	if err != nil {
		return nil, err
	}
	s := &Supervisor{cfg: cfg, clock: cfg.Clock, log: cfg.Logger, tune: cfg.Tuning.whole(), changed: make(chan struct{})}
	if s.clock == nil {
		s.clock = clock.Real
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.since = s.clock.Now()
	s.http = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if cfg.NoRestart {
		s.holds = []control.Hold{{}}
	}
	for _, spec := range cfg.Specs {
		s.keepers = append(s.keepers, newKeeper(s, spec))
	}
	for _, k := range s.keepers {
		k.adopt(running)
		s.wg.Go(k.run)
	}
	s.wg.Go(s.housekeeping)
	return s, nil
}

func configs(specs []Spec) map[string]string {
	m := make(map[string]string, len(specs))
	for _, spec := range specs {
		m[spec.ConfigFile] = spec.Name
	}
	return m
}

// Start starts everything that is not idle: first what is early, stage by
// stage, each when the one before is ready or has had its time; then the rest at
// once. It returns when all have been told; use Wait for readiness.
func (s *Supervisor) Start(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, s.tune.FirstWait)
	defer cancel()
	stages := s.stages()
	slices.Reverse(stages)
	for _, stage := range stages {
		now := func(k *keeper) bool { return k.spec.Early && k.spec.Stage == stage }
		s.want(now)
		if err := s.Wait(bounded, func(p control.Process) bool { return now(s.find(p.Name)) }); err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	s.want(func(*keeper) bool { return true })
	return nil
}

func (s *Supervisor) want(pick func(*keeper) bool) {
	for _, k := range s.keepers {
		if pick(k) && !k.spec.Idle {
			k.begin()
		}
	}
}

// Wait blocks until every process that is picked and wanted is ready, or ctx
// ends. A nil pick picks all.
func (s *Supervisor) Wait(ctx context.Context, pick func(control.Process) bool) error {
	return s.until(ctx, func() bool {
		for _, p := range s.List() {
			if (pick == nil || pick(p)) && p.State != control.Ready && p.State != control.Stopped {
				return false
			}
		}
		return true
	})
}

// until blocks until the condition holds. It is tried after every change.
func (s *Supervisor) until(ctx context.Context, holds func() bool) error {
	for {
		changed := s.Changed()
		if holds() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Changed is closed when a process next changes its state.
func (s *Supervisor) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *Supervisor) change() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// List returns every process, in the order of the specs.
func (s *Supervisor) List() []control.Process {
	out := make([]control.Process, 0, len(s.keepers))
	for _, k := range s.keepers {
		out = append(out, k.snapshot())
	}
	return out
}

// Report is List and what stands over it.
func (s *Supervisor) Report(sel control.Selector) control.Report {
	ps := slices.DeleteFunc(s.List(), func(p control.Process) bool {
		return !sel.Match(p.Name, p.Carrier, p.Subsystem)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	return control.Report{
		Province: s.cfg.Province, PID: os.Getpid(), Since: s.since, Closing: s.closing,
		Holds: s.holdsNow(), Processes: ps,
	}
}

func (s *Supervisor) find(name string) *keeper {
	i := slices.IndexFunc(s.keepers, func(k *keeper) bool { return k.spec.Name == name })
	if i < 0 {
		return nil
	}
	return s.keepers[i]
}

func (s *Supervisor) pick(sel control.Selector) []*keeper {
	var out []*keeper
	for _, k := range s.keepers {
		if sel.Match(k.spec.Name, k.spec.Carrier, k.spec.Subsystem) {
			out = append(out, k)
		}
	}
	return out
}

// Close stops everything, stage by stage from the highest, and waits for it.
// When ctx ends before that, what is left is killed at once.
func (s *Supervisor) Close(ctx context.Context) error {
	var err error
	s.closed.Do(func() {
		s.mu.Lock()
		s.closing = true
		s.mu.Unlock()
		for _, stage := range s.stages() {
			err = errors.Join(err, s.stopStage(ctx, stage))
		}
		s.cancel()
		s.http.CloseIdleConnections()
	})
	s.wg.Wait()
	return err
}

// stages are the numbers in use, highest first.
func (s *Supervisor) stages() []int {
	var out []int
	for _, k := range s.keepers {
		out = append(out, k.spec.Stage)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	slices.Reverse(out)
	return out
}

func (s *Supervisor) stopStage(ctx context.Context, stage int) error {
	var wg sync.WaitGroup
	faults := make([]error, len(s.keepers))
	for i, k := range s.keepers {
		if k.spec.Stage == stage {
			wg.Go(func() {
				if err := k.stop(ctx); err != nil {
					faults[i] = fmt.Errorf("%s: %w", k.spec.Name, err)
				}
			})
		}
	}
	wg.Wait()
	return errors.Join(faults...)
}
