package report

import (
	"fmt"
	"html"
	"math"
	"strings"

	"qianma/loadtest/hist"
)

type point struct{ x, y float64 }

type line struct {
	name   string
	points []point
}

// chart is a line chart as inline SVG. Colours come from the page, so that it
// can be read in the dark too.
type chart struct {
	lines []line
	unit  string // of x, where it has one
	whole bool   // y counts things: there is none between 1 and 2
	log   bool   // y is logarithmic
	tail  bool   // x is 1/(1-q), logarithmic: 90%, 99%, 99.9% stand equally apart
}

const (
	width, height      = 720.0, 220.0
	left, right        = 64.0, 12.0
	top, bottom        = 10.0, 28.0
	plotWide, plotHigh = width - left - right, height - top - bottom
)

// tail turns a histogram into the line of its upper percentiles.
func tail(name string, h *hist.Hist) line {
	l := line{name: name}
	n, below := float64(h.Count()), 0.0
	for _, p := range h.Points() {
		// A step stands where it begins: the share that is not longer so far.
		l.points = append(l.points, point{1 / (1 - min(below/n, 1-1/n+1e-12)), hist.Millis(p.To)})
		below += float64(p.Count)
	}
	return thin(l)
}

// thin keeps a line to as many points as can be seen.
func thin(l line) line {
	const most = 600
	if len(l.points) <= most {
		return l
	}
	out := line{name: l.name}
	for i := range most {
		out.points = append(out.points, l.points[i*(len(l.points)-1)/(most-1)])
	}
	return out
}

type span struct{ from, to float64 }

func (c *chart) spans() (x, y span, ok bool) {
	x, y = span{math.Inf(1), math.Inf(-1)}, span{math.Inf(1), math.Inf(-1)}
	for _, l := range c.lines {
		for _, p := range l.points {
			if c.log && p.y <= 0 {
				continue
			}
			x.from, x.to = min(x.from, p.x), max(x.to, p.x)
			y.from, y.to = min(y.from, p.y), max(y.to, p.y)
			ok = true
		}
	}
	if !ok {
		return x, y, false
	}
	if c.log {
		y.from, y.to = math.Pow(10, math.Floor(math.Log10(y.from))), math.Pow(10, math.Ceil(math.Log10(y.to)))
	} else {
		y.from = 0
	}
	if y.to <= y.from {
		y.to = y.from + 1
	}
	if x.to <= x.from {
		x.to = x.from + 1
	}
	return x, y, true
}

// place is where a value lies between 0 and 1.
func place(v float64, s span, log bool) float64 {
	if log {
		return math.Log(v/s.from) / math.Log(s.to/s.from)
	}
	return (v - s.from) / (s.to - s.from)
}

