// Package profiles says what happens at each arrival: what a booth, a lab, a
// phone or a gate does next.
//
// A *test* is one person's sample: registered, its tube's result uploaded, and
// only then acknowledged. Every profile that writes keeps a ledger, takes a
// sample of its tests and measures how long each takes from the upload of its
// result until the *other* carrier shows it. Nothing here waits: an end leads
// to the next step by a call from the driver.
//
// Values are owned by the driver's goroutine.
package profiles

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"qianma/loadtest/drive"
	"qianma/loadtest/hist"
	"qianma/loadtest/ledger"
	"qianma/loadtest/population"
	"qianma/loadtest/schedule"
)

// Settings shape a profile. Zero values are the profile's own defaults.
type Settings struct {
	Profile  string
	Rate     float64       // of the main stream: tests or displays a second
	Displays float64       // of the second stream, where a profile has one
	Duration time.Duration // of the whole schedule
	Plan     schedule.Plan // in place of the profile's own shape, in units a second
	Poisson  bool          // independent arrivals, not evenly spaced ones
	Seed     uint64
	Draw     uint64 // of the order in which people ask; as good as none twice, so that nobody is warm from an earlier run
	People   *population.People
	Split    []float64 // share of each carrier; empty: equal
	Mix      []population.Pool
	Booths   int           // open at once; 0: by rate
	Batch    int           // rows in a request of a batch profile; 0: 500
	Positive float64       // share of tubes that are positive
	Skew     float64       // of who refreshes; 0: 1.1
	Cold     float64       // share of displays drawn from everybody alike
	Roam     bool          // each refresh of a phone goes to any node of any carrier
	Watches  float64       // tests a second whose visibility is timed; 0: see watches; below 0: none
	Unseen   time.Duration // a watched test that takes longer to show is given up; 0: 30 s
	Warm     time.Duration // nobody's visibility is timed before
	Wave     time.Duration // midnight: everybody refreshes within this; 0: 10 s
}

// Names lists the profiles with what each is.
var Names = []struct{ Name, What string }{
	{"scan", "each registration its own request, as a booth scans; each tube's result once it is full"},
	{"batch", "the same day in batches of up to 500"},
	{"display", "phones that refresh their codes: a few often, a share cold"},
	{"verify", "gates that check tokens"},
	{"day", "scan and display together"},
	{"surge", "scan and display, ten times as much within 60 s, and back"},
	{"midnight", "everyone refreshes once within seconds"},
	{"preload", "register and result everybody once, in batches, as fast as it goes"},
}

// Profile is a shaped run, ready for its driver.
type Profile struct {
	Settings Settings
	Ledger   *ledger.Ledger // nil for profiles that write nothing
	Visible  *hist.Hist     // from when the result should have gone up until the other carrier shows it
	Unseen   int64          // watched tests that were not acknowledged, or that it did not show in time
	Watched  int64
	Main     *drive.Stream
	Cyc      Cycle

	d        *drive.Driver
	part     uint64 // of parts generators of the run
	parts    uint64
	rand     *rand.Rand
	shares   []float64 // cumulative
	flushes  []func() bool
	keys     uint64
	tubeSeq  uint32
	persons  uint32
	suspects uint32
	watch    watcher
}

// Cycle says where a surge's parts lie, for its verdict; zero for others.
type Cycle struct{ Climb, Hold, Fall, End time.Duration }

// Build adds the profile's streams to the driver.
func Build(s Settings, d *drive.Driver, carriers int, head ledger.Head) (*Profile, error) {
	s = s.withDefaults(carriers)
	if s.Watches > 0 { // a day's sample is of all its tests, whoever sends them
		s.Watches /= float64(max(1, head.Stride))
	}
	if err := s.validate(carriers); err != nil {
		return nil, err
	}
	p := &Profile{Settings: s, Visible: hist.New(), d: d, part: head.Part, parts: max(1, head.Stride), rand: rand.New(rand.NewPCG(s.Seed, head.Part))}
	total := 0.0
	for _, share := range s.Split {
		total += share
		p.shares = append(p.shares, total)
	}
	if s.writes() {
		p.Ledger = ledger.New(head)
		p.keys = 1
	}
	p.watch = watcher{p: p, carriers: carriers, every: s.Watches}
	return p, p.build()
}

func (s Settings) withDefaults(carriers int) Settings {
	if len(s.Split) == 0 {
		s.Split = slices.Repeat([]float64{1}, carriers)
	}
	if len(s.Mix) == 0 {
		s.Mix = population.CityMix
	}
	if s.Batch == 0 {
		s.Batch = 500
	}
	if s.Skew == 0 {
		s.Skew = 1.1
	}
	if s.Watches == 0 {
		s.Watches = watches(s.Duration)
	}
	if s.Unseen == 0 {
		s.Unseen = 30 * time.Second
	}
	if s.Wave == 0 {
		s.Wave = 10 * time.Second
	}
	if s.Booths == 0 {
		s.Booths = int(min(max(s.Rate/5, 4), 2000))
	}
	return s
}

