package backbone

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"qianma/cluster/pki"
	"qianma/cluster/topology"
)

// etcdHost is the embedded etcd member.
type etcdHost struct {
	cfg *Config
	l   layout
	dir string
	log *slog.Logger

	muted    atomic.Bool // while stopping
	mu       sync.Mutex
	e        *embed.Etcd
	ca       os.FileInfo // the authority's file as etcd read it
	restarts int
}

func newEtcd(c *Config, l layout) *etcdHost {
	return &etcdHost{cfg: c, l: l, dir: filepath.Join(c.Dir, "etcd"), log: c.Logger.With("part", "etcd")}
}

// start brings the member up. It returns when the member serves, or after
// ReadyAfter without an error: a member of three may have to wait for others.
func (h *etcdHost) start(ctx context.Context) error {
	h.muted.Store(false)
	cfg := h.options()
	if h.blank() && len(h.l.members) > 1 {
		if err := h.rejoin(ctx, cfg); err != nil {
			return err
		}
	}
	ca, _ := os.Stat(h.cfg.CA)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	h.mu.Lock()
	h.e, h.ca = e, ca
	h.mu.Unlock()
	select {
	case <-e.Server.ReadyNotify():
	case <-e.Server.StopNotify():
		return errors.New("backbone: etcd stopped while it started")
	case <-ctx.Done():
	case <-time.After(h.cfg.ReadyAfter):
		h.log.Warn("etcd is up but has no leader yet; going on without it")
	}
	return nil
}

func (h *etcdHost) stop() {
	h.mu.Lock()
	e := h.e
	h.e = nil
	h.mu.Unlock()
	if e != nil {
		h.muted.Store(true)
		e.Close()
	}
}

// restart stops the member and starts it again; clean first removes what is
// left of its store.
func (h *etcdHost) restart(ctx context.Context, why string, clean bool) error {
	h.log.Warn("restarting etcd", "why", why, "clean", clean)
	h.stop()
	h.mu.Lock()
	h.restarts++
	h.mu.Unlock()
	if clean {
		if err := os.RemoveAll(h.dir); err != nil {
			return err
		}
	}
	return h.start(ctx)
}

// trouble says why the member should be restarted; empty: no reason.
func (h *etcdHost) trouble() (why string, clean bool) {
	h.mu.Lock()
	e, ca := h.e, h.ca
	h.mu.Unlock()
	if e == nil {
		return "it is not running", false
	}
	select {
	case err := <-e.Err():
		return fmt.Sprintf("it failed: %v", err), false
	case <-e.Server.StopNotify():
		return "it stopped by itself", false
	default:
	}
	if h.blank() {
		return "its store was deleted", true
	}
	// etcd reads certificates at every handshake, but the authority only once.
	if now, err := os.Stat(h.cfg.CA); err == nil && ca != nil && (!os.SameFile(now, ca) || !now.ModTime().Equal(ca.ModTime())) {
		return "the certificate authority was rotated", false
	}
	return "", false
}

// ready says whether the member serves and knows a leader.
func (h *etcdHost) ready() error {
	h.mu.Lock()
	e := h.e
	h.mu.Unlock()
	if e == nil {
		return errors.New("etcd is not running")
	}
	select {
	case <-e.Server.ReadyNotify():
	default:
		return errors.New("etcd is starting")
	}
	if e.Server.Leader() == 0 {
		return errors.New("etcd knows no leader")
	}
	return nil
}

// blank says whether the member has no store.
func (h *etcdHost) blank() bool {
	_, err := os.Stat(filepath.Join(h.dir, "member", "wal"))
	return errors.Is(err, os.ErrNotExist)
}

