package backbone

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"qianma/cluster/broker"
	"qianma/cluster/pki"
	"qianma/cluster/topology"
)

// natsHost is the embedded NATS server. It can be restarted while connections
// made through InProcessConn find the new one by themselves.
type natsHost struct {
	opts  func() (*server.Options, error)
	dir   string
	log   *slog.Logger
	ready time.Duration

	changing sync.Mutex // held by whoever replaces the server, until the next one runs

	mu       sync.Mutex
	s        *server.Server
	restarts int
}

var errNATSDown = errors.New("backbone: the NATS server is not running")

func newNATS(c *Config, l layout) *natsHost {
	return &natsHost{
		opts: func() (*server.Options, error) { return natsOptions(c, l) },
		dir:  filepath.Join(c.Dir, "nats"), log: c.Logger.With("part", "nats"), ready: c.ReadyAfter,
	}
}

// start brings the server up and waits until it listens.
func (h *natsHost) start() error {
	opts, err := h.opts()
	if err != nil {
		return err
	}
	if err := free("nats", net.JoinHostPort(opts.Host, strconv.Itoa(opts.Port))); err != nil {
		return err
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("backbone: nats: %w", err)
	}
	s.SetLoggerV2(natsLog{h.log}, false, false, false)
	s.Start()
	if !s.ReadyForConnections(h.ready) {
		s.Shutdown()
		s.WaitForShutdown()
		return fmt.Errorf("backbone: nats did not listen within %v", h.ready)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.s = s
	return nil
}

// free says in words that a port is taken, which the servers themselves would
// only log.
func free(part, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("backbone: %s cannot listen: %w", part, err)
	}
	return l.Close()
}

func (h *natsHost) stop() {
	h.mu.Lock()
	s := h.s
	h.s = nil
	h.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// restart stops the server and starts it again; clean first removes what is
// left of its store. old is the server the caller has judged: several keepers
// may find fault with one, and the first is enough. A second one under way
// would empty the directory that the first has just started a server on.
func (h *natsHost) restart(old *server.Server, why string, clean bool) error {
	h.changing.Lock()
	defer h.changing.Unlock()
	if h.server() != old {
		return nil
	}
	h.log.Warn("restarting the NATS server", "why", why, "clean", clean)
	h.stop()
	h.mu.Lock()
	h.restarts++
	h.mu.Unlock()
	if clean {
		if err := os.RemoveAll(h.dir); err != nil {
			return err
		}
	}
	return h.start()
}

func (h *natsHost) server() *server.Server {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.s
}

// InProcessConn implements nats.InProcessConnProvider over whichever server
// runs now.
func (h *natsHost) InProcessConn() (net.Conn, error) {
	if s := h.server(); s != nil {
		return s.InProcessConn()
	}
	return nil, errNATSDown
}

// storeGone says whether the files of a stream that the server believes in
// have been taken from under it. The server itself goes on writing to files
// that nobody can find again.
func (h *natsHost) storeGone(streams []broker.Stream) bool {
	for _, s := range streams {
		_, err := os.Stat(filepath.Join(h.dir, "jetstream", "$G", "streams", s.Name))
		if errors.Is(err, os.ErrNotExist) {
			return true
		}
	}
	return false
}

// natsOptions is the server's configuration, made anew at every start.
func natsOptions(c *Config, l layout) (*server.Options, error) {
	o := &server.Options{
		ServerName: c.Name, NoSigs: true, DisableJetStreamBanner: true,
		JetStream: true, JetStreamDomain: c.Carrier, StoreDir: filepath.Join(c.Dir, "nats"),
		// An acknowledged message must survive a power cut; the default is
		// fsync every two minutes.
		SyncAlways:         true,
		JetStreamMaxMemory: 32 << 20, JetStreamMaxStore: int64(c.StoreMiB) << 20 * int64(2+2*len(l.others)),
		MaxPayload: 2 << 20, MaxConn: 4096, MaxPending: 32 << 20,
		// A peer that vanished without a word is noticed in 15 s.
		PingInterval: 5 * time.Second, MaxPingsOut: 2, WriteDeadline: 5 * time.Second,
		LameDuckGracePeriod: -1 * time.Second, LameDuckDuration: time.Second,
	}
	var faults []error
	o.Host, o.Port = split(l.self.NATS, &faults)
	if len(l.members) > 1 {
		cluster(o, l, &faults)
	}
	if l.self.Leaf != "" {
		o.LeafNode.Host, o.LeafNode.Port = split(l.self.Leaf, &faults)
	}
	o.LeafNode.ReconnectInterval = time.Second
	o.LeafNode.Compression.Mode = server.CompressionOff
	for _, other := range l.otherCarriers() {
		if r := remote(c, l.others[other]); l.solicits(other) && len(r.URLs) > 0 {
			o.LeafNode.Remotes = append(o.LeafNode.Remotes, r)
		}
	}
	if !c.Insecure {
		faults = append(faults, secure(o, c.files()))
	}
	return o, errors.Join(faults...)
}

func cluster(o *server.Options, l layout, faults *[]error) {
	o.Cluster.Name = l.self.Carrier
	o.Cluster.Host, o.Cluster.Port = split(l.self.Cluster, faults)
	o.Cluster.PoolSize = 1
	o.Cluster.Compression.Mode = server.CompressionOff
	for _, m := range l.members {
		if m.Name != l.self.Name {
			o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", Host: m.Cluster})
		}
	}
}

// remote dials any backbone of another carrier that takes leaf connections.
func remote(c *Config, others []topology.Process) *server.RemoteLeafOpts {
	r := &server.RemoteLeafOpts{
		// The addresses we were told are the only ones we use: a discovered
		// one would go around a fault proxy, or a firewall.
		IgnoreDiscoveredServers: true,
		DialTimeout:             2 * time.Second,
	}
	r.Compression.Mode = server.CompressionOff
	for _, p := range others {
		if addr := c.leafOf(p); addr != "" {
			r.URLs = append(r.URLs, &url.URL{Scheme: "nats-leaf", Host: addr})
		}
	}
	return r
}

// secure puts mutual TLS on every listener and every dial.
func secure(o *server.Options, f pki.Files) error {
	in, err := pki.Server(f)
	if err != nil {
		return err
	}
	out, err := pki.Client(f)
	if err != nil {
		return err
	}
	// A route uses one configuration for both of its ends. The checks against
	// today's files are the same; only who shows what first differs.
	both := in.Clone()
	both.GetClientCertificate = out.GetClientCertificate
	both.InsecureSkipVerify = true // as pki.Client: VerifyConnection is the check
	o.TLSConfig, o.TLS, o.TLSVerify, o.TLSTimeout = in, true, true, 5
	o.LeafNode.TLSConfig, o.LeafNode.TLSTimeout = in.Clone(), 5
	o.Cluster.TLSConfig, o.Cluster.TLSTimeout = both, 5
	for _, r := range o.LeafNode.Remotes {
		r.TLS, r.TLSConfig, r.TLSTimeout = true, out.Clone(), 5
	}
	return nil
}

func split(addr string, faults *[]error) (string, int) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		*faults = append(*faults, fmt.Errorf("backbone: address %q: %w", addr, err))
		return "", 0
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		*faults = append(*faults, fmt.Errorf("backbone: address %q: %w", addr, err))
	}
	return host, port
}
