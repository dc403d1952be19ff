package report

import (
	"strings"
	"testing"
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
		{&Report{Name: "a-canary", Row: "another", Verdict: Broken, MustFail: "lost", Lost: 42, ConvergedMS: -1, Seed: 7}, "seed-7/report.html"},
	}
	page, err := Table(all)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`href="a-drill/report.html"`, `href="seed-7/report.html"`, ">broken<", ">42<", "1234 ms", "never"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page has no %s", want)
		}
	}
	text := string(Markdown(all))
	for _, want := range []string{"2 drills", "| a-drill | a row | held |", "| a-canary (canary: must break lost) | another | broken |", "| 42 |", "| 1234 ms | 7 |", "| never | 7 |"} {
		if !strings.Contains(text, want) {
			t.Errorf("the text has no %q:\n%s", want, text)
		}
	}
}
