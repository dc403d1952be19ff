package backbone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"qianma/cluster/broker"
	"qianma/cluster/web"
)

// Version is shown in the status; the main package sets it before Open.
var Version = "dev"

// Backbone is a running backbone.
type Backbone struct {
	cfg    Config
	layout layout
	log    *slog.Logger

	nats   *natsHost
	etcd   *etcdHost
	broker *broker.JetStream
	links  map[string]*link
	reg    *prometheus.Registry
	web    *web.Server

	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once

	mu     sync.Mutex
	faults map[string]string // by part: what its keeper failed with last

	mended bool // streams have been compared with the configuration; of keepNATS alone
	missed int  // heartbeats in a row that our own stream did not take; of keepLinks alone
}

// Open starts the parts and their keepers. It fails when a part cannot work
// as configured (a port is taken, a file is missing); it does not fail because
// the other carrier or another member is away.
func Open(cfg Config) (*Backbone, error) {
	l, err := cfg.fill()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &Backbone{cfg: cfg, layout: l, log: cfg.Logger, cancel: cancel, links: map[string]*link{}, reg: prometheus.NewRegistry(), faults: map[string]string{}}
	for other := range l.others {
		b.links[other] = newLink(other, time.Now())
	}
	b.reg.MustRegister(&collector{b})
	if err := b.openParts(ctx); err != nil {
		b.Close()
		return nil, err
	}
	if b.nats != nil {
		b.wg.Go(func() { b.every(ctx, cfg.KeepEvery, b.keepNATS) })
		b.wg.Go(func() { b.every(ctx, cfg.BeatEvery, b.keepLinks) })
	}
	if b.etcd != nil {
		b.wg.Go(func() { b.every(ctx, cfg.KeepEvery, b.keepEtcd) })
	}
	return b, nil
}

func (b *Backbone) openParts(ctx context.Context) error {
	if err := b.openNATS(); err != nil {
		return err
	}
	if err := b.openEtcd(ctx); err != nil {
		return err
	}
	return b.openHTTP()
}

func (b *Backbone) openNATS() error {
	if b.layout.self.NATS == "" {
		return nil
	}
	h := newNATS(&b.cfg, b.layout)
	if err := h.start(); err != nil {
		return err
	}
	b.nats = h
	j, err := broker.Connect(broker.Config{
		Name: b.cfg.Name, Carrier: b.cfg.Carrier, Others: b.layout.otherCarriers(), InProcess: h,
		Replicas: copies(len(b.layout.members)), MaxBytes: int64(b.cfg.StoreMiB) << 20,
		Logger: b.log.With("part", "broker"), Metrics: b.reg,
	})
	b.broker = j
	return err
}

// copies is how many replicas the streams of so many servers have.
func copies(members int) int {
	if members >= 3 {
		return 3
	}
	return 1
}

func (b *Backbone) openEtcd(ctx context.Context) error {
	if b.layout.self.Etcd == "" {
		return nil
	}
	h := newEtcd(&b.cfg, b.layout)
	for _, addr := range []string{b.layout.self.Etcd, b.layout.self.EtcdPeer} {
		if addr == "" {
			continue
		}
		if err := free("etcd", addr); err != nil {
			return err
		}
	}
	b.etcd = h
	if err := h.start(ctx); err != nil {
		// It may need the other members first. NATS need not wait for that.
		h.stop()
		b.log.Warn("etcd does not start yet; will go on trying", "err", err)
		_ = b.note("etcd", err)
	}
	return nil
}

// Close stops the backbone and waits. The order: the HTTP door, so that
// nobody is told that we are ready; the keepers, so that nothing is started
// again; our own connection; NATS; etcd. It is safe to call twice.
func (b *Backbone) Close() error {
	b.once.Do(func() {
		if b.web != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			_ = b.web.Close(ctx) // what could not finish was cut
			cancel()
		}
		b.cancel()
		b.wg.Wait()
		if b.broker != nil {
			b.broker.Close()
		}
		if b.nats != nil {
			b.nats.stop()
		}
		if b.etcd != nil {
			b.etcd.stop()
		}
	})
	return nil
}

// every runs keep now and then at a pace. After a failure it waits longer, up
// to 30 paces.
func (b *Backbone) every(ctx context.Context, pace time.Duration, keep func(context.Context) error) {
	wait := pace
	for ctx.Err() == nil {
		if err := keep(ctx); err == nil {
			wait = pace
		} else if ctx.Err() == nil {
			b.log.Warn("a keeper failed; will go on trying", "err", err)
			wait = min(2*wait, 30*pace)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (b *Backbone) note(part string, err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.faults[part] = err.Error()
		return fmt.Errorf("%s: %w", part, err)
	}
	delete(b.faults, part)
	return nil
}

func (b *Backbone) faultsNow() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.faults)
}

// keepNATS brings back a server that stopped, a store that was deleted and
// streams that are missing.
func (b *Backbone) keepNATS(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s := b.nats.server()
	if s == nil || !s.Running() {
		return b.note("nats", b.nats.restart(s, "it is not running", false))
	}
	streams, err := b.broker.Streams(ctx)
	if b.storeGone(streams) {
		// Look twice: a stream may just have been deleted in good order.
		if streams, err = b.broker.Streams(ctx); b.storeGone(streams) {
			b.mended = false
			return b.note("nats", b.nats.restart(s, "its store was deleted", true))
		}
	}
	if err == nil && b.mended {
		return b.note("nats", nil)
	}
	made, err := b.broker.Ensure(ctx, true)
	b.mended = err == nil
	if len(made) > 0 {
		b.log.Info("made streams", "streams", made)
	}
	return b.note("nats", err)
}

func (b *Backbone) storeGone(streams []broker.Stream) bool {
	if len(b.layout.members) > 1 {
		streams = nil // a stream may live on other members alone
	}
	return b.nats.storeGone(streams)
}

// keepEtcd brings back a member that stopped or lost its store.
func (b *Backbone) keepEtcd(ctx context.Context) error {
	why, clean := b.etcd.trouble()
	if why == "" {
		return b.note("etcd", nil)
	}
	return b.note("etcd", b.etcd.restart(ctx, why, clean))
}

// missedMost is how many heartbeats in a row our own stream may refuse before
// the server is restarted: a stream that met an I/O error stays frozen until
// then.
const missedMost = 4

// keepLinks sends our heartbeat and looks for the others'.
func (b *Backbone) keepLinks(ctx context.Context) error {
	var faults []error
	faults = append(faults, b.beat(ctx))
	for _, k := range b.links {
		faults = append(faults, b.keepLink(ctx, k))
	}
	return errors.Join(faults...)
}

func (b *Backbone) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s := b.nats.server()
	err := b.broker.Beat(ctx)
	if err == nil {
		b.missed = 0
		return b.note("beat", nil)
	}
	b.missed++
	if b.missed >= missedMost && len(b.layout.members) == 1 {
		b.missed = 0
		return b.note("nats", b.nats.restart(s, "its own stream takes nothing", false))
	}
	return b.note("beat", err)
}

func (b *Backbone) keepLink(ctx context.Context, k *link) error {
	asked, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	seq, err := b.broker.BeatOf(asked, k.other)
	now := time.Now()
	if err == nil {
		k.heard(seq, now)
	}
	if k.quiet(now) < b.cfg.QuietMax {
		return b.note("link "+k.other, nil)
	}
	r := k.judge(b.look(ctx, k, now), now, b.cfg.QuietMax, b.cfg.ActAfter)
	if r == noRemedy {
		return nil
	}
	return b.note("link "+k.other, b.treat(ctx, k, r))
}
