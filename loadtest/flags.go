package loadtest

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"qianma/loadtest/population"
	"qianma/loadtest/profiles"
	"qianma/loadtest/schedule"
)

// Every value is looked at before anything is made: a run of what nobody meant
// would end with "objectives held". Kong calls Validate of a command and of each
// struct that it embeds; what they refuse ends with Usage.

// faults are what is wrong with a command line. All of it is said at once.
type faults []string

// want notes a flag whose value is not what is allowed.
func (f *faults) want(ok bool, flag string, was any, allowed string) {
	if !ok {
		f.add("--%s is %v: it must be %s", flag, was, allowed)
	}
}

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// err is all of them on one line; nil of none.
func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return errors.New(strings.Join(f, "; "))
}

// within is false for what is no number, too.
func within(x, least, most float64) bool { return x >= least && x <= most }

func notBelow(x, least float64) bool { return within(x, least, math.MaxFloat64) }

const (
	aShare     = "from 0 to 1"
	notBelow0  = "0 or more"
	above0     = "above 0"
	shareLimit = 1e6 // of a carrier's split
	// mostRate is far beyond what generators on one machine can make, some 60,000
	// a second each. One that falls behind by more looks at nothing else for minutes.
	mostRate = 1e6
	// mostTogether bounds what is made or taken up together: what a run says of
	// times is wrong by so much at most.
	mostTogether = 20 * time.Millisecond
)

// Validate is called by kong.
func (s *Shape) Validate() error {
	var f faults
	f.want(within(s.Rate, 0, mostRate), "rate", s.Rate, fmt.Sprintf("above 0 and %.0f at most, or 0 for the profile's own", mostRate))
	f.want(within(s.Displays, 0, mostRate), "displays", s.Displays, fmt.Sprintf("from 0 to %.0f", mostRate))
	f.want(s.Duration > 0, "duration", s.Duration, above0)
	f.want(s.Warm >= 0, "warm", s.Warm, notBelow0)
	f.want(s.Booths >= 0, "booths", s.Booths, "1 or more, or 0 for as many as the rate asks for")
	f.want(within(s.Positive, 0, 1), "positive", s.Positive, aShare)
	f.want(within(s.Cold, 0, 1), "cold", s.Cold, aShare)
	f.want(s.Zipf > 0 && notBelow(s.Zipf, 0), "zipf", s.Zipf, "above 0 (everybody alike is --cold 1)")
	f.want(s.Batch >= 1 && s.Batch <= profiles.MostRows, "batch", s.Batch, fmt.Sprintf("from 1 to %d", profiles.MostRows))
	f.want(notBelow(s.Watch, 0) || s.Watch == -1, "watch", s.Watch, "0 or more, or -1 for none")
	f.want(s.Wave > 0, "wave", s.Wave, above0)
	f.want(s.Closed >= 0, "closed", s.Closed, notBelow0)
	f.want(s.People >= 1 && s.People <= profiles.MostPeople, "people", s.People, fmt.Sprintf("from 1 to %d", profiles.MostPeople))
	s.texts(&f)
	s.places(&f)
	return f.err()
}

// texts are the flags that have a grammar of their own.
func (s *Shape) texts(f *faults) {
	if s.Plan != "" {
		if plan, err := schedule.Parse(s.Plan); err != nil {
			f.add("--plan is %s: %v", s.Plan, err)
		} else if plan.Peak() > mostRate {
			f.add("--plan is %s: it must ask for %.0f a second at most", s.Plan, mostRate)
		}
		if s.Profile == "surge" || s.Profile == "midnight" {
			f.add("--plan is %s: %s has its own shape, say --rate and --duration", s.Plan, s.Profile)
		}
	}
	if s.Mix != "" {
		if _, err := population.ParseMix(s.Mix); err != nil {
			f.add("--mix is %s: %v", s.Mix, err)
		}
	}
}

// places are the flags about carriers, as far as they can be judged before it is
// known which there are.
func (s *Shape) places(f *faults) {
	for i, c := range s.Carriers {
		f.want(!slices.Contains(s.Carriers[:i], c), "carriers", strings.Join(s.Carriers, ","), "each carrier once")
	}
	var whole float64
	for _, part := range s.Split {
		f.want(within(part, 0, shareLimit), "split", part, "a share of 0 or more for each carrier")
		whole += part
	}
	f.want(len(s.Split) == 0 || whole != 0, "split", s.Split, "above 0 for some carrier")
}

// fits is what can be said of the flags only once the carriers are known.
func (s *Shape) fits(carriers []string) error {
	if n := len(s.Split); n > 0 && n != len(carriers) {
		return misuse{fmt.Errorf("--split is %v: it must be a share for each of %s", s.Split, strings.Join(carriers, ","))}
	}
	return nil
}

// warms notes a warming up that leaves too little of the run.
func (s *Shape) warms(f *faults, length time.Duration) {
	if s.Profile != "preload" { // which lasts as long as it takes
		f.want(s.Warm <= length/2, "warm", s.Warm, fmt.Sprintf("half of the run's %s at most", length))
	}
}

