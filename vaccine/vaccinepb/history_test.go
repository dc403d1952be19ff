package vaccinepb_test

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"qianma/vaccine/vaccinepb"
)

func record(f vaccinepb.Fact) vaccinepb.Record {
	return vaccinepb.Record{ID: vaccinepb.IDOf(f.Append(nil)), Fact: f}
}

func dose(n uint32, day int32, product string) vaccinepb.Record {
	return record(vaccinepb.Fact{Kind: vaccinepb.KindDoseGiven, DoseGiven: vaccinepb.DoseGiven{Dose: n, Day: day, Product: product}})
}

func naming(target vaccinepb.ID, at int64) vaccinepb.Record {
	return record(vaccinepb.Fact{Kind: vaccinepb.KindCorrected, Corrected: vaccinepb.Corrected{Target: target, At: at, Reason: "typed into the wrong row"}})
}

func TestHistoryCountsDoseNumbers(t *testing.T) {
	first, second := dose(1, 18900, "A"), dose(2, 18930, "A")
	h := vaccinepb.HistoryOf([]vaccinepb.Record{second, first, second})
	if h.Count != 2 || h.LastDay != 18930 || h.Conflict || len(h.Doses) != 2 || h.Doses[0].ID != first.ID {
		t.Fatalf("got %+v", h)
	}
}

func TestHistoryShowsBothSidesOfAConflict(t *testing.T) {
	a, b := dose(1, 18900, "A"), dose(1, 18901, "B")
	h := vaccinepb.HistoryOf([]vaccinepb.Record{a, b})
	if h.Count != 1 || !h.Conflict || h.Doses[0].State != vaccinepb.Conflicts || h.Doses[1].State != vaccinepb.Conflicts {
		t.Fatalf("got %+v", h)
	}
	h = vaccinepb.HistoryOf([]vaccinepb.Record{a, b, naming(b.ID, 1)})
	if h.Conflict || h.LastDay != 18900 || h.Doses[0].State != vaccinepb.Counts || h.Doses[1].State != vaccinepb.Withdrawn {
		t.Fatalf("a correction did not settle the conflict: %+v", h)
	}
}

// TestHistoryTwoOperatorsOneDose: both desks entered the same injection.
func TestHistoryTwoOperatorsOneDose(t *testing.T) {
	a, b := dose(1, 18900, "A"), dose(1, 18900, "A")
	b.Fact.DoseGiven.Operator = "n2"
	b = record(b.Fact)
	if h := vaccinepb.HistoryOf([]vaccinepb.Record{a, b}); h.Conflict || h.Count != 1 || len(h.Doses) != 2 {
		t.Fatalf("got %+v", h)
	}
}

func TestHistoryCorrectionOfACorrection(t *testing.T) {
	d := dose(1, 18900, "A")
	c := naming(d.ID, 1)
	back := naming(c.ID, 2)
	if h := vaccinepb.HistoryOf([]vaccinepb.Record{d, c}); h.Count != 0 || h.LastDay != 0 {
		t.Fatalf("a withdrawn dose counts: %+v", h)
	}
	h := vaccinepb.HistoryOf([]vaccinepb.Record{back, c, d})
	if h.Count != 1 || h.Corrections[0].Stands || !h.Corrections[1].Stands {
		t.Fatalf("a withdrawn correction still holds: %+v", h)
	}
}

// TestHistoryIgnoresOrder shuffles and repeats random records and compares.
func TestHistoryIgnoresOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var records []vaccinepb.Record
		for range rapid.IntRange(1, 12).Draw(t, "records") {
			if len(records) == 0 || rapid.Bool().Draw(t, "dose") {
				records = append(records, dose(rapid.Uint32Range(1, 3).Draw(t, "n"), rapid.Int32Range(18900, 18902).Draw(t, "day"), "A"))
				continue
			}
			target := records[rapid.IntRange(0, len(records)-1).Draw(t, "target")]
			records = append(records, naming(target.ID, rapid.Int64Range(0, 2).Draw(t, "at")))
		}
		want := vaccinepb.HistoryOf(records)
		shuffled := append(append([]vaccinepb.Record(nil), records...), records[:len(records)/2]...)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if got := vaccinepb.HistoryOf(shuffled); !reflect.DeepEqual(got, want) {
			t.Fatalf("order changed the history:\n%+v\n%+v", got, want)
		}
	})
}
