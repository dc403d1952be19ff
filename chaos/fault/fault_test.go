package fault

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"qianma/chaos/world"
	"qianma/chaos/world/worldtest"
)

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

// specs has one of each fault, as a drill would ask for it.
var specs = map[string]Spec{
	"kill":                {Target: "carrier:unicom", For: Duration(time.Minute)},
	"pause":               {Target: "one(nucleic@unicom)", For: Duration(time.Minute)},
	"destroy":             {Target: "mobile-display-1", For: Duration(time.Minute)},
	"restart":             {Target: "all(display)"},
	"delete-broker-store": {Target: "unicom-backbone-1"},
	"flip-bit":            {Target: "unicom-nucleic-2"},
	"rotate-authority":    {},
	"expire-certificate":  {Target: "unicom-nucleic-2", For: Duration(time.Minute)},
	"poison":              {Target: "carrier:unicom"},
	"panic":               {Target: "unicom-nucleic-2", Point: "before-apply"},
	"disk-full":           {Target: "unicom-nucleic-2", For: Duration(time.Minute)},
	"disk-slow":           {Target: "unicom-nucleic-2", For: Duration(time.Minute), Delay: Duration(time.Second)},
	"fsync-error":         {Target: "unicom-nucleic-2", For: Duration(time.Minute)},
	"fsync-lie":           {Target: "unicom-nucleic-2", For: Duration(time.Minute)},
	"omit":                {Target: "unicom-nucleic-2", For: Duration(time.Minute), Job: "publish-facts", Nth: 3},
	"power-cut":           {Target: "everything", For: Duration(time.Minute)},
	"clock-jump":          {Target: "unicom-nucleic-2", For: Duration(time.Minute), Jump: Shift(-time.Hour)},
	"clock-drift":         {Target: "unicom-nucleic-2", For: Duration(time.Minute), Rate: 0.1},
	"surge":               {For: Duration(time.Minute), Times: 10},
	"cut":                 {Target: "link:unicom-mobile", For: Duration(time.Minute)},
	"delay":               {Target: "link:unicom->mobile", For: Duration(time.Minute), Delay: Duration(time.Second)},
	"narrow":              {Target: "link:unicom-mobile", For: Duration(time.Minute), Bytes: 1000},
	"drop":                {Target: "link:unicom-mobile", For: Duration(time.Minute), Share: .5},
	"refuse":              {Target: "link:unicom-nucleic-1<->*", For: Duration(time.Minute)},
	"reset":               {Target: "link:*-*"},
	"flap":                {Target: "link:*<->unicom-middlestore-1", For: Duration(time.Minute), Every: Duration(time.Second)},
	"member-removed":      {Target: "one(nucleic@unicom)", For: Duration(time.Minute)},
	"member-added":        {Target: "one(display@mobile)", For: Duration(time.Minute)},
	"member-replaced":     {Target: "one(vaccine@mobile)", For: Duration(time.Minute)},
	"cpu-starvation":      {Target: "one(nucleic@unicom)", For: Duration(time.Minute), Share: .05},
	"memory-pressure":     {Target: "one(nucleic@unicom)", For: Duration(time.Minute), Bytes: 16 << 20},
	"packet-loss":         {Target: "link:unicom-mobile", For: Duration(time.Minute), Share: .05},
	"packet-duplicate":    {Target: "link:unicom->mobile", For: Duration(time.Minute), Share: .05},
	"packet-corrupt":      {Target: "link:unicom-mobile", For: Duration(time.Minute), Share: .01},
	"packet-reorder":      {Target: "link:unicom-mobile", For: Duration(time.Minute), Share: .25},
	"packet-delay":        {Target: "link:mobile->unicom", For: Duration(time.Minute), Delay: Duration(100 * time.Millisecond), Jitter: Duration(50 * time.Millisecond)},
	"packet-rate":         {Target: "link:unicom-mobile", For: Duration(time.Minute), Bytes: 64000},
	"ring":                {Target: "all(nucleic@unicom)", For: Duration(time.Minute)},
}

