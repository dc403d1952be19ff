package broker

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("qianma_broker_"+name, help, nil, nil)
}

var (
	connectedDesc = desc("connected", "1 while a server is connected.")
	counterDescs  = []*prometheus.Desc{
		desc("published_messages_total", "Messages sent to the server."),
		desc("published_bytes_total", "Bytes of blocks sent to the server."),
		desc("publish_failures_total", "Calls to Publish that failed."),
		desc("oversize_blocks_total", "Blocks too large for a message, left to pulling."),
		desc("heard_messages_total", "Messages handed to subscribers."),
		desc("damaged_messages_total", "Messages dropped because they were not what was sent."),
		desc("resubscriptions_total", "Consumers made anew after a failure."),
		desc("streams_made_total", "Streams made because they were missing."),
	}
)

type collector struct{ j *JetStream }

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- connectedDesc
	for _, d := range counterDescs {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	up := 0.0
	if c.j.Connected() {
		up = 1
	}
	ch <- prometheus.MustNewConstMetric(connectedDesc, prometheus.GaugeValue, up)
	s := &c.j.stats
	for i, v := range []uint64{s.sent.Load(), s.sentBytes.Load(), s.refused.Load(), s.oversize.Load(), s.heard.Load(), s.corrupt.Load(), s.resubscribed.Load(), s.streamsMade.Load()} {
		ch <- prometheus.MustNewConstMetric(counterDescs[i], prometheus.CounterValue, float64(v))
	}
}

func (j *JetStream) hook() (func(), error) {
	if j.cfg.Metrics == nil {
		return func() {}, nil
	}
	c := collector{j}
	if err := j.cfg.Metrics.Register(c); err != nil {
		return nil, fmt.Errorf("broker: metrics: %w", err)
	}
	return func() { j.cfg.Metrics.Unregister(c) }, nil
}
