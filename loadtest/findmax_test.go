package loadtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"qianma/loadtest/internal/fake"
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

// Goal: a rate that a hiccup missed is tried again, an overload and a
// confirmation are not. Method: a system that keeps up, or is valid, or neither.
func TestARateThatAHiccupMissedIsTriedAgain(t *testing.T) {
	const capacity = 7000
	search := func(hiccup func(n int, rate float64) *report.Result) Found {
		n := 0
		f, err := FindMax(Search{Start: 5000, Tolerance: .05, Confirm: 1}, func(rate float64) (*report.Result, error) {
			n++
			if r := hiccup(n, rate); r != nil {
				return r, nil
			}
			return &report.Result{Valid: true, OfferedPerS: rate, AchievedPerS: min(rate, capacity), Checks: []report.Check{{Held: rate <= capacity}}}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	steady := search(func(int, float64) *report.Result { return nil })
	for _, x := range []struct {
		what  string
		times int
		was   report.Result
		most  float64
	}{
		{"a miss by a hair", 1, report.Result{Valid: true, OfferedPerS: 5000, AchievedPerS: 4900, Checks: []report.Check{{}}}, capacity},
		{"an invalid run", 1, report.Result{OfferedPerS: 5000, AchievedPerS: 3000, Checks: []report.Check{{}}}, capacity},
		{"two invalid runs, as a place that has just been made gives them", 2, report.Result{OfferedPerS: 5000, AchievedPerS: 3000, Checks: []report.Check{{}}}, capacity},
		{"invalid runs at each rate down to a quarter", 6, report.Result{OfferedPerS: 5000, AchievedPerS: 3000, Checks: []report.Check{{}}}, capacity},
		{"an overload", 1, report.Result{Valid: true, OfferedPerS: 5000, AchievedPerS: 4500, Checks: []report.Check{{}}}, 5000},
	} {
		f := search(func(n int, _ float64) *report.Result {
			if n <= x.times {
				return &x.was
			}
			return nil
		})
		if f.Rate > x.most || f.Rate < x.most/1.06 {
			t.Errorf("after %s at 5,000/s: found %v, want up to %v", x.what, f.Rate, x.most)
		}
	}
	last := len(steady.Tried)
	if f := search(func(n int, rate float64) *report.Result {
		if n == last {
			return &report.Result{Valid: true, OfferedPerS: rate, AchievedPerS: rate, Checks: []report.Check{{}}}
		}
		return nil
	}); f.Rate >= steady.Rate {
		t.Errorf("a confirmation was missed, and the search still found %v", f.Rate)
	}
}

// Goal: a search ends as badly as what it saw. Method: a system of which every
// try ends as told, or holds below a rate.
func TestASearchEndsAsBadlyAsWhatItSaw(t *testing.T) {
	ends := func(codes func(n int, rate float64) int) (Found, int) {
		n := 0
		f, err := FindMax(Search{Start: 100, Tolerance: .05, Confirm: 1}, func(rate float64) (*report.Result, error) {
			n++
			r := &report.Result{Valid: true, Checks: []report.Check{{Held: true}}}
			switch codes(n, rate) {
			case report.Missed:
				r.Checks[0].Held = false
			case report.LedgerBroke:
				r.Lost = 1
			case report.InvalidRun:
				r.Valid = false
			}
			return r, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return f, n
	}
	f, n := ends(func(n int, rate float64) int {
		if n == 2 {
			return report.LedgerBroke
		}
		return report.Held
	})
	if f.Code != report.LedgerBroke || n != 2 || f.Rate != 0 || exitCode(f.Verdict()) != 2 {
		t.Errorf("a broken ledger: code %d after %d tries, rate %v", f.Code, n, f.Rate)
	}
	if f, _ := ends(func(_ int, rate float64) int {
		if rate > 1000 {
			return report.InvalidRun
		}
		return report.Held
	}); f.Code != report.Held || f.Rate < 900 || f.Verdict() != nil {
		t.Errorf("held up to where the generator ends: code %d, rate %v", f.Code, f.Rate)
	}
	if f, _ := ends(func(int, float64) int { return report.InvalidRun }); f.Code != report.InvalidRun || exitCode(f.Verdict()) != 3 {
		t.Errorf("the generator never kept up: code %d", f.Code)
	}
	if f, _ := ends(func(_ int, rate float64) int {
		if rate > 10 {
			return report.InvalidRun
		}
		return report.Missed
	}); f.Code != report.Missed || exitCode(f.Verdict()) != 1 {
		t.Errorf("missed where the generator did keep up: code %d", f.Code)
	}
}

// Goal: a search that is interrupted shows what it had tried. Method: it is
// interrupted while its second try runs.
func TestAnInterruptedSearchShowsWhatItTried(t *testing.T) {
	for _, output := range []string{"text", "json"} {
		p := fake.New(t, fake.Lies{})
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		stop := &second{word: "/s: scan: ", do: cancel}
		err := command(ctx, &out, stop, append([]string{"load", "find-max", "scan", "--data=" + p.Dir, "--rate=200", "--probe=1s", "--people=1000", "--read-back=-1", "-o", output}, loose...)...)
		cancel()
		if exitCode(err) != report.InvalidRun || !strings.Contains(err.Error(), "the search was interrupted") {
			t.Errorf("%s: code %d, %v", output, exitCode(err), err)
		}
		if output == "text" {
			if !strings.HasPrefix(out.String(), "  200/s: ") {
				t.Errorf("printed %q", out.String())
			}
			continue
		}
		var found Found
		if err := json.Unmarshal(out.Bytes(), &found); err != nil || !found.Interrupted || len(found.Tried) != 1 || found.Code != report.InvalidRun || found.Rate != 0 {
			t.Errorf("%v: %+v", err, found)
		}
	}
}

// Goal: a search that an error ends shows what it had tried. Method: a file lies
// where the results of the second try belong.
func TestASearchThatFailsShowsWhatItTried(t *testing.T) {
	p := fake.New(t, fake.Lies{})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "02-400"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	err := command(t.Context(), io.Discard, &said, append([]string{"load", "find-max", "scan", "--data=" + p.Dir, "--out=" + dir, "--rate=200", "--probe=1s", "--people=1000", "--read-back=-1", "--quiet"}, loose...)...)
	if err == nil || exitCode(err) <= report.InvalidRun || !strings.Contains(said.String(), "  200/s: ") {
		t.Errorf("code %d, %v; said %q", exitCode(err), err, said.String())
	}
}

// second does something when a word is written.
type second struct {
	word string
	do   func()
}

func (w *second) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.word)) {
		w.do()
	}
	return len(p), nil
}

// Goal: a search, and what confirms it, ends where a rate says nothing any more, and says when it was
// its ceiling that ended it.
func TestASearchKnowsItsBounds(t *testing.T) {
	for _, x := range []struct {
		s      Search
		lowest float64
	}{
		{Search{Start: 640, Tolerance: .05}, 10},              // a 64th
		{Search{Start: 640, Floor: 100, Tolerance: .05}, 160}, // the next would be 80
		{Search{Start: 5, Floor: 50, Tolerance: .05}, 5},      // what was asked for is tried
	} {
		try, _ := holding(0, nil)
		f, err := FindMax(x.s, try)
		if err != nil || f.Lowest != x.lowest || f.Code != report.Missed {
			t.Errorf("%+v: the lowest was %v, want %v; %v", x.s, f.Lowest, x.lowest, err)
		}
	}
	try, _ := holding(100, map[int]bool{2: true, 3: true, 4: true}) // at the ceiling it holds, and is not confirmed
	f, err := FindMax(Search{Start: 100, Floor: 90, Ceiling: 100, Tolerance: .05, Confirm: 1}, try)
	if err != nil || f.Lowest < 90 || f.Rate != 0 {
		t.Errorf("no lower than 90: found %v, the lowest was %v; %v", f.Rate, f.Lowest, err)
	}
	for ceiling, want := range map[float64]bool{900: true, 0: false, 1e6: false} {
		try, _ := holding(7000, nil)
		f, err := FindMax(Search{Start: 100, Ceiling: ceiling, Tolerance: .05, Confirm: 1}, try)
		if err != nil || f.AtCeiling != want {
			t.Errorf("ceiling %v: found %v, at the ceiling %v, %v", ceiling, f.Rate, f.AtCeiling, err)
		}
	}
	raw, err := json.Marshal(func() Found {
		f, _ := FindMax(Search{Start: 1}, func(float64) (*report.Result, error) { return nil, io.EOF })
		return f
	}())
	if err != nil || !bytes.Contains(raw, []byte(`"tried":[],"confirmed":[]`)) {
		t.Errorf("%s, %v", raw, err)
	}
}

// Goal: whoever reads what find-max prints does not take its ceiling for the
// system's.
func TestACeilingIsNamed(t *testing.T) {
	var out bytes.Buffer
	c := FindMaxCommand{Probe: time.Second, Output: "text"}
	f := Found{Rate: 900, AtCeiling: true, Confirmed: []*report.Result{{Unit: "tests"}}}
	if err := c.print(&kong.Context{Kong: &kong.Kong{Stdout: &out}}, f); err != nil || !strings.Contains(out.String(), "held at the ceiling: more was not tried") {
		t.Errorf("%v: %s", err, out.String())
	}
}
