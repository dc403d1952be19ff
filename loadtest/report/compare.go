package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"qianma/loadtest/drive"
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
	// Note says what must differ between the two whatever the system did, because
	// the runs were not alike.
	Note string `json:"note,omitempty"`
	// P is how likely a difference like this is by chance alone: of the runs
	// when there are several on each side, else of the seconds of the two
	// runs. -1: not enough of either to tell.
	P float64 `json:"p"`
}

// figure is a row in the making.
type figure struct {
	what    string
	of      func(*Result) float64
	seconds func(*Result) []float64 // nil: has none for each second
	moves   []string                // settings that move it whatever the system does
}

// costMoves change how often a process is woken for one operation.
var costMoves = []string{"rate", "plan", "displays_per_s", "quantum_ms", "gather_ms"}

// diskMoves change how much of what was written is compacted, and how often,
// before a run is over.
var diskMoves = []string{"rate", "plan", "duration_s"}

// figures are the rows of two groups. Percentiles are of one kind of operation
// each: the headline is of the slowest, and that may be another in each run.
func figures(a, b []*Result) []figure {
	out := []figure{
		{what: "offered per s", of: func(r *Result) float64 { return r.OfferedPerS }},
		{what: "achieved per s", of: func(r *Result) float64 { return r.AchievedPerS },
			seconds: func(r *Result) []float64 {
				return perSecond(r.Main(), func(s drive.Second) float64 { return s.Done })
			}},
	}
	for _, k := range bothHave(a, b) {
		out = append(out, k.figures()...)
	}
	return append(out,
		figure{what: "visible p50 ms", of: func(r *Result) float64 { return p50.of(r.VisibleMS) }},
		figure{what: "visible p99 ms", of: func(r *Result) float64 { return p99.of(r.VisibleMS) }},
		figure{what: "CPU µs per op", of: func(r *Result) float64 { return r.CPUPerOp }, moves: costMoves},
		figure{what: "bytes written per op", of: func(r *Result) float64 { return r.DiskPerOp }, moves: diskMoves},
		figure{what: "failed, unknown, dropped", of: func(r *Result) float64 { return float64(r.Failed + r.Unknown + r.Dropped) }},
		figure{what: "lost, wrong, repeated", of: ledgered})
}

// Compare puts the medians of two groups side by side.
func Compare(nameA string, a []*Result, nameB string, b []*Result) Comparison {
	c := Comparison{A: nameA, B: nameB, Unbelieved: unbelieved(slices.Concat(a, b))}
	for _, f := range figures(a, b) {
		c.Rows = append(c.Rows, f.row(a, b, len(c.Unbelieved) == 0))
	}
	c.Notes = slices.Concat(differences(a, b), oneSided(a, b), aboutP(a, b))
	return c
}

// row is a figure of two groups; without a ratio where they are not to be
// believed, or one has nothing.
func (f figure) row(a, b []*Result, believed bool) Row {
	va, vb := values(a, f.of), values(b, f.of)
	row := Row{What: f.what, A: orNone(Median(va)), B: orNone(Median(vb)), Ratio: -1, P: -1}
	if !believed || len(va) == 0 || len(vb) == 0 {
		return row
	}
	if row.A != 0 {
		row.Ratio = row.B / row.A
	}
	if moved := moved(a, b, f.moves); len(moved) > 0 {
		row.Note = "not alike: " + strings.Join(moved, ", ")
	}
	switch {
	case len(a) >= enough && len(b) >= enough:
		row.P = differ(va, vb)
	case len(a) == 1 && len(b) == 1 && f.seconds != nil:
		row.P = differ(f.seconds(a[0]), f.seconds(b[0]))
	}
	return row
}

// moved are those of the settings that differ, or may.
func moved(a, b []*Result, names []string) []string {
	var out []string
	for _, name := range names {
		switch p, q := settings(a, name), settings(b, name); {
		case p == q:
		case p == unrecorded, q == unrecorded:
			out = append(out, name+" (perhaps)")
		default:
			out = append(out, name)
		}
	}
	return out
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
	left := func(r *Result) int { return len(perSecond(r.Main(), func(drive.Second) float64 { return 0 })) }
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
func perSecond(stream *Stream, of func(drive.Second) float64) []float64 {
	var out []float64
	s := stream.Series
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
		fmt.Fprintf(&b, "%-26s %12s %12s %8s %8s%s\n", r.What, number(r.A), number(r.B), ratio, p, beside(r.Note))
	}
	for _, n := range c.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	return b.String()
}

// beside sets a note beside a row, where there is one.
func beside(note string) string {
	if note == "" {
		return ""
	}
	return "  " + note
}
