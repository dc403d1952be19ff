package report

import (
	"fmt"
	"strings"

	"qianma/loadtest/hist"
)

// quantile is a percentile as reports show it.
type quantile struct {
	Name  string
	read  func(hist.Summary) float64
	needs int64 // values of which one at least lies beyond it
}

// The percentiles of a report. A p99 is told of any number of responses, because
// it is judged: of few, a note beside it says of how many. The rest need as many
// as have one beyond them; of fewer they would be the longest under another name.
var (
	p50     = quantile{"p50", func(s hist.Summary) float64 { return s.P50 }, 2}
	p90     = quantile{"p90", func(s hist.Summary) float64 { return s.P90 }, 10}
	p99     = quantile{"p99", func(s hist.Summary) float64 { return s.P99 }, 1}
	p999    = quantile{"p99.9", func(s hist.Summary) float64 { return s.P999 }, 1000}
	p9999   = quantile{"p99.99", func(s hist.Summary) float64 { return s.P9999 }, 10_000}
	longest = quantile{"max", func(s hist.Summary) float64 { return s.Max }, 1}

	quantiles = []quantile{p50, p90, p99, p999, p9999, longest}
)

// of is the percentile, or -1 where nothing or too little was measured.
func (q quantile) of(s hist.Summary) float64 {
	if s.Count < q.needs {
		return -1
	}
	return q.read(s)
}

// percentiles are all of them, in the order of quantiles.
func percentiles(s hist.Summary) []float64 {
	var out []float64
	for _, q := range quantiles {
		out = append(out, q.of(s))
	}
	return out
}

// spread writes all percentiles and of how many values they are.
func spread(b *strings.Builder, what string, s hist.Summary) {
	fmt.Fprintf(b, "  %-10s", what)
	for _, q := range quantiles {
		fmt.Fprintf(b, " %s %s ", q.Name, number(q.of(s)))
	}
	fmt.Fprintf(b, "ms, of %s\n", count(s.Count))
}
