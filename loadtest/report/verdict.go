package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"qianma/loadtest/drive"
)

// Objectives are what a run must keep. A zero field asks nothing.
type Objectives struct {
	Response map[string]float64 `json:"response_p99_ms"` // by stream
	Visible  float64            `json:"visible_p99_ms"`
	Achieved float64            `json:"achieved_share"` // of what was offered
	Failures float64            `json:"failed_share"`   // failed, unknown and dropped, of what was asked; below 0: any
	CPU      float64            `json:"cpu_us_per_op"`
	Recovery float64            `json:"recovery_s"`
	Refusal  float64            `json:"refusal_p99_ms"`
	Goodput  float64            `json:"goodput_per_s"` // at the height of a surge
}

// Usual are the objectives of a profile.
func Usual(profile string) Objectives {
	o := Objectives{Achieved: .99, Response: map[string]float64{}}
	switch profile {
	case "scan", "batch", "day":
		o.Response["tests"], o.Response["displays"], o.Visible = 250, 20, 1000
	case "display", "verify":
		o.Response["displays"], o.Response["verifications"] = 20, 20
	case "surge":
		// What is refused is refused; it must be refused well.
		o = Objectives{Failures: -1, Recovery: 5, Refusal: 10, Response: map[string]float64{}}
	case "midnight":
		// Everybody at once is past what a province has machines for; what it may
		// cost is a wait that a phone's holder does not take for a failure: 1 s.
		o.Achieved, o.Response["displays"] = 0, 1000
	case "preload":
		o.Achieved = 0
	}
	return o
}

// Check is one objective and how it went.
type Check struct {
	What string  `json:"what"`
	Want float64 `json:"want"`
	Got  float64 `json:"got"`
	Held bool    `json:"held"`
}

// Judge holds the result against the objectives.
func (r *Result) Judge(o Objectives) {
	r.Checks = nil
	most := func(what string, got, want float64) {
		r.Checks = append(r.Checks, Check{what, want, got, got <= want})
	}
	for i := range r.Streams {
		s := &r.Streams[i]
		if want := o.Response[s.Name]; want > 0 {
			most(s.Name+" response p99 ms", s.ResponseMS.P99, want)
		}
		if o.Achieved > 0 && !r.Closed {
			least := o.Achieved * s.OfferedPerS
			r.Checks = append(r.Checks, Check{s.Name + " achieved per s", least, s.AchievedPerS, s.AchievedPerS >= least})
		}
		if o.Failures >= 0 {
			u := s.Units
			most(s.Name+" failed, unknown or dropped share", float64(u.Failed+u.Unknown+u.Dropped)/float64(max(1, u.Asked)), o.Failures)
		}
	}
	if o.Visible > 0 && r.VisibleMS.Count > 0 {
		most("visible at the other carrier p99 ms", r.VisibleMS.P99, o.Visible)
	}
	if o.CPU > 0 && r.CPUPerOp >= 0 {
		most("CPU µs per operation", r.CPUPerOp, o.CPU)
	}
	if r.Surge != nil {
		r.judgeSurge(o, most)
	}
}

func (r *Result) judgeSurge(o Objectives, most func(string, float64, float64)) {
	if o.Goodput > 0 {
		got := r.Surge.GoodputPerS
		r.Checks = append(r.Checks, Check{"goodput per s", o.Goodput, got, got >= o.Goodput})
	}
	if o.Recovery > 0 {
		got := r.Surge.RecoveryS
		r.Checks = append(r.Checks, Check{"recovery s", o.Recovery, got, got >= 0 && got <= o.Recovery})
	}
	if o.Refusal > 0 && r.Surge.RefusalMS.Count > 0 {
		most("refusal p99 ms", r.Surge.RefusalMS.P99, o.Refusal)
		most("refusals without Retry-After", float64(r.Surge.WithoutHint), 0)
	}
	most("displays refused", float64(r.Surge.DisplayRefused), 0)
	most("bindings refused", float64(r.Surge.BindingRefused), 0)
}

// The exit codes of a run.
const (
	Held        = 0
	Missed      = 1
	LedgerBroke = 2
	InvalidRun  = 3
)

// Code is the exit code of the run. A broken ledger outweighs everything: it
// is true however badly the generator kept up.
func (r *Result) Code() int {
	switch {
	case r.Lost+r.Wrong+r.Repeated > 0:
		return LedgerBroke
	case !r.Valid:
		return InvalidRun
	}
	for _, c := range r.Checks {
		if !c.Held {
			return Missed
		}
	}
	return Held
}

var words = [...]string{"objectives held", "objectives missed", "LEDGER BROKEN", "INVALID RUN"}

// Verdict is the code in a word.
func (r *Result) Verdict() string { return words[r.Code()] }