// Validate is called by kong.
func (r *Reach) Validate() error {
	var f faults
	f.want(r.Connections >= 0, "connections", r.Connections, notBelow0)
	f.want(r.PeerWorkers >= 0, "peer-workers", r.PeerWorkers, notBelow0)
	f.want(r.Quantum > 0 && r.Quantum <= mostTogether, "quantum", r.Quantum, fmt.Sprintf("above 0 and %v at most", mostTogether))
	f.want(r.Gather >= 0 && r.Gather <= mostTogether, "gather", r.Gather, fmt.Sprintf("from 0 to %v", mostTogether))
	f.want(r.Timeout > 0, "timeout", r.Timeout, above0)
	f.want(r.Patience >= 0, "patience", r.Patience, notBelow0)
	f.want(r.Tries >= 1, "tries", r.Tries, "1 or more")
	f.want(r.ReadBack >= -1, "read-back", r.ReadBack, "1 or more, 0 for all or -1 for nobody")
	f.want(r.Settle > 0, "settle", r.Settle, above0)
	return f.err()
}

// Validate is called by kong.
func (l *Limits) Validate() error {
	var f faults
	if d := l.MaxP99; d != nil {
		f.want(*d >= 0, "max-p99", *d, "above 0, or 0 for none")
	}
	if d := l.MaxVisible; d != nil {
		f.want(*d >= 0, "max-visible", *d, "above 0, or 0 for none")
	}
	if x := l.MinAchieved; x != nil {
		f.want(within(*x, 0, 1), "min-achieved", *x, aShare)
	}
	if x := l.MaxFailed; x != nil {
		f.want(within(*x, -math.MaxFloat64, 1), "max-failed", *x, "a share of 1 at most, or below 0 for any")
	}
	if x := l.MaxCPU; x != nil {
		f.want(notBelow(*x, 0), "max-cpu", *x, notBelow0)
	}
	if x := l.MinGoodput; x != nil {
		f.want(notBelow(*x, 0), "min-goodput", *x, notBelow0)
	}
	return f.err()
}

// Validate is called by kong.
func (c *RunCommand) Validate(k *kong.Context) error {
	var f faults
	c.refuse(&f)
	length := c.Duration
	if plan, err := schedule.Parse(c.Plan); err == nil {
		length = plan.Duration()
	}
	c.warms(&f, length)
	if !c.Unmetered { // a generator is told all of the run, whatever the profile uses of it
		c.unused(&f, given(k))
	}
	return f.err()
}

// Validate is called by kong.
func (c *FindMaxCommand) Validate(k *kong.Context) error {
	var f faults
	c.refuse(&f)
	f.want(c.Probe > 0, "probe", c.Probe, above0)
	f.want(c.Confirm >= 1, "confirm", c.Confirm, "1 or more")
	f.want(within(c.Tolerance, 1e-3, 1), "tolerance", c.Tolerance, "from 0.001 to 1")
	f.want(notBelow(c.Ceiling, 0), "ceiling", c.Ceiling, "above 0, or 0 for none")
	c.warms(&f, c.Probe)
	was := given(k)
	if d, ok := was["duration"]; ok {
		f.add("--duration is %s: it is of no use in find-max, where each try lasts as long as --probe says", d)
	}
	c.unused(&f, was)
	return f.err()
}

// given are the flags that somebody typed, with what they typed.
func given(k *kong.Context) map[string]string {
	out := map[string]string{}
	for _, p := range k.Path {
		if p.Flag != nil && !p.Resolved {
			out[p.Flag.Name] = fmt.Sprint(reflect.Indirect(p.Flag.Target).Interface())
		}
	}
	return out
}

// users are the profiles that a flag means anything to; one that is not here is
// for all of them, or does no harm where it is of no use.
var users = map[string][]string{
	"displays":    {"batch", "day", "surge"},
	"wave":        {"midnight"},
	"batch":       {"batch", "preload"},
	"format":      {"batch", "preload"},
	"min-goodput": {"surge"},
	"booths":      {"scan", "day", "surge"},
	"positive":    writers,
	"mix":         writers,
	"ack":         writers,
	"zipf":        askers,
	"cold":        askers,
	"roam":        askers,
}

var (
	writers = []string{"scan", "batch", "day", "surge", "preload"}
	askers  = []string{"batch", "display", "verify", "day", "surge", "midnight"}
)

// unused notes the flags that were typed and that the profile would ignore:
// whoever typed one believes in a run that is not made.
func (s *Shape) unused(f *faults, was map[string]string) {
	for _, flag := range slices.Sorted(maps.Keys(was)) {
		if who, ok := users[flag]; ok && !slices.Contains(who, s.Profile) {
			f.add("--%s is %s: %s has no use for it, it is for %s", flag, was[flag], s.Profile, strings.Join(who, ", "))
		}
	}
	if d, ok := was["duration"]; ok && s.Profile == "preload" {
		f.add("--duration is %s: preload lasts until everybody is loaded, say --people", d)
	} else if ok && s.Plan != "" {
		f.add("--duration is %s: --plan says how long the run is", d)
	}
}
