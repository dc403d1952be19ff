package report

import (
	"fmt"
	"slices"
	"strings"

	"qianma/loadtest/drive"
	"qianma/loadtest/hist"
)

// Objectives are what a run must keep. A zero field asks nothing.
type Objectives struct {
	Response map[string]float64 `json:"response_p99_ms"` // by stream
	Visible  float64            `json:"visible_p99_ms"`
	Achieved float64            `json:"achieved_share"` // of what was asked, acknowledged within half a second of the last arrival
	Failures float64            `json:"failed_share"`   // failed, unknown and dropped, of what was asked; below 0: any
	CPU      float64            `json:"cpu_us_per_op"`
	Recovery float64            `json:"recovery_s"`
	Refusal  float64            `json:"refusal_p99_ms"`
	Goodput  float64            `json:"goodput_per_s"` // at the height of a surge
	// Of the displays that went well, those that must show a test. To be told that
	// nobody is known costs less than a code, so a run of strangers says nothing of
	// one of people.
	Found float64 `json:"found_share"`
}

// Usual are the objectives of a profile.
func Usual(profile string) Objectives {
	o := Objectives{Achieved: .99, Response: map[string]float64{}}
	switch profile {
	case "scan", "batch", "day":
		o.Response["tests"], o.Response["displays"], o.Visible = 250, 20, 1000
	case "display", "verify":
		o.Response["displays"], o.Response["verifications"] = 20, 20
		if profile == "display" {
			o.Found = .5
		}
	case "surge":
		// What is refused is refused; it must be refused well.
		o = Objectives{Failures: -1, Recovery: 5, Refusal: 10, Response: map[string]float64{}}
	case "midnight":
		// Everybody at once is past what a province has machines for; what it may
		// cost is a wait that a phone's holder does not take for a failure: 1 s.
		o.Achieved, o.Response["displays"], o.Found = 0, 1000, .5
	case "preload":
		o.Achieved = 0
	}
	return o
}

