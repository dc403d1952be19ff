package schedule

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func walk(s *Schedule) []time.Duration {
	var out []time.Duration
	for {
		at, ok := s.Next()
		if !ok {
			return out
		}
		out = append(out, at)
	}
}

func between(times []time.Duration, from, to time.Duration) int {
	n := 0
	for _, at := range times {
		if at >= from && at < to {
			n++
		}
	}
	return n
}

func TestConstantIsEvenlySpaced(t *testing.T) {
	times := walk(Even(Constant(1000, 10*time.Second)))
	if len(times) != 10_000 {
		t.Fatalf("%d arrivals, want 10000", len(times))
	}
	for i := 1; i < len(times); i++ {
		if gap := times[i] - times[i-1]; gap < 999*time.Microsecond || gap > 1001*time.Microsecond {
			t.Fatalf("gap %d is %v, want 1 ms", i, gap)
		}
	}
}

// Goal: generators that share a rate are one even schedule together, not one that
// fires as many at once as there are generators.
func TestPhasesOfOneGapMakeOneEvenSchedule(t *testing.T) {
	var times []time.Duration
	for part := range 4 {
		times = append(times, walk(EvenFrom(Constant(250, 10*time.Second), (float64(part)+.5)/4))...)
	}
	slices.Sort(times)
	one := walk(Even(Constant(1000, 10*time.Second)))
	if len(times) != len(one) {
		t.Fatalf("%d arrivals together, %d alone", len(times), len(one))
	}
	for i := range one {
		if d := times[i] - one[i]; d.Abs() > time.Microsecond {
			t.Fatalf("arrival %d is at %v, alone at %v", i, times[i], one[i])
		}
	}
}

func TestRampOffersTheAreaUnderItsLine(t *testing.T) {
	times := walk(Even(Ramp(0, 1000, 10*time.Second)))
	if len(times) != 5000 {
		t.Fatalf("%d arrivals, want 5000", len(times))
	}
	if got := between(times, 0, 5*time.Second); got < 1249 || got > 1251 {
		t.Errorf("first half has %d arrivals, want 1250", got)
	}
}

func TestStepsAndSurgeHoldTheirRates(t *testing.T) {
	times := walk(Even(Steps(100, 300, 3, 9*time.Second)))
	for i, want := range []int{300, 600, 900} {
		from := time.Duration(i) * 3 * time.Second
		if got := between(times, from, from+3*time.Second); got < want-1 || got > want+1 {
			t.Errorf("step %d has %d arrivals, want %d", i, got, want)
		}
	}
	p := Surge(100, 10, time.Second, time.Second, time.Second, time.Second)
	if p.Peak() != 1000 || p.RateAt(2500*time.Millisecond) != 1000 || p.RateAt(3500*time.Millisecond) != 100 {
		t.Errorf("surge: peak %v, at its height %v, after it %v", p.Peak(), p.RateAt(2500*time.Millisecond), p.RateAt(3500*time.Millisecond))
	}
}

func TestPoissonGapsAreExponentialAndRepeatable(t *testing.T) {
	p := Constant(1000, 20*time.Second)
	times := walk(Poisson(p, 7))
	if n := float64(len(times)); math.Abs(n-20_000) > 4*math.Sqrt(20_000) {
		t.Errorf("%v arrivals, want about 20000", n)
	}
	long := 0
	for i := 1; i < len(times); i++ {
		if times[i]-times[i-1] > time.Millisecond {
			long++
		}
	}
	if share := float64(long) / float64(len(times)); math.Abs(share-1/math.E) > .02 {
		t.Errorf("share of gaps above the mean is %.3f, want 1/e", share)
	}
	if !slices.Equal(times, walk(Poisson(p, 7))) {
		t.Error("the same seed gave other times")
	}
}

// Goal: times never go backwards, never leave the plan, and their number is
// the plan's, whatever the phases.
func TestAnyPlanIsWalkedWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p Plan
		for range rapid.IntRange(1, 5).Draw(t, "phases") {
			p = append(p, Phase{
				rapid.Float64Range(0, 500).Draw(t, "from"),
				rapid.Float64Range(0, 500).Draw(t, "to"),
				time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond,
			})
		}
		times := walk(Even(p))
		if !slices.IsSorted(times) {
			t.Fatal("times go backwards")
		}
		if len(times) > 0 && times[len(times)-1] > p.Duration() {
			t.Fatalf("an arrival at %v, after the end at %v", times[len(times)-1], p.Duration())
		}
		if math.Abs(float64(len(times))-p.Arrivals()) > 1 {
			t.Fatalf("%d arrivals, the plan expects %v", len(times), p.Arrivals())
		}
	})
}

func TestParse(t *testing.T) {
	p, err := Parse("1000:30s, 1000-10000:60s,10000:2m")
	if err != nil || !slices.Equal(p, Plan{{1000, 1000, 30 * time.Second}, {1000, 10000, time.Minute}, {10000, 10000, 2 * time.Minute}}) {
		t.Errorf("got %v, %v", p, err)
	}
	for _, bad := range []string{"", "1000", "x:1s", "1-x:1s", "-5:1s", "10:0s", "10:1", "NaN:1s"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q was read as a plan", bad)
		}
	}
}

// Goal: a plan is written as it is read, also one that was shared out and summed.
func TestAPlanIsWrittenAsItIsRead(t *testing.T) {
	const text = "1000:30s,1000-10000:1m0s,0.5:2m0s"
	p, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Scale(1. / 3).Scale(3).String(); got != text {
		t.Errorf("%s, want %s", got, text)
	}
}
