package web

import (
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// meter holds the server's metrics. Counters are found once per pattern and
// status, not once per request.
type meter struct {
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	shed      [numClasses]prometheus.Counter
	unmatched prometheus.Counter
	panics    prometheus.Counter
}

func newMeter(s *Server) *meter {
	m := &meter{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "qianma_http_requests_total", Help: "Requests, by pattern and status.",
		}, []string{"pattern", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "qianma_http_seconds", Help: "How long requests took, waiting for a place included.",
			Buckets: []float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10, 30},
		}, []string{"pattern"}),
		unmatched: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "qianma_http_unmatched_total", Help: "Requests for what is not here.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "qianma_http_panics_total", Help: "Handlers that panicked.",
		}),
	}
	reg := s.cfg.Metrics
	shed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "qianma_http_shed_total", Help: "Requests turned away, by class.",
	}, []string{"class"})
	reg.MustRegister(m.requests, m.seconds, shed, m.unmatched, m.panics,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for c := range numClasses {
		m.shed[c] = shed.WithLabelValues(c.String())
		labels := prometheus.Labels{"class": c.String()}
		g := s.gates[c]
		reg.MustRegister(
			gauge("qianma_http_in_flight", "Requests at work.", labels, func() float64 { taken, _ := g.full(); return float64(taken) }),
			gauge("qianma_http_waiting", "Requests waiting for a place.", labels, func() float64 { _, waiting := g.full(); return float64(waiting) }))
	}
	reg.MustRegister(
		gauge("qianma_http_body_bytes", "Bytes of request bodies held.", nil, func() float64 { return float64(s.held.Load()) }),
		gauge("qianma_http_pressure", "0 calm, 1 sheds optional, 2 sheds normal.", nil, func() float64 { return float64(s.load.level.Load()) }),
		gauge("qianma_build_info", "What runs here.", prometheus.Labels{"name": s.cfg.Name, "version": s.cfg.Version, "go": runtime.Version()}, func() float64 { return 1 }))
	return m
}

func gauge(name, help string, labels prometheus.Labels, fn func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, fn)
}

type endpointMeter struct {
	m       *meter
	pattern string
	seconds prometheus.Observer
	status  [600]atomic.Pointer[prometheus.Counter]
}

func (m *meter) endpoint(pattern string) *endpointMeter {
	return &endpointMeter{m: m, pattern: pattern, seconds: m.seconds.WithLabelValues(pattern)}
}

func (e *endpointMeter) done(status int, took time.Duration) {
	e.seconds.Observe(took.Seconds())
	if status < 0 || status >= len(e.status) {
		return
	}
	c := e.status[status].Load()
	if c == nil {
		fresh := e.m.requests.WithLabelValues(e.pattern, strconv.Itoa(status))
		c = &fresh
		e.status[status].Store(c)
	}
	(*c).Inc()
}
