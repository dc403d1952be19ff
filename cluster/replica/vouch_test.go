package replica

import (
	"context"
	"testing"
	"time"

	"qianma/cluster/fact"
)

// Goal: no replica vouches for a moment at which something was acknowledged
// that it lacks. Method: a follower that knew everything is cut off, a write is
// acknowledged without it, and it is asked how far it is, as another process
// asks. When it is back its word reaches further again, by itself.
func TestALaggingReplicaDoesNotVouch(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	w.leader().put(t, toyCommand(1, "x"))
	f := w.follower()
	// told is the follower's word and the moment that it vouches for.
	told := func() (fact.Catalog, time.Time) {
		asked := time.Now()
		c, err := Remote{Calls: f.pool, Process: f.name}.Catalog(ctxFor(t))
		if err != nil {
			t.Fatal(err)
		}
		return c, c.Since(asked)
	}
	until(t, "the follower to know", func() bool { c, _ := told(); return c.Vouched })
	w.split([]string{f.name}, w.besides(f))
	r := w.leaderOf(w.besides(f)...).put(t, toyCommand(2, "y"))
	acked := time.Now()
	own, err := fact.ParseOrigin(r.Origin)
	if err != nil {
		t.Fatal(err)
	}
	g, err := f.group(0)
	if err != nil {
		t.Fatal(err)
	}
	for ended := 0; ended < 2; { // rounds that fail, and what they leave behind
		if done := g.vouchRound(); done != nil {
			<-done
			ended++
		}
		if c, since := told(); since.After(acked) && c.Marks[own].Seq < r.Last {
			t.Errorf("it vouches for %s after a write that it lacks", since.Sub(acked))
		}
	}
	w.heal()
	until(t, "it to know again", func() bool {
		c, since := told()
		if since.After(acked) && c.Marks[own].Seq < r.Last {
			t.Fatal("back in touch it vouches for what it lacks")
		}
		return since.After(acked)
	})
}

// Goal: who asks is answered, also by a replica that can ask nobody itself; and
// one round serves all who ask together.
func TestVouchingHoldsNobodyUp(t *testing.T) {
	w := newWorld(t, abc...)
	w.tune = func(c *Config) { c.Tuning.RPCTimeout = time.Minute }
	alone := w.start("a")
	asked := time.Now()
	c, err := alone.Source(0).Catalog(context.Background())
	if err != nil || c.Vouched {
		t.Errorf("%+v (%v), want marks that nobody vouches for", c, err)
	}
	if took := time.Since(asked); took > alone.cfg.Tuning.RPCTimeout/2 {
		t.Errorf("it took %s to say so", took)
	}
	g, err := alone.group(0)
	if err != nil {
		t.Fatal(err)
	}
	one := g.vouchRound()
	if two := g.vouchRound(); one == nil || one != two {
		t.Error("a second round began beside the first")
	}
}

// Goal: what is vouched for crosses the wire, and a word without it, as an
// older build sends it, vouches for nothing.
func TestCatalogCrosses(t *testing.T) {
	marks := map[fact.Origin]fact.Mark{{Carrier: "unicom", Subsystem: "toy", Incarnation: 7}: {Seq: 9, Digest: fact.Digest{1}}}
	for _, in := range []fact.Catalog{{Marks: marks}, {Marks: marks, Vouched: true, Age: 3 * time.Second}, {Marks: marks, Vouched: true}} {
		e := newEnc()
		e.catalog(&in)
		d := newDec(e.b)
		out := d.catalog()
		if d.err() != nil || len(out.Marks) != 1 || out.Vouched != in.Vouched || out.Age != in.Age {
			t.Errorf("%+v became %+v (%v)", in, out, d.err())
		}
	}
	old := newEnc()
	old.marks(marks)
	d := newDec(old.b)
	if out := d.catalog(); d.err() != nil || out.Vouched || len(out.Marks) != 1 {
		t.Errorf("a word of an older build: %+v (%v)", out, d.err())
	}
}
