package report

import (
	"fmt"
	"math"
	"strings"

	"qianma/loadtest/hist"
)

// perDecade is how many bars stand between 1 and 10: each is a quarter longer
// than the one before.
const perDecade = 10

// bar is what was counted up to a bound, in ms, and above the bar before.
type bar struct {
	to    float64
	count int64
}

// bars sorts a histogram's counts into buckets of equal width on a logarithmic
// scale, with the empty ones in between.
func bars(h *hist.Hist) []bar {
	var out []bar
	first := 0
	for _, p := range h.Points() {
		at := int(math.Ceil(perDecade*math.Log10(hist.Millis(p.To)) - 1e-9))
		if len(out) == 0 {
			first = at
		}
		for len(out) <= at-first {
			out = append(out, bar{to: math.Pow(10, float64(first+len(out))/perDecade)})
		}
		out[at-first].count += p.Count
	}
	return out
}

// histogram draws how many answers took how long, as inline SVG.
func histogram(h *hist.Hist) string {
	all := bars(h)
	if len(all) == 0 {
		return ""
	}
	var most int64
	for _, b := range all {
		most = max(most, b.count)
	}
	wide := plotWide / float64(len(all))
	step := math.Pow(10, 1./perDecade)
	x := span{all[0].to / step, all[len(all)-1].to}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %v %v" role="img" aria-label="histogram">`, width, height)
	y := span{0, float64(most)}
	(&chart{whole: true}).levels(&b, y)
	marks := ticks(x, true, false)
	for i, name := range labels(marks, true) {
		foot(&b, place(marks[i], x, true), name+" ms")
	}
	for i, one := range all {
		high := plotHigh * place(float64(one.count), y, false)
		fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>up to %s ms: %s</title></rect>`,
			left+wide*float64(i), top+plotHigh-high, max(1, wide-1), high, number(one.to), count(one.count))
	}
	b.WriteString(`</svg>`)
	return b.String()
}
