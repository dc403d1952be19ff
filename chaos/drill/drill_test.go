package drill

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"qianma/chaos/agent"
	"qianma/chaos/check"
	"qianma/chaos/fault"
	"qianma/chaos/model"
	"qianma/chaos/report"
	"qianma/chaos/traffic"
	"qianma/chaos/world"
	"qianma/chaos/world/worldtest"
)

// rows are the first cells of the failure table.
var rows = []string{
	"one node of any cluster, or several minority nodes at once", "all of nucleic, both carriers", "all of vaccine, both carriers",
	"middle store, one carrier / both", "NATS, one carrier / both", "etcd, both carriers",
	"a whole carrier (power, or its disks destroyed)", "the line between the carriers", "display, both carriers",
}

// TestEveryRowAndEveryFaultHasADrill: the list of files is the list of what we
// survive, so every row of the failure table and every fault is in it, and
// every file is called what it says.
func TestEveryRowAndEveryFaultHasADrill(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	var seenRows, seenFaults []string
	canaries := 0
	for _, d := range all {
		if _, err := Load(d.Name); err != nil {
			t.Errorf("%s: %v", d.Name, err)
		}
		seenRows = append(seenRows, d.Row)
		if d.MustFail != "" {
			canaries++
		} else if !slices.Contains(rows, d.Row) {
			t.Errorf("%s: %q is no row of the failure table", d.Name, d.Row)
		}
		for _, s := range d.Steps {
			seenFaults = append(seenFaults, s.Fault)
			if needs := fault.Catalogue[s.Fault].Needs; needs != "" && d.Needs != needs {
				t.Errorf("%s does not say that it needs %s", d.Name, needs)
			}
		}
	}
	for _, r := range rows {
		if !slices.Contains(seenRows, r) {
			t.Errorf("no drill for: %s", r)
		}
	}
	for _, f := range fault.Names() {
		if !slices.Contains(seenFaults, f) {
			t.Errorf("no drill has the fault %s", f)
		}
	}
	if canaries == 0 {
		t.Error("no canary")
	}
}

// TestEveryDrillCanBePlanned lays out every drill that needs no leader, and
// touches nothing.
func TestEveryDrillCanBePlanned(t *testing.T) {
	p, w := open(t)
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	planned := 0
	for _, d := range all {
		_, err := d.Drawn(1, w.Topology.Carriers).Plan(t.Context(), w, 1)
		if err != nil && strings.Contains(err.Error(), "has no leader") { // nobody leads in a province made of nothing
			continue
		}
		planned++
		if err != nil {
			t.Errorf("%s: %v", d.Name, err)
		}
	}
	if planned < len(all)/2 || p.Log() != "" {
		t.Errorf("%d of %d planned; done: %s", planned, len(all), p.Log())
	}
}

// TestLiesLastUntilThePowerIsCut: the first honest sync after a lie makes up
// for all of it, so a disk that lies and is honest again before the power is
// cut has lost nothing, and a canary of it would hold.
func TestLiesLastUntilThePowerIsCut(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	cuts := 0
	for _, d := range all {
		for _, lie := range d.Steps {
			for _, cut := range d.Steps {
				if lie.Fault != "fsync-lie" || cut.Fault != "power-cut" {
					continue
				}
				cuts++
				at := cut.At + fault.Duration(fault.CutAfter)
				if lie.At+fault.Duration(5*time.Second) > at || lie.At+lie.For < at+fault.Duration(5*time.Second) {
					t.Errorf("%s: the disks lie from %s to %s and the power is cut at %s", d.Name, lie.At.D(), (lie.At + lie.For).D(), at.D())
				}
			}
		}
	}
	if cuts == 0 {
		t.Error("no drill of a disk that lies")
	}
}

// TestACarrierWithoutPowerStaysAway: what for says begins with the step, and the
// power goes later, so a short one rehearses a restart and no loss.
func TestACarrierWithoutPowerStaysAway(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		for _, s := range d.Steps {
			if away := s.For.D() - fault.CutAfter; s.Fault == "power-cut" && s.For > 0 && away < 5*time.Second {
				t.Errorf("%s: without power for %s", d.Name, away)
			}
		}
	}
}

