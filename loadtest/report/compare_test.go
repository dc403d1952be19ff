package report

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"qianma/loadtest/hist"
)

// Goal: what was not measured has no ratio, and what is not to be believed is not
// compared. Method: one of the runs is invalid, or has nothing to show.
func TestComparingMakesNothingOfNothing(t *testing.T) {
	row := func(c Comparison, what string) Row {
		return c.Rows[slices.IndexFunc(c.Rows, func(r Row) bool { return r.What == what })]
	}
	a, b := sample(1, 1), sample(2, 1)
	a.VisibleMS, a.Ledger, a.DiskPerOp = hist.Summary{}, nil, -1
	c := Compare("a", []*Result{a}, "b", []*Result{b})
	for _, what := range []string{"visible p99 ms", "lost, wrong, repeated", "bytes written per op"} {
		if r := row(c, what); r.A != -1 || r.B < 0 || r.Ratio != -1 || r.P != -1 {
			t.Errorf("%+v", r)
		}
	}
	if r := row(c, "response p99 ms"); r.Ratio < .5 || r.P < 0 || strings.Contains(c.Text(), "NOT A COMPARISON") {
		t.Errorf("%+v\n%s", r, c.Text())
	}
	if !strings.Contains(c.Text(), "visible p99 ms                      n/a") {
		t.Errorf("nothing is shown as a value:\n%s", c.Text())
	}
	b.Valid, b.Invalid = false, []string{"the generator is saturated"}
	c = Compare("a", []*Result{a}, "b", []*Result{b})
	first, _, _ := strings.Cut(c.Text(), "\n")
	if r := row(c, "response p99 ms"); r.Ratio != -1 || r.P != -1 || !strings.HasPrefix(first, "NOT A COMPARISON: ") || !strings.Contains(first, "saturated") {
		t.Errorf("%+v, %q", r, first)
	}
	if raw, err := json.Marshal(c); err != nil || !bytes.Contains(raw, []byte(`"unbelieved":["the run of `)) {
		t.Errorf("%v\n%s", err, raw)
	}
}

// Goal: whoever finds no p is told why. Method: as many runs, and as long ones, as
// give none.
func TestComparingSaysWhyThereIsNoP(t *testing.T) {
	short := sample(1, 1)
	short.Streams[0].Series = short.Streams[0].Series[:7]
	long := sample(2, 1)
	for want, sides := range map[string][2][]*Result{
		"which needs runs of 8 s":    {{short}, {long}},
		"here are 2 and 1":           {{long, long}, {long}},
		"here are 3 and 3":           {{long, long, long}, {long, long, long}},
		"which are not independent,": {{long}, {long}},
	} {
		c := Compare("a", sides[0], "b", sides[1])
		none := !slices.ContainsFunc(c.Rows, func(r Row) bool { return r.P >= 0 })
		if !strings.Contains(c.Text(), want) || none != strings.Contains(c.Text(), "there is no p") {
			t.Errorf("no word of %q:\n%s", want, c.Text())
		}
	}
	four := slices.Repeat([]*Result{long}, 4)
	if c := Compare("a", four, "b", four); strings.Contains(c.Text(), "runs on each side") {
		t.Errorf("four runs on each side are enough:\n%s", c.Text())
	}
}
