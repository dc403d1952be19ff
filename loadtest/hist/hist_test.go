package hist

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Goal: a percentile is right to three digits. Method: the same durations in a
// sorted slice.
func TestQuantilesAgreeWithASortedSlice(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	h := New()
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(math.Exp(r.NormFloat64()*2)*1000) * time.Microsecond
		d = min(max(d, Least), Most)
		all = append(all, d)
		h.Record(d)
	}
	slices.Sort(all)
	for _, q := range []float64{.5, .9, .99, .999} {
		want := all[int(math.Ceil(q*float64(len(all))))-1]
		if got := h.Quantile(q); math.Abs(float64(got-want)) > float64(want)/500+float64(time.Microsecond) {
			t.Errorf("q%v: got %v, want %v", q, got, want)
		}
	}
}

func TestMergingEqualsRecordingInOne(t *testing.T) {
	a, b, one := New(), New(), New()
	for i := range 1000 {
		d := time.Duration(i*i) * time.Microsecond
		one.Record(d)
		if i%3 == 0 {
			a.Record(d)
		} else {
			b.Record(d)
		}
	}
	a.Merge(b)
	a.Merge(nil)
	if a.Summary() != one.Summary() {
		t.Errorf("merged %+v, in one %+v", a.Summary(), one.Summary())
	}
}

func TestWhatIsOutsideTheRangeIsCountedAtItsEdge(t *testing.T) {
	h := New()
	h.Record(-time.Second)
	h.Record(time.Hour)
	if h.Count() != 2 {
		t.Fatalf("count %d, want 2", h.Count())
	}
	if got := h.Max(); got < Most || got > Most+Most/500 {
		t.Errorf("max %v, want about %v", got, Most)
	}
	if got := h.Above(time.Second); got != 1 {
		t.Errorf("above 1 s: %d, want 1", got)
	}
}

func TestJSONKeepsEveryCount(t *testing.T) {
	h := New()
	for i := range 5000 {
		h.RecordN(time.Duration(i)*37*time.Microsecond, int64(i%4))
	}
	raw, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	back := New()
	if err := json.Unmarshal(raw, back); err != nil {
		t.Fatal(err)
	}
	if back.Summary() != h.Summary() || !slices.Equal(back.Points(), h.Points()) {
		t.Errorf("read back %+v, wrote %+v", back.Summary(), h.Summary())
	}
	if err := json.Unmarshal([]byte(`"nonsense"`), back); err == nil {
		t.Error("nonsense was read as a histogram")
	}
}

func BenchmarkRecord(b *testing.B) {
	h := New()
	for i := range b.N {
		h.Record(time.Duration(i%1_000_000) * time.Microsecond)
	}
}
