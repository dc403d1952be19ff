package profiles

import (
	"slices"
	"testing"
	"time"

	"qianma/loadtest/drive"
	"qianma/loadtest/ledger"
	"qianma/loadtest/population"
)

// part is one of several generators of a run.
func part(t *testing.T, s Settings, n, of uint64) *Profile {
	t.Helper()
	p, err := Build(s, drive.New(drive.Config{}, nil), 2, ledger.Head{Part: n, Stride: of})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Goal: generators of one run are not copies of one another. They take turns in
// an even schedule, have arrivals of their own in an independent one, and ask for
// other people.
func TestGeneratorsOfOneRunDiffer(t *testing.T) {
	s := Settings{Profile: "display", Rate: 10, Duration: 10 * time.Second, Seed: 1, Draw: 5, People: population.New(1, 1000), Cold: 1}
	first := func(p *Profile) time.Duration {
		at, _ := p.Main.Times.Next()
		return at
	}
	for _, s.Poisson = range []bool{false, true} {
		seen := map[time.Duration]bool{}
		for n := range uint64(3) {
			seen[first(part(t, s, n, 3))] = true
		}
		if len(seen) != 3 {
			t.Errorf("Poisson %v: three generators begin at %d moments", s.Poisson, len(seen))
		}
	}
	asks := func(n uint64) (people []uint32) {
		draw := part(t, s, n, 3).draw()
		for range 100 {
			people = append(people, draw.Next())
		}
		return people
	}
	same := 0
	for i, person := range asks(0) {
		if asks(1)[i] == person {
			same++
		}
	}
	if same > 10 || !slices.Equal(asks(1), asks(1)) {
		t.Errorf("two generators ask for the same person in %d of 100 places; each repeats itself: %v", same, slices.Equal(asks(1), asks(1)))
	}
}

// Goal: what is done once to everybody is shared out among the generators, and so
// is the sample that is watched.
func TestGeneratorsShareThePopulation(t *testing.T) {
	for _, s := range []Settings{
		{Profile: "preload", Rate: 10, Duration: time.Second, Batch: 1},
		{Profile: "midnight", Rate: 10, Duration: 3 * time.Second, Wave: time.Second},
	} {
		s.People = population.New(1, 1000)
		var people int64
		watched, arrivals := 0.0, 0.0
		for n := range uint64(3) {
			p := part(t, s, n, 3)
			people += p.Main.Most
			watched += p.Settings.Watches
			arrivals += p.Main.Plan.Arrivals()
		}
		if s.Profile == "midnight" {
			people = int64(arrivals)
		}
		if people != 1000 || watched < 19 || watched > 21 {
			t.Errorf("%s: three generators take %d of 1000 people, and watch %v tests a second together", s.Profile, people, watched)
		}
	}
}

// A long run watches enough for a percentile, and no more.
func TestWatches(t *testing.T) {
	for run, want := range map[time.Duration]float64{10 * time.Second: 20, 30 * time.Second: 20, time.Minute: 10, 5 * time.Minute: 2, time.Hour: 1} {
		if got := watches(run); got != want {
			t.Errorf("a run of %s watches %v tests a second, want %v", run, got, want)
		}
	}
}

// Goal: a phone stays with one carrier, carriers have their shares of phones, and
// phones that roam stay with none.
func TestAPhoneStaysWithItsCarrier(t *testing.T) {
	s := Settings{Profile: "display", Rate: 10, Duration: time.Second, Seed: 1, People: population.New(1, 1000), Split: []float64{3, 1}}
	for _, s.Roam = range []bool{false, true} {
		p := part(t, s, 0, 1)
		moved, first := 0, 0
		for person := range uint32(1000) {
			home := p.phone(person)
			if home.Carrier == 0 {
				first++
			}
			for range 10 {
				again := p.phone(person)
				if again.Phone == s.Roam {
					t.Fatalf("roaming %v: a phone that keeps to its node: %v", s.Roam, again.Phone)
				}
				if again.Carrier != home.Carrier {
					moved++
				}
			}
		}
		if first < 650 || first > 850 || (moved > 0) != s.Roam {
			t.Errorf("roaming %v: %d of 1000 phones at the carrier of three quarters, %d refreshes elsewhere", s.Roam, first, moved)
		}
	}
}

// Goal: nobody is put into a tube twice, however few people there are. A province
// counts such a swab once and a ledger would count it twice: it would be called lost.
func TestNobodyIsInATubeTwice(t *testing.T) {
	for _, s := range []Settings{
		{Profile: "scan", Rate: 2000, Duration: 200 * time.Millisecond, Watches: -1},
		{Profile: "batch", Rate: 2000, Duration: 200 * time.Millisecond, Watches: -1, Batch: 100},
	} {
		for _, people := range []uint32{1, 3, 50} {
			s.People = population.New(1, people)
			d := drive.New(drive.Config{}, yes{make(chan *drive.Op, 1000)})
			p, err := Build(s, d, 2, ledger.Head{Carriers: []string{"a", "b"}, Stride: 1})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			p.Begin(start)
			if err := d.Run(t.Context(), start, p.Flush); err != nil {
				t.Fatal(err)
			}
			in := map[[2]uint32]bool{}
			for i := range uint32(p.Ledger.Len()) {
				e := p.Ledger.At(i)
				if in[[2]uint32{e.Person, e.Tube}] {
					t.Errorf("%s of %d people: somebody is in a tube twice", s.Profile, people)
					break
				}
				in[[2]uint32{e.Person, e.Tube}] = true
				if e.State != ledger.Acked {
					t.Errorf("%s of %d people: a tube went to no lab", s.Profile, people)
					break
				}
			}
		}
	}
}

// yes is a target that takes everything.
type yes struct{ done chan *drive.Op }

func (yes) Begin(time.Time)           {}
func (yes) Carriers() int             { return 2 }
func (yes) Nodes(int, drive.Kind) int { return 1 }
func (yes) Close() error              { return nil }
func (y yes) Start(op *drive.Op)      { op.First, op.Ended = op.Intended, op.Intended; y.done <- op }
func (y yes) Poll(wait time.Duration, done func(*drive.Op)) error {
	for {
		select {
		case op := <-y.done:
			done(op)
		case <-time.After(min(wait, time.Millisecond)):
			return nil
		}
	}
}
