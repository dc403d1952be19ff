package report

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"qianma/loadtest/hist"
)

// Goal: the values of one axis are written alike, and counts are whole.
func TestAnAxisHasOneFormat(t *testing.T) {
	for _, x := range []struct {
		s          span
		log, whole bool
		want       string
	}{
		{span{0, 100}, false, true, "0 20 40 60 80 100"},
		{span{0, 5000}, false, true, "0 1,000 2,000 3,000 4,000 5,000"},
		{span{0, 3}, false, true, "0 1 2 3"},
		{span{0, 1.6}, false, false, "0.0 0.5 1.0 1.5"},
		{span{.01, 1000}, true, false, "0.01 0.1 1 10 100 1,000"},
		{span{100, 1000}, true, false, "100 200 500 1,000"},
		{span{251, 501}, true, false, "300 400 500"},
		{span{251.2, 316.2}, true, false, "251 316"},
	} {
		if got := strings.Join(labels(ticks(x.s, x.log, x.whole), x.log), " "); got != x.want {
			t.Errorf("%+v: %s, want %s", x, got, x.want)
		}
	}
}

// feet are the labels under a chart.
func feet(svg string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`y="212" text-anchor="[a-z]+">([^<]*)`).FindAllStringSubmatch(svg, -1) {
		out = append(out, m[1])
	}
	return out
}

// Goal: an axis of time says in what; a histogram of times that are nearly alike
// has more than one value to read it by.
func TestAxesCanBeRead(t *testing.T) {
	c := chart{unit: "s", lines: []line{{points: []point{{0, 1}, {30, 2}}}}}
	if got := feet(c.svg()); !slices.Equal(got, []string{"0 s", "5 s", "10 s", "15 s", "20 s", "25 s", "30 s"}) {
		t.Errorf("%q", got)
	}
	h := hist.New()
	h.RecordN(300*time.Millisecond, 9)
	if got := feet(histogram(h)); !slices.Equal(got, []string{"251 ms", "316 ms"}) {
		t.Errorf("%q", got)
	}
}

// Goal: no label sticks out of the picture.
func TestNoLabelIsClipped(t *testing.T) {
	for at, want := range map[float64]string{.5: `text-anchor="middle"`, .995: `x="720.0" y="212" text-anchor="end"`, 1: `x="720.0" y="212" text-anchor="end"`} {
		var b strings.Builder
		if foot(&b, at, "10,000 ms"); !strings.Contains(b.String(), want) {
			t.Errorf("at %v: %s, want %s", at, b.String(), want)
		}
	}
}

// Goal: thousands stand apart in every line, and one thing has no s.
func TestCountsAreWrittenAlike(t *testing.T) {
	r := sample(1, 1)
	r.Facts = &Facts{Acknowledged: 1990, Committed: 1990}
	r.Machine.MemoryMiB = 16000
	r.Judge(Usual("scan"))
	text := r.Text(true)
	for _, line := range strings.Split(text, "\n") {
		if regexp.MustCompile(`[0-9]{4}`).MatchString(line) {
			t.Errorf("%q", line)
		}
	}
	if !strings.Contains(text, "acknowledged 1,990, read back 1,990 of them") {
		t.Error(text)
	}
	if one, more := Several(1, "run"), Several(1200, "run"); one != "1 run" || more != "1,200 runs" {
		t.Errorf("%s, %s", one, more)
	}
}
