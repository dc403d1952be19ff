package loadtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"qianma/loadtest/client"
	"qianma/loadtest/cost"
	"qianma/loadtest/drive"
	"qianma/loadtest/hist"
	"qianma/loadtest/ledger"
	"qianma/loadtest/population"
	"qianma/loadtest/profiles"
	"qianma/loadtest/province"
	"qianma/loadtest/report"
)

// System is what a run loads: how to reach it and how to meter it.
type System struct {
	Name     string
	Carriers []string
	// Open makes a target; the run opens one and reading back another.
	Open      func(run string) (drive.Target, error)
	Processes cost.Source         // nil: cannot be metered
	Endpoints *province.Endpoints // nil: has no marks
	Settings  map[string]any      // to be printed with the result
	Notes     []string
}

// Options are a run.
type Options struct {
	profiles.Settings
	System   System
	Drive    drive.Config
	Out      string // directory for result.json, report.html, ledger; empty: nothing is kept
	ReadBack int    // people to look for afterwards; 0: all; below 0: none
	Settle   time.Duration
	Absent   time.Duration // how long a carrier may leave everything unanswered while it is read back; 0: absentMost
	// Rest is called when all has been sent and before anything is read back,
	// which takes the machine as a load does; it returns when ctx ends. May be nil.
	Rest       func(ctx context.Context)
	Objectives report.Objectives
	Part       uint64 // of Parts generators
	Parts      uint64
	Start      time.Time         // common start of several generators; zero: now
	TubeBase   uint64            // common to several generators; 0: from Start
	Unmetered  bool              // somebody else meters the system
	Shared     bool              // others write to the system too: its facts and what it still owes say nothing of this run
	Command    string            // how the run was asked for, to be printed with the result; may be empty
	Live       func(View)        // called once a second, may be nil
	Say        func(text string) // a line about what happens now, may be nil
}

// View is what can be seen of a run while it lasts.
type View struct {
	Second  int
	Streams []*drive.Stream
	Moment  report.Moment
	Open    int
	Visible hist.Summary
	Late    int64
}

// Run makes one load run and audits it. What could not be written down is an
// error beside the result.
func Run(ctx context.Context, o Options) (*report.Result, *ledger.Ledger, error) {
	r, err := prepare(o)
	if err != nil {
		return nil, nil, err
	}
	res, err := r.load(ctx)
	if err != nil {
		return nil, nil, err
	}
	unread := r.check(ctx, res) // the report of the run is worth having all the same
	res.Headline()
	judge(res, o.Objectives)
	return res, r.profile.Ledger, errors.Join(r.unkept, unread, r.publish(res))
}

// run is one run in the making.
type run struct {
	o       Options
	start   time.Time
	name    string // begins every idempotency key of the run
	driver  *drive.Driver
	target  drive.Target
	profile *profiles.Profile
	watch   *observer
	machine report.Machine
	halted  bool
	unkept  error // why the ledger is not on the disk: a full one costs the files, not the figures
}

// crowded is how long phones and booths try for in a surge: as long as one request
// may take. A crowd that waited for half a minute would still stand there long
// after the surge, and no system that serves everybody could recover before it.
const crowded = 5 * time.Second

func prepare(o Options) (*run, error) {
	now := time.Now()
	if !o.Start.IsZero() {
		now = o.Start
	}
	if o.Draw == 0 {
		o.Draw = newDraw(o.Seed, uint64(now.UnixMicro()))
	}
	r := &run{o: o}
	base := o.TubeBase
	if base == 0 {
		base = population.TubeBase(now)
	}
	r.name = "load-" + strconv.FormatUint(o.Seed, 36) + "-" + strconv.FormatInt(now.UnixMicro(), 36)
	target, err := o.System.Open(r.name)
	if err != nil {
		return nil, err
	}
	cfg := o.Drive
	cfg.Warm = o.Warm
	// Past capacity a refusal is an answer; elsewhere it is a wait.
	cfg.KeepRefused = cfg.KeepRefused || (o.Profile != "surge" && o.Profile != "midnight")
	if o.Profile == "surge" && cfg.Patience == 0 {
		cfg.Patience = crowded
	}
	cfg.Tick = r.tick
	r.target, r.driver = target, drive.New(cfg, target)
	head := ledger.Head{Run: r.name, Start: now, Seed: o.Seed, People: o.People.N, TubeBase: base,
		Stride: max(1, o.Parts), Part: o.Part, Carriers: o.System.Carriers}
	if r.profile, err = profiles.Build(o.Settings, r.driver, len(o.System.Carriers), head); err == nil && o.Out != "" {
		err = os.MkdirAll(o.Out, 0o755)
	}
	if err != nil {
		return nil, errors.Join(err, target.Close())
	}
	return r, nil
}

