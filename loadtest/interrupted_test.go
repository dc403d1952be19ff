package loadtest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"qianma/loadtest/internal/fake"
	"qianma/loadtest/report"
)

// Goal: of an interrupted run nothing is said as if it had gone on: it took until it
// was interrupted, and tests that nobody could wait for any longer are not late.
// Method: the other carrier shows nothing for an hour, so that whatever is watched
// is open when the run is interrupted.
func TestAnInterruptedRunTookUntilItWasInterrupted(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{Lag: time.Hour})
	o := options(t, p, "scan", 200, time.Hour)
	o.Objectives = report.Usual("scan")
	ctx, cancel := context.WithCancel(context.Background())
	o.Live = func(v View) {
		if v.Second >= 1 {
			cancel()
		}
	}
	res, _, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if res.Acked == 0 || res.DurationS < 1 || res.DurationS > o.Duration.Seconds()/2 || res.AchievedPerS != float64(res.Acked)/res.DurationS {
		t.Errorf("it took %v s of %v; %d acknowledged are %v a second", res.DurationS, o.Duration, res.Acked, res.AchievedPerS)
	}
	if res.Unseen > 0 || res.VisibleMS.Count > 0 {
		t.Errorf("%d tests are unseen, %d are in the percentiles; none had its time", res.Unseen, res.VisibleMS.Count)
	}
	if strings.Contains(res.Why(), "visible") || !slices.Contains(res.NotMeasured, "visible at the other carrier p99 ms (the run was interrupted)") {
		t.Errorf("%s; not measured %q", res.Why(), res.NotMeasured)
	}
	if where := "the run was interrupted and its ledger not read back: qianma load check " + o.Out + " reads it back later"; !slices.Contains(res.Notes, where) {
		t.Errorf("nobody says what becomes of the ledger: %q", res.Notes)
	}
}

// Goal: what had its time is late in an interrupted run too. Method: every test is
// watched and has no time at all, those also that are acknowledged after the
// interruption, when the booths close their tubes.
func TestWhatWasLateIsLateInAnInterruptedRunToo(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{Lag: time.Hour})
	o := options(t, p, "scan", 200, time.Hour)
	o.Watches, o.Unseen = 1000, time.Nanosecond
	ctx, cancel := context.WithCancel(context.Background())
	o.Live = func(v View) {
		if v.Second >= 1 {
			cancel()
		}
	}
	res, _, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if res.Acked == 0 || res.Unseen != res.Acked {
		t.Errorf("of %d tests %d are unseen", res.Acked, res.Unseen)
	}
}
