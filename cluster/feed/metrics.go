package feed

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// hook registers a collector under a feed's name and returns how to take it
// back; a nil registerer is fine.
func hook(reg prometheus.Registerer, name string, c prometheus.Collector) (func(), error) {
	if reg == nil {
		return func() {}, nil
	}
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"feed": name}, reg)
	if err := reg.Register(c); err != nil {
		return nil, fmt.Errorf("feed %q: metrics: %w", name, err)
	}
	return func() { reg.Unregister(c) }, nil
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("qianma_feed_"+name, help, labels, nil)
}

var (
	publishedDesc = desc("published_facts_total", "Facts handed to the broker.")
	skippedDesc   = desc("skipped_facts_total", "Facts left to pulling because the broker was too far behind.")
	publishErrors = desc("publish_errors_total", "Attempts to publish that failed.")
	publishCursor = desc("publish_cursor", "Last fact of the own origin the broker is known to hold.")

	heldDesc      = desc("held_seq", "Last fact the sink holds of an origin.", "origin")
	knownDesc     = desc("known_seq", "Last fact of an origin that anyone has told of.", "origin")
	ageDesc       = desc("age_seconds", "Seconds since the sink was known to hold all there was.", "origin")
	divergedDesc  = desc("diverged", "1 while an origin's sources contradict what the sink holds.", "origin")
	divergedTotal = desc("divergence_total", "Times a source contradicted what the sink holds.")
	foldedDesc    = desc("folded_facts_total", "Facts folded, by how they came.", "way")
	foldsDesc     = desc("folds_total", "Calls to the sink.")
	repeatsDesc   = desc("repeats_total", "Blocks that were held already.")
	overflowDesc  = desc("overflow_total", "Blocks dropped because the buffer was full; they are pulled later.")
	pullsDesc     = desc("pulls_total", "Ranges asked of sources.")
	faultsDesc    = desc("faults_total", "Calls to sources or the sink that failed.")
	pollingDesc   = desc("polling", "1 while the broker is not delivering and sources are polled.")
)

type publisherCollector struct{ p *Publisher }

func (c *publisherCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{publishedDesc, skippedDesc, publishErrors, publishCursor} {
		ch <- d
	}
}

func (c *publisherCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.p.Status()
	counter(ch, publishedDesc, s.Facts)
	counter(ch, skippedDesc, s.Skipped)
	counter(ch, publishErrors, s.Errors)
	gauge(ch, publishCursor, float64(s.Cursor))
}

type followerCollector struct{ f *Follower }

func (c *followerCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{heldDesc, knownDesc, ageDesc, divergedDesc, divergedTotal, foldedDesc,
		foldsDesc, repeatsDesc, overflowDesc, pullsDesc, faultsDesc, pollingDesc} {
		ch <- d
	}
}

func (c *followerCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.f.Status()
	now := c.f.cfg.Clock.Now()
	for _, l := range s.Origins {
		o := l.Origin.String()
		gauge(ch, heldDesc, float64(l.Held), o)
		gauge(ch, knownDesc, float64(l.Known), o)
		gauge(ch, divergedDesc, truth(l.Diverged), o)
		if as := l.AsOf(); !as.IsZero() {
			gauge(ch, ageDesc, now.Sub(as).Seconds(), o)
		}
	}
	counter(ch, divergedTotal, s.Divergences)
	counter(ch, foldedDesc, s.FactsLive, "live")
	counter(ch, foldedDesc, s.FactsPulled, "pulled")
	counter(ch, foldsDesc, s.Folds)
	counter(ch, repeatsDesc, s.Repeats)
	counter(ch, overflowDesc, s.Overflow)
	counter(ch, pullsDesc, s.Pulls)
	counter(ch, faultsDesc, s.Faults)
	gauge(ch, pollingDesc, truth(s.Polling))
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, v uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
