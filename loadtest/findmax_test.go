package loadtest

import (
	"errors"
	"testing"

	"qianma/loadtest/report"
)

// holding is a system that holds up to its capacity; each time it is asked at a rate that is
// near it, it may fail as often as flaky says.
func holding(capacity float64, flaky map[int]bool) (func(float64) (*report.Result, error), *int) {
	n := 0
	return func(rate float64) (*report.Result, error) {
		n++
		held := rate <= capacity && !flaky[n]
		return &report.Result{Valid: true, Checks: []report.Check{{Held: held}}}, nil
	}, &n
}

func TestFindMaxComesCloseFromBothSides(t *testing.T) {
	for _, start := range []float64{10, 100, 5000, 100_000} {
		try, n := holding(7000, nil)
		f, err := FindMax(Search{Start: start, Tolerance: .02, Confirm: 3}, try)
		if err != nil || f.Rate > 7000 || f.Rate < 7000/1.03 || len(f.Confirmed) != 3 {
			t.Errorf("from %v: found %v, %v, after %d runs", start, f.Rate, err, *n)
		}
	}
}

func TestARateThatDoesNotConfirmIsLowered(t *testing.T) {
	try, _ := holding(7000, nil)
	steady, _ := FindMax(Search{Start: 1000, Tolerance: .05, Confirm: 3}, try)
	last := len(steady.Tried) // the third confirmation
	try, _ = holding(7000, map[int]bool{last: true})
	f, err := FindMax(Search{Start: 1000, Tolerance: .05, Confirm: 3}, try)
	if err != nil || f.Rate >= steady.Rate || len(f.Confirmed) != 3 {
		t.Errorf("found %v, %v; steady it was %v", f.Rate, err, steady.Rate)
	}
}

func TestFindMaxKeepsToItsCeilingAndGivesUp(t *testing.T) {
	try, _ := holding(1e9, nil)
	f, err := FindMax(Search{Start: 100, Ceiling: 900, Tolerance: .05, Confirm: 1}, try)
	if err != nil || f.Rate != 900 {
		t.Errorf("found %v, %v; want the ceiling", f.Rate, err)
	}
	try, n := holding(0, nil)
	f, err = FindMax(Search{Start: 100, Tolerance: .05, Confirm: 1}, try)
	if err != nil || f.Rate != 0 || *n > 20 {
		t.Errorf("found %v, %v after %d runs; want nothing", f.Rate, err, *n)
	}
	if _, err := FindMax(Search{Start: 1}, func(float64) (*report.Result, error) { return nil, errors.New("no province") }); err == nil {
		t.Error("an error was swallowed")
	}
}
