package registry

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("qianma_registry_"+name, help, labels, nil)
}

var (
	upDesc         = desc("up", "1 while etcd answers.")
	processesDesc  = desc("processes", "Processes known, by state.", "state")
	relistsDesc    = desc("relists_total", "Times everything was read again.")
	registeredDesc = desc("registrations_total", "Times this process registered.")
	droppedDesc    = desc("dropped_total", "Processes dropped because they had long not registered.")
	guardedDesc    = desc("guarded_total", "Times too many were gone at once and all were kept.")
)

type collector struct{ r *Registry }

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{upDesc, processesDesc, relistsDesc, registeredDesc, droppedDesc, guardedDesc} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	r := c.r
	r.mu.Lock()
	n, up := r.counts, 0.0
	if r.cli == nil || !r.upSince.IsZero() {
		up = 1
	}
	states := map[string]float64{"live": 0, "missing": 0, "left": 0}
	for _, e := range r.entries {
		states[e.state()]++
	}
	r.mu.Unlock()
	ch <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, up)
	for state, v := range states {
		ch <- prometheus.MustNewConstMetric(processesDesc, prometheus.GaugeValue, v, state)
	}
	for d, v := range map[*prometheus.Desc]uint64{relistsDesc: n.relists, registeredDesc: n.registrations, droppedDesc: n.dropped, guardedDesc: n.guarded} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
}

func (e *entry) state() string {
	switch {
	case e.left:
		return "left"
	case !e.missing.IsZero():
		return "missing"
	}
	return "live"
}

func (r *Registry) hook() error {
	if r.cfg.Metrics == nil {
		return nil
	}
	c := collector{r}
	if err := r.cfg.Metrics.Register(c); err != nil {
		return fmt.Errorf("registry: metrics: %w", err)
	}
	r.unhook = func() { r.cfg.Metrics.Unregister(c) }
	return nil
}

// isGone says whether etcd knows no such lease.
func isGone(err error) bool {
	var s interface{ Code() codes.Code }
	return (errors.As(err, &s) && s.Code() == codes.NotFound) || status.Code(err) == codes.NotFound
}
