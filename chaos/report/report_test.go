package report

import (
	"strings"
	"testing"

	"qianma/chaos/check"
)

// TestWorse: what broke outweighs what could not be judged, whatever came first.
func TestWorse(t *testing.T) {
	for i, a := range gravity {
		for j, b := range gravity {
			if got, want := Worse(a, b), gravity[max(i, j)]; got != want {
				t.Errorf("of %q and %q it is %q, want %q", a, b, got, want)
			}
		}
	}
	if len(gravity) != len(codes) {
		t.Errorf("%d verdicts are ordered, %d have a code", len(gravity), len(codes))
	}
}

// TestEveryDrillIsInTheTables: each with its own page, its verdict and what it lost.
func TestEveryDrillIsInTheTables(t *testing.T) {
	all := []Entry{
		{&Report{Name: "a-drill", Row: "a row", Verdict: Held, ConvergedMS: 1234, Seed: 7}, "a-drill/report.html"},
		{&Report{Name: "a-canary", Row: "another", Verdict: Broken, MustFail: "lost", Lost: 42, ConvergedMS: -1, Seed: 7,
			Findings: []check.Finding{{Name: check.Lost, Looked: 50, Broken: 42}}}, "seed-7/report.html"},
	}
	page, err := Table(all)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`href="a-drill/report.html"`, `href="seed-7/report.html"`, ">broken, as it must be<", ">42<", "1234 ms", "never"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page has no %s", want)
		}
	}
	text := string(Markdown(all))
	for _, want := range []string{"2 drills", "| a-drill | a row | held |", "| a-canary (canary: must break lost) | another | broken, as it must be |", "| 42 |", "| 1234 ms | 7 |", "| never | 7 |"} {
		if !strings.Contains(text, want) {
			t.Errorf("the text has no %q:\n%s", want, text)
		}
	}
}

// TestACanaryFailsForItsReason: it is as it must be only when the invariant it
// was made to break was found broken.
func TestACanaryFailsForItsReason(t *testing.T) {
	broken := func(name string) []check.Finding { return []check.Finding{{Name: name, Looked: 1, Broken: 1}} }
	for _, c := range []struct {
		must string
		rep  Report
		want Verdict
	}{
		{"", Report{Verdict: Held}, Held},
		{"", Report{Verdict: Broken, Findings: broken(check.Lost)}, Broken},
		{check.Lost, Report{Verdict: Broken, Findings: broken(check.Lost)}, Held},
		{check.Lost, Report{Verdict: Broken, Findings: broken(check.Equal)}, Broken},
		{check.Lost, Report{Verdict: Missed}, Broken},
		{check.Lost, Report{Verdict: Held}, Broken},
		{check.Lost, Report{Verdict: Aborted}, Aborted},
		{check.Lost, Report{Verdict: Stuck, Findings: broken(check.Lost)}, Stuck},
	} {
		c.rep.MustFail = c.must
		if got := c.rep.Judged(); got != c.want {
			t.Errorf("must break %q, %s with %v: judged %s, want %s", c.must, c.rep.Verdict, c.rep.Findings, got, c.want)
		}
	}
}
