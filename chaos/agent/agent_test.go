package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"qianma/chaos/fault"
	"qianma/chaos/link"
	"qianma/chaos/world"
	"qianma/chaos/world/worldtest"
	"qianma/cluster/mishap"
)

// The test binary plays the other processes too: the agent, and a drill tool
// that can be killed.
const (
	playEnv = "QIANMA_CHAOS_PLAY"
	dataEnv = "QIANMA_CHAOS_DATA"
)

func TestMain(m *testing.M) {
	switch os.Getenv(playEnv) {
	case "agent":
		if err := Serve(context.Background(), os.Getenv(dataEnv), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(5)
		}
		os.Exit(0)
	case "tool":
		os.Exit(tool())
	}
	os.Exit(m.Run())
}

// tool is a drill that brings one fault after another until it is killed.
func tool() int {
	ctx := context.Background()
	w, err := world.Open(os.Getenv(dataEnv))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for n := 0; ; n++ {
		p, err := fault.Prepare(ctx, w, fmt.Sprintf("%stool-%d", Marked, n), specs[n%len(specs)], uint64(n))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		h, err := Raise(ctx, command("agent", w.Data), p)
		fmt.Println(n)
		if err != nil {
			return 1
		}
		if h.Undo(ctx) != nil {
			return 1
		}
	}
}

var specs = []fault.Spec{
	{Fault: "pause", Target: "one(nucleic@unicom)", For: fault.Duration(time.Minute)},
	{Fault: "kill", Target: "carrier:mobile", For: fault.Duration(time.Minute)},
	{Fault: "cut", Target: "link:unicom-mobile", For: fault.Duration(time.Minute)},
	{Fault: "destroy", Target: "all(display@mobile)", For: fault.Duration(time.Minute)},
	{Fault: "restart", Target: "all(vaccine@unicom)"},
	{Fault: "disk-full", Target: "one(nucleic@mobile)", For: fault.Duration(time.Minute)},
	{Fault: "clock-jump", Target: "all(display@unicom)", Jump: fault.Shift(-time.Hour), For: fault.Duration(time.Minute)},
}

// command runs this binary as another; the environment says as which.
func command(play, data string) []string {
	return []string{"/usr/bin/env", playEnv + "=" + play, dataEnv + "=" + data, os.Args[0], "-test.run=^$"}
}

