package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"qianma/loadtest/cost"
	"qianma/loadtest/drive"
	"qianma/loadtest/hist"
	"qianma/loadtest/ledger"
	"qianma/loadtest/schedule"
)

// sample is a run with something in every part of the report.
func sample(seed uint64, scale float64) *Result {
	r := rand.New(rand.NewPCG(seed, 1))
	s := &drive.Stream{Name: "tests", Unit: "tests", Plan: schedule.Constant(100, 20*time.Second), InTime: 1990, Units: drive.Units{Asked: 2000, Sent: 2000, Acked: 1990, Failed: 10}}
	for k := range s.Kinds {
		s.Kinds[k] = drive.NewTally()
	}
	t := s.Kinds[drive.Register]
	t.Started, t.OK, t.Codes["overloaded"] = 2000, 1990, 10
	for range 1990 {
		d := time.Duration(scale * math.Exp(r.NormFloat64()) * float64(time.Millisecond))
		t.Response.Record(2 * d)
		t.Service.Record(d)
	}
	for i := range 20 {
		s.Series = append(s.Series, drive.Second{At: i, Asked: 100, Done: 95 + 10*r.Float64(), P50: scale, P99: scale * (8 + r.Float64())})
	}
	res := &Result{
		Profile: "scan", Target: "qianma", DurationS: 20, Valid: true, Carriers: []string{"unicom", "mobile"},
		Streams: []Stream{Sum(s, 20*time.Second)}, Visible: hist.New(), Lag: hist.New(), Parts: 1, Settings: map[string]any{"rate": 100},
		Roles:   []cost.Usage{{Role: cost.Generator, Processes: 1, CPU: .5}, {Role: "nucleic", Processes: 6, CPU: 1.5, Written: 1990 * 700}},
		Ledger:  &ledger.Report{Acked: 1990, Checked: 1990, Visible: 1990, RepeatedChecked: true},
		Seconds: []Moment{{At: 1, CPU: map[string]float64{"nucleic": .4}, Lag: map[string]int64{"unicom": 3}}, {At: 2, CPU: map[string]float64{"nucleic": .5}}},
		Machine: Machine{Cores: 2},
	}
	res.Visible.Record(300 * time.Millisecond)
	res.Headline()
	return res
}

func TestHeadlinesAreOfTheMainStreamAndThePrice(t *testing.T) {
	r := sample(1, 1)
	if r.OfferedPerS != 100 || r.AchievedPerS != 99.5 || r.Acked != 1990 || r.Failed != 10 {
		t.Errorf("%+v", r)
	}
	if math.Abs(r.CPUPerOp-2e6/1990) > 1e-9 || r.DiskPerOp != 700 || r.GeneratorShare != .25 {
		t.Errorf("cpu %v, disk %v, share %v", r.CPUPerOp, r.DiskPerOp, r.GeneratorShare)
	}
}

func TestTheVerdictIsTheWorstThatIsTrue(t *testing.T) {
	r := sample(1, 1)
	r.Judge(Objectives{Response: map[string]float64{"tests": 250}, Achieved: .99, Failures: .01, Visible: 1000})
	if r.Code() != Held {
		t.Errorf("code %d: %+v", r.Code(), r.Checks)
	}
	for name, o := range map[string]Objectives{
		"response": {Response: map[string]float64{"tests": .1}, Failures: 1},
		"achieved": {Achieved: .999, Failures: 1},
		"failures": {Failures: .001},
		"visible":  {Visible: 100, Failures: 1},
		"cpu":      {CPU: 500, Failures: 1},
	} {
		r.Judge(o)
		if r.Code() != Missed {
			t.Errorf("%s: code %d: %+v", name, r.Code(), r.Checks)
		}
	}
	r.Facts = &Facts{Acknowledged: 10, Committed: 15, Excused: 5}
	if r.Code() == LedgerBroke {
		t.Error("facts that are excused break the ledger")
	}
	if r.Facts.Committed++; r.Code() != LedgerBroke {
		t.Errorf("a fact that nobody sent: code %d", r.Code())
	}
	r.Facts.Unmeasured = "shared"
	r.Valid = false
	if r.Code() != InvalidRun {
		t.Errorf("invalid: code %d", r.Code())
	}
	r.Lost = 1
	if r.Code() != LedgerBroke {
		t.Errorf("lost and invalid: code %d", r.Code())
	}
}