// Text is the objectives of a profile in words, as far as they are of the
// streams that it has.
func (o Objectives) Text(streams []string) string {
	var out []string
	say := func(set float64, format string, args ...any) {
		if set > 0 {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	for _, name := range streams {
		say(o.Response[name], "%s p99 %s ms", name, number(o.Response[name]))
	}
	say(o.Visible, "visible p99 %s ms", number(o.Visible))
	say(o.Achieved, "%s%% acknowledged in time", number(100*o.Achieved))
	switch {
	case o.Failures == 0:
		out = append(out, "none failed")
	case o.Failures > 0:
		say(o.Failures, "%s%% failed at most", number(100*o.Failures))
	}
	say(o.Found, "%s%% of the displays show a test (load the people first)", number(100*o.Found))
	say(o.Recovery, "as before after %s s", number(o.Recovery))
	say(o.Refusal, "refusals p99 %s ms, no code and no binding refused or unserved", number(o.Refusal))
	return strings.Join(out, ", ")
}

// Check is one objective and how it went.
type Check struct {
	What string  `json:"what"`
	Want float64 `json:"want"`
	Got  float64 `json:"got"`
	Held bool    `json:"held"`
}

// Judge holds the result against the objectives. What was not measured is
// neither held nor missed: it is listed.
func (r *Result) Judge(o Objectives) {
	r.Checks, r.NotMeasured = nil, []string{}
	r.Notes = slices.DeleteFunc(r.Notes, func(n string) bool { return strings.HasPrefix(n, fewNote) }) // an earlier judgement's, or a part's
	for i := range r.Streams {
		r.judgeStream(o, &r.Streams[i])
	}
	if o.Visible > 0 {
		r.latency(r.visibleCheck(), r.VisibleMS, o.Visible, "no test was watched")
	}
	if few(r.VisibleMS) && !r.Closed {
		r.Notes = append(r.Notes, fmt.Sprintf("%s%s: %s", fewNote, Several(r.VisibleMS.Count, "watched test"), r.Elsewhere()))
	}
	switch {
	case o.CPU > 0 && r.CPUPerOp < 0:
		r.unmeasured("CPU per operation", "the processes could not be metered, or nothing was done")
	case o.CPU > 0:
		r.most("CPU µs per operation", r.CPUPerOp, o.CPU)
	}
	if o.Found > 0 {
		r.judgeFound(o.Found)
	}
	if r.Surge != nil {
		r.judgeSurge(o)
	}
	r.judgeLedger()
}

// judgeFound is for the runs that ask and load nobody themselves.
func (r *Result) judgeFound(want float64) {
	_, got := r.shown(func(t *drive.Tally) int64 { return t.Found })
	if got < 0 {
		r.unmeasured("share of the displays that showed a test", "nothing was answered well")
		return
	}
	what := fmt.Sprintf("share of the displays that showed a test (load the people first: qianma load preload --people %s)", setting(r, "people"))
	r.Checks = append(r.Checks, Check{what, want, got, got >= want})
}

func (r *Result) most(what string, got, want float64) {
	r.Checks = append(r.Checks, Check{what, want, got, got <= want})
}

func (r *Result) unmeasured(what, why string) {
	r.NotMeasured = append(r.NotMeasured, what+" ("+why+")")
}

// latency judges a percentile, where there is one that means anything.
func (r *Result) latency(what string, got hist.Summary, want float64, ifNone string) {
	switch {
	case r.Closed:
		r.unmeasured(what, "closed: each answer paced the next request")
	case got.Count == 0:
		r.unmeasured(what, ifNone)
	default:
		r.most(what, got.P99, want)
	}
}

const (
	fewResponses = 1000
	fewNote      = "p99 of only "
)

func (r *Result) judgeStream(o Objectives, s *Stream) {
	if few(s.ResponseMS) && !r.Closed {
		r.Notes = append(r.Notes, fmt.Sprintf("%s%s: %s (%s)", fewNote, Several(s.ResponseMS.Count, "response"), s.Name, s.Slowest))
	}
	if want := o.Response[s.Name]; want > 0 {
		r.latency(responseCheck(s), s.ResponseMS, want, "nothing was answered well")
	}
	if o.Achieved > 0 && !r.Closed {
		got := float64(s.InTime) / float64(max(1, s.Units.Asked))
		r.Checks = append(r.Checks, Check{s.Name + " acknowledged in time, share", o.Achieved, got, got >= o.Achieved})
	}
	if o.Failures >= 0 {
		u := s.Units
		r.most(s.Name+" failed, unknown or dropped share", float64(u.Failed+u.Unknown+u.Dropped)/float64(max(1, u.Asked)), o.Failures)
	}
}

// judgeLedger lists what nobody looked at: Code judges the rest.
func (r *Result) judgeLedger() {
	if r.Settings["ledger"] != true {
		return // nothing was written
	}
	switch l := r.Ledger; {
	case l == nil:
		r.unmeasured("lost, wrong, repeated", "the ledger was not read back")
	case !l.RepeatedChecked && l.Acked > 0:
		r.unmeasured("repeated", "no tube could be counted")
	}
	if f := r.Facts; f != nil && f.Unmeasured != "" {
		r.unmeasured("facts committed", f.Unmeasured)
	}
}

// Elsewhere names where a watched test had to become visible.
func (r *Result) Elsewhere() string {
	if len(r.Carriers) == 1 {
		return "visible at the one carrier there is"
	}
	return "visible at the other carrier"
}

func (r *Result) judgeSurge(o Objectives) {
	if o.Goodput <= 0 {
		r.unmeasured("goodput at the height", "it is not judged, because no --min-goodput was given")
	} else {
		got := r.Surge.GoodputPerS
		r.Checks = append(r.Checks, Check{"goodput per s", o.Goodput, got, got >= o.Goodput})
	}
	if o.Recovery > 0 {
		got := r.Surge.RecoveryS
		r.Checks = append(r.Checks, Check{"recovery s", o.Recovery, got, got >= 0 && got <= o.Recovery})
	}
	if o.Refusal > 0 && r.Surge.RefusalMS.Count > 0 {
		r.most("refusal p99 ms", r.Surge.RefusalMS.P99, o.Refusal)
		r.most("refusals without Retry-After", float64(r.Surge.WithoutHint), 0)
	}
	r.most("displays refused", float64(r.Surge.DisplayRefused), 0)
	r.most("bindings refused", float64(r.Surge.BindingRefused), 0)
	r.most("displays unserved", float64(r.Surge.DisplayUnserved), 0)
	r.most("bindings unserved", float64(r.Surge.BindingUnserved), 0)
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
	case r.Lost+r.Wrong+r.Repeated > 0, r.Facts.Excess() > 0:
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

// Why is the verdict with what decided it.
func (r *Result) Why() string {
	var b strings.Builder
	b.WriteString(r.Verdict())
	for _, c := range r.Checks {
		if !c.Held {
			fmt.Fprintf(&b, "; %s %s, wanted %s", c.What, number(c.Got), number(c.Want))
		}
	}
	for _, why := range r.Invalid {
		fmt.Fprintf(&b, "; %s", why)
	}
	return b.String()
}

// Text is the report a terminal shows.
func (r *Result) Text(verbose bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s/s", number(r.AchievedPerS), r.Unit)
	for _, h := range r.heads() {
		fmt.Fprintf(&b, "   %s", h)
	}
	fmt.Fprintf(&b, "   tries beyond the first %s, refused %s\n", count(r.Retries), count(r.Refusals))
	fmt.Fprintf(&b, "%s: %s", r.Profile, r.Why())
	if len(r.NotMeasured) > 0 {
		fmt.Fprintf(&b, "; not measured: %s", strings.Join(r.NotMeasured, ", "))
	}
	b.WriteByte('\n')
	if r.Closed {
		b.WriteString("closed: each answer paced the next request, so the latencies are not those of an open system\n")
	}
	if r.WarmS > 0 {
		fmt.Fprintf(&b, "percentiles are without the first %s s\n", number(r.WarmS))
	}
	if l := r.Ledger; l != nil {
		fmt.Fprintln(&b, l.Text(r.Carriers))
	}
	r.shownText(&b)
	if f := r.Facts; f != nil {
		fmt.Fprintf(&b, "facts: %s\n", f.Text())
	}
	if verbose {
		r.details(&b)
	}
	return b.String()
}

func (r *Result) shownText(b *strings.Builder) {
	if r.FoundShare >= 0 {
		fmt.Fprintf(b, "of the displays %s showed a test, %s said that it was old\n", percent(r.FoundShare), percent(r.StaleShare))
	}
	if s := r.Surge; s != nil {
		fmt.Fprintf(b, "at the height %s were done\n", s.heightText())
		fmt.Fprintf(b, "never served in the crowd's patience: %s displays, %s bindings\n", count(s.DisplayUnserved), count(s.BindingUnserved))
	}
}

// heightText is what was done a second, of each kind, while the surge was at its height.
func (s *Surge) heightText() string {
	var out []string
	for _, name := range sorted(s.HeightPerS) {
		out = append(out, number(s.HeightPerS[name])+" "+name+"/s")
	}
	return strings.Join(out, ", ")
}

// Text says how the facts stand beside the acknowledgements.
func (f *Facts) Text() string {
	if f.Unmeasured != "" {
		return "not measured: " + f.Unmeasured
	}
	text := fmt.Sprintf("acknowledged %s, committed by all origins %s", count(f.Acknowledged), count(f.Committed))
	if f.Excused > 0 {
		text += fmt.Sprintf(", of which %s may be beyond that (unknown, or tried at another carrier too)", count(f.Excused))
	}
	if n := f.Excess(); n > 0 {
		text += fmt.Sprintf("; %s that nobody sent", count(n))
	}
	return text
}

func (r *Result) details(b *strings.Builder) {
	for i := range r.Streams {
		s := &r.Streams[i]
		u := s.Units
		fmt.Fprintf(b, "\n%s: offered %s/s, achieved %s/s; sent %s, acked %s, failed %s, unknown %s, dropped %s\n", s.Name,
			number(s.OfferedPerS), number(s.AchievedPerS), count(u.Sent), count(u.Acked), count(u.Failed), count(u.Unknown), count(u.Dropped))
		spread(b, "response", s.ResponseMS)
		if len(s.ByKind) > 1 {
			for _, kind := range sorted(s.ByKind) {
				spread(b, kind, s.ByKind[kind])
			}
		}
		spread(b, "service", s.ServiceMS)
		codes(b, s)
	}
	if v := r.VisibleMS; v.Count > 0 {
		spread(b, "visible", v)
	}
	spread(b, "lag", r.LagMS)
	if s := r.Surge; s != nil {
		fmt.Fprintf(b, "  surge      refusals p50 %s p99 %s ms; recovered after %s s\n", number(p50.of(s.RefusalMS)), number(p99.of(s.RefusalMS)), number(s.RecoveryS))
	}
	fmt.Fprintf(b, "\n%-12s %10s %12s %12s %12s\n", "role", "CPU s", "CPU µs/op", "written MiB", "peak MiB")
	for _, u := range r.Roles {
		fmt.Fprintf(b, "%-12s %10s %12s %12s %12s\n", u.Role, number(u.CPU), number(r.CPUOf(u)), mib(u.Written), mib(u.PeakRSS))
	}
	fmt.Fprintf(b, "all %s CPU µs/op, %s bytes written/op, generator %s of it; the machine was busy for %s s of %s\n",
		number(r.CPUPerOp), number(r.DiskPerOp), percent(r.GeneratorShare), number(r.BusyCPU), number(r.DurationS*float64(r.Machine.Cores)))
	fmt.Fprintf(b, "%s\n", r.SettledText())
	fmt.Fprintf(b, "%s, %d cores, %s MiB, Linux %s, fsync %s µs, load %s; generator %s; %s, commit %s\n",
		r.Machine.CPU, r.Machine.Cores, count(r.Machine.MemoryMiB), r.Machine.Kernel, number(r.Machine.FsyncUS), number(r.Machine.Load1), r.Machine.Generator, r.Machine.Go, r.Commit)
	for _, n := range r.Notes {
		fmt.Fprintf(b, "note: %s\n", n)
	}
}

// SettledText says what it cost with what was still owed at the last answer.
func (r *Result) SettledText() string {
	switch {
	case len(r.Settled) == 0:
		return "what was still owed when the last answer came was not measured"
	case r.SettledS < 0:
		return fmt.Sprintf("%s CPU µs/op with what was worked off after the last answer; some replica was still behind when the waiting ended", number(r.CPUPerOpSettled))
	}
	return fmt.Sprintf("%s CPU µs/op with what was worked off in the %s s after the last answer until no replica was behind", number(r.CPUPerOpSettled), number(r.SettledS))
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
