package report

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"qianma/loadtest/drive"
	"qianma/loadtest/hist"
)

// Comparison is two results, or two groups of results, side by side.
type Comparison struct {
	A     string   `json:"a"`
	B     string   `json:"b"`
	Rows  []Row    `json:"rows"`
	Notes []string `json:"notes"`
	// Unbelieved are the runs that were invalid, or whose ledger was broken. Where
	// there is one, no row has a ratio or a p.
	Unbelieved []string `json:"unbelieved"`
}

// Row is one figure of both.
type Row struct {
	What  string  `json:"what"`
	A     float64 `json:"a"` // -1: not measured, here and in B
	B     float64 `json:"b"`
	Ratio float64 `json:"ratio"` // B over A; -1: there is none
	// P is how likely a difference like this is by chance alone: of the runs
	// when there are several on each side, else of the seconds of the two
	// runs. -1: not enough of either to tell.
	P float64 `json:"p"`
}

var figures = []struct {
	what    string
	of      func(*Result) float64
	seconds func(drive.Second) float64
}{
	{"offered per s", func(r *Result) float64 { return r.OfferedPerS }, nil},
	{"achieved per s", func(r *Result) float64 { return r.AchievedPerS }, func(s drive.Second) float64 { return s.Done }},
	{"response p50 ms", func(r *Result) float64 { return of(r.ResponseMS, r.ResponseMS.P50) }, func(s drive.Second) float64 { return s.P50 }},
	{"response p99 ms", func(r *Result) float64 { return of(r.ResponseMS, r.ResponseMS.P99) }, func(s drive.Second) float64 { return s.P99 }},
	{"response p99.9 ms", func(r *Result) float64 { return of(r.ResponseMS, r.ResponseMS.P999) }, nil},
	{"response max ms", func(r *Result) float64 { return of(r.ResponseMS, r.ResponseMS.Max) }, nil},
	{"visible p50 ms", func(r *Result) float64 { return of(r.VisibleMS, r.VisibleMS.P50) }, nil},
	{"visible p99 ms", func(r *Result) float64 { return of(r.VisibleMS, r.VisibleMS.P99) }, nil},
	{"CPU µs per op", func(r *Result) float64 { return r.CPUPerOp }, nil},
	{"bytes written per op", func(r *Result) float64 { return r.DiskPerOp }, nil},
	{"failed, unknown, dropped", func(r *Result) float64 { return float64(r.Failed + r.Unknown + r.Dropped) }, nil},
	{"lost, wrong, repeated", ledgered, nil},
}

// Compare puts the medians of two groups side by side.
func Compare(nameA string, a []*Result, nameB string, b []*Result) Comparison {
	c := Comparison{A: nameA, B: nameB, Unbelieved: unbelieved(slices.Concat(a, b))}
	for _, f := range figures {
		va, vb := values(a, f.of), values(b, f.of)
		row := Row{What: f.what, A: orNone(Median(va)), B: orNone(Median(vb)), Ratio: -1, P: -1}
		if len(c.Unbelieved) > 0 || len(va) == 0 || len(vb) == 0 {
			c.Rows = append(c.Rows, row)
			continue
		}
		if row.A != 0 {
			row.Ratio = row.B / row.A
		}
		switch {
		case len(a) >= enough && len(b) >= enough:
			row.P = differ(va, vb)
		case len(a) == 1 && len(b) == 1 && f.seconds != nil:
			row.P = differ(perSecond(a[0], f.seconds), perSecond(b[0], f.seconds))
		}
		c.Rows = append(c.Rows, row)
	}
	c.Notes = append(differences(a, b), aboutP(a, b)...)
	return c
}

// enough is how many values a side needs for chance to be told from a difference.
const enough = 4

// orNone is -1 for what is no number: nobody measured it.
func orNone(v float64) float64 {
	if math.IsNaN(v) {
		return -1
	}
	return v
}

// values are those that were measured.
func values(rs []*Result, of func(*Result) float64) []float64 {
	var out []float64
	for _, r := range rs {
		if v := of(r); v >= 0 {
			out = append(out, v)
		}
	}
	return out
}

// of is a percentile, or -1 where nothing was measured.
func of(s hist.Summary, v float64) float64 {
	if s.Count == 0 {
		return -1
	}
	return v
}

// ledgered is what the ledger said, or -1 where nobody looked.
func ledgered(r *Result) float64 {
	if r.Ledger == nil {
		return -1
	}
	return float64(r.Lost + r.Wrong + r.Repeated)
}

// unbelieved names the runs whose figures say nothing of the system.
func unbelieved(rs []*Result) []string {
	out := []string{}
	for _, r := range rs {
		if r.Code() >= LedgerBroke {
			out = append(out, fmt.Sprintf("the run of %s: %s", r.Start.UTC().Format("2006-01-02 15:04:05"), r.Why()))
		}
	}
	return out
}

