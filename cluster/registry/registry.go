// Package registry knows where a carrier's processes are now, and a few small
// things that change while they run: pointers and locks.
//
// It is a convenience laid over the topology file, never a condition for
// work. Everything read from etcd is also kept in a file; without etcd, for a
// minute or for ever, names resolve to the last address known, pointers read
// as they last were, and nothing blocks. A lease that ran out says that etcd
// and a process lost touch, not that the process is dead: an expired lease
// alone never empties a list, and after an outage of etcd nothing is dropped
// until those who are alive have had time to register again.
//
// Versions of pointers and tokens of locks only grow, even when etcd loses its
// store: whoever remembers the highest writes it back.
//
// All methods are safe for concurrent use. The package refuses to judge
// whether a process is healthy: callers find out by calling it.
package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"qianma/cluster/clock"
	"qianma/cluster/problem"
	"qianma/cluster/topology"
)

// Config is what a registry is made of. Topology is needed.
type Config struct {
	Carrier   string
	Name      string             // of this process
	Topology  *topology.Topology // the seed
	Endpoints []string           // of this carrier's etcd; empty: none, what is put stays in this process and its file
	TLS       *tls.Config        // nil: plain text
	File      string             // where to keep what was read; empty: nowhere

	TTL time.Duration // of registrations; 0: 15 s
	// Grace is how long a registration may be missing, with etcd there all the
	// time, before its process is dropped; 0: twice TTL.
	Grace       time.Duration
	RelistEvery time.Duration // how often everything is read again; 0: 30 s
	CallTimeout time.Duration // longest wait for etcd; 0: 2 s
	RetryMax    time.Duration // longest rest after a failure; 0: 3 s

	Clock   clock.Clock           // nil: the machine's
	Logger  *slog.Logger          // nil: silent
	Metrics prometheus.Registerer // nil: none
}

func (c *Config) fill() error {
	if c.Topology == nil || c.Carrier == "" {
		return errors.New("registry: a topology and a carrier are needed")
	}
	def(&c.TTL, 15*time.Second)
	def(&c.Grace, 2*c.TTL)
	def(&c.RelistEvery, 30*time.Second)
	def(&c.CallTimeout, 2*time.Second)
	def(&c.RetryMax, 3*time.Second)
	def(&c.Clock, clock.Real)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Registry is open until Close.
type Registry struct {
	cfg    Config
	prefix string
	cli    *clientv3.Client // nil: there is no etcd
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once
	unhook func()
	dirty  chan struct{} // the file should be written

	mu       sync.Mutex
	entries  map[string]*entry
	pointers map[string]Pointer
	upSince  time.Time     // etcd has answered without a break since then; zero: it does not
	changed  chan struct{} // closed and replaced at every change
	local    map[string]*Lock
	counts   counts
}

type counts struct{ relists, registrations, dropped, guarded uint64 }

// entry is one registered process.
type entry struct {
	Process topology.Process `json:"process"`
	// Seed is what the topology file said of the process when it registered.
	// When the file says something else later, the file is newer.
	Seed    topology.Process `json:"seed"`
	missing time.Time        // its registration is gone since then; zero: it is there
	left    bool             // it said that it stops
}

// Open reads the file and starts to follow etcd. It never waits for etcd.
func Open(cfg Config) (*Registry, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	r := &Registry{
		cfg: cfg, prefix: "/qianma/" + cfg.Topology.Province + "/" + cfg.Carrier + "/",
		entries: map[string]*entry{}, pointers: map[string]Pointer{}, local: map[string]*Lock{},
		changed: make(chan struct{}), dirty: make(chan struct{}, 1),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if err := r.readFile(); err != nil {
		cfg.Logger.Warn("what was remembered of the registry cannot be read; starting from the topology alone", "err", err)
	}
	if err := r.dial(); err != nil {
		r.cancel()
		return nil, err
	}
	if err := r.hook(); err != nil {
		r.Close()
		return nil, err
	}
	if cfg.File != "" {
		r.wg.Go(r.keepFile)
	}
	if r.cli != nil {
		r.wg.Go(r.follow)
	}
	return r, nil
}

func (r *Registry) dial() error {
	if len(r.cfg.Endpoints) == 0 {
		return nil
	}
	var endpoints []string
	for _, e := range r.cfg.Endpoints {
		if !strings.Contains(e, "://") {
			e = map[bool]string{true: "https://", false: "http://"}[r.cfg.TLS != nil] + e
		}
		endpoints = append(endpoints, e)
	}
	cli, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: r.cfg.TLS, Logger: zap.NewNop(),
		DialTimeout: 2 * time.Second, DialKeepAliveTime: 6 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		BackoffWaitBetween: 100 * time.Millisecond, MaxUnaryRetries: 2,
	})
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	r.cli = cli
	return nil
}

// Close takes this process's registrations back, as far as etcd can be reached
// in a moment, and stops. It is safe to call twice.
func (r *Registry) Close() error {
	r.once.Do(func() {
		r.cancel()
		r.wg.Wait()
		if r.cli != nil {
			r.cli.Close()
		}
		if r.unhook != nil {
			r.unhook()
		}
		_ = r.writeFile() // the last state, best effort: the file is a cache
	})
	return nil
}

// Resolve is where a process takes raft and RPC connections.
func (r *Registry) Resolve(name string) (string, error) {
	p, ok := r.Find(name)
	if !ok || p.Node == "" {
		return "", problem.New(problem.NotFound, fmt.Sprintf("no process named %q is known", name), "check the name against the topology")
	}
	return p.Node, nil
}

// Find is the newest that is known of a process.
func (r *Registry) Find(name string) (topology.Process, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.entries[name]; ok {
		return e.Process, true
	}
	return r.cfg.Topology.Find(name)
}

// Topology is the seed with everything that registered laid over it. The copy
// is the caller's.
func (r *Registry) Topology() *topology.Topology {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := *r.cfg.Topology
	t.Carriers, t.Shards, t.Processes = slices.Clone(t.Carriers), maps.Clone(t.Shards), slices.Clone(t.Processes)
	for _, name := range slices.Sorted(maps.Keys(r.entries)) {
		p := r.entries[name].Process
		if i := slices.IndexFunc(t.Processes, func(q topology.Process) bool { return q.Name == name }); i >= 0 {
			t.Processes[i] = p
		} else {
			t.Processes = append(t.Processes, p)
		}
	}
	return &t
}

// Live says whether a process is registered now, or was when etcd was last
// seen. A process that only stands in the topology file is not.
func (r *Registry) Live(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.entries[name]
	return ok && !e.left && (e.missing.IsZero() || r.upSince.IsZero())
}

// Changed returns a channel that is closed at the next change of anything.
func (r *Registry) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Up says whether etcd answers; true when there is none to ask.
func (r *Registry) Up() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cli == nil || !r.upSince.IsZero()
}

// change notes a change; mu is held.
func (r *Registry) change() {
	close(r.changed)
	r.changed = make(chan struct{})
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

// call bounds one call to etcd.
func (r *Registry) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, r.cfg.CallTimeout)
}

// rest waits for d or the end; it reports whether there is time left.
func (r *Registry) rest(d time.Duration) bool {
	select {
	case <-r.ctx.Done():
		return false
	case <-r.cfg.Clock.After(d):
		return true
	}
}

// away is what a caller is told when etcd is needed and not there.
func away(err error) error {
	return problem.Wrap(err, problem.Unavailable, "the registry cannot be reached", "nothing was changed; try again in a few seconds").After(2 * time.Second)
}