// A midnight that lets people wait for longer than a phone's holder does is
// missed, and so is one that fails somebody.
func TestAMidnightIsJudged(t *testing.T) {
	for _, c := range []struct {
		p99    float64
		failed int64
		want   int
	}{{900, 0, Held}, {1100, 0, Missed}, {900, 1, Missed}} {
		r := &Result{Valid: true, Streams: []Stream{{Name: "displays", ResponseMS: hist.Summary{Count: 1000, P99: c.p99}, Units: drive.Units{Asked: 1000, Failed: c.failed}}}}
		r.Judge(Usual("midnight"))
		if r.Code() != c.want {
			t.Errorf("p99 %v ms, %d failed: code %d, want %d", c.p99, c.failed, r.Code(), c.want)
		}
	}
}

func TestAResultIsReadBackWhole(t *testing.T) {
	r := sample(1, 1)
	path := filepath.Join(t.TempDir(), "deep", "result.json")
	if err := r.Save(path); err != nil {
		t.Fatal(err)
	}
	back, err := Load(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(r)
	b, _ := json.Marshal(back)
	if !bytes.Equal(a, b) {
		t.Errorf("read back\n%s\nwrote\n%s", b, a)
	}
}

// Goal: merging two generators gives what one would have seen.
func TestMergeAddsUpAndNeverAverages(t *testing.T) {
	a, b := sample(1, 1), sample(2, 10)
	m, err := Merge([]*Result{a, b})
	if err != nil {
		t.Fatal(err)
	}
	one := hist.New()
	one.Merge(a.Streams[0].Kinds["register"].Response)
	one.Merge(b.Streams[0].Kinds["register"].Response)
	if m.ResponseMS != one.Summary() || m.Acked != 3980 || m.OfferedPerS != 200 || m.AchievedPerS != 199 || m.Parts != 2 {
		t.Errorf("%+v", m)
	}
	if len(m.Roles) != 2 || m.Roles[0].CPU != 1 || m.Roles[1].CPU != 1.5 {
		t.Errorf("roles %+v: generators add up, the system is counted once", m.Roles)
	}
	if len(m.Streams[0].Series) != 20 || m.Streams[0].Series[3].Asked != 200 {
		t.Errorf("series %+v", m.Streams[0].Series[3])
	}
	a.Settings, b.Settings = map[string]any{"rate": 60., "seed": 1.}, map[string]any{"rate": 40., "seed": 1.}
	a.Surge = &Surge{GoodputPerS: 10, HeightPerS: map[string]float64{"tests": 10, "displays": 20}, WithoutHint: 1, RecoveryS: 2, DisplayRefused: 3, BindingRefused: 4}
	b.Surge = &Surge{GoodputPerS: 20, HeightPerS: map[string]float64{"tests": 20, "displays": 30}, WithoutHint: 2, RecoveryS: 4, DisplayRefused: 5, BindingRefused: 6}
	a.Streams[0].Kinds["register"].Refusal.Record(time.Millisecond)
	b.Streams[0].Kinds["register"].Refusal.Record(9 * time.Millisecond)
	if m, err = Merge([]*Result{a, b}); err != nil {
		t.Fatal(err)
	}
	want := Surge{GoodputPerS: 30, HeightPerS: map[string]float64{"tests": 30, "displays": 50}, WithoutHint: 3, RecoveryS: 4, DisplayRefused: 8, BindingRefused: 10, RefusalMS: m.Surge.RefusalMS}
	if !reflect.DeepEqual(*m.Surge, want) || m.Surge.RefusalMS.Count != 2 || m.Surge.RefusalMS.Max < 9 {
		t.Errorf("%+v", m.Surge)
	}
	if m.Settings["rate"] != 100. || m.Settings["seed"] != 1. || a.Settings["rate"] != 60. {
		t.Errorf("of the whole: %v; of a part: %v", m.Settings, a.Settings)
	}
	b.Surge.RecoveryS = -1
	if m, _ = Merge([]*Result{a, b}); m.Surge.RecoveryS != -1 {
		t.Errorf("one has not recovered, together they have after %v s", m.Surge.RecoveryS)
	}
	b.Profile = "batch"
	if _, err := Merge([]*Result{a, b}); err == nil {
		t.Error("a scan and a batch were merged")
	}
}

func TestComparingTellsADifferenceFromNoise(t *testing.T) {
	row := func(c Comparison, what string) Row {
		for _, r := range c.Rows {
			if r.What == what {
				return r
			}
		}
		t.Fatalf("no row %q", what)
		return Row{}
	}
	same := Compare("a", []*Result{sample(1, 1)}, "b", []*Result{sample(2, 1)})
	if p := row(same, "register p99 ms").P; p < .05 {
		t.Errorf("two runs of one system differ with p = %v", p)
	}
	slower := Compare("a", []*Result{sample(1, 1)}, "b", []*Result{sample(2, 2)})
	if r := row(slower, "register p99 ms"); r.P > .001 || r.Ratio < 1.5 {
		t.Errorf("twice as slow: %+v", r)
	}
	if !strings.Contains(slower.Text(), "not independent") {
		t.Errorf("a comparison of two runs does not warn:\n%s", slower.Text())
	}
}

// Published example of the Mann-Whitney test without ties: U = 3 of 5 and 5.
func TestDiffer(t *testing.T) {
	got := differ([]float64{1, 2, 3, 5, 8}, []float64{4, 6, 7, 9, 10})
	want := math.Erfc((12.5 - 4 - .5) / math.Sqrt(25.0/12*11) / math.Sqrt2)
	if math.Abs(got-want) > 1e-9 {
		t.Errorf("p = %v, want %v", got, want)
	}
	if differ([]float64{1, 1, 1, 1}, []float64{1, 1, 1, 1}) != 1 || differ([]float64{1}, []float64{2}) != -1 {
		t.Error("equal samples differ, or one value is enough")
	}
}

func TestThePageIsWellFormedAndWhole(t *testing.T) {
	r := sample(1, 1)
	r.Invalid, r.Valid = []string{"<b>&"}, false
	r.Judge(Usual("scan"))
	page, err := r.HTML()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(page, []byte("<b>&")) {
		t.Error("text was not escaped")
	}
	for i, svg := range bytes.Split(page, []byte("<svg"))[1:] {
		end := bytes.Index(svg, []byte("</svg>"))
		if err := xml.Unmarshal(append([]byte("<svg"), svg[:end+6]...), new(struct{})); err != nil {
			t.Errorf("chart %d: %v", i, err)
		}
		if bytes.Contains(svg[:end], []byte("NaN")) || bytes.Contains(svg[:end], []byte("Inf")) {
			t.Errorf("chart %d has a point nowhere", i)
		}
	}
	empty := &Result{Streams: []Stream{{Name: "tests"}}, Visible: hist.New()}
	empty.Headline()
	if _, err := empty.HTML(); err != nil {
		t.Errorf("a run of nothing: %v", err)
	}
}

// Goal: what nobody looked for is not reported as not there, and what no code
// shows not as visible.
func TestTheReportSaysWhatWasNotLookedFor(t *testing.T) {
	r := sample(1, 1)
	r.Ledger.RepeatedChecked, r.Ledger.Hidden = false, 7
	r.Headline()
	page, err := r.HTML()
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"text": r.Text(false), "page": string(page)} {
		if !strings.Contains(text, "repeated n/a") || !strings.Contains(text, "and 7 behind a newer test in their tubes") {
			t.Errorf("%s: %s", where, text)
		}
	}
	raw, _ := json.Marshal(r)
	if !bytes.Contains(raw, []byte(`"repeated":0,"repeated_checked":false`)) {
		t.Errorf("%s", raw[:400])
	}
}

