package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"qianma/cluster/fact"
	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

// Goal: any replica takes a proposal, and every replica ends with the same
// facts and keys.
func TestProposeAnywhere(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	total := 0
	for i, n := range w.up() {
		r := n.put(t, toyCommand(uint64(i), "x"), toyCommand(uint64(i), "y"), toyCommand(uint64(i), "x"), toyCommand(9, "!"))
		want := []machine.Row{{Status: machine.Accepted}, {Status: machine.Conflicts, Code: "toy_conflict"}, {Status: machine.Duplicate}, {Status: machine.Rejected, Code: "toy_refused"}}
		if len(r.Rows) != 4 || r.Rows[0] != want[0] || r.Rows[1] != want[1] || r.Rows[2] != want[2] || r.Rows[3] != want[3] {
			t.Fatalf("rows %+v, want %+v", r.Rows, want)
		}
		if r.Level != machine.Committed || r.First != uint64(total+1) || r.Last != uint64(total+2) || r.Replayed {
			t.Fatalf("receipt %+v after %d facts", r, total)
		}
		var o fact.Origin
		until(t, "the origin to be known everywhere", func() bool {
			var ok bool
			o, ok = n.Own(0)
			return ok
		})
		if r.Origin != o.String() || o.Carrier != "unicom" || o.Subsystem != "toy" {
			t.Fatalf("origin %q, own %q", r.Origin, o)
		}
		total += 2
	}
	w.equal()
	if got := len(w.up()[2].history(t)); got != total {
		t.Fatalf("%d facts in the log, want %d", got, total)
	}
}

