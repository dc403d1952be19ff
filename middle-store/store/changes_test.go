package store_test

import (
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/middle-store/fold"
	"qianma/middle-store/middlestorepb"
	"qianma/middle-store/store"
	"qianma/nucleic/nucleicpb"
)

// kept reads one person as somebody does who keeps the answer.
func kept(t testing.TB, s *store.Store, who int) (p middlestorepb.Person, at store.State) {
	t.Helper()
	at, err := s.Read([]middlestorepb.PersonID{middlestorepb.PersonID(person(who))}, 6, func(_ int, got *middlestorepb.Person) {
		p = middlestorepb.Person{Status: got.Status, Subjects: slices.Clone(got.Subjects)}
	})
	if err != nil {
		t.Fatal(err)
	}
	return p, at
}

// news is what a store says has changed, and whether anything may have.
type news struct {
	middlestorepb.ChangesResponse
	all bool
}

func changes(t testing.TB, s *store.Store, epoch, after uint64) news {
	t.Helper()
	out, err := s.Changes(epoch, after)
	if err != nil {
		t.Fatal(err)
	}
	return news{out, out.All(middlestorepb.ChangesRequest{Epoch: epoch, After: after})}
}

// stands reports whether an answer stands by what has changed since.
func stands(p *middlestorepb.Person, since *news) bool {
	return !since.all && !slices.ContainsFunc(p.Subjects, func(s uint32) bool { return slices.Contains(since.Changed, s) })
}

func TestChangesNameWhatWasFolded(t *testing.T) {
	s := open(t, vfs.NewMem())
	c := chainOf("unicom", fold.Nucleic)
	mustFold(t, s, c.cut(registered(1, 1, noon), registered(2, 2, noon)))
	one, at := kept(t, s, 1)
	two, _ := kept(t, s, 2)
	if none := changes(t, s, at.Epoch, at.Position); none.all || len(none.Changed) != 0 || none.Head.Position != at.Position {
		t.Fatalf("nothing was folded, and %+v has changed", none)
	}
	mustFold(t, s, c.cut(resulted(1, nucleicpb.OutcomeNegative), resulted(1, nucleicpb.OutcomeInvalid)))
	since := changes(t, s, at.Epoch, at.Position)
	if stands(&one, &since) || !stands(&two, &since) {
		t.Fatalf("the tube of person 1 has a result: %+v; %+v stands %v, %+v stands %v", since, one, stands(&one, &since), two, stands(&two, &since))
	}
	if len(since.Changed) != 1 || since.Head.Position != at.Position+1 {
		t.Fatalf("one tube was named as %v up to %d, after %d", since.Changed, since.Head.Position, at.Position)
	}
	if got := since.Head.Marks.Seq(middlestorepb.OriginKey(c.origin.String())); got != 4 {
		t.Fatalf("marks of %d facts, folded 4", got)
	}
}

// TestNobodyIsToldThatAllStands: a position of another run, one of the future,
// and one that is too far back say nothing about what was kept.
func TestNobodyIsToldThatAllStands(t *testing.T) {
	s := open(t, vfs.NewMem())
	c := chainOf("unicom", fold.Nucleic)
	mustFold(t, s, c.cut(registered(1, 1, noon)))
	_, at := kept(t, s, 1)
	for i := range 2 {
		var facts [][]byte
		for n := range 3000 {
			facts = append(facts, registered(10+n, 1, noon))
		}
		for j := range 12 { // more than is named at once, then more than is remembered
			for n := range facts {
				facts[n] = registered(10+n+3000*(12*i+j), 1, noon)
			}
			mustFold(t, s, c.cut(facts...))
		}
	}
	_, now := kept(t, s, 1)
	for what, ask := range map[string][2]uint64{
		"another run": {now.Epoch + 2, now.Position}, "no run": {0, 0}, "the future": {now.Epoch, now.Position + 1},
		"far back": {at.Epoch, at.Position}, "more than is named at once": {now.Epoch, now.Position - middlestorepb.MaxChanges - 1},
	} {
		if out := changes(t, s, ask[0], ask[1]); !out.all || len(out.Changed) > 0 || out.Head.Epoch != now.Epoch || out.Head.Position != now.Position {
			t.Errorf("%s: all %v, %d named, epoch %d, position %d; now %+v", what, out.all, len(out.Changed), out.Head.Epoch, out.Head.Position, now)
		}
	}
	if out := changes(t, s, now.Epoch, now.Position-middlestorepb.MaxChanges); out.all || len(out.Changed) != middlestorepb.MaxChanges {
		t.Errorf("the most that is named: all %v, %d named", out.all, len(out.Changed))
	}
	if again := open(t, vfs.NewMem()); changes(t, again, 0, 0).Head.Epoch == now.Epoch {
		t.Error("two runs are one epoch")
	}
}

// TestMarksAreNeverAheadOfTheChanges asks while blocks are folded. Block n makes
// person n known: an answer from before it does not stand once marks cover it.
func TestMarksAreNeverAheadOfTheChanges(t *testing.T) {
	s := open(t, vfs.NewMem())
	c := chainOf("unicom", fold.Nucleic)
	key := middlestorepb.OriginKey(c.origin.String())
	const blocks = 400
	defer foldOneByOne(t, s, c, blocks).Wait()
	for n := 0; n < blocks && !t.Failed(); {
		next := n + 1
		p, at := kept(t, s, next)
		for n < next && !t.Failed() {
			since := changes(t, s, at.Epoch, at.Position)
			n = int(since.Head.Marks.Seq(key))
			if p.Status == middlestorepb.StatusNone && n >= next && stands(&p, &since) {
				t.Fatalf("marks cover block %d, and an answer from before it stands", next)
			}
		}
	}
}