// newDraw is an order for a run that was given none. It has 32 bits: a report's
// reader may hold every number in a float.
func newDraw(seed, run uint64) uint64 { return max(1, population.Mix(seed, run)>>32) }

// load runs the schedule to its end, keeps the ledger, which is what cannot be had
// again, and writes down what it cost.
func (r *run) load(ctx context.Context) (*report.Result, error) {
	defer r.target.Close()
	r.machine = report.ThisMachine(r.o.Out)
	meter, err := cost.Begin(r.source())
	if err != nil {
		return nil, fmt.Errorf("cannot meter the processes: %w", err)
	}
	r.watch = observe(meter, r.o.System.Endpoints, r.o.System.Carriers)
	defer r.watch.Close()
	books := r.openBooks(ctx)
	driven := r.drive(ctx)
	r.unkept = r.keep()
	if driven != nil {
		return nil, errors.Join(driven, r.unkept)
	}
	r.watch.Close()
	b := drawUp(meter)
	if books != nil && !r.halted {
		b.settle(ctx, r.watch, meter)
	}
	b.facts = books.close(context.WithoutCancel(ctx), r)
	return r.result(b), nil
}

// drive runs the driver on a thread of its own. The whole process gets a better
// priority: the system it loads must not starve the clock that judges it.
func (r *run) drive(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// With as many processors as cores, a goroutine that the kernel has put
	// aside holds one, and the driver waits for it on its way back from a call.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(spareProcs))
	how, restore := prefer()
	defer restore()
	r.machine.Generator = how
	r.start = r.o.Start
	if r.start.IsZero() {
		r.start = time.Now()
	}
	// Times that cross the wire are in milliseconds; the start must be one.
	r.start = r.start.Truncate(time.Millisecond)
	r.profile.Begin(r.start)
	err := r.driver.Run(ctx, r.start, r.profile.Flush)
	r.halted = ctx.Err() != nil
	return err
}

const spareProcs = 8

func (r *run) tick(second int) {
	if r.o.Live != nil {
		m, _ := r.watch.seen()
		r.o.Live(View{second, r.driver.Streams(), m, r.driver.Open(), r.profile.Visible.Summary(), r.driver.Pace.Late})
	}
}

func (r *run) source() cost.Source {
	if r.o.Unmetered {
		return cost.With(nil, cost.Self())
	}
	return cost.With(r.o.System.Processes, cost.Self())
}

func (r *run) result(b *bill) *report.Result {
	o := r.o
	_, moments := r.watch.seen()
	took := max(r.profile.Main.Plan.Duration(), r.driver.Ended())
	if o.Drive.Closed > 0 || r.halted {
		took = r.driver.Ended() // there is no plan to be held to, or no more of it was done
	}
	res := &report.Result{
		Profile: o.Profile, Target: o.System.Name, Start: r.start, Carriers: o.System.Carriers,
		DurationS: took.Seconds(), Closed: o.Drive.Closed > 0, WarmS: o.Warm.Seconds(), Settings: r.settings(),
		Machine: r.machine, Commit: report.Commit(), Parts: 1,
		Roles: b.roles, Settled: b.settled, SettledS: b.settledS, BusyCPU: b.busy, Facts: b.facts, Seconds: moments,
		Visible: r.profile.Visible, Unseen: r.profile.Unseen,
		Late: r.driver.Pace.Late, Lag: r.driver.Pace.Lag,
		Notes: slices.Concat(o.System.Notes, r.watch.notes, b.notes),
	}
	for _, s := range r.driver.Streams() {
		sum := report.Sum(s, took)
		if res.Closed {
			sum.OfferedPerS = sum.AchievedPerS // the answers set the pace: nothing else was offered
		}
		res.Streams = append(res.Streams, sum)
	}
	if o.Profile == "surge" {
		res.Surge = r.surge()
	}
	r.validate(res)
	res.Headline()
	if note := outside(res); note != "" && !o.Unmetered {
		res.Notes = append(res.Notes, note)
	}
	return res
}

