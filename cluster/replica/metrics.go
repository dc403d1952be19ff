package replica

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of all groups of a process. They name no fact and no person.
type metrics struct {
	facts    prometheus.Counter
	commands prometheus.Counter
	gathered prometheus.Histogram // proposals in an entry
	commit   prometheus.Histogram // seconds from entry proposed to applied
	refused  *prometheus.CounterVec
	madeWay  prometheus.Counter
	restarts *prometheus.CounterVec // of a raft instance, by guard
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		facts:    prometheus.NewCounter(prometheus.CounterOpts{Name: "qianma_replica_facts_total", Help: "Facts taken into the state, own and ingested."}),
		commands: prometheus.NewCounter(prometheus.CounterOpts{Name: "qianma_replica_commands_total", Help: "Commands proposed on this leader."}),
		gathered: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "qianma_replica_gathered_proposals", Help: "Proposals gathered into one entry.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 13)}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "qianma_replica_commit_seconds", Help: "From an entry proposed to applied on this leader.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		refused:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "qianma_replica_refused_total", Help: "Proposals refused, by code."}, []string{"code"}),
		madeWay:  prometheus.NewCounter(prometheus.CounterOpts{Name: "qianma_replica_made_way_total", Help: "Rests of catching up with another carrier, for a write."}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "qianma_replica_raft_restarts_total", Help: "Raft instances restarted, by guard."}, []string{"guard"}),
	}
	if reg != nil {
		for _, c := range []prometheus.Collector{m.facts, m.commands, m.gathered, m.commit, m.refused, m.madeWay, m.restarts} {
			// A second replica in one process (tests) keeps its own numbers unseen.
			_ = reg.Register(c)
		}
	}
	return m
}
