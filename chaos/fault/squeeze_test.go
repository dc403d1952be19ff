package fault

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestASqueezeIsSeenAndUndone: a real process is put into a cgroup of its own, the
// kernel shows the limit, and all of it is gone afterwards, twice over.
func TestASqueezeIsSeenAndUndone(t *testing.T) {
	probe := filepath.Join(hierarchies, "cpu")
	if _, err := os.Stat(probe); err != nil {
		probe = hierarchies
	}
	probe = filepath.Join(probe, "qianma-test-probe")
	if err := os.Mkdir(probe, 0o755); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("cgroups cannot be made here: %v", err)
	}
	if err := os.Remove(probe); err != nil {
		t.Fatal(err)
	}
	p, w := open(t)
	ctx := t.Context()
	victim := exec.Command("sleep", "300")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = victim.Process.Kill(); _ = victim.Wait() }()
	p.Runs("unicom-nucleic-1", victim.Process.Pid)
	for _, s := range []Spec{
		{Fault: "cpu-starvation", Target: "unicom-nucleic-1", For: Duration(time.Minute), Share: .05},
		{Fault: "memory-pressure", Target: "unicom-nucleic-1", For: Duration(time.Minute), Bytes: 32 << 20},
	} {
		plan, err := Prepare(ctx, w, "drill-test-"+s.Fault, s, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := ActAll(ctx, w, plan.Inject); err != nil {
			t.Fatalf("%s: %v", s.Fault, err)
		}
		if err := Verify(ctx, w, plan); err == nil {
			t.Errorf("%s is in force and counts as gone", s.Fault)
		}
		for range 2 {
			if err := TakeAway(ctx, w, plan); err != nil {
				t.Fatalf("%s: %v", s.Fault, err)
			}
		}
		if in, err := groupHas(victim.Process.Pid, plan.Inject[0].Squeeze.Group); err != nil || in {
			t.Errorf("%s: still in the group, %v", s.Fault, err)
		}
	}
}