// Text is the report a terminal shows.
func (r *Result) Text(verbose bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s/s", number(r.AchievedPerS), r.Unit)
	fmt.Fprintf(&b, "   response p99 %s ms\n", number(r.ResponseMS.P99))
	fmt.Fprintf(&b, "%s: %s", r.Profile, r.Verdict())
	for _, c := range r.Checks {
		if !c.Held {
			fmt.Fprintf(&b, "; %s %s, wanted %s", c.What, number(c.Got), number(c.Want))
		}
	}
	for _, why := range r.Invalid {
		fmt.Fprintf(&b, "; %s", why)
	}
	b.WriteByte('\n')
	if r.Closed {
		b.WriteString("closed: each answer paced the next request, so the latencies are not those of an open system\n")
	}
	if r.WarmS > 0 {
		fmt.Fprintf(&b, "percentiles are without the first %s s\n", number(r.WarmS))
	}
	if l := r.Ledger; l != nil {
		fmt.Fprintf(&b, "acknowledged %s = visible %s%s at both carriers; lost %d, wrong %d, repeated %s\n",
			count(l.Checked), count(l.Visible), r.HiddenText(), l.Lost, l.Wrong, r.RepeatedText())
		if l.Checked < l.Acked {
			fmt.Fprintf(&b, "read back %s of %s acknowledged tests\n", count(l.Checked), count(l.Acked))
		}
	}
	if verbose {
		r.details(&b)
	}
	return b.String()
}

func (r *Result) details(b *strings.Builder) {
	for i := range r.Streams {
		s := &r.Streams[i]
		u := s.Units
		fmt.Fprintf(b, "\n%s: offered %s/s, achieved %s/s; sent %s, acked %s, failed %s, unknown %s, dropped %s\n", s.Name,
			number(s.OfferedPerS), number(s.AchievedPerS), count(u.Sent), count(u.Acked), count(u.Failed), count(u.Unknown), count(u.Dropped))
		spread(b, "response", s.ResponseMS.P50, s.ResponseMS.P90, s.ResponseMS.P99, s.ResponseMS.P999, s.ResponseMS.P9999, s.ResponseMS.Max)
		spread(b, "service", s.ServiceMS.P50, s.ServiceMS.P90, s.ServiceMS.P99, s.ServiceMS.P999, s.ServiceMS.P9999, s.ServiceMS.Max)
		codes(b, s)
	}
	if v := r.VisibleMS; v.Count > 0 {
		spread(b, "visible", v.P50, v.P90, v.P99, v.P999, v.P9999, v.Max)
	}
	spread(b, "lag", r.LagMS.P50, r.LagMS.P90, r.LagMS.P99, r.LagMS.P999, r.LagMS.P9999, r.LagMS.Max)
	if r.Facts != nil {
		fmt.Fprintf(b, "  facts      acknowledged %s, committed by all origins %s\n", count(r.Facts.Acknowledged), count(r.Facts.Committed))
	}
	if s := r.Surge; s != nil {
		fmt.Fprintf(b, "  surge      at its height")
		for _, name := range slices.Sorted(maps.Keys(s.HeightPerS)) {
			fmt.Fprintf(b, "  %s %s/s", name, number(s.HeightPerS[name]))
		}
		fmt.Fprintf(b, "; refusals p50 %s p99 %s ms; recovered after %s s\n", number(s.RefusalMS.P50), number(s.RefusalMS.P99), number(s.RecoveryS))
	}
	fmt.Fprintf(b, "\n%-12s %10s %12s %12s %12s\n", "role", "CPU s", "CPU µs/op", "written MiB", "peak MiB")
	for _, u := range r.Roles {
		fmt.Fprintf(b, "%-12s %10.1f %12.1f %12.1f %12.0f\n", u.Role, u.CPU, r.CPUOf(u), float64(u.Written)/(1<<20), float64(u.PeakRSS)/(1<<20))
	}
	fmt.Fprintf(b, "all %s CPU µs/op, %s bytes written/op, generator %.0f%% of it; the machine was busy for %.1f s of %.1f\n",
		number(r.CPUPerOp), number(r.DiskPerOp), 100*r.GeneratorShare, r.BusyCPU, r.DurationS*float64(r.Machine.Cores))
	fmt.Fprintf(b, "%s, %d cores, %d MiB, Linux %s, fsync %.0f µs, load %.1f; generator %s; %s, commit %s\n",
		r.Machine.CPU, r.Machine.Cores, r.Machine.MemoryMiB, r.Machine.Kernel, r.Machine.FsyncUS, r.Machine.Load1, r.Machine.Generator, r.Machine.Go, r.Commit)
	for _, n := range r.Notes {
		fmt.Fprintf(b, "note: %s\n", n)
	}
}

func spread(b *strings.Builder, what string, p50, p90, p99, p999, p9999, most float64) {
	fmt.Fprintf(b, "  %-10s p50 %s  p90 %s  p99 %s  p99.9 %s  p99.99 %s  max %s ms\n", what,
		number(p50), number(p90), number(p99), number(p999), number(p9999), number(most))
}

func codes(b *strings.Builder, s *Stream) {
	all := map[string]int64{}
	for _, t := range s.Kinds {
		for c, n := range t.Codes {
			all[c] += n
		}
	}
	for _, c := range sorted(all) {
		fmt.Fprintf(b, "  %-10s %s\n", count(all[c]), c)
	}
	if n := s.Count(func(t *drive.Tally) int64 { return t.Retries }); n > 0 {
		fmt.Fprintf(b, "  %-10s tries beyond the first\n", count(n))
	}
}