// TestEveryFaultHasAWayBack: each fault of the catalogue plans something, names
// how it is undone and what the system must show, and its plan survives being
// written down.
func TestEveryFaultHasAWayBack(t *testing.T) {
	_, w := open(t)
	atOnce := []string{"poison", "surge", "rotate-authority"} // nothing is left to undo
	for _, name := range Names() {
		s, ok := specs[name]
		if !ok {
			t.Errorf("%s is not tested", name)
			continue
		}
		s.Fault = name
		p, err := Prepare(t.Context(), w, "id", s, 1)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !slices.Contains(atOnce, name) && (len(p.Inject) == 0 || len(p.Undo) == 0 || len(p.Verify) == 0) {
			t.Errorf("%s: do %v, undo %v, shown by %v", name, p.Inject, p.Undo, p.Verify)
		}
		if clock := strings.HasPrefix(name, "clock-"); clock != (p.Tells == clockOff) {
			t.Errorf("%s: told by %q", name, p.Tells) // clients feel nothing of a wrong clock
		}
		for _, a := range slices.Concat(p.Inject, p.Undo, p.Verify) {
			if acts[a.Do] == nil {
				t.Errorf("%s: nobody knows how to %s", name, a.Do)
			}
		}
		raw, err := json.Marshal(p)
		var back Plan
		if err != nil || json.Unmarshal(raw, &back) != nil || !reflect.DeepEqual(p, back) {
			t.Errorf("%s: written down as %s and read otherwise (%v)", name, raw, err)
		}
	}
}

func TestTargets(t *testing.T) {
	_, w := open(t)
	for text, want := range map[string]int{
		"unicom-nucleic-1": 1, "one(vaccine@mobile)": 1, "minority(display@unicom)": 1, "all(nucleic@unicom)": 3, "all(nucleic)": 6,
		"carrier:mobile": 12, "everything": 24, "link:unicom-mobile": 0, "link:unicom-nucleic-1->mobile": 1,
		"nobody": -1, "all(nothing)": -1, "one(nucleic)": -1, "some(nucleic@unicom)": -1, "carrier:moon": -1, "link:unicom": -1, "leader(nucleic@unicom)": -1,
	} {
		got, err := Find(t.Context(), w, text, 7)
		if want < 0 {
			if err == nil {
				t.Errorf("%s: %v, want an error", text, got.Names())
			}
			continue
		}
		again, _ := Find(t.Context(), w, text, 7)
		if err != nil || len(got.Processes) != want || !slices.Equal(got.Names(), again.Names()) {
			t.Errorf("%s: %v and %v, %v; want %d", text, got.Names(), again.Names(), err, want)
		}
	}
}

// TestAnyOneIsNeverAlone: a seed may pick any process that others stand in for,
// of every subsystem and carrier, and none that is all of its cluster.
func TestAnyOneIsNeverAlone(t *testing.T) {
	_, w := open(t)
	met := map[string]bool{}
	for seed := range uint64(300) {
		got, err := Find(t.Context(), w, "one(*)", seed)
		if err != nil || len(got.Processes) != 1 {
			t.Fatalf("%v, %v", got.Names(), err)
		}
		p := got.Processes[0]
		if len(w.Topology.Select(p.Carrier, p.Subsystem)) < 2 {
			t.Fatalf("%s is alone", p.Name)
		}
		met[p.Name] = true
	}
	for _, p := range w.Topology.Processes {
		if len(w.Topology.Select(p.Carrier, p.Subsystem)) > 1 && !met[p.Name] {
			t.Errorf("%s was never picked", p.Name)
		}
	}
}

// TestWhoIsAlone: only a cut from everybody takes a process from its group.
func TestWhoIsAlone(t *testing.T) {
	_, w := open(t)
	for target, want := range map[string]int{"link:unicom-nucleic-1<->*": 1, "link:unicom-mobile": 0, "link:unicom-nucleic-1->*": 0} {
		p, err := Prepare(t.Context(), w, "id", Spec{Fault: "cut", Target: target, For: Duration(time.Minute)}, 1)
		if err != nil || len(p.Down) != want {
			t.Errorf("%s: down %v, %v", target, p.Down, err)
		}
	}
}