func (c *chart) svg() string {
	x, y, ok := c.spans()
	if !ok {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %v %v" role="img" aria-label="chart">`, width, height)
	c.grid(&b, x, y)
	for i, l := range c.lines {
		fmt.Fprintf(&b, `<path class="s%d" d="`, i%8)
		pen := "M"
		for _, p := range l.points {
			if c.log && p.y <= 0 {
				pen = "M" // nothing was measured there: a gap, not a fall to nothing
				continue
			}
			fmt.Fprintf(&b, "%s%.1f %.1f", pen, left+plotWide*place(p.x, x, c.tail), top+plotHigh*(1-place(p.y, y, c.log)))
			pen = "L"
		}
		fmt.Fprintf(&b, `"><title>%s</title></path>`, html.EscapeString(l.name))
	}
	b.WriteString(`</svg><p class="key">`)
	for i, l := range c.lines {
		fmt.Fprintf(&b, `<span class="s%d">%s</span> `, i%8, html.EscapeString(l.name))
	}
	b.WriteString(`</p>`)
	return b.String()
}

func (c *chart) grid(b *strings.Builder, x, y span) {
	c.levels(b, y)
	c.marks(b, x)
}

// levels draws the lines across, each with its value.
func (c *chart) levels(b *strings.Builder, y span) {
	marks := ticks(y, c.log, c.whole)
	for i, name := range labels(marks, c.log) {
		at := top + plotHigh*(1-place(marks[i], y, c.log))
		fmt.Fprintf(b, `<line class="grid" x1="%v" x2="%v" y1="%.1f" y2="%.1f"/><text x="%v" y="%.1f" text-anchor="end">%s</text>`,
			left, width-right, at, at, left-6, at+4, name)
	}
}

func (c *chart) marks(b *strings.Builder, x span) {
	marks := ticks(x, c.tail, c.unit == "s") // seconds are looked at one by one
	for i, name := range labels(marks, c.tail) {
		switch {
		case c.tail:
			name = percentile(marks[i])
		case c.unit != "":
			name += " " + c.unit
		}
		foot(b, place(marks[i], x, c.tail), name)
	}
}

// foot writes a label under the chart; at is 0 at its left end and 1 at its right.
// What would stick out of the picture ends at its edge.
func foot(b *strings.Builder, at float64, text string) {
	x, anchor := left+plotWide*at, "middle"
	if half := letter * float64(len(text)) / 2; x+half > width {
		x, anchor = width, "end"
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%v" text-anchor="%s">%s</text>`, x, height-8, anchor, text)
}

// letter is about as wide as a digit of a label.
const letter = 7.0

// percentile writes 1/(1-q) as people say it: 100 is 99%.
func percentile(v float64) string {
	return fmt.Sprintf("%.10g%%", math.Round((100-100/v)*1e6)/1e6)
}

// fewTicks are too few to read an axis by.
const fewTicks = 3

// ticks are the round values inside a span.
func ticks(s span, log, whole bool) []float64 {
	if log {
		return logTicks(s)
	}
	var out []float64
	step := math.Pow(10, math.Floor(math.Log10((s.to-s.from)/4)))
	if whole {
		step = max(step, 1)
	}
	for (s.to-s.from)/step > 6 {
		step *= 2
		if (s.to-s.from)/step > 6 {
			step *= 2.5
		}
	}
	for v := math.Ceil(s.from/step) * step; v <= s.to*1.0001; v += step {
		out = append(out, v)
	}
	return out
}

// logTicks are the powers of ten, or, where there are too few of them, what lies
// between too, or the ends.
func logTicks(s span) []float64 {
	for _, steps := range [][]float64{{1}, {1, 2, 5}, {1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		var out []float64
		for power := math.Floor(math.Log10(s.from) + 1e-9); power <= math.Log10(s.to)+1e-9; power++ {
			for _, step := range steps {
				if v := step * math.Pow(10, power); v >= s.from*.9999 && v <= s.to*1.0001 {
					out = append(out, v)
				}
			}
		}
		if len(out) >= fewTicks {
			return out
		}
	}
	return []float64{s.from, s.to}
}

// labels writes the values of one axis, all of them alike: on a linear one with as
// many decimals as any of them needs, on a logarithmic one to three digits.
func labels(marks []float64, log bool) []string {
	decimals := 0
	if !log {
		decimals = decimalsOf(marks)
	}
	var out []string
	for _, v := range marks {
		n := decimals
		if log {
			n = max(0, 2-int(math.Floor(math.Log10(v)+1e-9)))
		}
		text := grouped(v, n)
		if log && strings.Contains(text, ".") {
			text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
		}
		out = append(out, text)
	}
	return out
}

// decimalsOf is how many decimals tell all the values.
func decimalsOf(values []float64) int {
	const most = 9
	for n := range most {
		by := math.Pow(10, float64(n))
		whole := true
		for _, v := range values {
			whole = whole && math.Abs(v*by-math.Round(v*by)) < 1e-6
		}
		if whole {
			return n
		}
	}
	return most
}
