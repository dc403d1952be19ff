package chaos

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"qianma/chaos/agent"
	"qianma/chaos/drill"
	"qianma/chaos/fault"
	"qianma/chaos/report"
	"qianma/chaos/world/worldtest"
)

// TestTheShortSuiteCutsBothWays: links and packets, and every drill of it is
// there.
func TestTheShortSuiteCutsBothWays(t *testing.T) {
	list, err := (&Suite{Name: "ci"}).drills()
	if err != nil {
		t.Fatal(err)
	}
	needs := map[string]int{}
	for _, d := range list {
		needs[d.Needs]++
		stand := 0
		for _, s := range stands {
			if s.takes(d) {
				stand++
			}
		}
		if stand != 1 {
			t.Errorf("%s has %d provinces to run on", d.Name, stand)
		}
	}
	if needs[fault.Links] == 0 || needs[fault.Namespaces] == 0 {
		t.Errorf("the short suite needs only %v", needs)
	}
}

// TestACanaryThatBreaksAProvinceHasItToItself: what follows it would find no
// steady state. All others share one.
func TestACanaryThatBreaksAProvinceHasItToItself(t *testing.T) {
	d := func(name, mustFail, plant string) *drill.Drill {
		return &drill.Drill{Name: name, MustFail: mustFail, Plant: plant}
	}
	got := shares([]*drill.Drill{d("a", "", ""), d("lies", "lost", ""), d("only told", "lost", "forget-one"), d("forgets", "lost", ""), d("b", "", "")})
	var text []string
	for _, s := range got {
		text = append(text, names(s))
	}
	if want := []string{"a, only told, b", "lies", "forgets"}; !slices.Equal(text, want) {
		t.Errorf("%q, want %q", text, want)
	}
	if got := shares(nil); got != nil {
		t.Errorf("of nothing: %v", got)
	}
}

// TestAGameDayHasAll: a night has all but what takes most of it.
func TestAGameDayHasAll(t *testing.T) {
	var names [2][]string
	for i, suite := range []string{"nightly", "game-day"} {
		list, err := (&Suite{Name: suite}).drills()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			names[i] = append(names[i], d.Name)
			if suite == "nightly" && d.Duration() > nightMax {
				t.Errorf("%s takes %s of a night", d.Name, d.Duration())
			}
		}
	}
	if all, err := drill.All(); err != nil || len(names[1]) != len(all) {
		t.Errorf("a game day has %d of %d drills, %v", len(names[1]), len(all), err)
	}
	if slices.Contains(names[0], "random-mix") || !slices.Contains(names[1], "random-mix") || len(names[0]) < len(names[1])-2 {
		t.Errorf("a night has %d drills, a game day %d", len(names[0]), len(names[1]))
	}
}

// TestWhatCannotBeRunIsSaid: a drill whose province is not to be had is named
// with the reason, and is an error where the suite has to be whole.
func TestWhatCannotBeRunIsSaid(t *testing.T) {
	p := worldtest.Start(t)
	if err := os.Remove(filepath.Join(p.Data, "wire.json")); err != nil {
		t.Fatal(err)
	}
	for _, whole := range []bool{false, true} {
		var said bytes.Buffer
		c := &Suite{Name: "ci", Data: p.Data, Only: []string{"harmed-packets"}, Report: t.TempDir(), Whole: whole}
		err := c.Run(t.Context(), &kong.Context{Kong: &kong.Kong{Stdout: &said, Stderr: &said}})
		if !strings.Contains(said.String(), "not run: harmed-packets: the carriers of this province are in no network namespaces") {
			t.Errorf("whole %v: %s", whole, said.String())
		}
		if (err != nil) != whole {
			t.Errorf("whole %v: %v", whole, err)
		}
	}
}

// TestOnlyWhatWasNotJudgedIsRunAgain: neither a verdict nor the end of a drill
// that somebody asked for is answered with another try.
func TestOnlyWhatWasNotJudgedIsRunAgain(t *testing.T) {
	home := agent.At(t.TempDir())
	if err := home.Make(); err != nil {
		t.Fatal(err)
	}
	vain := func() (out []report.Verdict) {
		for _, v := range []report.Verdict{report.Held, report.Missed, report.Broken, report.Refused, report.Aborted, report.Stuck} {
			if inVain(&report.Report{Verdict: v}, home) {
				out = append(out, v)
			}
		}
		return out
	}
	if got := vain(); !slices.Equal(got, []report.Verdict{report.Refused, report.Aborted}) {
		t.Errorf("run again: %v", got)
	}
	for _, file := range []string{home.Abort(), home.Lever()} {
		if err := os.WriteFile(file, []byte("ops"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := vain(); len(got) > 0 {
			t.Errorf("run again although somebody left %s: %v", file, got)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}