// watches is how many tests a second are watched in a run so long: enough for a
// 99th percentile, and no more, because each is asked about again and again,
// the more often the busier the system is.
func watches(run time.Duration) float64 {
	const most, least, inAll = 20, 1, 600
	return max(least, min(most, inAll/run.Seconds()))
}

func (s Settings) validate(carriers int) error {
	switch {
	case !slices.ContainsFunc(Names, func(n struct{ Name, What string }) bool { return n.Name == s.Profile }):
		return fmt.Errorf("no profile %q; there are: %s", s.Profile, strings.Join(names(), ", "))
	case s.Rate <= 0 && len(s.Plan) == 0:
		return fmt.Errorf("the rate must be above 0")
	case s.Duration <= 0 && len(s.Plan) == 0:
		return fmt.Errorf("the duration must be above 0")
	case s.Warm < 0 || s.Warm > s.Duration/2:
		return fmt.Errorf("the run warms up for %s; half of its %s is the most", s.Warm, s.Duration)
	case len(s.Split) != carriers:
		return fmt.Errorf("the split names %d carriers, the run has %d", len(s.Split), carriers)
	case slices.ContainsFunc(s.Split, func(x float64) bool { return !(x >= 0 && x <= 1e6) }) || sum(s.Split) <= 0:
		return fmt.Errorf("the split %v is no shares of carriers: none may be below 0, and some must be above", s.Split)
	case s.People.N > suspectsFrom:
		return fmt.Errorf("a population has at most %d people", suspectsFrom)
	case len(s.Plan) > 0 && (s.Profile == "surge" || s.Profile == "midnight"):
		return fmt.Errorf("a plan was given, and %s has its own shape: leave out --plan and say --rate and --duration", s.Profile)
	case s.Batch < 1 || s.Batch > MostRows:
		return fmt.Errorf("a batch has 1 to %d rows", MostRows)
	}
	return nil
}

func sum(shares []float64) (all float64) {
	for _, s := range shares {
		all += s
	}
	return all
}

func names() []string {
	var out []string
	for _, n := range Names {
		out = append(out, n.Name)
	}
	return out
}

func (s Settings) writes() bool {
	return s.Profile != "display" && s.Profile != "verify" && s.Profile != "midnight"
}

func (p *Profile) build() error {
	s := p.Settings
	steady := s.Plan
	if len(steady) == 0 {
		steady = schedule.Constant(s.Rate, s.Duration)
	}
	switch s.Profile {
	case "scan":
		p.Main = p.scan(steady)
	case "batch", "preload":
		p.Main = p.batch(steady)
		if s.Profile == "preload" {
			p.Main.Most = int64(population.NewWalk(s.People.N, 0, p.part, p.parts).Share())
		} else if s.Displays > 0 {
			p.displays(schedule.Constant(s.Displays, steady.Duration()))
		}
	case "display":
		p.Main = p.displays(steady)
	case "verify":
		p.Main = p.verify(steady)
	case "day":
		p.Main = p.scan(steady)
		p.displays(schedule.Constant(p.second(2), steady.Duration()))
	case "surge":
		p.surge()
	case "midnight":
		p.midnight()
	}
	return p.Main.Plan.Validate()
}

// second is the rate of the second stream.
func (p *Profile) second(times float64) float64 {
	if p.Settings.Displays > 0 {
		return p.Settings.Displays
	}
	return p.Settings.Rate * times
}

// surge climbs to ten times within 60 s (or two fifths of a shorter run). Rate
// is the top: what is offered at the height of it.
func (p *Profile) surge() {
	d := p.Settings.Duration
	climb := min(time.Minute, d*2/5)
	before := (d - climb) / 5
	hold, after := (d-climb)*2/5, (d-climb)*2/5
	shape := func(top float64) schedule.Plan { return schedule.Surge(top/10, 10, before, climb, hold, after) }
	p.Main = p.scan(shape(p.Settings.Rate))
	p.displays(shape(p.second(2)))
	p.Cyc = Cycle{Climb: before, Hold: before + climb, Fall: before + climb + hold, End: before + climb + hold + after}
}

// midnight has everybody refresh once within the wave. What phones ask before
// and after it is a stream of its own, or a small population's wave would be
// lost in it.
func (p *Profile) midnight() {
	s := p.Settings
	quiet := max(time.Second, (s.Duration-s.Wave)/2)
	flat := func(rate, wave float64) schedule.Plan {
		return schedule.Plan{{From: rate, To: rate, For: quiet}, {From: wave, To: wave, For: s.Wave}, {From: rate, To: rate, For: quiet}}
	}
	walk := population.NewWalk(s.People.N, s.Draw, p.part, p.parts)
	// A hair more than there are, so that rounding leaves nobody out.
	wave := flat(0, (float64(walk.Share())+.001)/s.Wave.Seconds())
	p.Main = p.asking("displays", wave, walk.Next)
	p.Main.Times = p.even(wave) // whoever asks independently of the others does not ask exactly once
	p.asking("quiet", flat(s.Rate, 0), p.draw().Next)
}

