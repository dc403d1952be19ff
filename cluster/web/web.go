// Package web is the public HTTP door of a process.
//
// Promises: every answer that is not what was asked for is a problem in JSON
// with a stable code, a plain sentence, a fix and the request's id; every
// body, header, wait, connection and queue has a bound; overload is answered
// at once with Retry-After, the optional before the normal; the vital waits for
// its place, and while it waits for long nothing else is let in; a handler that
// panics costs one request; Close lets what is under way finish. Logs and metrics name patterns and codes, never paths, queries or
// bodies: those may name people.
//
// A request, its header and its body are the handler's until it returns, and are
// another's then (plain/). It refuses to know what is asked or answered. All types are safe for
// concurrent use.
package web

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"qianma/cluster/clock"
	"qianma/cluster/web/plain"
)

// Config tunes a server.
type Config struct {
	// Addr is the host:port to listen on.
	Addr string
	// Name is the process's name in the topology, Version its build. Every
	// answer carries the name, so that a reader knows who spoke.
	Name, Version string
	// Logger hears of faults, and at debug of every request. Nil: nobody does.
	Logger *slog.Logger
	// Clock bounds the waits of admission. Nil: the machine's.
	Clock clock.Clock
	// Metrics is the registry shown at /metrics. Nil: a new one.
	Metrics *prometheus.Registry
	// Limits replaces the bounds of the classes it names.
	Limits map[Class]Limit
	// BodyBytes bounds the bodies held at one time, over all requests of all
	// classes, but those of plain requests: they lie in their connections' 4 KiB.
	// 0: 64 MiB.
	BodyBytes int64
	// Connections bounds open connections. Beyond it the one that has been idle for
	// longest is closed for whoever comes; where none is idle, more wait in the
	// kernel. 0: 8192.
	Connections int
	// Notice is how long Close keeps serving while /readyz already says no,
	// so that whoever balances can look away. 0: not at all.
	Notice time.Duration
}

// CrowdMiB is what a server with as many connections as it takes holds beside its
// work while a request waits on each: a goroutine, a buffer and the request, 14 KiB
// where it is plain; two goroutines and two buffers, 22 KiB, where net/http serves it.
// A heap limit needs room for it, or the collector runs without end just when
// everybody asks.
const (
	CrowdMiB      = connections * perConnection >> 20
	connections   = 8192
	perConnection = 32 << 10
)

// Bounds of one connection.
const (
	headerTimeout = 5 * time.Second // to send the headers
	readTimeout   = 30 * time.Second
	writeTimeout  = 60 * time.Second // more than the longest wait a write may ask for
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10
	settleTime    = 2 * time.Second // for handlers to see that they were cut
)

// plainPaths are those under which nothing streams: an answer leaves whole.
const plainPaths = "/v1/"

// Server is a process's HTTP server. Handlers are registered before Serve.
type Server struct {
	cfg    Config
	mux    *http.ServeMux
	http   *http.Server
	server *plain.Server // serves, and leaves to http what is not plain
	lis    *door
	gates  [numClasses]*gate
	load   pressure
	meter  *meter
	ids    ids
	held   atomic.Int64 // bytes of bodies

	// Header values that every answer shares; nobody may write to them.
	servedBy []string

	flying   atomic.Int64 // requests being answered
	draining atomic.Bool
	checks   checks
	abort    context.CancelFunc // ends every request's context
	closing  sync.Once
	closeErr error
}

// New opens the port and returns a server that does not serve yet.
func New(cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	if cfg.BodyBytes == 0 {
		cfg.BodyBytes = 64 << 20
	}
	if cfg.Connections == 0 {
		cfg.Connections = connections
	}
	l, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux(), ids: newIDs(), servedBy: []string{cfg.Name}}
	s.lis = newDoor(l, cfg.Connections)
	for c := range s.gates {
		s.gates[c] = newGate(cfg.limit(Class(c)), cfg.Clock)
	}
	s.load.clock = cfg.Clock
	s.meter = newMeter(s)
	base, abort := context.WithCancel(context.Background())
	s.abort = abort
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnState:         s.lis.note,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	s.server = plain.New(s.http, plainPaths)
	s.health()
	return s, nil
}

// Addr is where the server really listens, when port 0 was asked for.
func (s *Server) Addr() net.Addr { return s.lis.Addr() }

// Metrics is the registry shown at /metrics.
func (s *Server) Metrics() *prometheus.Registry { return s.cfg.Metrics }

// Serve answers requests until Close, and then returns nil.
func (s *Server) Serve() error {
	err := s.server.Serve(s.lis)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close stops in this order: /readyz says no, the port is closed, requests
// under way finish or, when ctx ends first, are cut. It may be called twice.
func (s *Server) Close(ctx context.Context) error {
	s.closing.Do(func() {
		s.draining.Store(true)
		if s.cfg.Notice > 0 {
			select {
			case <-s.cfg.Clock.After(s.cfg.Notice):
			case <-ctx.Done():
			}
		}
		s.closeErr = s.server.Shutdown(ctx)
		s.abort()
		s.closeErr = errors.Join(s.closeErr, s.server.Close(), s.lis.Close())
		s.settle()
	})
	return s.closeErr
}

// settle waits for handlers whose requests were cut, so that what they use may
// be closed behind them. It gives up on one that ignores its context.
func (s *Server) settle() {
	for end := time.Now().Add(settleTime); s.flying.Load() > 0 && time.Now().Before(end); {
		<-time.After(time.Millisecond)
	}
}
