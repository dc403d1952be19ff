package report

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"qianma/loadtest/drive"
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
	if r := row(c, "register p99 ms"); r.Ratio < .5 || r.P < 0 || strings.Contains(c.Text(), "NOT A COMPARISON") {
		t.Errorf("%+v\n%s", r, c.Text())
	}
	if !strings.Contains(c.Text(), "visible p99 ms                      n/a") {
		t.Errorf("nothing is shown as a value:\n%s", c.Text())
	}
	b.Valid, b.Invalid = false, []string{"the generator is saturated"}
	c = Compare("a", []*Result{a}, "b", []*Result{b})
	first, _, _ := strings.Cut(c.Text(), "\n")
	if r := row(c, "register p99 ms"); r.Ratio != -1 || r.P != -1 || !strings.HasPrefix(first, "NOT A COMPARISON: ") || !strings.Contains(first, "saturated") {
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

// also has a sample answer another kind of operation too, n times, so long each.
func also(r *Result, kind drive.Kind, n int64, took time.Duration) *Result {
	t := drive.NewTally()
	t.Started, t.OK = n, n
	t.Response.RecordN(took, n)
	s := &r.Streams[0]
	s.Kinds[kind.String()] = t
	s.Slowest = ""
	s.settle(0)
	r.Headline()
	return r
}

// Goal: registrations are compared with registrations, whichever kind is the
// slowest of each run. Method: results are slower on one side alone.
func TestComparingSetsLikeBesideLike(t *testing.T) {
	a := also(sample(1, 1), drive.Report, 5000, time.Millisecond)
	b := also(sample(1, 1), drive.Report, 5000, time.Second)
	if a.ResponseKind != "register" || b.ResponseKind != "result" {
		t.Fatalf("the headlines are of %s and %s", a.ResponseKind, b.ResponseKind)
	}
	c := Compare("a", []*Result{a}, "b", []*Result{b})
	for what, want := range map[string]float64{"register p99 ms": 1, "result p99 ms": 1000} {
		i := slices.IndexFunc(c.Rows, func(r Row) bool { return r.What == what })
		if i < 0 {
			t.Fatalf("no row %q:\n%s", what, c.Text())
		}
		// The seconds have the slowest kind of each: there is no p for one.
		if r := c.Rows[i]; r.Ratio < want*.99 || r.Ratio > want*1.01 || r.P != -1 {
			t.Errorf("%+v, want a ratio of %v and no p", r, want)
		}
	}
	if text := c.Text(); strings.Contains(text, "response p99") || !strings.Contains(text, "headlines are of register and of result") {
		t.Errorf("two kinds are mixed:\n%s", text)
	}
	c = Compare("a", []*Result{a}, "b", []*Result{sample(1, 1)})
	if text := c.Text(); strings.Contains(text, "result p99") || !strings.Contains(text, "tests result was answered on one side alone") {
		t.Errorf("results stand beside nothing:\n%s", text)
	}
}

// Goal: a kind that two streams have is named by its stream.
func TestComparingNamesTheStreamWhereTwoHaveAKind(t *testing.T) {
	two := func() []*Result {
		r := sample(1, 1)
		quiet := r.Streams[0]
		quiet.Name = "quiet"
		r.Streams = append(r.Streams, quiet)
		return []*Result{r}
	}
	text := func() string { c := Compare("a", two(), "b", two()); return c.Text() }()
	if !strings.Contains(text, "\nquiet register p99 ms ") || !strings.Contains(text, "\ntests register p99 ms ") {
		t.Errorf("whose registrations:\n%s", text)
	}
}

// alike are the settings of runs that differ in nothing.
func alike() map[string]any {
	out := map[string]any{"seed": 1., "ledger": true}
	for _, name := range compared {
		if name != "ledger" {
			out[name] = 1.
		}
	}
	return out
}

// Goal: two runs of different shape are not compared without a word, and what
// changes nothing is not mentioned. Method: each thing in turn, on one side.
func TestComparingNamesWhatDiffers(t *testing.T) {
	changes := map[string]func(*Result){
		"closed or open": func(r *Result) { r.Closed = true },
		"carriers":       func(r *Result) { r.Carriers = []string{"unicom"} },
		"generators":     func(r *Result) { r.Parts = 2 },
		"ledger":         func(r *Result) { r.Settings["ledger"] = false },
	}
	for _, name := range strings.Fields("rate plan duration_s people batch booths roam spread watches_per_s quantum_ms gather_ms timeout_s tries connections_per_node") {
		changes[name] = func(r *Result) { r.Settings[name] = 5. }
	}
	for what, change := range changes {
		a, b := sample(1, 1), sample(2, 1)
		a.Settings, b.Settings = alike(), alike()
		said := func() bool {
			c := Compare("a", []*Result{a}, "b", []*Result{b})
			return strings.Contains(c.Text(), what+" differs")
		}
		if said() {
			t.Errorf("%s does not differ yet", what)
		}
		if change(b); !said() {
			t.Errorf("%s differs, and no word of it", what)
		}
	}
}

// Goal: the seed is mentioned of runs that show people whom others loaded, and a
// setting that an earlier build did not write down is not said to differ.
func TestComparingNamesOnlyWhatMatters(t *testing.T) {
	a, b := sample(1, 1), sample(2, 1)
	a.Settings, b.Settings = alike(), alike()
	b.Settings["seed"] = 2.
	text := func() string { c := Compare("a", []*Result{a}, "b", []*Result{b}); return c.Text() }
	if strings.Contains(text(), "seed") {
		t.Errorf("runs that test people have others by another seed, and it is all the same:\n%s", text())
	}
	a.Settings["ledger"], b.Settings["ledger"] = false, false
	if !strings.Contains(text(), "seed differs: 1 and 2") {
		t.Errorf("no word of the seed:\n%s", text())
	}
	delete(a.Settings, "gather_ms")
	delete(a.Settings, "tries")
	if got := text(); strings.Contains(got, "gather_ms differs") || !strings.Contains(got, "only one side's report has gather_ms, tries:") || !strings.Contains(got, "gather_ms (perhaps)") {
		t.Errorf("what nobody wrote down:\n%s", got)
	}
}

// Goal: a cost that must differ whatever the system did says so in its row.
func TestComparingSaysWhichCostsAreNotAlike(t *testing.T) {
	for setting, rows := range map[string]string{"quantum_ms": "CPU", "gather_ms": "CPU", "rate": "CPU bytes", "duration_s": "bytes", "people": ""} {
		a, b := sample(1, 1), sample(2, 1)
		a.Settings, b.Settings = alike(), alike()
		b.Settings[setting] = 2.
		c := Compare("a", []*Result{a}, "b", []*Result{b})
		for _, r := range c.Rows {
			first, _, _ := strings.Cut(r.What, " ")
			want := slices.Contains(strings.Fields(rows), first)
			if got := r.Note == "not alike: "+setting; got != want || (r.Note != "") != want || want && !strings.Contains(c.Text(), "  not alike: "+setting+"\n") {
				t.Errorf("%s differs: %+v", setting, r)
			}
		}
	}
}