func TestNumbersAreAsPreciseAsAnybodyNeeds(t *testing.T) {
	for in, want := range map[float64]string{0: "0", 12345.6: "12,346", 12.34: "12.3", .01234: "0.0123", -1: "n/a", 1234567: "1,234,567", 100: "100"} {
		if got := number(in); got != want {
			t.Errorf("%v: %q, want %q", in, got, want)
		}
	}
	if got := percentile(1000); got != "99.9%" {
		t.Errorf("1000 is %s", got)
	}
}

// Goal: nothing counts as held that nobody measured.
func TestWhatIsNotMeasuredIsNotHeld(t *testing.T) {
	has := func(r *Result, what string) bool {
		return slices.ContainsFunc(r.NotMeasured, func(s string) bool { return strings.HasPrefix(s, what) })
	}
	checked := func(r *Result, what string) bool {
		return slices.ContainsFunc(r.Checks, func(c Check) bool { return strings.HasPrefix(c.What, what) })
	}
	r := sample(1, 1)
	r.Settings["ledger"], r.Ledger.Tubes = true, 5
	o := Objectives{Response: map[string]float64{"tests": 250}, Visible: 1000, CPU: 1e9, Failures: 1}
	if r.Judge(o); len(r.NotMeasured) > 0 {
		t.Errorf("all was measured, and %v was not", r.NotMeasured)
	}
	r.Visible, r.Ledger, r.Roles = hist.New(), nil, nil
	r.Headline()
	r.Judge(o)
	for _, what := range []string{"visible", "CPU", "lost, wrong, repeated"} {
		if !has(r, what) || checked(r, what) {
			t.Errorf("%s was not measured: %v, %+v", what, r.NotMeasured, r.Checks)
		}
		if page, err := r.HTML(); err != nil || !bytes.Contains(page, []byte("Not measured, and not judged: "+what)) {
			t.Errorf("the page has no word of %s: %v", what, err)
		}
	}
	if !strings.Contains(r.Text(false), "objectives held; not measured: visible") {
		t.Errorf("the verdict does not name it:\n%s", r.Text(false))
	}
	r = sample(1, 1)
	r.Closed = true
	if r.Judge(Objectives{Response: map[string]float64{"tests": .001}, Failures: 1}); !has(r, "tests response") || checked(r, "tests response") || r.Code() != Held {
		t.Errorf("closed: code %d, not measured %v", r.Code(), r.NotMeasured)
	}
	none := &Result{Valid: true, Streams: []Stream{{Name: "tests"}}, Visible: hist.New()}
	none.Headline()
	if none.Judge(o); !has(none, "tests response") {
		t.Errorf("nothing was answered: %v", none.NotMeasured)
	}
}

