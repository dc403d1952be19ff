// Package schedule says when each arrival should start, before anything has
// been sent.
//
// A schedule is an open model: arrivals come at their times whether or not the
// system has answered the ones before. Times are offsets from the start of the
// run and never go backwards. The same plan and seed give the same times.
// The package knows no clock and sends nothing.
package schedule

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Phase is a stretch of a plan: the rate goes from From to To arrivals a
// second, in a straight line, during For.
type Phase struct {
	From, To float64
	For      time.Duration
}

// Plan is the rate over a whole run.
type Plan []Phase

// Constant offers one rate.
func Constant(rate float64, d time.Duration) Plan { return Plan{{rate, rate, d}} }

// Ramp goes from one rate to another in a straight line.
func Ramp(from, to float64, d time.Duration) Plan { return Plan{{from, to, d}} }

// Steps climbs from one rate to another in n equal steps.
func Steps(from, to float64, n int, d time.Duration) Plan {
	var p Plan
	for i := range n {
		rate := from
		if n > 1 {
			rate += (to - from) * float64(i) / float64(n-1)
		}
		p = append(p, Phase{rate, rate, d / time.Duration(n)})
	}
	return p
}

// Surge holds a base rate, climbs to its multiple, holds that, falls back at
// once and stays there, so that the recovery can be seen.
func Surge(base, times float64, before, climb, hold, after time.Duration) Plan {
	return Plan{
		{base, base, before},
		{base, base * times, climb},
		{base * times, base * times, hold},
		{base, base, after},
	}
}

// Parse reads "1000:30s,1000-10000:60s,10000:2m".
func Parse(text string) (Plan, error) {
	var p Plan
	for part := range strings.SplitSeq(text, ",") {
		rates, length, ok := strings.Cut(strings.TrimSpace(part), ":")
		from, to, ramp := strings.Cut(rates, "-")
		if !ramp {
			to = from
		}
		a, errA := strconv.ParseFloat(from, 64)
		b, errB := strconv.ParseFloat(to, 64)
		d, errD := time.ParseDuration(length)
		if !ok || errA != nil || errB != nil || errD != nil {
			return nil, fmt.Errorf("phase %q: want RATE:DURATION or FROM-TO:DURATION, as in 1000-10000:60s", part)
		}
		p = append(p, Phase{a, b, d})
	}
	return p, p.Validate()
}

// String is the plan as Parse reads it.
func (p Plan) String() string {
	rate := func(v float64) string { return strconv.FormatFloat(v, 'g', 10, 64) } // 10: a share of a plan and its multiple are one
	var out []string
	for _, ph := range p {
		rates := rate(ph.From)
		if ph.To != ph.From {
			rates += "-" + rate(ph.To)
		}
		out = append(out, rates+":"+ph.For.String())
	}
	return strings.Join(out, ",")
}

// Validate refuses a plan that cannot be walked.
func (p Plan) Validate() error {
	if len(p) == 0 {
		return fmt.Errorf("a plan needs at least one phase")
	}
	for i, ph := range p {
		bad := func(r float64) bool { return r < 0 || math.IsNaN(r) || math.IsInf(r, 0) }
		if bad(ph.From) || bad(ph.To) || ph.For <= 0 {
			return fmt.Errorf("phase %d: rates must be 0 or more and the duration above 0", i+1)
		}
	}
	return nil
}

// Duration is how long the plan lasts.
func (p Plan) Duration() time.Duration {
	var d time.Duration
	for _, ph := range p {
		d += ph.For
	}
	return d
}

// Arrivals is how many arrivals the plan expects.
func (p Plan) Arrivals() float64 {
	var n float64
	for _, ph := range p {
		n += ph.area()
	}
	return n
}

// RateAt is the rate asked for at an offset.
func (p Plan) RateAt(at time.Duration) float64 {
	for _, ph := range p {
		if at < ph.For {
			return ph.From + (ph.To-ph.From)*at.Seconds()/ph.For.Seconds()
		}
		at -= ph.For
	}
	return 0
}

// Peak is the highest rate of the plan.
func (p Plan) Peak() float64 {
	var r float64
	for _, ph := range p {
		r = max(r, ph.From, ph.To)
	}
	return r
}

// Scale returns the plan with every rate multiplied: one generator's share.
func (p Plan) Scale(by float64) Plan {
	out := make(Plan, len(p))
	for i, ph := range p {
		out[i] = Phase{ph.From * by, ph.To * by, ph.For}
	}
	return out
}

func (ph Phase) area() float64 { return (ph.From + ph.To) / 2 * ph.For.Seconds() }

// when solves for the moment in the phase at which its area reaches a.
func (ph Phase) when(a float64) time.Duration {
	if a <= 0 {
		return 0
	}
	slope := (ph.To - ph.From) / ph.For.Seconds()
	if math.Abs(slope) < 1e-9 {
		return seconds(a / ph.From)
	}
	// The form that keeps its digits when the slope is small.
	root := math.Sqrt(max(0, ph.From*ph.From+2*slope*a))
	return seconds(2 * a / (ph.From + root))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Schedule walks a plan. It is not safe for concurrent use.
type Schedule struct {
	plan  Plan
	gap   func() float64 // expected arrivals between two arrivals: 1 on average
	base  time.Duration  // where the current phase begins
	area  float64        // expected arrivals in the phases that are over
	next  float64        // expected arrivals at the next arrival
	last  time.Duration
	count int64
}

// Even spaces arrivals evenly under the plan's rate; the first stands in the
// middle of its gap.
func Even(p Plan) *Schedule { return EvenFrom(p, .5) }

// EvenFrom is Even with the first arrival so far into its gap (0..1). Generators
// that share a rate begin at different places of it, or they would fire together
// for ever.
func EvenFrom(p Plan, phase float64) *Schedule {
	return &Schedule{plan: p, gap: func() float64 { return 1 }, next: phase}
}

// Poisson makes arrivals independent of one another, as people are: gaps are
// exponential under the plan's rate.
func Poisson(p Plan, seed uint64) *Schedule {
	r := rand.New(rand.NewPCG(seed, 0x706f6973))
	return &Schedule{plan: p, gap: r.ExpFloat64, next: r.ExpFloat64()}
}

// Next is the offset of the next arrival; false when the plan is over.
func (s *Schedule) Next() (time.Duration, bool) {
	for len(s.plan) > 0 && s.next >= s.area+s.plan[0].area() {
		s.area += s.plan[0].area()
		s.base += s.plan[0].For
		s.plan = s.plan[1:]
	}
	if len(s.plan) == 0 {
		return 0, false
	}
	at := s.base + min(s.plan[0].when(s.next-s.area), s.plan[0].For)
	s.next += s.gap()
	s.last = max(s.last, at)
	s.count++
	return s.last, true
}

// Count is how many arrivals Next has given.
func (s *Schedule) Count() int64 { return s.count }