// TestNothingAliveIsWiped: files are left alone while a process may use them,
// and whatever lies outside the province always.
func TestNothingAliveIsWiped(t *testing.T) {
	_, w := open(t)
	ctx := t.Context()
	keep := filepath.Join(w.Data, "unicom", "unicom-nucleic-1", "state")
	wipeIt := Action{Do: "wipe", On: "unicom-nucleic-1"}
	if err := Act(ctx, w, wipeIt); err == nil || !strings.Contains(err.Error(), "left alone") {
		t.Errorf("wiping what runs: %v", err)
	}
	if err := ActAll(ctx, w, []Action{{Do: "hold", On: "unicom-nucleic-1", For: Duration(time.Minute)}, {Do: "kill", On: "unicom-nucleic-1"}}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"../../../..", "../unicom-nucleic-2"} {
		if err := Act(ctx, w, Action{Do: "wipe", On: "unicom-nucleic-1", Path: path}); err == nil {
			t.Errorf("%s was wiped", path)
		}
	}
	if _, err := os.Stat(keep); err != nil {
		t.Fatal(err)
	}
	if err := Act(ctx, w, wipeIt); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(keep); err == nil {
		t.Error("nothing was wiped")
	}
}

// TestOneBitOnly: a flip changes one bit of one file, the same for one seed.
func TestOneBitOnly(t *testing.T) {
	p, w := open(t)
	ctx := t.Context()
	dir := filepath.Join(p.Data, "unicom", "unicom-nucleic-1", "state")
	clean := make([]byte, 3*fileMin)
	path := filepath.Join(dir, "000001.sst")
	flipped := func() (n, at int) {
		if err := os.WriteFile(path, clean, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Act(ctx, w, Action{Do: "flip", On: "unicom-nucleic-1", Seed: 5}); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range raw {
			for ; b != 0; b &= b - 1 {
				n, at = n+1, i
			}
		}
		return n, at
	}
	if err := ActAll(ctx, w, []Action{{Do: "hold", On: "unicom-nucleic-1", For: Duration(time.Minute)}, {Do: "kill", On: "unicom-nucleic-1"}}); err != nil {
		t.Fatal(err)
	}
	n, at := flipped()
	m, again := flipped()
	if n != 1 || m != 1 || at != again {
		t.Errorf("%d bits at %d, then %d at %d", n, at, m, again)
	}
}

// TestHarmToPackets: a fault on packets is shown by the line itself while it is
// there and when it is gone; it is between whole carriers, in one direction or
// both.
func TestHarmToPackets(t *testing.T) {
	p, w := open(t)
	ctx := t.Context()
	plan, err := Prepare(ctx, w, "drill-1", Spec{Fault: "packet-loss", Target: "link:unicom-mobile", For: Duration(time.Minute), Share: .5}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := ActAll(ctx, w, plan.Inject); err != nil {
		t.Fatal(err)
	}
	if got := p.Touched(); len(got) != 2 {
		t.Errorf("in force: %v", got)
	}
	if err := Verify(ctx, w, plan); err == nil {
		t.Error("packets are lost and the fault counts as gone")
	}
	if err := ActAll(ctx, w, plan.Inject); err != nil { // the same again is the same
		t.Error(err)
	}
	if err := TakeAway(ctx, w, plan); err != nil {
		t.Error(err)
	}
	if got := p.Touched(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	for _, target := range []string{"link:unicom-nucleic-1->mobile", "carrier:unicom", "link:*-mobile", ""} {
		if _, err := Prepare(ctx, w, "x", Spec{Fault: "packet-loss", Target: target, For: 1, Share: .5}, 1); err == nil {
			t.Errorf("packets of %q were to be harmed", target)
		}
	}
	if _, err := Prepare(ctx, w, "x", Spec{Fault: "packet-loss", Target: "link:unicom-mobile", For: 1}, 1); err == nil {
		t.Error("a loss of nothing was accepted")
	}
}

func TestWhatIsMissingIsSaidSo(t *testing.T) {
	p, _ := open(t)
	for _, file := range []string{"links.json", "wire.json"} {
		if err := os.Remove(filepath.Join(p.Data, file)); err != nil {
			t.Fatal(err)
		}
	}
	w, err := world.Open(p.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := Prepare(t.Context(), w, "id", Spec{Fault: "cut", Target: "link:unicom-mobile", For: 1}, 1); err != ErrNoLinks {
		t.Errorf("error %v", err)
	}
	if _, err := Prepare(t.Context(), w, "id", Spec{Fault: "packet-loss", Target: "link:unicom-mobile", For: 1, Share: 1}, 1); err != ErrNoNamespaces {
		t.Errorf("error %v", err)
	}
}
