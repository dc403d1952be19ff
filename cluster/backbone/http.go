package backbone

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"qianma/cluster/broker"
	"qianma/cluster/web"
)

// openHTTP opens the listener of health, metrics and status.
func (b *Backbone) openHTTP() error {
	if b.cfg.HTTP == "" {
		return nil
	}
	w, err := web.New(web.Config{Addr: b.cfg.HTTP, Name: b.cfg.Name, Version: Version, Logger: b.log, Metrics: b.reg, Connections: 256})
	if err != nil {
		return fmt.Errorf("backbone: http: %w", err)
	}
	for _, c := range b.checks() {
		w.Check(c.name, c.fn)
	}
	w.Handle("GET /v1/status", func(out http.ResponseWriter, r *http.Request) error {
		return web.WriteJSON(out, http.StatusOK, b.Status(r.Context()))
	})
	b.web = w
	b.wg.Go(func() { _ = w.Serve() }) // ends with Close
	return nil
}

// check is one named condition of readiness.
type check struct {
	name string
	fn   func(context.Context) error
}

// checks are what makes this backbone useful to its own carrier. The link to
// the other carrier is not among them: its absence is no fault of ours.
func (b *Backbone) checks() []check {
	var all []check
	if b.nats != nil {
		all = append(all, check{"nats", b.natsReady})
	}
	if b.etcd != nil {
		all = append(all, check{"etcd", func(context.Context) error { return b.etcd.ready() }})
	}
	return all
}

func (b *Backbone) natsReady(ctx context.Context) error {
	if s := b.nats.server(); s == nil || !s.Running() {
		return errNATSDown
	}
	// A cluster without a leader does not answer at all.
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := b.broker.Streams(ctx)
	return err
}

// Ready says whether every part serves.
func (b *Backbone) Ready(ctx context.Context) error {
	for _, c := range b.checks() {
		if err := c.fn(ctx); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// Status is how a backbone is doing.
type Status struct {
	Process string            `json:"process"`
	Carrier string            `json:"carrier"`
	Version string            `json:"version"`
	NATS    *NATSStatus       `json:"nats,omitempty"`
	Etcd    *EtcdStatus       `json:"etcd,omitempty"`
	Links   []LinkStatus      `json:"links"`
	Faults  map[string]string `json:"faults"` // by part: what its keeper failed with last
}

// NATSStatus is how the NATS server is doing.
type NATSStatus struct {
	Running     bool            `json:"running"`
	Connections int             `json:"connections"`
	Restarts    int             `json:"restarts"`
	Streams     []broker.Stream `json:"streams"`
}

// EtcdStatus is how the etcd member is doing.
type EtcdStatus struct {
	Ready    bool   `json:"ready"`
	Leader   bool   `json:"leader"`
	Restarts int    `json:"restarts"`
	Fault    string `json:"fault,omitempty"`
}

// LinkStatus is how the link to another carrier is doing.
type LinkStatus struct {
	Other     string         `json:"other"`
	Connected bool           `json:"connected"`
	QuietMS   int64          `json:"quiet_ms"` // since the last heartbeat from there
	Remedies  map[remedy]int `json:"remedies"`
}

// Status reports how the backbone is doing.
func (b *Backbone) Status(ctx context.Context) Status {
	s := Status{Process: b.cfg.Name, Carrier: b.cfg.Carrier, Version: Version, Faults: b.faultsNow(), Links: []LinkStatus{}}
	if b.nats != nil {
		s.NATS = b.natsStatus(ctx)
		for _, other := range b.layout.otherCarriers() {
			_, done := b.links[other].report()
			s.Links = append(s.Links, LinkStatus{
				Other: other, Connected: len(b.leafIDs(other)) > 0, Remedies: done,
				QuietMS: b.links[other].quiet(time.Now()).Milliseconds(),
			})
		}
	}
	if b.etcd != nil {
		s.Etcd = b.etcd.status()
	}
	return s
}

func (b *Backbone) natsStatus(ctx context.Context) *NATSStatus {
	h := b.nats
	h.mu.Lock()
	st := &NATSStatus{Restarts: h.restarts}
	h.mu.Unlock()
	if s := h.server(); s != nil {
		st.Running, st.Connections = s.Running(), s.NumClients()
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	st.Streams, _ = b.broker.Streams(ctx)
	return st
}

func (h *etcdHost) status() *EtcdStatus {
	st := new(EtcdStatus)
	if err := h.ready(); err != nil {
		st.Fault = err.Error()
	} else {
		st.Ready = true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	st.Restarts = h.restarts
	if h.e != nil {
		st.Leader = h.e.Server.Leader() == h.e.Server.MemberID()
	}
	return st
}

// collector shows the state on /metrics.
type collector struct{ b *Backbone }

var (
	readyDesc    = prometheus.NewDesc("qianma_backbone_ready", "1 while the part serves.", []string{"part"}, nil)
	restartsDesc = prometheus.NewDesc("qianma_backbone_restarts_total", "Times the part was restarted by its keeper.", []string{"part"}, nil)
	quietDesc    = prometheus.NewDesc("qianma_backbone_link_quiet_seconds", "Since the last heartbeat from the other carrier.", []string{"other"}, nil)
	remedyDesc   = prometheus.NewDesc("qianma_backbone_link_remedies_total", "Remedies applied to a stale link.", []string{"other", "remedy"}, nil)
)

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{readyDesc, restartsDesc, quietDesc, remedyDesc} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, one := range c.b.checks() {
		ch <- prometheus.MustNewConstMetric(readyDesc, prometheus.GaugeValue, truth(one.fn(ctx) == nil), one.name)
	}
	s := c.b.Status(ctx)
	if s.NATS != nil {
		ch <- prometheus.MustNewConstMetric(restartsDesc, prometheus.CounterValue, float64(s.NATS.Restarts), "nats")
	}
	if s.Etcd != nil {
		ch <- prometheus.MustNewConstMetric(restartsDesc, prometheus.CounterValue, float64(s.Etcd.Restarts), "etcd")
	}
	for _, l := range s.Links {
		ch <- prometheus.MustNewConstMetric(quietDesc, prometheus.GaugeValue, float64(l.QuietMS)/1000, l.Other)
		for _, r := range slices.Sorted(maps.Keys(l.Remedies)) {
			ch <- prometheus.MustNewConstMetric(remedyDesc, prometheus.CounterValue, float64(l.Remedies[r]), l.Other, string(r))
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