// Goal: a linearizable view anywhere sees every write acknowledged anywhere
// before it was asked for.
func TestLinearizableView(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	for i := range 30 {
		w.up()[i%3].put(t, toyCommand(uint64(i), "x"))
		for _, n := range w.up() {
			v, err := n.View(ctxFor(t), 0, true)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := v.Get(append([]byte("v"), toyCommand(uint64(i), "x")...)); !ok {
				t.Fatalf("%s does not see write %d", n.name, i)
			}
			if v.AsOf() == 0 {
				t.Fatal("a view that holds facts has no time")
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Goal: a peek reads what a view of the same replica reads, absence too.
func TestPeek(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	n := w.leader()
	n.put(t, toyCommand(1, "x"))
	key := append([]byte("v"), toyCommand(1, "x")...)
	v, err := n.View(ctxFor(t), 0, true)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := v.Get(key)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if got, found, err := n.Peek(0, key); err != nil || !found || !bytes.Equal(got, want) {
		t.Fatalf("a peek read %q, %v (%v), a view %q", got, found, err, want)
	}
	if got, found, err := n.Peek(0, []byte("nobody wrote this")); err != nil || found || got != nil {
		t.Fatalf("a peek found %q (%v)", got, err)
	}
	if _, _, err := n.Peek(99, key); err == nil {
		t.Fatal("a peek into a shard that does not exist")
	}
}

// BenchmarkReadOneKey is what a code costs its display node: a view of one read, and
// a peek.
func BenchmarkReadOneKey(b *testing.B) {
	w := three(b, nil)
	n := w.leader()
	n.put(b, toyCommand(1, "x"))
	key := append([]byte("v"), toyCommand(1, "x")...)
	b.Run("view", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v, err := n.View(context.Background(), 0, false)
			if err != nil {
				b.Fatal(err)
			}
			v.Get(key)
			if err := v.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("peek", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, found, err := n.Peek(0, key); !found || err != nil {
				b.Fatal(err)
			}
		}
	})
}

// Goal: without a majority nothing is acknowledged and no linearizable view is
// opened; a local view is.
func TestNoMajority(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	lead := w.leader()
	lead.put(t, toyCommand(1, "x"))
	w.equal()
	for _, n := range w.up() {
		if n != lead {
			n.shut()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
	defer cancel()
	_, err := lead.Propose(ctx, 0, machine.Proposal{Commands: [][]byte{toyCommand(2, "x")}})
	if !problem.Is(err, problem.Unknown) && !problem.Is(err, problem.Unavailable) {
		t.Fatalf("propose without a majority: %v", err)
	}
	if _, err := lead.View(ctx, 0, true); !problem.Is(err, problem.Unavailable) {
		t.Fatalf("linearizable view without a majority: %v", err)
	}
	if lead.dump(t, false) == "" {
		t.Fatal("the local view is empty")
	}
}

// Goal: an idempotency key gives the same receipt for the same body, at every
// replica and after leader changes, and refuses another body.
func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	key, body := [16]byte{1}, [16]byte{2}
	p := machine.Proposal{Body: body, Commands: [][]byte{toyCommand(1, "x"), toyCommand(2, "!")}}
	var first machine.Receipt
	until(t, "a key's first receipt", func() bool { // an election may lose it, and it comes as a repeat
		var err error
		p.Key = newKey()
		if first, err = w.up()[0].Propose(ctxFor(t), 0, p); err != nil {
			t.Fatal(err)
		}
		return !first.Replayed
	})
	again := func() {
		t.Helper()
		for _, n := range w.up() {
			r, err := n.Propose(ctxFor(t), 0, p)
			if err != nil || !r.Replayed || r.First != first.First || r.Last != first.Last || r.Origin != first.Origin || fmt.Sprint(r.Rows) != fmt.Sprint(first.Rows) {
				t.Fatalf("repeat at %s: %+v, %v; first was %+v", n.name, r, err, first)
			}
			other := p
			other.Body = [16]byte{3}
			if _, err := n.Propose(ctxFor(t), 0, other); !problem.Is(err, problem.KeyReused) {
				t.Fatalf("another body at %s: %v", n.name, err)
			}
		}
	}
	again()
	lead := w.leader()
	lead.shut()
	w.leader()
	again()
	w.start(lead.name)
	again()
	if err := w.leader().Claim(ctxFor(t), [16]byte{7}, body); err != nil {
		t.Fatal(err)
	}
	if err := w.follower().Claim(ctxFor(t), [16]byte{7}, body); err != nil {
		t.Fatalf("claim repeated: %v", err)
	}
	if err := w.follower().Claim(ctxFor(t), [16]byte{7}, key); !problem.Is(err, problem.KeyReused) {
		t.Fatalf("claim with another body: %v", err)
	}
	w.equal()
}

// Goal: callers that come together share entries; all get their own receipt
// and no address is given twice.
func TestManyCallers(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	const callers, each = 48, 15
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var wg sync.WaitGroup
	for c := range callers {
		n := w.up()[c%3]
		wg.Go(func() {
			for i := range each {
				// Under a key, so that a leader change on a slow machine changes nothing.
				r, err := n.Propose(ctxFor(t), 0, machine.Proposal{Key: [16]byte{1, byte(c), byte(i)}, Body: [16]byte{1},
					Commands: [][]byte{toyCommand(uint64(c*each+i), "x"), toyCommand(uint64(c*each+i), "y")}})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for s := r.First; s <= r.Last; s++ {
					if seen[s] {
						t.Errorf("address %d was given twice", s)
					}
					seen[s] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 2*callers*each {
		t.Fatalf("%d addresses, want %d", len(seen), 2*callers*each)
	}
	w.equal()
}

// Goal: facts that this build does not understand keep their place and are
// counted; a build that understands them folds them when it starts. Rules that
// panic harm only the command they panic on.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	understands := false
	w := three(t, func(c *Config) { c.Machine = func(int) machine.Machine { return &toy{understands: understands} } })
	r := w.leader().put(t, toyCommand(1, "?1"), toyCommand(1, "plain"), toyCommand(1, "#"), toyCommand(1, "*"))
	want := []machine.Status{machine.Accepted, machine.Accepted, machine.Conflicts, machine.Rejected}
	for i, s := range want {
		if r.Rows[i].Status != s {
			t.Fatalf("row %d is %v, want %v", i, r.Rows[i].Status, s)
		}
	}
	w.equal()
	for _, n := range w.up() {
		if q := n.Status()[0].Quarantined; q != 2 {
			t.Fatalf("%s set %d facts aside, want 2", n.name, q)
		}
		if got := len(n.history(t)); got != 3 {
			t.Fatalf("%s holds %d facts, want 3", n.name, got)
		}
	}
	understands = true
	for _, name := range abc {
		w.node(name).shut()
		w.start(name)
		w.leader()
		until(t, "only the fact that panics for ever to be set aside", func() bool {
			return w.node(name).Status()[0].Quarantined == 1
		})
	}
	w.equal()
}

// Goal: blocks of the other carrier are taken in once, in order, whoever
// repeats them; gaps and contradictions are refused, and what came before them
// is not; receipts become
// replicated when the other carrier reports, on every replica.
func TestIngestAndReplicated(t *testing.T) {
	t.Parallel()
	home, away := three(t, nil), three(t, func(c *Config) { c.Carrier = "mobile" })
	for i := range 5 {
		away.leader().put(t, toyCommand(uint64(i), "away"))
	}
	o, _ := away.leader().Own(0)
	blocks, err := away.leader().Blocks(0, o, 0, 1<<20)
	if err != nil || len(blocks) != 5 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	if err := home.ingest(blocks[1:]); !errors.Is(err, fact.ErrGap) {
		t.Fatalf("a gap: %v", err)
	}
	if err := home.ingest([]fact.Block{blocks[0], blocks[2], blocks[3]}); !errors.Is(err, fact.ErrGap) {
		t.Fatalf("a gap behind what follows: %v", err)
	}
	if got := home.leader().Marks(0)[o].Seq; got != blocks[0].Last() {
		t.Fatalf("a block was missing behind %d, and %d is held", blocks[0].Last(), got)
	}
	if err := home.ingest(blocks[:3]); err != nil {
		t.Fatal(err)
	}
	if err := home.ingest(blocks); err != nil {
		t.Fatalf("with repeats: %v", err)
	}
	forged := blocks[4]
	forged.Body = append([]byte(nil), forged.Body...)
	forged.Body[len(forged.Body)-1] ^= 1
	if err := home.ingest([]fact.Block{forged}); !errors.Is(err, fact.ErrDivergent) {
		t.Fatalf("a contradiction: %v", err)
	}
	own, _ := home.leader().Own(0)
	if err := home.ingest([]fact.Block{{Origin: own, First: 1, Count: 1, Body: []byte{0}}}); err == nil {
		t.Fatal("a block of our own living origin was taken in")
	}
	if err := home.follower().Ingest(ctxFor(t), 0, blocks); err != nil && !problem.Is(err, problem.Unavailable) {
		t.Fatalf("ingest at a follower: %v", err)
	}
	home.equal()
	if home.leader().Marks(0)[o] != away.leader().Marks(0)[o] {
		t.Fatal("the carriers' marks differ")
	}

	r := home.follower().put(t, toyCommand(50, "home"))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if got := home.follower().Await(ctx, r, machine.Replicated); got != machine.Committed {
		t.Fatalf("replicated before the other carrier said so: %v", got)
	}
	done := make(chan machine.Level, 3)
	var wg sync.WaitGroup
	for _, n := range home.up() {
		wg.Go(func() { done <- n.Await(ctxFor(t), r, machine.Replicated) })
	}
	until(t, "every replica to hear of it", func() bool { // from whoever leads by then
		lead := home.leader()
		lead.PeerMark(0, map[fact.Origin]fact.Mark{own: lead.Marks(0)[own]})
		return len(done) == 3
	})
	wg.Wait()
	for range 3 {
		if got := <-done; got != machine.Replicated {
			t.Fatalf("level %v, want replicated", got)
		}
	}
	// Rows that were all held already are replicated once all that is held is.
	dup := home.follower().put(t, toyCommand(50, "home"))
	if dup.Last != 0 {
		t.Fatalf("receipt of a duplicate: %+v", dup)
	}
	if got := home.follower().Await(ctxFor(t), dup, machine.Replicated); got != machine.Replicated {
		t.Fatalf("level of a duplicate: %v", got)
	}
}

// Goal: a queue that is full refuses at once and does nothing.
func TestOverload(t *testing.T) {
	t.Parallel()
	w := three(t, func(c *Config) { c.Tuning.QueueCalls = 4 })
	lead := w.leader()
	for _, n := range w.up() {
		if n != lead {
			n.shut()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[problem.Code]int{}
	for i := range 400 {
		wg.Go(func() {
			_, err := lead.Propose(ctx, 0, machine.Proposal{Commands: [][]byte{toyCommand(uint64(i), "x")}})
			mu.Lock()
			defer mu.Unlock()
			codes[problem.From(err).Code]++
		})
	}
	wg.Wait()
	if codes[problem.Overloaded] == 0 || codes[problem.Internal] != 0 {
		t.Fatalf("refusals by code: %v", codes)
	}
	big := machine.Proposal{Commands: make([][]byte, MaxCommands+1)}
	if _, err := lead.Propose(ctxFor(t), 0, big); !problem.Is(err, problem.TooLarge) {
		t.Fatalf("too many commands: %v", err)
	}
}