// stream makes a stream whose arrivals carry weight units each.
func (p *Profile) stream(name, unit string, plan schedule.Plan, weight int, arrive func(*drive.Stream, time.Duration)) *drive.Stream {
	s := &drive.Stream{Name: name, Unit: unit, Weight: weight, Plan: plan}
	times := plan.Scale(1 / float64(max(1, weight)))
	if p.Settings.Poisson {
		s.Times = schedule.Poisson(times, population.Mix(population.Mix(p.Settings.Seed, uint64(len(p.d.Streams()))), p.part))
	} else {
		s.Times = p.even(times)
	}
	s.Arrive = func(at time.Duration) { arrive(s, at) }
	p.d.Add(s)
	return s
}

// even spaces arrivals evenly. Generators of one run take turns: all of them
// together are one even schedule.
func (p *Profile) even(plan schedule.Plan) *schedule.Schedule {
	return schedule.EvenFrom(plan, (float64(p.part)+.5)/float64(p.parts))
}

// draw is who refreshes next; generators of one run draw different people.
func (p *Profile) draw() *population.Draw {
	s := p.Settings
	return Draw(s.People, s.Draw, p.part, s.Skew, s.Cold)
}

// Draw is who asks in the display profile, in order.
func Draw(people *population.People, draw, part uint64, skew, cold float64) *population.Draw {
	return population.NewDraw(people, population.Mix(draw, part), skew, cold)
}

// Begin fixes the run's start, which the ledger's times count from.
func (p *Profile) Begin(start time.Time) {
	if p.Ledger != nil {
		p.Ledger.Head.Start = start
	}
}

// Flush starts what was held back for a fuller request. The driver calls it
// when the last arrival has been taken up, and when everything has ended.
func (p *Profile) Flush() bool {
	any := false
	for _, f := range p.flushes {
		any = f() || any
	}
	return any
}

// carrier draws where somebody goes, by the split.
func (p *Profile) carrier() int { return p.carrierAt(p.rand.Float64()) }

// carrierAt is where the part of everybody below at ends, by the split.
func (p *Profile) carrierAt(at float64) int {
	at *= p.shares[len(p.shares)-1]
	return slices.IndexFunc(p.shares, func(s float64) bool { return at < s })
}

// phone is a refresh of somebody's phone. A phone is a customer of one carrier,
// and its connection stays with one node while that is up; roaming phones ask
// anywhere, as behind a balancer that deals out requests.
func (p *Profile) phone(person uint32) *drive.Op {
	carrier := 0
	if p.Settings.Roam {
		carrier = p.carrier()
	} else {
		carrier = p.carrierAt(float64(population.Mix(p.Settings.Seed, uint64(person))>>11) / (1 << 53))
	}
	op := p.d.Op(drive.Display, carrier)
	op.Person, op.Phone = person, !p.Settings.Roam
	return op
}

func (p *Profile) key() uint64 {
	p.keys++
	// Generators of one run share its name, so their keys must not meet.
	return p.keys*max(1, p.Ledger.Head.Stride) + p.Ledger.Head.Part
}

// person is the next one to be tested, until step: everybody once before anybody
// twice.
//
// The members of a positive tube stay under suspicion until a test of their
// own, whatever later pools say. So they are people of their own, whom no
// other run draws: their indexes move on with the clock, a hundred a second.
func (p *Profile) person(outcome uint8) uint32 {
	h := &p.Ledger.Head
	if outcome == ledger.Positive {
		i := uint64(h.Start.Unix())*100 + uint64(p.suspects)*max(1, h.Stride) + h.Part
		return uint32(suspectsFrom + i%(uint64(population.Most)-suspectsFrom))
	}
	return uint32(p.turn() % uint64(p.Settings.People.N))
}

// step goes on to the next person.
func (p *Profile) step(outcome uint8) {
	if outcome == ledger.Positive {
		p.suspects++
	} else {
		p.persons++
	}
}

// turn counts the tests of the population, those of all generators.
func (p *Profile) turn() uint64 { return uint64(p.persons)*p.parts + p.part }

// around says whether everybody has had a turn, so that people come again.
func (p *Profile) around() bool { return p.turn() >= uint64(p.Settings.People.N) }

// suspectsFrom is the first index of people in positive tubes; a population
// ends before it.
const suspectsFrom = 500_000_000

// MostRows is what the contract takes in one request.
const MostRows = 1000

// MostPeople is the largest population.
const MostPeople = suspectsFrom
