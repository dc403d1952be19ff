package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/breaker"
	"qianma/cluster/broker"
	"qianma/cluster/clock"
	"qianma/cluster/feed"
	"qianma/cluster/mishap"
	"qianma/cluster/mux"
	"qianma/cluster/pki"
	"qianma/cluster/registry"
	"qianma/cluster/rpc"
	"qianma/cluster/topology"
	"qianma/cluster/web"
)

// Version is stamped by the build.
var Version = "dev"

// Base is what every daemon has. Its fields are for the daemon to use; Close
// is the only method that ends them.
type Base struct {
	Config   Config
	Topology *topology.Topology
	Log      *slog.Logger
	Clock    clock.Clock // the time that the peers agree on
	FS       vfs.FS      // where every store of this process lies
	Web      *web.Server
	RPC      *rpc.Server
	Calls    *rpc.Pool
	Dialer   *mux.Dialer
	Mux      *mux.Mux
	Breakers *breaker.Set
	Registry *registry.Registry
	Broker   feed.Broker // nil: facts are pulled

	road   *broker.JetStream
	kit    *mishap.Kit // nil unless the process was started for drills
	common *clock.Common
	wg     sync.WaitGroup
	watch  context.CancelFunc // ends the comparing of clocks; nil before Serve
	fatal  chan error
	closed sync.Once
	err    error
}

// OpenBase makes the parts; nothing is served until Serve.
func OpenBase(cfg Config) (_ *Base, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	b := &Base{Config: cfg, Log: logger(cfg), fatal: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if cfg.Drills {
		if b.kit, err = mishap.Open(cfg.Dir, b.Log); err != nil {
			return nil, err
		}
	}
	b.keepTime(b.kit.Clock())
	b.FS = b.kit.FS(vfs.Default)
	if b.Topology, err = topology.Load(cfg.Topology); err != nil {
		return nil, err
	}
	return b, b.open()
}

func (b *Base) open() (err error) {
	var serverTLS, clientTLS *tls.Config
	if !b.Config.Insecure {
		files := pki.Files{CA: b.Config.CA, Cert: b.Config.Cert, Key: b.Config.Key}
		if serverTLS, err = pki.Server(files); err != nil {
			return err
		}
		if clientTLS, err = pki.Client(files); err != nil {
			return err
		}
	}
	if b.Web, err = web.New(web.Config{Addr: b.Config.HTTP, Name: b.Config.Name, Version: Version, Logger: b.Log, Clock: b.Clock}); err != nil {
		return err
	}
	b.obey()
	if b.Registry, err = registry.Open(registry.Config{
		Carrier: b.Config.Carrier, Name: b.Config.Name, Topology: b.Topology, Endpoints: b.Config.Etcd, TLS: clientTLS,
		File: filepath.Join(b.Config.Dir, "registry.json"), Clock: b.Clock, Logger: b.Log, Metrics: b.Web.Metrics(),
	}); err != nil {
		return err
	}
	b.Dialer = &mux.Dialer{TLS: clientTLS, Resolve: b.resolve, From: b.Config.DialFrom}
	b.Calls = rpc.NewPool(b.Dialer, rpc.PoolConfig{Metrics: b.Web.Metrics()})
	b.Breakers = breaker.NewSet(breaker.Config{Metrics: b.Web.Metrics(), Logger: b.Log})
	b.RPC = rpc.NewServer(rpc.ServerConfig{Logger: b.Log, Metrics: b.Web.Metrics()})
	b.tellTime()
	if b.Config.Listen != "" {
		if b.Mux, err = mux.Listen(b.Config.Listen, serverTLS); err != nil {
			return fmt.Errorf("listening for other processes on %s: %w", b.Config.Listen, err)
		}
	}
	if len(b.Config.NATS) > 0 {
		if b.road, err = broker.Connect(broker.Config{
			URLs: b.Config.NATS, Carrier: b.Config.Carrier, Others: b.Topology.Others(b.Config.Carrier),
			TLS: clientTLS, Name: b.Config.Name, Logger: b.Log, Metrics: b.Web.Metrics(),
		}); err != nil {
			return err
		}
		b.Broker = b.road
	}
	return nil
}

// resolve says where a process listens, for this process: a fault proxy on the
// link comes first, then what the registry knows, then the topology's file.
func (b *Base) resolve(name string) (string, error) {
	if via, ok := b.Config.Via[name]; ok {
		return via, nil
	}
	return b.Registry.Resolve(name)
}

// Serve opens the doors: RPC first, because peers need it to form a quorum,
// then the public HTTP API. The process is in the registry from then on.
func (b *Base) Serve() {
	if b.Mux != nil {
		b.wg.Go(func() { b.stopOn(b.RPC.Serve(b.Mux.RPC())) })
	}
	b.wg.Go(func() { b.stopOn(b.Web.Serve()) })
	ctx, cancel := context.WithCancel(context.Background())
	b.watch = cancel
	b.wg.Go(func() { b.compareClocks(ctx) })
	b.Registry.Register(b.self())
}

func (b *Base) self() topology.Process {
	if p, ok := b.Topology.Find(b.Config.Name); ok {
		return p
	}
	return topology.Process{Name: b.Config.Name, Carrier: b.Config.Carrier, Subsystem: b.Config.Subsystem, Node: b.Config.Listen, HTTP: b.Config.HTTP}
}

// Fatal ends the process: a disk failed, or data contradicts itself. The first
// reason is the one that is told; Fatal never blocks.
func (b *Base) Fatal(err error) {
	b.Log.Error("this process must stop", "error", err)
	select {
	case b.fatal <- err:
	default:
	}
}

func (b *Base) stopOn(err error) {
	if err != nil {
		b.Fatal(err)
	}
}

// Wait returns when ctx ends (nil) or when the process must stop (why).
func (b *Base) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-b.fatal:
		return err
	}
}

// graceful is how long requests under way may take to finish.
const graceful = 3 * time.Second

// Close ends the parts, the door before the cellar. It is safe to call twice.
func (b *Base) Close() error { return b.CloseAround(func() error { return nil }) }

// CloseAround closes the door (public requests under way, then the registry,
// so that nobody is sent here any more, then calls from peers), then whatever
// stands on the floor, then the cellar (our own calls, the road, the port).
func (b *Base) CloseAround(middle func() error) error {
	b.closed.Do(func() { b.err = errors.Join(b.closeDoor(), middle(), b.closeCellar()) })
	return b.err
}

func (b *Base) closeDoor() (err error) {
	if b.watch != nil {
		b.watch()
	}
	if b.Web != nil {
		ctx, cancel := context.WithTimeout(context.Background(), graceful)
		defer cancel()
		err = b.Web.Close(ctx)
	}
	if b.Registry != nil {
		err = errors.Join(err, b.Registry.Close())
	}
	if b.RPC != nil {
		err = errors.Join(err, b.RPC.Close())
	}
	return err
}

func (b *Base) closeCellar() (err error) {
	if b.Calls != nil {
		err = errors.Join(err, b.Calls.Close())
	}
	if b.road != nil {
		err = errors.Join(err, b.road.Close())
	}
	if b.Mux != nil {
		err = errors.Join(err, b.Mux.Close())
	}
	b.wg.Wait()
	b.kit.Close()
	return err
}

func logger(cfg Config) *slog.Logger {
	var level slog.Level
	if cfg.LogLevel != "" && level.UnmarshalText([]byte(cfg.LogLevel)) != nil {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("process", cfg.Name)
}
