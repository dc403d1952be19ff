package machinetest_test

import (
	"bytes"
	"context"
	"testing"

	"qianma/cluster/machine"
	"qianma/cluster/machine/machinetest"
	"qianma/cluster/problem"
)

// set is a machine whose facts are keys: a grow-only set that refuses "no" and
// does not understand "?".
type set struct{}

func (set) Decide(r machine.Reader, _ int64, c []byte) machine.Decision {
	if bytes.Equal(c, []byte("no")) {
		return machine.Decision{Status: machine.Rejected, Code: "refused"}
	}
	if _, ok := r.Get(c); ok {
		return machine.Decision{Status: machine.Duplicate}
	}
	return machine.Decision{Status: machine.Accepted, Fact: c}
}

func (set) Fold(tx machine.Tx, f []byte) error {
	if bytes.Equal(f, []byte("?")) {
		return problem.New(problem.Unsupported, "unknown fact", "upgrade")
	}
	tx.Set(f, nil)
	return nil
}

func (set) Reset() {}

func newSet(int) machine.Machine { return set{} }

func commands(s ...string) [][]byte {
	var out [][]byte
	for _, c := range s {
		out = append(out, []byte(c))
	}
	return out
}

func TestProposeNumbersFactsAndRemembersKeys(t *testing.T) {
	ctx := context.Background()
	p := machinetest.NewProposer(1, newSet)
	prop := machine.Proposal{Key: [16]byte{1}, Body: [16]byte{2}, Commands: commands("a", "no", "a", "b")}
	r, err := p.Propose(ctx, 0, prop)
	if err != nil || r.First != 1 || r.Last != 2 || r.Replayed {
		t.Fatalf("receipt %+v, %v", r, err)
	}
	want := []machine.Status{machine.Accepted, machine.Rejected, machine.Duplicate, machine.Accepted}
	for i, row := range r.Rows {
		if row.Status != want[i] {
			t.Errorf("row %d is %v, want %v", i, row.Status, want[i])
		}
	}
	again, err := p.Propose(ctx, 0, prop)
	if err != nil || !again.Replayed || again.First != 1 || again.Last != 2 {
		t.Fatalf("repeat: %+v, %v", again, err)
	}
	prop.Body = [16]byte{3}
	if _, err := p.Propose(ctx, 0, prop); !problem.Is(err, problem.KeyReused) {
		t.Fatalf("other body under the same key: %v", err)
	}
	if n := len(p.Blocks(0)); n != 1 {
		t.Fatalf("%d blocks, want 1", n)
	}
}

func TestClaimGuardsAKeyAcrossShards(t *testing.T) {
	ctx := context.Background()
	p := machinetest.NewProposer(3, newSet)
	key := [16]byte{0, 2}
	for range 2 {
		if err := p.Claim(ctx, key, [16]byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Claim(ctx, key, [16]byte{9}); !problem.Is(err, problem.KeyReused) {
		t.Fatalf("claim with another body: %v", err)
	}
}

func TestTwoProposersMergeByIngest(t *testing.T) {
	ctx := context.Background()
	a, b := machinetest.NewProposer(1, newSet), machinetest.NewProposer(1, newSet)
	a.Origin.Carrier, b.Origin.Carrier = "unicom", "mobile"
	for _, step := range []struct {
		p *machinetest.Proposer
		c string
	}{{a, "x"}, {a, "both"}, {b, "both"}, {b, "y"}, {b, "?"}} {
		if _, err := step.p.Propose(ctx, 0, machine.Proposal{Commands: commands(step.c)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Ingest(0, b.Blocks(0)); err != nil {
		t.Fatal(err)
	}
	if err := b.Ingest(0, a.Blocks(0)); err != nil {
		t.Fatal(err)
	}
	if k := a.State(0).Diff(b.State(0)); k != "" {
		t.Fatalf("states differ at %q", k)
	}
	if a.Aside(0) != 1 {
		t.Fatalf("%d facts set aside, want the one nobody understands", a.Aside(0))
	}
}

func TestRefusalsAwaitAndView(t *testing.T) {
	ctx := context.Background()
	p := machinetest.NewProposer(1, newSet)
	p.Now = func() int64 { return 77 }
	p.Refuse(1, problem.New(problem.Unavailable, "no leader", "wait"))
	if _, err := p.Propose(ctx, 0, machine.Proposal{Commands: commands("a")}); !problem.Is(err, problem.Unavailable) {
		t.Fatalf("got %v", err)
	}
	r, err := p.Propose(ctx, 0, machine.Proposal{Commands: commands("a")})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Await(ctx, r, machine.Replicated); got != machine.Committed {
		t.Fatalf("reached %v without the other carrier", got)
	}
	p.Replicate()
	if got := p.Await(ctx, r, machine.Replicated); got != machine.Replicated {
		t.Fatalf("reached %v", got)
	}
	v, err := p.View(ctx, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Propose(ctx, 0, machine.Proposal{Commands: commands("later")}); err != nil {
		t.Fatal(err)
	}
	if _, ok := v.Get([]byte("later")); ok || v.AsOf() != 77 {
		t.Fatalf("the view moved, or AsOf is %d", v.AsOf())
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSameStateNoticesAMachineThatMindsOrder(t *testing.T) {
	var caught bool
	machinetest.SameState(catcher{&caught}, func() machine.Machine { return last{} }, commands("a", "b"), commands("b", "a"), nil)
	if !caught {
		t.Fatal("last-writer-wins passed")
	}
}

type last struct{ set }

func (last) Fold(tx machine.Tx, f []byte) error {
	tx.Set([]byte("last"), f)
	return nil
}

type catcher struct{ caught *bool }

func (catcher) Helper()                 {}
func (c catcher) Fatalf(string, ...any) { *c.caught = true }
