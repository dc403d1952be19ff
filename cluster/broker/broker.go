// Package broker carries blocks over NATS JetStream: the feed.Broker of a
// real province.
//
// Each carrier has its own JetStream domain with two kinds of streams:
// OUT_<carrier> takes what this carrier's leaders publish, and IN_<other>
// sources the other carrier's OUT through the leaf link. An IN is never
// sourced, so nothing travels in a circle, and subjects carry the carrier's
// name, so nothing is stored twice.
//
// The package promises what feed.Broker promises and no more: a message may
// be lost, repeated or late. It keeps no position at the server: consumers are
// ephemeral and unacknowledged, because the follower's own marks are what
// make it correct. A connection that is lost is dialled again for ever; a
// stream that is gone is made again. It refuses to know what a block says.
package broker

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"qianma/cluster/fact"
)

// Config is what a connection is made of.
type Config struct {
	Name    string   // of this process, for the server's list of connections
	Carrier string   // own carrier
	Others  []string // the other carriers

	URLs []string // of this carrier's NATS servers
	// InProcess connects to a server inside this process instead.
	InProcess nats.InProcessConnProvider
	TLS       *tls.Config // nil: plain text

	// Domain is this carrier's JetStream domain; empty: the domain of the
	// server that is connected to. OtherDomain names another carrier's; nil:
	// a domain is named after its carrier.
	Domain      string
	OtherDomain func(carrier string) string

	// Limits of each stream. A stream needs to outlast a restart, not a day of
	// absence: what it no longer holds is pulled.
	MaxAge   time.Duration // 0: 24 h
	MaxBytes int64         // 0: 512 MiB
	Replicas int           // 0: 3 on a cluster of servers that has them, else 1

	MessageBytes int           // blocks are packed into messages of about this size; 0: 512 KiB
	Lookback     time.Duration // a subscription starts this long before now; 0: 30 s

	Logger  *slog.Logger          // nil: silent
	Metrics prometheus.Registerer // nil: none
}

// payloadMost bounds a message whatever the server would take, and with it
// what a subscriber must be ready to buffer.
const payloadMost = 2 << 20

func (c *Config) fill() error {
	var faults []error
	for _, name := range append([]string{c.Carrier}, c.Others...) {
		if !isToken(name) {
			faults = append(faults, fmt.Errorf("broker: carrier %q is not made of letters, digits, - and _", name))
		}
	}
	if len(c.URLs) == 0 && c.InProcess == nil {
		faults = append(faults, errors.New("broker: no server to connect to"))
	}
	if c.OtherDomain == nil {
		c.OtherDomain = func(carrier string) string { return carrier }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.MaxAge = orElse(c.MaxAge, 24*time.Hour)
	c.MaxBytes = orElse(c.MaxBytes, 512<<20)
	c.MessageBytes = orElse(c.MessageBytes, 512<<10)
	c.Lookback = orElse(c.Lookback, 30*time.Second)
	return errors.Join(faults...)
}

func orElse[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// isToken says whether s can stand in a subject and a stream name.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})
}

// JetStream is a feed.Broker. It is safe for concurrent use.
type JetStream struct {
	cfg    Config
	conn   *nats.Conn
	js     jetstream.JetStream
	unhook func()

	once sync.Once
	wg   sync.WaitGroup
	done chan struct{}

	ensuring sync.Mutex
	ensured  time.Time // last attempt to make missing streams

	stats stats
}

// stats are totals since the start.
type stats struct {
	sent, sentBytes, refused, oversize, heard, corrupt, resubscribed, streamsMade atomic.Uint64
}

// Connect returns at once, connected or not: a server that is away is dialled
// until it is back.
func Connect(cfg Config) (*JetStream, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	conn, err := nats.Connect(strings.Join(cfg.URLs, ","), options(cfg)...)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	js, err := open(conn, cfg.Domain)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("broker: %w", err)
	}
	j := &JetStream{cfg: cfg, conn: conn, js: js, done: make(chan struct{})}
	if j.unhook, err = j.hook(); err != nil {
		conn.Close()
		return nil, err
	}
	return j, nil
}

func open(conn *nats.Conn, domain string) (jetstream.JetStream, error) {
	opts := []jetstream.JetStreamOpt{jetstream.WithPublishAsyncMaxPending(256), jetstream.WithPublishAsyncTimeout(10 * time.Second)}
	if domain == "" {
		return jetstream.New(conn, opts...)
	}
	return jetstream.NewWithDomain(conn, domain, opts...)
}

func options(cfg Config) []nats.Option {
	log := cfg.Logger
	opts := []nats.Option{
		nats.Name(cfg.Name),
		nats.Timeout(2 * time.Second),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		// A new certificate may mend what an old one broke.
		nats.IgnoreAuthErrorAbort(),
		// What cannot be sent now must fail now: the publisher keeps it.
		nats.ReconnectBufSize(-1),
		nats.IgnoreDiscoveredServers(),
		nats.PingInterval(4 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(c *nats.Conn, err error) {
			if !c.IsClosed() {
				log.Warn("broker connection lost; dialling on", "err", err)
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) { log.Info("broker connection is back", "server", c.ConnectedServerName()) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("broker connection", "err", err) }),
	}
	if cfg.TLS != nil {
		opts = append(opts, nats.Secure(cfg.TLS))
	}
	if cfg.InProcess != nil {
		opts = append(opts, nats.InProcessServer(cfg.InProcess))
	}
	return opts
}

// Close ends every subscription and the connection, and waits. It is safe to
// call twice.
func (j *JetStream) Close() error {
	j.once.Do(func() {
		close(j.done)
		j.conn.Close()
		j.unhook()
	})
	j.wg.Wait()
	return nil
}

// Connected says whether a server is there now.
func (j *JetStream) Connected() bool { return j.conn.IsConnected() }

// Out is the stream of a carrier's own facts.
func Out(carrier string) string { return "OUT_" + carrier }

// In is the stream that sources another carrier's facts.
func In(carrier string) string { return "IN_" + carrier }

// streamOf is where this carrier finds a carrier's facts.
func (j *JetStream) streamOf(carrier string) string {
	if carrier == j.cfg.Carrier {
		return Out(carrier)
	}
	return In(carrier)
}

// subjects are "fact.<carrier>.<subsystem>.<shard>".
func subjectOf(carrier, subsystem string, shard int) string {
	return "fact." + carrier + "." + subsystem + "." + strconv.Itoa(shard)
}

func subjectOfOrigin(o fact.Origin) string { return subjectOf(o.Carrier, o.Subsystem, int(o.Shard)) }