// eventually waits for a fact.
func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !fact(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func open(t *testing.T, p *worldtest.Province) *world.World {
	t.Helper()
	w, err := world.Open(p.Data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func prepare(t *testing.T, w *world.World, id string, s fault.Spec) fault.Plan {
	t.Helper()
	p, err := fault.Prepare(t.Context(), w, id, s, 1)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAFaultComesAndGoes(t *testing.T) {
	p := worldtest.Start(t)
	w := open(t, p)
	for _, s := range specs[:4] {
		h, err := Raise(t.Context(), command("agent", p.Data), prepare(t, w, Marked+s.Fault, s))
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Done(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(p.Touched()) == 0 || len(Open(At(w.Data))) != 1 {
			t.Errorf("%s: touched %v, journals %v", s.Fault, p.Touched(), Open(At(w.Data)))
		}
		if err := h.Undo(t.Context()); err != nil {
			t.Error(err)
		}
		if left := p.Touched(); len(left) > 0 || len(Open(At(w.Data))) != 0 || h.Undone.IsZero() {
			t.Errorf("%s left %v, journals %v", s.Fault, left, Open(At(w.Data)))
		}
	}
	if _, err := os.Stat(filepath.Join(p.Data, "mobile", "mobile-display-1")); err == nil {
		t.Error("what was destroyed is still there")
	}
}

// TestKilledAtAnyMoment kills the drill tool at 100 moments all over its work.
// Nothing may be left: no pause, no hold, no rule, no journal.
func TestKilledAtAnyMoment(t *testing.T) {
	p := worldtest.Start(t)
	w := open(t, p)
	r := rand.New(rand.NewPCG(1, 2))
	times := 100
	if testing.Short() {
		times = 10
	}
	for i := range times {
		c := exec.Command(command("tool", p.Data)[0], command("tool", p.Data)[1:]...)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadFull(out, make([]byte, 2*r.IntN(4))) // some steps are over
		time.Sleep(rand.N(20 * time.Millisecond))          // a moment within the next
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, out)
		_ = c.Wait()
		// An agent that was started may not have touched anything yet: what is left
		// is known when it has ended.
		eventually(t, "the agent has ended", func() bool { return !plays(t, p.Data) })
		left, err := Leftovers(t.Context(), w)
		if left = slices.Concat(left, p.Touched(), Open(At(p.Data))); len(left) > 0 || err != nil {
			t.Fatalf("run %d left %v, %v", i, left, err)
		}
	}
}

// plays reports whether a tool or an agent of that province runs, as the system
// shows.
func plays(t *testing.T, data string) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		raw, _ := os.ReadFile(file) // of one that has ended there is nothing to read
		return bytes.Contains(raw, []byte(dataEnv+"="+data))
	})
}

// TestADeadAgentIsRecovered: when tool and agent die together, the journal
// tells the next one what to undo.
func TestADeadAgentIsRecovered(t *testing.T) {
	p := worldtest.Start(t)
	w := open(t, p)
	h, err := Raise(t.Context(), command("agent", p.Data), prepare(t, w, Marked+"x", specs[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Done(t.Context()); err != nil {
		t.Fatal(err)
	}
	if undone, err := Recover(t.Context(), w); len(undone) != 0 || err != nil {
		t.Fatalf("took %v from an agent that lives, %v", undone, err)
	}
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = h.Undo(t.Context())
	if len(p.Touched()) == 0 {
		t.Fatal("nothing was left to recover")
	}
	if undone, err := Recover(t.Context(), w); len(undone) != 1 || err != nil {
		t.Errorf("undone %v, %v", undone, err)
	}
	if left := p.Touched(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// TestSweepNeedsNoJournal: the system itself says what is left.
func TestSweepNeedsNoJournal(t *testing.T) {
	p := worldtest.Start(t)
	w := open(t, p)
	ctx := t.Context()
	for _, err := range []error{
		w.Hold(ctx, "unicom-nucleic-1", time.Minute), w.Do(ctx, "unicom-nucleic-1", "kill"), w.Do(ctx, "mobile-vaccine-2", "pause"),
		w.SetRule(ctx, link.Rule{ID: Marked + "9"}, time.Minute),
		w.Order(ctx, "unicom-display-1", mishap.Order{ID: Marked + "8", Kind: mishap.DiskFull, At: time.Now(), Until: time.Now().Add(time.Minute)}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := Leftovers(ctx, w); len(left) != 5 {
		t.Errorf("left %v", left)
	}
	if err := Sweep(ctx, w); err != nil {
		t.Error(err)
	}
	if left := p.Touched(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// TestUndoIsNotBelievedUntilShown: an undo that the system does not confirm is
// no undo, and its journal stays.
func TestUndoIsNotBelievedUntilShown(t *testing.T) {
	p := worldtest.Start(t)
	w := open(t, p)
	plan := prepare(t, w, Marked+"y", specs[0])
	for i := range plan.Verify {
		plan.Verify[i].For = fault.Duration(3 * time.Second)
	}
	if err := fault.ActAll(t.Context(), w, plan.Inject); err != nil {
		t.Fatal(err)
	}
	p.Refuse("resume", plan.Targets[0], true)
	// Who asks gives up in the middle of the second try, which can tell nothing;
	// what the first one found must be said all the same.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for range 2 {
			<-p.Refused()
		}
		cancel()
	}()
	if err := fault.TakeAway(ctx, w, plan); err == nil || !strings.Contains(err.Error(), plan.Targets[0]+" is ") {
		t.Errorf("error %v", err)
	}
	p.Refuse("resume", plan.Targets[0], false)
	if err := fault.TakeAway(t.Context(), w, plan); err != nil {
		t.Error(err)
	}
}

// TestTheLever stops a fault that is in force and refuses the next.
func TestTheLever(t *testing.T) {
	p := worldtest.Start(t)
	w := open(t, p)
	home := At(w.Data)
	h, err := Raise(t.Context(), command("agent", p.Data), prepare(t, w, Marked+"z", specs[2]))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home.Lever(), []byte("ops"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the agent lets go", func() bool { return len(p.Touched()) == 0 && len(Open(home)) == 0 })
	if err := h.Undo(t.Context()); err != nil {
		t.Error(err)
	}
	if h, err := Raise(t.Context(), command("agent", p.Data), prepare(t, w, Marked+"w", specs[2])); err == nil {
		t.Error("a fault came although the lever is pulled")
		_ = h.Undo(t.Context())
	}
	if len(p.Touched()) > 0 {
		t.Errorf("touched %v", p.Touched())
	}
}

// TestAFaultThatCannotComeIsSaid: an injection that fails half way is undone,
// and the drill hears that the fault never was.
func TestAFaultThatCannotComeIsSaid(t *testing.T) {
	p := worldtest.Start(t)
	w := open(t, p)
	plan := prepare(t, w, Marked+"half", specs[1])
	p.Refuse("kill", plan.Targets[3], true)
	h, err := Raise(t.Context(), command("agent", p.Data), plan)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Done(t.Context()); err == nil || !strings.Contains(err.Error(), "it fails") {
		t.Errorf("error %v", err)
	}
	if err := h.Undo(t.Context()); err != nil {
		t.Error(err)
	}
	if left := p.Touched(); len(left) > 0 || len(Open(At(w.Data))) != 0 {
		t.Errorf("left %v", left)
	}
}