// aboutP says what the column of p is worth, or why it is empty.
func aboutP(a, b []*Result) []string {
	left := func(r *Result) int { return len(perSecond(r, func(drive.Second) float64 { return 0 })) }
	switch {
	case len(a) >= enough && len(b) >= enough:
		return nil
	case len(a) > 1 || len(b) > 1:
		return []string{fmt.Sprintf("there is no p: it needs %d runs on each side, or one on each, and here are %d and %d", enough, len(a), len(b))}
	case left(a[0]) < enough || left(b[0]) < enough:
		return []string{fmt.Sprintf("there is no p: of one run on each side it is told from their seconds, which needs runs of %d s; give longer runs, or %d on each side, separated by commas", enough+4, enough)}
	}
	return []string{fmt.Sprintf("one run on each side: p is of their seconds, which are not independent, and rows without it have no figure for each second; give %d runs on each side, separated by commas, to be sure", enough)}
}

// perSecond leaves out the first and the last few seconds, which are of
// starting and stopping.
func perSecond(r *Result, of func(drive.Second) float64) []float64 {
	var out []float64
	s := r.Main().Series
	for _, sec := range s[min(2, len(s)):max(min(2, len(s)), len(s)-2)] {
		out = append(out, of(sec))
	}
	return out
}

// Median of the values; NaN of none.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// differ is the two-sided p of the Mann-Whitney test, by its normal
// approximation with ties: it asks only for order, not for any shape.
func differ(a, b []float64) float64 {
	if len(a) < enough || len(b) < enough {
		return -1
	}
	type value struct {
		v     float64
		ofOne bool
	}
	var all []value
	for _, v := range a {
		all = append(all, value{v, true})
	}
	for _, v := range b {
		all = append(all, value{v, false})
	}
	slices.SortFunc(all, func(x, y value) int {
		switch {
		case x.v < y.v:
			return -1
		case x.v > y.v:
			return 1
		}
		return 0
	})
	var ranks, ties float64
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].v == all[i].v {
			j++
		}
		same := float64(j - i)
		ties += same*same*same - same
		for k := i; k < j; k++ {
			if all[k].ofOne {
				ranks += float64(i+j+1) / 2
			}
		}
		i = j
	}
	n, m := float64(len(a)), float64(len(b))
	u := ranks - n*(n+1)/2
	variance := n * m / 12 * (n + m + 1 - ties/((n+m)*(n+m-1)))
	if variance <= 0 {
		return 1
	}
	z := max(0, math.Abs(u-n*m/2)-.5) / math.Sqrt(variance)
	return math.Erfc(z / math.Sqrt2)
}

// setting is a setting as it reads in JSON: one that was loaded from a file has
// other types than one that was just made.
func setting(r *Result, name string) string {
	raw, err := json.Marshal(r.Settings[name])
	if err != nil {
		return fmt.Sprint(r.Settings[name])
	}
	return string(raw)
}

// differences says what makes the two sides hard to compare.
func differences(a, b []*Result) []string {
	out := []string{}
	x, y := a[0], b[0]
	note := func(what string, p, q any) {
		if p != q {
			out = append(out, fmt.Sprintf("%s differs: %v and %v", what, p, q))
		}
	}
	note("profile", x.Profile, y.Profile)
	note("target", x.Target, y.Target)
	note("closed or open", x.Closed, y.Closed)
	note("carriers", strings.Join(x.Carriers, ","), strings.Join(y.Carriers, ","))
	for _, name := range []string{"people", "batch", "ack", "format", "split", "pools", "positive", "zipf", "cold", "warm_s", "duration_s", "ledger"} {
		note(name, setting(x, name), setting(y, name))
	}
	note("commit", x.Commit, y.Commit)
	note("processor", x.Machine.CPU, y.Machine.CPU)
	note("cores", x.Machine.Cores, y.Machine.Cores)
	return out
}

// Text is the comparison as a table.
func (c *Comparison) Text() string {
	var b strings.Builder
	if len(c.Unbelieved) > 0 {
		fmt.Fprintf(&b, "NOT A COMPARISON: not to be believed is %s\n", strings.Join(c.Unbelieved, ", "))
	}
	fmt.Fprintf(&b, "A = %s\nB = %s\n%-26s %12s %12s %8s %8s\n", c.A, c.B, "", "A", "B", "B/A", "p")
	for _, r := range c.Rows {
		ratio, p := "n/a", "n/a"
		if r.Ratio >= 0 {
			ratio = fmt.Sprintf("%.2f", r.Ratio)
		}
		if r.P >= 0 {
			p = fmt.Sprintf("%.3f", r.P)
		}
		fmt.Fprintf(&b, "%-26s %12s %12s %8s %8s\n", r.What, number(r.A), number(r.B), ratio, p)
	}
	for _, n := range c.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	return b.String()
}
