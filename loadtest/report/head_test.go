package report

import (
	"strings"
	"testing"
	"time"

	"qianma/loadtest/cost"
	"qianma/loadtest/drive"
	"qianma/loadtest/hist"
)

func pageOf(t *testing.T, r *Result) string {
	t.Helper()
	page, err := r.HTML()
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

func firstLine(r *Result) string {
	first, _, _ := strings.Cut(r.Text(false), "\n")
	return first
}

// Goal: where nothing was answered no percentile is 0, nor is a share or a cost.
func TestNothingAnsweredIsNotAnsweredAtOnce(t *testing.T) {
	r := &Result{Profile: "scan", Valid: true, Visible: hist.New(), Lag: hist.New(), Settings: map[string]any{},
		Streams: []Stream{{Name: "tests", Unit: "tests", Kinds: map[string]*drive.Tally{"register": drive.NewTally()}}},
		Roles:   []cost.Usage{{Role: "nucleic", CPU: 1, Written: -1}}}
	r.Streams[0].settle(time.Second)
	r.Headline()
	r.Judge(Usual("scan"))
	if first := firstLine(r); !strings.Contains(first, "response p99 n/a ms") {
		t.Errorf("%q", first)
	}
	if line := r.Line(); line != "achieved 0/s, response p99 n/a ms (register), CPU n/a µs/op, lost 0, repeated n/a" {
		t.Errorf("a search says %q", line)
	}
	page := pageOf(t, r)
	for _, want := range []string{
		"response p99, ms (register)</dt><dd class=\"unjudged\">n/a",
		"<td>nucleic</td><td>0</td><td>1.0</td><td>n/a</td><td>n/a</td>", // an operation of none costs nothing that anybody knows
		"<td>tests response</td><td>0</td>" + strings.Repeat("<td>n/a</td>", 6),
		"<td>generator&#39;s own lag</td><td>0</td>" + strings.Repeat("<td>n/a</td>", 6),
	} {
		if !strings.Contains(strings.ReplaceAll(page, "generator's", "generator&#39;s"), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if text := r.Text(true); !strings.Contains(text, " p99 n/a  p99.9 n/a  p99.99 n/a  max n/a ms, of 0") || strings.Contains(text, "-1") {
		t.Errorf("all of it:\n%s", text)
	}
	if strings.Contains(page, "<td>-1") {
		t.Error("the page has what could not be measured as a value")
	}
}

// Goal: a percentile is not told of fewer responses than there must be for one to
// lie beyond it; p99, which is judged, always.
func TestAPercentileNeedsSomethingBeyondIt(t *testing.T) {
	for n, want := range map[int64][]float64{
		1:      {-1, -1, 3, -1, -1, 6},
		300:    {1, 2, 3, -1, -1, 6},
		1000:   {1, 2, 3, 4, -1, 6},
		9999:   {1, 2, 3, 4, -1, 6},
		10_000: {1, 2, 3, 4, 5, 6},
	} {
		for i, got := range percentiles(hist.Summary{Count: n, P50: 1, P90: 2, P99: 3, P999: 4, P9999: 5, Max: 6}) {
			if got != want[i] {
				t.Errorf("%s of %d is %v, want %v", quantiles[i].Name, n, got, want[i])
			}
		}
	}
	if page := pageOf(t, sample(1, 1)); !strings.Contains(page, "<td>tests response</td><td>1,990</td>") {
		t.Error("a row does not say of how many it is")
	}
}

// Goal: what is visible says when it is of next to nothing.
func TestWhatIsVisibleSaysOfHowFewItIs(t *testing.T) {
	r := sample(1, 1)
	r.Visible.RecordN(300*time.Millisecond, 598)
	r.Headline()
	r.Judge(Usual("scan"))
	if !strings.Contains(strings.Join(r.Notes, "; "), "p99 of only 599 watched tests: visible at the other carrier") {
		t.Errorf("notes %q", r.Notes)
	}
	if first := firstLine(r); !strings.Contains(first, "visible p99 300 ms (of only 599 watched tests)") {
		t.Errorf("%q", first)
	}
	if page := pageOf(t, r); !strings.Contains(page, "visible p99, ms (of only 599 watched tests)</dt><dd>300") {
		t.Error("the page's headline does not say it")
	}
	r.Visible.RecordN(300*time.Millisecond, 1000)
	r.Headline()
	if r.Judge(Usual("scan")); len(r.Notes) > 0 {
		t.Errorf("notes %q", r.Notes)
	}
}

// Goal: nothing of an invalid run looks as if it had been held.
func TestAnInvalidRunIsNotShownAsHeld(t *testing.T) {
	r := sample(1, 1)
	r.Judge(Usual("scan"))
	if page := pageOf(t, r); !strings.Contains(page, `<span class="held">held`) || strings.Contains(page, `class="unjudged"`) {
		t.Error("a valid run is shown as one that is not judged")
	}
	r.Valid, r.Invalid = false, []string{"the run was interrupted"}
	page := pageOf(t, r)
	if strings.Contains(page, `class="held"`) || !strings.Contains(page, `<span class="unjudged">held, in a run that is invalid`) {
		t.Error("an invalid run has green rows")
	}
	if n := strings.Count(page, `<dd class="unjudged">`); n != 2 {
		t.Errorf("%d percentiles of the headline are shown as not judged, want response and visible", n)
	}
}

// Goal: a percentile that no objective is of is not as large as a judged one.
func TestWhatIsNotJudgedIsSmaller(t *testing.T) {
	r := sample(1, 1)
	r.Judge(Objectives{Response: map[string]float64{"tests": 250}, Failures: 1})
	if page := pageOf(t, r); !strings.Contains(page, `(of only 1 watched test)</dt><dd class="unjudged">300 <small>not judged</small>`) {
		t.Error("visible is not judged, and looks as if it were")
	}
}

// Goal: each percentile that is judged is in the headline.
func TestTheHeadlineOfADayHasItsDisplays(t *testing.T) {
	r := sample(1, 1)
	displays := also(sample(2, 1), drive.Display, 5000, 9*time.Millisecond).Streams[0]
	displays.Name, displays.Unit = "displays", "displays"
	delete(displays.Kinds, "register")
	displays.Slowest = ""
	displays.settle(0)
	r.Profile, r.Streams = "day", append(r.Streams, displays)
	r.Judge(Usual("day"))
	if first := firstLine(r); !strings.Contains(first, "(register)   displays p99 9.0 ms   visible") {
		t.Errorf("%q", first)
	}
	if page := pageOf(t, r); !strings.Contains(page, "displays p99, ms</dt><dd>9.0</dd>") {
		t.Error("the page's headline has no displays")
	}
	r.Judge(Usual("surge"))
	if first := firstLine(r); strings.Contains(first, "displays p99") {
		t.Errorf("not judged: %q", first)
	}
}

// Goal: nearly all is not all.
func TestSharesAreNotRoundedToAll(t *testing.T) {
	for share, want := range map[float64]string{1: "100%", .9996: "99.96%", .99999: "99.999%", .9994: "99.9%", .5: "50.0%", .0004: "0.04%", 0: "0%", -1: "n/a"} {
		if got := percent(share); got != want {
			t.Errorf("%v is %s, want %s", share, got, want)
		}
	}
	for share, want := range map[float64]string{1: "1.0", .9996: "0.9996", .99996: "0.99996", .9994: "0.999"} {
		if got := number(share); got != want {
			t.Errorf("%v is %s, want %s", share, got, want)
		}
	}
}
