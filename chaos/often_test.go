package chaos

import (
	"path/filepath"
	"testing"
	"time"

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

// TestHistoryListsRunsToo: the reports of one drill with many seeds lie a level
// deeper than others, and are reports of the province all the same.
func TestHistoryListsRunsToo(t *testing.T) {
	home := t.TempDir()
	if all, err := history(filepath.Join(home, "none")); err != nil || len(all) != 0 {
		t.Errorf("before any drill: %v, %v", all, err)
	}
	noon := time.Date(2022, 1, 4, 12, 0, 0, 0, time.UTC)
	for i, dir := range []string{"b-runs/seed-2", "b-runs/seed-1", "a"} {
		r := &report.Report{Name: dir, Start: noon.Add(-time.Duration(i) * time.Minute)}
		if err := r.Save(filepath.Join(home, dir)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := history(home)
	if err != nil || len(all) != 3 {
		t.Fatalf("%d reports: %v", len(all), err)
	}
	for i, want := range []string{"a", "b-runs/seed-1", "b-runs/seed-2"} {
		if all[i].Name != want || filepath.Dir(all[i].Page) != filepath.Join(home, want) {
			t.Errorf("report %d is %s at %s, want %s", i, all[i].Name, all[i].Page, want)
		}
	}
}
