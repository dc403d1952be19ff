package rpc

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"qianma/cluster/problem"
)

// measures count calls by method (server) or peer (client) and outcome. A nil
// *measures measures nothing.
type measures struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newMeasures(reg prometheus.Registerer, side, label string) *measures {
	if reg == nil {
		return nil
	}
	m := &measures{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "qianma_rpc_" + side + "_calls_total",
			Help: "Calls between processes, by outcome.",
		}, []string{label, "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "qianma_rpc_" + side + "_seconds",
			Help:    "How long calls between processes took.",
			Buckets: []float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10},
		}, []string{label}),
	}
	reg.MustRegister(m.calls, m.seconds)
	return m
}

func (m *measures) done(label string, start time.Time, err error) {
	if m == nil {
		return
	}
	code := "ok"
	if err != nil {
		code = string(problem.From(err).Code)
	}
	m.calls.WithLabelValues(label, code).Inc()
	m.seconds.WithLabelValues(label).Observe(time.Since(start).Seconds())
}
