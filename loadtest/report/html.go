package report

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"os"
	"time"

	"qianma/loadtest/drive"
	"qianma/loadtest/hist"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"number":      number,
	"count":       count,
	"mib":         mib,
	"share":       percent,
	"percentiles": percentiles,
}).Parse(pageText))

// SaveHTML writes the report as one file that needs nothing else: no network,
// no script.
func (r *Result) SaveHTML(path string) error {
	raw, err := r.HTML()
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o644)
}

// HTML is the report as a page.
func (r *Result) HTML() ([]byte, error) {
	settings, err := json.MarshalIndent(r.Settings, "", "  ")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = page.Execute(&b, map[string]any{
		"R": r, "Charts": r.charts(), "Settings": string(settings), "Codes": r.codes(), "Heads": r.heads(), "Quantiles": quantiles,
		"Class": [...]string{"held", "missed", "broken", "broken"}[r.Code()],
		"When":  r.Start.UTC().Format(time.RFC1123),
	})
	return b.Bytes(), err
}

type codeCount struct {
	Stream, Code string
	Count        int64
}

func (r *Result) codes() []codeCount {
	var out []codeCount
	for i := range r.Streams {
		s := &r.Streams[i]
		all := map[string]int64{}
		for _, t := range s.Kinds {
			for c, n := range t.Codes {
				all[c] += n
			}
		}
		for _, c := range sorted(all) {
			out = append(out, codeCount{s.Name, c, all[c]})
		}
	}
	return out
}

// Figure is a chart with its words.
type Figure struct {
	Title, Note string
	SVG         template.HTML
}

func (r *Result) charts() []Figure {
	var out []Figure
	add := func(title, note string, c chart) {
		if svg := c.svg(); svg != "" {
			out = append(out, Figure{title, note, template.HTML(svg)})
		}
	}
	bar := func(title, note string, h *hist.Hist) {
		if svg := histogram(h); svg != "" {
			out = append(out, Figure{title, note, template.HTML(svg)})
		}
	}
	for i := range r.Streams {
		s := &r.Streams[i]
		add(s.Name+": asked and done", "a second; asked is the schedule's, whatever the system did", chart{lines: []line{
			series("asked", s.Series, func(p drive.Second) float64 { return p.Asked }),
			series("done", s.Series, func(p drive.Second) float64 { return p.Done }),
			series("failed", s.Series, func(p drive.Second) float64 { return p.Failed }),
		}, unit: "s"})
		add(s.Name+": response time", "ms, of the answers that came in each second, from the intended start, of the slowest kind; logarithmic", chart{lines: []line{
			series("p50", s.Series, func(p drive.Second) float64 { return p.P50 }),
			series("p99", s.Series, func(p drive.Second) float64 { return p.P99 }),
			series("max", s.Series, func(p drive.Second) float64 { return p.Max }),
		}, unit: "s", log: true})
		for _, k := range sorted(s.Kinds) {
			bar(s.Name+": histogram of "+k, "answers by their response time in ms, each bar a quarter longer than the one before", s.Kinds[k].Response)
		}
		add(s.Name+": distribution", "ms against the share of answers that took longer", r.spectrum(s))
	}
	if r.Visible != nil && r.Visible.Count() > 0 {
		bar(r.Elsewhere()+": histogram", "watched tests by the time in ms, each bar a quarter longer than the one before", r.Visible)
		add(r.Elsewhere(), "ms from the intended upload of the result, against the share that took longer", chart{lines: []line{tail("visible", r.Visible)}, log: true, tail: true})
	}
	add("processors by role", "cores", r.cores())
	add("behind", "facts of a carrier that the other does not have yet", r.lags())
	return out
}

func series(name string, all []drive.Second, of func(drive.Second) float64) line {
	l := line{name: name}
	for _, p := range all {
		l.points = append(l.points, point{float64(p.At), of(p)})
	}
	return l
}

func (r *Result) spectrum(s *Stream) chart {
	c := chart{log: true, tail: true}
	for _, k := range sorted(s.Kinds) {
		t := s.Kinds[k]
		if t.Response.Count() > 0 {
			c.lines = append(c.lines, tail(k+" response", t.Response), tail(k+" service", t.Service))
		}
	}
	return c
}

func (r *Result) cores() chart {
	byRole := map[string]*line{}
	for _, m := range r.Seconds {
		for role, cores := range m.CPU {
			l := byRole[role]
			if l == nil {
				l = &line{name: role}
				byRole[role] = l
			}
			l.points = append(l.points, point{float64(m.At), cores})
		}
	}
	c := chart{unit: "s"}
	for _, role := range sorted(byRole) {
		c.lines = append(c.lines, *byRole[role])
	}
	return c
}

func (r *Result) lags() chart {
	c := chart{unit: "s", whole: true}
	for _, carrier := range r.Carriers {
		l := line{name: carrier}
		for _, m := range r.Seconds {
			if n, ok := m.Lag[carrier]; ok {
				l.points = append(l.points, point{float64(m.At), float64(n)})
			}
		}
		if len(l.points) > 0 {
			c.lines = append(c.lines, l)
		}
	}
	return c
}