// Goal: many quick results do not make slow registrations quick.
func TestTheSlowestKindIsJudged(t *testing.T) {
	s := &drive.Stream{Name: "tests", Unit: "tests", Plan: schedule.Constant(100, 20*time.Second)}
	for k := range s.Kinds {
		s.Kinds[k] = drive.NewTally()
	}
	s.Kinds[drive.Register].Started, s.Kinds[drive.Report].Started = 100, 1
	s.Kinds[drive.Register].Response.RecordN(300*time.Millisecond, 100)
	s.Kinds[drive.Report].Response.RecordN(time.Millisecond, 100_000)
	r := &Result{Valid: true, Streams: []Stream{Sum(s, 20*time.Second)}}
	r.Headline()
	r.Judge(Objectives{Response: map[string]float64{"tests": 250}, Failures: 1})
	if r.Code() != Missed || r.ResponseMS.P99 < 299 || r.Main().Slowest != "register" || r.Main().ByKind["result"].P99 > 2 {
		t.Errorf("code %d, p99 %v of %s; %+v", r.Code(), r.ResponseMS.P99, r.Main().Slowest, r.Main().ByKind)
	}
}

// Goal: an equals sign stands between equal figures alone, and the carriers are
// those that were asked.
func TestTheLedgersLineSaysWhatWasSeen(t *testing.T) {
	for _, c := range []struct {
		l        ledger.Report
		carriers []string
		want     string
	}{
		{ledger.Report{Acked: 10, Checked: 10, Visible: 10, RepeatedChecked: true}, []string{"unicom", "mobile"}, "acknowledged 10, read back 10 of them at unicom and mobile = visible 10; lost 0, wrong 0, repeated 0"},
		{ledger.Report{Acked: 10, Checked: 4, Visible: 3, Lost: 1, RepeatedChecked: true}, []string{"unicom"}, "acknowledged 10, read back 4 of them at unicom, visible 3; lost 1, wrong 0, repeated 0"},
		{ledger.Report{Acked: 10, Checked: 10, Visible: 8, Hidden: 2, RepeatedChecked: true}, []string{"unicom"}, "acknowledged 10, read back 10 of them at unicom = visible 8 and 2 behind a newer test in their tubes; lost 0, wrong 0, repeated 0"},
		{ledger.Report{Acked: 10, Checked: 10, Visible: 10}, []string{"etcd"}, "acknowledged 10, read back 10 of them at etcd = visible 10; lost 0, wrong 0, repeated n/a"},
	} {
		if got := c.l.Text(c.carriers); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// Goal: a surge whose displays and bindings were never served is missed, though
// nobody refused them; of several generators each one's crowd counts.
func TestWhoWasNeverServedIsJudged(t *testing.T) {
	surge := func(displays, bindings int64) *Result {
		r := sample(1, 1)
		r.Profile, r.Surge = "surge", &Surge{RecoveryS: 1, DisplayUnserved: displays, BindingUnserved: bindings, HeightPerS: map[string]float64{"tests": 50}}
		r.Judge(Usual("surge"))
		return r
	}
	if r := surge(0, 0); r.Code() != Held {
		t.Errorf("all served: code %d: %+v", r.Code(), r.Checks)
	}
	for _, r := range []*Result{surge(1, 0), surge(0, 1)} {
		page, err := r.HTML()
		if r.Code() != Missed || !strings.Contains(r.Text(false), "never served in the crowd's patience: ") || !bytes.Contains(page, []byte("Never served")) {
			t.Errorf("%+v: code %d, %v\n%s", r.Surge, r.Code(), err, r.Text(false))
		}
	}
	m, err := Merge([]*Result{surge(1, 2), surge(3, 4)})
	if err != nil || m.Surge.DisplayUnserved != 4 || m.Surge.BindingUnserved != 6 || m.Surge.HeightPerS["tests"] != 100 || m.Surge.RecoveryS != 1 {
		t.Errorf("%v, merged %+v", err, m.Surge)
	}
}

// Goal: the bars hold every count, each in the bar that its time belongs to.
func TestTheBarsHoldEveryCount(t *testing.T) {
	h := hist.New()
	h.RecordN(time.Millisecond, 3)
	h.RecordN(1100*time.Microsecond, 5)
	h.RecordN(500*time.Millisecond, 7)
	all := bars(h)
	var sum int64
	for i, b := range all {
		if sum += b.count; i > 0 && math.Abs(b.to/all[i-1].to-math.Pow(10, .1)) > 1e-9 {
			t.Errorf("bar %d ends at %v, the one before at %v", i, b.to, all[i-1].to)
		}
	}
	if last := all[len(all)-1]; sum != 15 || all[0].count != 3 || all[1].count != 5 || last.count != 7 || last.to < 500 || last.to > 650 {
		t.Errorf("%d counted in %+v", sum, all)
	}
	page, err := sample(1, 1).HTML()
	if err != nil || !bytes.Contains(page, []byte("tests: histogram of register")) || !bytes.Contains(page, []byte("<rect")) {
		t.Errorf("%v, or no histogram on the page", err)
	}
}