func (h *etcdHost) options() *embed.Config {
	c := embed.NewConfig()
	c.Name, c.Dir = h.cfg.Name, h.dir
	c.ListenClientUrls = []url.URL{h.url(h.l.self.Etcd)}
	c.AdvertiseClientUrls = c.ListenClientUrls
	c.ListenPeerUrls = []url.URL{h.url(h.peerOf(h.l.self))}
	c.AdvertisePeerUrls = c.ListenPeerUrls
	c.InitialCluster = h.initialCluster(h.l.members)
	c.InitialClusterToken = "qianma-" + h.cfg.Carrier
	// Two busy cores must not cost the leader its office: ticks are slow.
	c.TickMs, c.ElectionMs = 250, 2500
	c.PreVote = true
	// The registry is small; history is of no use to anyone.
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
	c.QuotaBackendBytes = 128 << 20
	c.SnapshotCount, c.SnapshotCatchUpEntries = 5000, 1000
	c.MaxRequestBytes = 1 << 20
	c.EnableGRPCGateway = false
	c.LogLevel = "warn"
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(etcdLog(h.log, &h.muted))
	if !h.cfg.Insecure {
		c.TlsMinVersion = "TLS1.3"
		for _, info := range []*struct{ cert, key, ca *string }{
			{&c.ClientTLSInfo.CertFile, &c.ClientTLSInfo.KeyFile, &c.ClientTLSInfo.TrustedCAFile},
			{&c.PeerTLSInfo.CertFile, &c.PeerTLSInfo.KeyFile, &c.PeerTLSInfo.TrustedCAFile},
		} {
			*info.cert, *info.key, *info.ca = h.cfg.Cert, h.cfg.Key, h.cfg.CA
		}
		c.ClientTLSInfo.ClientCertAuth, c.PeerTLSInfo.ClientCertAuth = true, true
		// A peer proves that it is of the province; it may dial from any of
		// its host's addresses.
		c.PeerTLSInfo.SkipClientSANVerify = true
	}
	return c
}

func (h *etcdHost) initialCluster(members []topology.Process) string {
	var parts []string
	for _, m := range members {
		u := h.url(h.peerOf(m))
		parts = append(parts, m.Name+"="+u.String())
	}
	return strings.Join(parts, ",")
}

// peerOf is where a member talks to its peers. A single member has none, but
// etcd will listen: on a port of its own that nobody is told of.
func (h *etcdHost) peerOf(p topology.Process) string {
	if p.EtcdPeer == "" {
		return "127.0.0.1:0"
	}
	return p.EtcdPeer
}

func (h *etcdHost) url(addr string) url.URL {
	if h.cfg.Insecure {
		return url.URL{Scheme: "http", Host: addr}
	}
	return url.URL{Scheme: "https", Host: addr}
}

// rejoin prepares a member without a store to enter a cluster that may already
// run: a member that lost its log must come back as a new member, because the
// others remember what the old one promised. When nobody answers, the cluster
// is taken to be new.
func (h *etcdHost) rejoin(ctx context.Context, cfg *embed.Config) error {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.ReadyAfter)
	defer cancel()
	cli, err := h.dialOthers()
	if err != nil {
		return err
	}
	defer cli.Close()
	ask, cancelAsk := context.WithTimeout(ctx, 2*time.Second)
	defer cancelAsk()
	have, err := cli.MemberList(ask)
	if err != nil {
		return nil // nobody runs yet: bootstrap together
	}
	for _, m := range have.Members {
		if m.Name == h.cfg.Name || (len(m.PeerURLs) > 0 && m.PeerURLs[0] == cfg.AdvertisePeerUrls[0].String()) {
			if m.Name == "" {
				cfg.ClusterState = embed.ClusterStateFlagExisting // added by an earlier attempt
				return nil
			}
			if _, err := cli.MemberRemove(ctx, m.ID); err != nil {
				return fmt.Errorf("backbone: etcd: leaving as the member that lost its store: %w", err)
			}
		}
	}
	if _, err := cli.MemberAdd(ctx, []string{cfg.AdvertisePeerUrls[0].String()}); err != nil {
		return fmt.Errorf("backbone: etcd: joining anew: %w", err)
	}
	h.log.Info("joining the etcd cluster as a new member")
	cfg.ClusterState = embed.ClusterStateFlagExisting
	return nil
}

func (h *etcdHost) dialOthers() (*clientv3.Client, error) {
	var endpoints []string
	for _, m := range h.l.members {
		if m.Name != h.cfg.Name {
			u := h.url(m.Etcd)
			endpoints = append(endpoints, u.String())
		}
	}
	var conf *tls.Config
	if !h.cfg.Insecure {
		var err error
		if conf, err = pki.Client(h.cfg.files()); err != nil {
			return nil, err
		}
	}
	return clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: conf, DialTimeout: 2 * time.Second, Logger: zap.NewNop()})
}