// outsideShare is how much of the machine others may use before it is said.
const outsideShare = .05

// outside says that somebody else was at work on the machine.
func outside(res *report.Result) string {
	rest := res.BusyCPU
	for _, u := range res.Roles {
		rest -= u.CPU
	}
	whole := res.DurationS * float64(res.Machine.Cores)
	if len(res.Roles) < 2 || rest < outsideShare*whole {
		return ""
	}
	return fmt.Sprintf("%.0f%% of the machine's processor time went to processes that are no part of this run", 100*rest/whole)
}

// invalidShare is how many arrivals in a hundred the generator may take up
// late before its numbers say more about itself than about the system.
const invalidShare = .01

// interrupted is why a run is invalid that somebody ended before its time.
const interrupted = "the run was interrupted"

// judge holds a result against the objectives. Of an interrupted run only those
// tests were seen to show that were quick, or late already: that is no percentile
// to be held to.
func judge(res *report.Result, o report.Objectives) {
	cut := o.Visible > 0 && slices.Contains(res.Invalid, interrupted)
	if cut {
		o.Visible = 0
	}
	res.Judge(o)
	if cut {
		res.NotMeasured = append(res.NotMeasured, res.Elsewhere()+" p99 ms ("+interrupted+")")
	}
}

func (r *run) validate(res *report.Result) {
	pace := r.driver.Pace
	if share := float64(pace.Late) / float64(max(1, pace.Arrivals)); share > invalidShare {
		res.Invalid = append(res.Invalid, fmt.Sprintf("the generator is saturated: it took up %.1f%% of the arrivals more than %v late", 100*share, drive.Tolerance))
	}
	if r.halted {
		res.Invalid = append(res.Invalid, interrupted)
	}
	if pace.Arrivals == 0 {
		res.Invalid = append(res.Invalid, "nothing arrived")
	}
	res.Valid = len(res.Invalid) == 0
}

func (r *run) settings() map[string]any {
	s, cfg := r.profile.Settings, r.driver.Config()
	out := map[string]any{
		"rate": s.Rate, "displays_per_s": s.Displays, "plan": s.Plan.Scale(float64(max(1, r.o.Parts))).String(), "wave_s": s.Wave.Seconds(), "duration_s": r.profile.Main.Plan.Duration().Seconds(), "people": s.People.N, "seed": s.Seed, "draw": s.Draw,
		"split": s.Split, "poisson": s.Poisson, "booths": s.Booths, "batch": s.Batch, "positive": s.Positive,
		"zipf": s.Skew, "cold": s.Cold, "roam": s.Roam, "pools": s.Mix, "watches_per_s": s.Watches, "run": r.name, "ledger": r.profile.Ledger != nil, "warm_s": s.Warm.Seconds(),
		"quantum_ms": hist.Millis(cfg.Quantum), "patience_s": cfg.Patience.Seconds(), "tries": cfg.Tries, "closed": cfg.Closed,
		"shared": r.o.Shared, "generators": max(1, r.o.Parts),
	}
	if r.o.Command != "" {
		out["command"] = r.o.Command
	}
	for k, v := range r.o.System.Settings {
		out[k] = v
	}
	return out
}

