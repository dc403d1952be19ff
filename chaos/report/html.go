package report

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"
)

//go:embed page.html
var pageText string

//go:embed table.html
var tableText string

var funcs = template.FuncMap{
	"ms":    func(v float64) string { return milli(v) },
	"share": func(v float64) string { return fmt.Sprintf("%.3f%%", v) },
	"chart": chart,
	"json": func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			return err.Error()
		}
		return string(raw)
	},
	"good": func(v Verdict) bool { return v == Held },
}

var page = template.Must(template.New("page").Funcs(funcs).Parse(pageText))
var table = template.Must(template.New("table").Funcs(funcs).Parse(tableText))

func milli(v float64) string {
	switch {
	case v < 0:
		return "never"
	case v < 10_000:
		return fmt.Sprintf("%.0f ms", v)
	}
	return fmt.Sprintf("%.1f s", v/1000)
}

// HTML is the report as one page that needs nothing else.
func (r *Report) HTML() ([]byte, error) {
	var b bytes.Buffer
	err := page.Execute(&b, r)
	return b.Bytes(), err
}

// Entry is a report, and where its own page is from the page over all.
type Entry struct {
	*Report
	Page string
}

// Outcome is the verdict in words: a canary that broke what it must is well.
func (e Entry) Outcome() string {
	if e.MustFail != "" && e.Judged() == Held {
		return string(e.Verdict) + ", as it must be"
	}
	return string(e.Verdict)
}

// Table is the failure table with what was measured: a page over all drills.
func Table(all []Entry) ([]byte, error) {
	var b bytes.Buffer
	err := table.Execute(&b, all)
	return b.Bytes(), err
}

// Markdown is the same table for people who read the repository.
func Markdown(all []Entry) []byte {
	var b bytes.Buffer
	if len(all) > 0 {
		first := slices.MinFunc(all, func(a, b Entry) int { return a.Start.Compare(b.Start) })
		m := first.Machine
		fmt.Fprintf(&b, "%d drills, begun on %s with commit %s on %d cores with %d MiB, where an fsync takes %.0f µs.\n\n",
			len(all), first.Start.UTC().Format(time.DateOnly), first.Commit, m.Cores, m.MemoryMiB, m.FsyncUS)
	}
	b.WriteString("| drill | row of the failure table | verdict | first sign | through again | longest write gap | uploads | displays | lost | repeated | silently stale | equal after | seed |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, e := range all {
		name := e.Name
		if e.MustFail != "" {
			name += " (canary: must break " + e.MustFail + ")"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %.3f%% | %.3f%% | %d | %d | %d | %s | %d |\n", name, e.Row, e.Outcome(), milli(e.DetectedMS), milli(e.RecoveredMS),
			milli(e.LongestWriteGap), e.UploadSuccess, e.DisplaySuccess, e.Lost, e.Repeated, e.StaleGreen, milli(e.ConvergedMS), e.Seed)
	}
	return b.Bytes()
}

// Line is one line of a chart.
type line struct {
	name   string
	colour string
	points []float64 // by second
}

// Sizes of a chart, in the page's units.
const (
	chartWidth  = 900.0
	chartHeight = 130.0
)

// chart draws one measure of every stream over the seconds of the drill, with
// the faults' windows shaded.
func chart(r *Report, what string) template.HTML {
	var lines []line
	for i, s := range r.Streams {
		l := line{name: s.Name, colour: []string{"#1668a8", "#b8541d", "#555"}[i%3]}
		for _, x := range s.Series {
			l.points = append(l.points, map[string]float64{"done": x.Done, "p99": x.P99, "failed": x.Failed}[what])
		}
		lines = append(lines, l)
	}
	if what == "lag" || what == "breakers" {
		lines = moments(r, what)
	}
	return template.HTML(draw(r, lines))
}

func moments(r *Report, what string) []line {
	l := line{name: what, colour: "#1668a8"}
	for _, m := range r.Moments {
		v := float64(m.Breakers)
		if what == "lag" {
			v = 0
			for _, n := range m.Lag {
				v = max(v, float64(n))
			}
		}
		l.points = append(l.points, v)
	}
	return []line{l}
}

func draw(r *Report, lines []line) string {
	seconds, top := 1, 0.0
	for _, l := range lines {
		seconds = max(seconds, len(l.points))
		for _, v := range l.points {
			top = max(top, v)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %.0f %.0f" role="img">`, chartWidth+60, chartHeight+20)
	x := func(s float64) float64 { return 50 + s/float64(seconds)*chartWidth }
	for _, f := range r.Faults {
		from, to := x(f.From/1000), x(max(f.To, f.From+200)/1000)
		fmt.Fprintf(&b, `<rect x="%.1f" y="0" width="%.1f" height="%.0f" fill="#c33" opacity=".13"><title>%s</title></rect>`,
			from, max(2, min(to, 50+chartWidth)-from), chartHeight, template.HTMLEscapeString(f.Spec.Fault+" "+strings.Join(f.Targets, " ")))
	}
	for _, l := range lines {
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, l.colour)
		for s, v := range l.points {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(float64(s)+.5), chartHeight-v/max(top, 1e-9)*(chartHeight-8))
		}
		fmt.Fprintf(&b, `"><title>%s</title></polyline>`, template.HTMLEscapeString(l.name))
	}
	fmt.Fprintf(&b, `<text x="46" y="12" text-anchor="end">%.4g</text><text x="46" y="%.0f" text-anchor="end">0</text><text x="%.0f" y="%.0f" text-anchor="end">%d s</text></svg>`,
		top, chartHeight, chartWidth+50, chartHeight+16, seconds)
	return b.String()
}