func open(t *testing.T) (*worldtest.Province, *world.World) {
	t.Helper()
	p := worldtest.Start(t)
	w, err := world.Open(p.Data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return p, w
}

func TestFilesAreHeldToTheirWord(t *testing.T) {
	good := "name: x\nsays: y\nsteps: [{fault: kill, target: everything}]\n"
	if _, err := Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for why, file := range map[string]string{
		"no name":         "says: y\nsteps: [{fault: kill}]\n",
		"no fault":        "name: x\nsays: y\n",
		"unknown fault":   "name: x\nsays: y\nsteps: [{fault: earthquake}]\n",
		"unknown field":   good + "colour: red\n",
		"unknown canary":  good + "must_fail: luck\n",
		"unknown check":   good + "invariants: [luck]\n",
		"quorum":          good + "limits: {quorum: lost}\n",
		"no traffic":      good + "traffic: {tests: 0}\n",
		"too long":        "name: x\nsays: y\nsteps: [{fault: kill, for: 9h}]\n",
		"negative":        "name: x\nsays: y\nsteps: [{fault: kill, for: -9s}]\n",
		"unknown need":    good + "needs: luck\n",
		"unknown lie":     good + "plant: rumour\n",
		"several at once": "steps: [{fault: a}, {fault: b}]\n",
	} {
		if _, err := Parse([]byte(file)); err == nil {
			t.Errorf("%s: nobody noticed", why)
		}
	}
}

// TestQuorumIsGuarded: a drill that would take a majority must say so, also
// when it is two faults together that do.
func TestQuorumIsGuarded(t *testing.T) {
	_, w := open(t)
	for _, c := range []struct {
		steps, limits string
		refused       bool
	}{
		{"[{fault: kill, target: unicom-nucleic-1, for: 9s}]", "", false},
		{"[{fault: kill, target: all(nucleic@unicom), for: 9s}]", "limits: {processes: 9}", true},
		{"[{fault: kill, target: all(nucleic@unicom), for: 9s}]", "limits: {processes: 9, quorum: may be lost}", false},
		{"[{fault: kill, target: unicom-nucleic-1, for: 9s}, {at: 3s, fault: pause, target: unicom-nucleic-2, for: 9s}]", "limits: {processes: 9}", true},
		{"[{fault: kill, target: unicom-nucleic-1, for: 2s}, {at: 3s, fault: pause, target: unicom-nucleic-2, for: 9s}]", "", false},
		{"[{fault: cut, target: 'link:unicom-nucleic-1<->*', for: 9s}, {at: 1s, fault: kill, target: unicom-nucleic-2, for: 9s}]", "limits: {processes: 9}", true},
		{"[{fault: kill, target: all(middlestore), for: 9s}]", "", true}, // more processes than one
	} {
		d, err := Parse([]byte("name: x\nsays: y\nsteps: " + c.steps + "\n" + c.limits + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = d.Plan(t.Context(), w, 1); (err != nil) != c.refused {
			t.Errorf("%s %s: %v", c.steps, c.limits, err)
		}
	}
}

// TestRefusals: with the lever pulled, with another drill under way, or with a
// province that is not well, a drill is refused and touches nothing.
func TestRefusals(t *testing.T) {
	p, w := open(t)
	home := agent.At(w.Data)
	d, err := Parse([]byte("name: x\nsays: y\nsteps: [{fault: kill, target: unicom-nucleic-1}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	run := func(why string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		rep, err := d.Run(ctx, Options{Data: p.Data, Seed: 1, Agent: []string{"/bin/false"}, Out: filepath.Join(t.TempDir(), "report")})
		if err != nil || rep.Verdict != report.Refused || len(rep.Why) == 0 || !strings.Contains(rep.Why[0], why) {
			t.Errorf("%s: %v, %+v", why, err, rep)
		}
		if p.Log() != "" {
			t.Errorf("%s: touched %s", why, p.Log())
		}
	}
	if err := home.Make(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home.Lever(), []byte("ops"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("the lever is pulled")
	if err := os.Remove(home.Lever()); err != nil {
		t.Fatal(err)
	}
	l, err := takeLock(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	run("another drill runs")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	run("the steady state does not hold") // nobody leads here
}

func TestMeasures(t *testing.T) {
	ok := func(start, end time.Duration, home int) traffic.Try {
		return traffic.Try{Start: start, End: end, Took: end - start, Write: true, Home: home, Outcome: "ok"}
	}
	const s = time.Second
	tries := []traffic.Try{
		ok(9*s, 9*s+1, 0), ok(10*s, 10*s+1, 1), ok(11*s, 11*s+1, 1), ok(12*s, 12*s+1, 1), ok(13*s, 13*s+1, 1), ok(14*s, 14*s+1, 1),
		{Start: 11 * s, End: 11*s + 5, Write: true, Outcome: "not_sent", Code: "connect", Again: true},
		{Start: 13 * s, End: 13*s + 5, Write: true, Outcome: "not_sent", Code: "connect", Again: true},
		ok(11*s, 12*s+s/2, 0), ok(14*s, 14*s+2, 0),
	}
	r := new(report.Report)
	measure(r, tries, []traffic.Change{{At: 10*s + s/4, What: "x"}}, 10*s, 15*s)
	if r.DetectedMS != 250 || r.RecoveredMS != 2500 || r.LongestWriteGap != 2500 || r.Failed["connect"] != 2 {
		t.Errorf("%+v", r)
	}
	// No write at all until the end is the longest gap there is.
	if got := gap([]traffic.Try{ok(9*s, 9*s+1, 0)}, 10*s, 15*s); got != 5*s {
		t.Errorf("gap %s", got)
	}
}

// TestVerdicts: what was found comes before what was measured, and an undo that
// was not shown before both.
func TestVerdicts(t *testing.T) {
	looked := []check.Finding{{Name: check.Lost, Looked: 1}}
	for want, r := range map[report.Verdict]report.Report{
		report.Held:   {UndoVerified: true, Findings: looked, DisplaySuccess: 100, Objectives: report.Objectives{DisplaySuccess: 99}},
		report.Missed: {UndoVerified: true, Findings: looked, DisplaySuccess: 98, Objectives: report.Objectives{DisplaySuccess: 99}},
		report.Broken: {UndoVerified: true, Findings: []check.Finding{{Name: check.Lost, Looked: 1, Broken: 1}}, Objectives: report.Objectives{DisplaySuccess: 99}},
		report.Stuck:  {Findings: []check.Finding{{Name: check.Lost, Looked: 1, Broken: 1}}},
	} {
		if r.Judge(); r.Verdict != want {
			t.Errorf("got %s, want %s (%v)", r.Verdict, want, r.Why)
		}
	}
	unfelt := report.Report{UndoVerified: true, Findings: looked, DetectedMS: -1, Objectives: report.Objectives{Detected: fault.Duration(time.Minute)}}
	if unfelt.Judge(); unfelt.Verdict != report.Missed {
		t.Errorf("a fault that showed no sign: %s", unfelt.Verdict)
	}
	blind := report.Report{UndoVerified: true, Findings: []check.Finding{{Name: check.Lost}}}
	if blind.Judge(); blind.Verdict == report.Held {
		t.Error("a check that looked at nothing held")
	}
}

// TestAStepWaitsForAnElection: after the loss before it a group may be without
// a leader for a moment, and that is no reason to give a drill up.
func TestAStepWaitsForAnElection(t *testing.T) {
	p, w := open(t)
	r := &run{Drill: &Drill{}, w: w, h: model.NewHistory(), id: "x"}
	p.Elects("unicom-nucleic-2", 3) // the three that are asked first know of nobody
	step := Step{Spec: fault.Spec{Fault: "pause", Target: "leader(nucleic@unicom)", For: fault.Duration(time.Second)}}
	plan, err := r.find(t.Context(), 0, step)
	if err != nil || !slices.Equal(plan.Targets, []string{"unicom-nucleic-2"}) {
		t.Errorf("it hits %v, %v", plan.Targets, err)
	}
	step.Target = "leader(nucleic@nowhere)"
	if _, err := r.find(t.Context(), 0, step); err == nil {
		t.Error("a target that is not there was found")
	}
}

// TestTheCalmEndsWithItsDrill: the load waits for the calm before it reads back,
// and no longer than the drill goes on.
func TestTheCalmEndsWithItsDrill(t *testing.T) {
	_, w := open(t)
	r := &run{Drill: &Drill{Quiet: fault.Duration(time.Minute)}, o: Options{Say: t.Logf}, w: w, h: model.NewHistory(), rep: &report.Report{ConvergedMS: -1}}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	calm := make(chan time.Duration, 1)
	if r.converge(over, calm); r.rep.ConvergedMS != -1 {
		t.Errorf("a drill that was ended converged after %v ms", r.rep.ConvergedMS)
	}
	since := r.h.Now() - time.Hour
	calm <- since
	if r.converge(t.Context(), calm); r.rep.ConvergedMS < millis(time.Hour) {
		t.Errorf("an hour after the calm all are equal; it said %v ms", r.rep.ConvergedMS)
	}
}