// check reads back the ledger.
func (r *run) check(ctx context.Context, res *report.Result) error {
	l := r.profile.Ledger
	if l == nil || r.o.ReadBack < 0 {
		return nil
	}
	if r.halted {
		noteCut(res, r.o.Out)
		return nil
	}
	if r.o.Rest != nil {
		r.o.Rest(ctx)
	}
	r.say("reading back %d tests at %d carriers", l.Count()[ledger.Acked], len(l.Head.Carriers))
	how := Reading{Sample: r.o.ReadBack, Settle: r.o.Settle, Absent: r.o.Absent, Say: r.o.Say}
	return noteUnread(Check(ctx, r.o.System, l, how, res), res, r.o.Out)
}

// noteUnread takes down in the result that its ledger could not be read back. That
// nobody answers is no fault of the run's: its report then says so, and there is
// no error.
func noteUnread(err error, res *report.Result, out string) error {
	if err == nil {
		return nil
	}
	if out != "" {
		err = fmt.Errorf("%w; %s", err, later(out))
	}
	res.Notes = append(res.Notes, "the ledger was not read back: "+err.Error())
	var silent *Silent
	if errors.As(err, &silent) {
		return nil
	}
	return err
}

// later says how a ledger that was kept is read back.
func later(out string) string { return "qianma load check " + out + " reads it back later" }

// noteCut takes down where the ledger of an interrupted run is.
func noteCut(res *report.Result, out string) {
	if out != "" {
		res.Notes = append(res.Notes, "the run was interrupted and its ledger not read back: "+later(out))
	}
}

// Check reads a ledger back and writes what it found into the result.
func Check(ctx context.Context, s System, l *ledger.Ledger, how Reading, res *report.Result) error {
	target, err := s.Open(l.Head.Run)
	if err != nil {
		return err
	}
	defer target.Close()
	rep, notes, err := ReadBack(ctx, target, l, how)
	if err != nil {
		return err
	}
	res.Ledger, res.Notes = &rep, append(res.Notes, notes...)
	return nil
}

// keep writes the ledger to the disk.
func (r *run) keep() error {
	if r.o.Out == "" || r.profile.Ledger == nil {
		return nil
	}
	return r.profile.Ledger.Save(filepath.Join(r.o.Out, "ledger"))
}

func (r *run) publish(res *report.Result) error {
	if r.o.Out == "" {
		return nil
	}
	return Publish(res, r.o.Out)
}

// Publish writes result.json and report.html into a directory.
func Publish(res *report.Result, out string) error {
	if err := res.Save(filepath.Join(out, "result.json")); err != nil {
		return err
	}
	return res.SaveHTML(filepath.Join(out, "report.html"))
}

func (r *run) say(format string, args ...any) {
	if r.o.Say != nil {
		r.o.Say(fmt.Sprintf(format, args...))
	}
}

// Province is a running province as a system to load.
func Province(e *province.Endpoints, carriers []string, cfg province.Config) (System, error) {
	picked, err := e.Pick(carriers)
	if err != nil {
		return System{}, err
	}
	cfg.Endpoints, cfg.Carriers = e, picked
	s := System{Name: "qianma", Carriers: picked, Endpoints: e}
	if cfg.Hasher, err = e.Hasher(); err != nil {
		cfg.Hasher = nil
		s.Notes = append(s.Notes, "the person key is not readable here: people are resolved over HTTP, batches are NDJSON")
	}
	if _, err := os.Stat(filepath.Join(e.Data, "control.sock")); err == nil {
		s.Processes = cost.Every(3*time.Second, cost.Supervisor(e.Data))
	} else {
		s.Notes = append(s.Notes, "no supervisor on this machine: the system's own cost was not measured")
	}
	s.Settings = map[string]any{"ack": cfg.Ack, "format": cfg.Format, "connections_per_node": cmp.Or(cfg.Client.PerNode, client.UsualPerNode), "spread": cfg.Client.Spread,
		"gather_ms": hist.Millis(cfg.Client.Gather), "timeout_s": cmp.Or(cfg.Client.Timeout, client.UsualTimeout).Seconds()}
	s.Open = func(name string) (drive.Target, error) {
		c := cfg
		c.Run = name
		t, err := province.Open(c)
		if err != nil {
			return nil, err
		}
		return t, nil
	}
	return s, nil
}
