package chaos

import (
	"testing"

	"qianma/chaos/report"
)

// TestRunsAddUp: what was lost in any run is lost, the worst verdict is all's,
// and a run that came to no verdict lends no figure.
func TestRunsAddUp(t *testing.T) {
	held := func(gap float64) *report.Report {
		return &report.Report{Name: "x", Verdict: report.Held, LongestWriteGap: gap, UploadSuccess: 100, DisplaySuccess: 100}
	}
	all := []*report.Report{held(300), held(100), held(200)}
	if got := total(all); got.Verdict != report.Held || got.Held != 3 || got.WriteGapP50 != 200 || got.WriteGapP99 != 300 || got.DisplaySuccess != 100 {
		t.Errorf("%+v", got)
	}
	bad := held(900)
	bad.Verdict, bad.Lost, bad.Repeated, bad.StaleGreen, bad.DisplaySuccess = report.Broken, 2, 1, 4, 97
	ended := held(5000)
	ended.Verdict, ended.DisplaySuccess = report.Refused, 0
	got := total(append(all, bad, ended))
	want := Total{Name: "x", Verdict: report.Broken, Runs: 5, Held: 3, Judged: 4, WriteGapP50: 200, WriteGapP99: 900,
		UploadSuccess: 100, DisplaySuccess: 97, Lost: 2, Repeated: 1, StaleGreen: 4}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
