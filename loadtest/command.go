// Package loadtest offers a province, or one of its peers, a measured load
// over the network and says in a way a hostile reader accepts what came of it.
//
// Promises. Arrivals follow a schedule that the system cannot slow down;
// response times count from when a request should have started. Every
// acknowledged test is in a ledger, and after the run each is looked for at
// every carrier as a phone would look for it. What the generator itself could
// not keep up with makes the run invalid, not slow. What it all cost is read
// from the operating system, the generator included.
//
// Refusals. It links none of the subsystems it loads: only their contracts. It
// believes no figure that the system gives of itself, except which facts an
// origin has committed, and that only beside its own count.
//
// See DESIGN.md for the parts and the decisions.
package loadtest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"qianma/loadtest/client"
	"qianma/loadtest/drive"
	"qianma/loadtest/hist"
	"qianma/loadtest/peers"
	"qianma/loadtest/population"
	"qianma/loadtest/profiles"
	"qianma/loadtest/province"
	"qianma/loadtest/report"
	"qianma/loadtest/schedule"
)

// Command is `qianma load`.
type Command struct {
	Run     RunCommand     `cmd:"" default:"withargs" help:"Make one load run (the default)."`
	FindMax FindMaxCommand `cmd:"" help:"Find the highest rate that keeps the objectives, confirmed three times."`
	Compare CompareCommand `cmd:"" help:"Put two results side by side."`
	Merge   MergeCommand   `cmd:"" help:"Join the results of several generators of one run."`
	Check   CheckCommand   `cmd:"" help:"Read a kept ledger back again."`
	Phones  PhonesCommand  `cmd:"" help:"Print what the display profile would ask, a URL a line, for another generator."`
	Peer    peers.Serve    `cmd:"" hidden:"" help:"Run one server of a peer."`
}

// Shape is what a run does.
type Shape struct {
	Profile  string        `arg:"" optional:"" enum:"scan,batch,display,verify,day,surge,midnight,preload" default:"scan" help:"One of ${enum}."`
	Rate     float64       `help:"Tests (or displays) a second; 0: the profile's own." default:"0"`
	Displays float64       `help:"Displays a second beside the tests, for day and surge (0: twice the rate) and for batch (0: none)."`
	Duration time.Duration `help:"How long arrivals come." default:"60s"`
	Warm     time.Duration `help:"So much of the beginning is in no percentile; all else counts it." default:"0s"`
	Plan     string        `help:"Phases in place of a constant rate: 1000:30s,1000-10000:60s,10000:2m."`
	Poisson  bool          `help:"Independent arrivals, not evenly spaced ones."`
	People   uint32        `help:"Size of the population." default:"1000000"`
	Carriers []string      `help:"Carriers to use; empty: all."`
	Split    []float64     `help:"Share of each carrier; empty: equal."`
	Ack      string        `help:"What an upload waits for." enum:"committed,replicated" default:"committed"`
	Seed     uint64        `help:"Same seed, same people." default:"1"`
	Draw     uint64        `help:"Same draw, same order of who refreshes; 0: another in each run, and the report says which." default:"0"`
	Batch    int           `help:"Rows in a request, for batch and preload." default:"500"`
	Format   string        `help:"How batches are written." enum:"binary,ndjson" default:"binary"`
	Booths   int           `help:"Tubes that fill at the same time; 0: by rate."`
	Positive float64       `help:"Share of tubes that are positive." default:"0.001"`
	Mix      string        `help:"Pools, and of the people the share that is sampled into each, as in 20:.7,10:.2,5:.05,1:.05 (a city's day, used where this is empty). Sizes: 20, 10, 5, 1."`
	Zipf     float64       `help:"Exponent of who refreshes." default:"1.1"`
	Cold     float64       `help:"Share of displays drawn from everybody alike." default:"0.1"`
	Roam     bool          `help:"Each refresh of a phone goes to any node of any carrier; else a phone stays with one while that is up."`
	Watch    float64       `help:"Tests a second whose visibility is timed; --watch=-1: none, and the verdict says so; 0: 20, or fewer in more than half a minute, 600 in all." default:"0"`
	Wave     time.Duration `help:"Midnight: everybody refreshes once within this." default:"10s"`
	Closed   int           `help:"Keep this many requests in flight in place of a schedule. Its latencies say nothing of an open system and are not judged."`
}

// Reach is what a run is made against, and how.
type Reach struct {
	Target      string        `help:"qianma, postgres, jetstream-kv or etcd." enum:"qianma,postgres,jetstream-kv,etcd" default:"qianma"`
	Data        string        `help:"Data directory of the province." default:"./data"`
	Endpoints   string        `help:"File with the endpoints of a province elsewhere." aliases:"endpoint"`
	PeerDir     string        `help:"Where a peer keeps its data; empty: a temporary directory, removed afterwards."`
	PeerSet     []string      `help:"Settings of PostgreSQL beside ours, as in commit_delay=100."`
	Connections int           `help:"Connections to each node at most, of booths, labs and phones each; 0: 1024, or what the files allow that may be open." default:"0"`
	PeerWorkers int           `help:"Operations in flight at a peer at most; 0: the peer's own, PostgreSQL twelve for each processor, etcd and JetStream 256." default:"0"`
	Shared      bool          `help:"Others write to the province too: the facts it commits say nothing of this run and are not judged."`
	Spread      bool          `help:"Writes go to every node in turn, not to the one that answers name as the leader."`
	Quantum     time.Duration `help:"Arrivals this close together are made together: it spares wake-ups, here and at the servers, and counts as response time." default:"1ms"`
	Gather      time.Duration `help:"Answers this close together are taken up together: it spares wake-ups and counts as response time." default:"500us"`
	Timeout     time.Duration `help:"For one try of one request." default:"5s"`
	Patience    time.Duration `help:"From when a request should have been made until its caller gives up, all tries together; 0: 30s, in a surge 5s."`
	Tries       int           `help:"Of one request at most; writes are tried again with the same key." default:"8"`
	ReadBack    int           `help:"People to look for afterwards; 0: all, --read-back=-1: nobody, and the verdict says so." default:"0"`
	Settle      time.Duration `help:"Keep looking for what is missing until nothing new appears for this long." default:"15s"`
}

// Limits are the objectives of a run; what is not given is the profile's own.
type Limits struct {
	MaxP99      *time.Duration `name:"max-p99" help:"Response p99 of the tests, or of the displays in a display profile; 0: none."`
	MaxVisible  *time.Duration `help:"Visible at the other carrier, p99; 0: none."`
	MinAchieved *float64       `help:"Share of what was asked for that must be acknowledged within half a second of the last arrival."`
	MaxFailed   *float64       `help:"Share that may fail, be unknown or dropped; below 0: any."`
	MaxCPU      *float64       `name:"max-cpu" help:"CPU µs an operation."`
	MinGoodput  *float64       `help:"Surge: what must be done a second at its height."`
}

// RunCommand is `qianma load run`.
type RunCommand struct {
	Shape
	Reach
	Limits
	Out        string `help:"Directory for result.json, report.html and the ledger; empty: a new one under DATA/load."`
	Output     string `short:"o" help:"What is printed: ${enum}." enum:"text,json" default:"text"`
	Verbose    bool   `short:"v" help:"Print everything the report knows."`
	Quiet      bool   `short:"q" help:"No live view."`
	Generators int    `help:"Processes that make the load; each has its share of the rate, of --closed and of the people." default:"1"`
	Pprof      bool   `help:"Keep a CPU profile of every process beside the result."`

	Part      uint64 `hidden:""`
	Parts     uint64 `hidden:"" default:"1"`
	StartAt   int64  `hidden:"" help:"Unix ms."`
	TubeBase  uint64 `hidden:""`
	Unmetered bool   `hidden:""`
}

// Run makes the run.
func (c *RunCommand) Run(ctx context.Context, k *kong.Context) (err error) {
	defer ending(k.Stderr, &err)
	defer unheard()()
	if c.Out == "" {
		c.Out = filepath.Join(c.Data, "load", c.Profile+"-"+time.Now().UTC().Format("20060102-150405.000"))
	}
	if err := c.untaken(); err != nil {
		return err
	}
	system, stop, err := c.open(&c.Shape)
	if err != nil {
		return err
	}
	defer stop()
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return err
	}
	o, err := c.options(system)
	if err != nil {
		return err
	}
	view := newLive(k.Stderr, c.Quiet)
	o.Live, o.Say = view.show, view.say
	finish := c.profileProcesses(ctx, system)
	var res *report.Result
	if c.Generators > 1 {
		res, err = c.spread(ctx, o)
	} else {
		res, _, err = Run(ctx, o)
	}
	finish()
	view.done()
	if res == nil || c.Unmetered { // whoever meters judges the joint result
		return err
	}
	return cmp.Or(c.print(k, res, err), c.unread(res))
}

// unheard lets a command outlive whoever reads what it prints, as in
// `qianma load scan | head`: the ledger and the report are made for later. Until the
// function it returns is called, writing to nobody is an error and not the end.
func unheard() func() {
	gone := make(chan os.Signal, 1)
	signal.Notify(gone, syscall.SIGPIPE)
	return func() { signal.Stop(gone) }
}

// untaken refuses a directory that holds a run: its ledger is the only proof of
// what was acknowledged in it. A generator's was emptied by who started it.
func (c *RunCommand) untaken() error {
	for _, name := range kept {
		if _, err := os.Lstat(filepath.Join(c.Out, name)); err == nil && !c.Unmetered {
			return misuse{fmt.Errorf("--out is %s: it holds a run already (%s); name another directory, or remove that one", c.Out, name)}
		}
	}
	return nil
}

// unread is that a ledger should have been read back and could not be: what the
// run held says nothing then of what became of it.
func (c *RunCommand) unread(res *report.Result) error {
	if c.ReadBack < 0 || res.Ledger != nil || res.Settings["ledger"] != true || slices.Contains(res.Invalid, interrupted) {
		return nil
	}
	return failure{errors.New(res.Profile + ": the ledger could not be read back; the report's notes say why")}
}

// print shows the result, also where it could not be written down: then that is
// what the command ends with.
func (c *RunCommand) print(k *kong.Context, res *report.Result, unwritten error) error {
	if c.Output == "json" {
		enc := json.NewEncoder(k.Stdout)
		enc.SetIndent("", " ")
		if err := enc.Encode(res); err != nil {
			return err
		}
	} else {
		fmt.Fprint(k.Stdout, res.Text(c.Verbose))
		if unwritten == nil {
			fmt.Fprintf(k.Stdout, "report: %s\n", filepath.Join(c.Out, "report.html"))
		}
	}
	if unwritten != nil {
		return fmt.Errorf("%s: %s; not all of what came of it could be read back and written down: %w", res.Profile, res.Verdict(), unwritten)
	}
	return Outcome(res)
}

// usual are the rates of profiles for which none was given.
var usual = map[string]float64{"scan": 10_000, "batch": 50_000, "display": 30_000, "verify": 5_000, "day": 5_000,
	"surge": 20_000, "midnight": 1_000, "preload": 50_000}

func (s *Shape) settings() (profiles.Settings, error) {
	out := profiles.Settings{
		Profile: s.Profile, Rate: s.Rate, Displays: s.Displays, Duration: s.Duration, Poisson: s.Poisson, Seed: s.Seed, Draw: s.Draw,
		People: population.New(s.Seed, max(1, s.People)), Split: s.Split, Booths: s.Booths, Batch: s.Batch, Positive: s.Positive,
		Skew: s.Zipf, Cold: s.Cold, Roam: s.Roam, Watches: s.Watch, Wave: s.Wave, Warm: s.Warm,
	}
	if out.Rate == 0 {
		out.Rate = usual[s.Profile]
	}
	if s.Mix != "" {
		mix, err := population.ParseMix(s.Mix)
		if err != nil {
			return out, err
		}
		out.Mix = mix
	}
	if s.Plan != "" {
		plan, err := schedule.Parse(s.Plan)
		if err != nil {
			return out, err
		}
		out.Plan, out.Duration = plan, plan.Duration()
	}
	if s.Profile == "preload" && s.Plan == "" {
		out.Duration = time.Duration(float64(s.People) / out.Rate * float64(time.Second))
		out.Watches = -1
	}
	return out, nil
}

// asks are the subsystems without which a profile has nobody to load. A ledger that
// is read back, which has no profile, is read from displays.
func asks(profile string) []string {
	switch profile {
	case "scan", "batch", "preload":
		return []string{"nucleic"}
	case "day", "surge":
		return []string{"nucleic", "display"}
	}
	return []string{"display"}
}

// open connects to the province, or starts the peer.
func (r *Reach) open(s *Shape) (System, func(), error) {
	if r.Target != "qianma" {
		return r.peer(s)
	}
	e, err := province.LoadEndpoints(cmp.Or(r.Endpoints, r.Data))
	if err != nil {
		return System{}, nil, err
	}
	if err := reachable(e, s.Carriers, asks(s.Profile)); err != nil {
		return System{}, nil, err
	}
	picked, err := e.Pick(s.Carriers)
	if err != nil {
		return System{}, nil, err
	}
	kinds := []drive.Kind{drive.Display, drive.Register, drive.Report}
	if mainStream(s.Profile) != "tests" {
		kinds = kinds[:1] // nobody is tested
	}
	connections, err := perNode(r.Connections, e.Nodes(picked, kinds...))
	if err != nil {
		return System{}, nil, err
	}
	system, err := Province(e, s.Carriers, province.Config{
		People: population.New(s.Seed, s.People), Ack: s.Ack, Format: province.Format(s.Format),
		Client: client.Config{PerNode: connections, Timeout: r.Timeout, Gather: r.Gather, Spread: r.Spread},
	})
	return system, func() {}, err
}

func (c *RunCommand) options(system System) (Options, error) {
	settings, err := c.settings()
	if err = errors.Join(err, c.fits(system.Carriers)); err != nil {
		return Options{}, err
	}
	o := Options{
		Settings: settings, System: system, Out: c.Out, ReadBack: c.ReadBack, Settle: c.Settle,
		Drive:      drive.Config{Tries: c.Tries, Patience: c.Patience, Quantum: c.Quantum, Closed: c.share(c.Closed)},
		Objectives: c.objectives(c.Profile),
		Part:       c.Part, Parts: c.Parts, TubeBase: c.TubeBase, Unmetered: c.Unmetered, Shared: c.Shared, Command: asked(os.Args),
	}
	if c.Profile == "preload" && c.Rate == 0 && c.Plan == "" && c.Closed == 0 {
		o.Drive.Closed, o.Duration = c.share(preloaders), 24*time.Hour
	}
	if c.StartAt > 0 {
		o.Start = time.UnixMilli(c.StartAt)
	}
	if c.Parts > 1 {
		share := 1 / float64(c.Parts)
		o.Booths = c.share(o.Booths)
		o.Rate, o.Displays, o.Plan = o.Rate*share, o.Displays*share, o.Plan.Scale(share)
	}
	return o, nil
}

// preloaders is how many batches a preload without a rate keeps in flight.
const preloaders = 16

func (l *Limits) objectives(profile string) report.Objectives {
	o := report.Usual(profile)
	if l.MaxP99 != nil {
		o.Response[mainStream(profile)] = hist.Millis(*l.MaxP99)
	}
	if l.MaxVisible != nil {
		o.Visible = hist.Millis(*l.MaxVisible)
	}
	for _, set := range []struct{ to, from *float64 }{
		{&o.Achieved, l.MinAchieved}, {&o.Failures, l.MaxFailed}, {&o.CPU, l.MaxCPU}, {&o.Goodput, l.MinGoodput},
	} {
		if set.from != nil {
			*set.to = *set.from
		}
	}
	return o
}

func mainStream(profile string) string {
	switch profile {
	case "display", "midnight":
		return "displays"
	case "verify":
		return "verifications"
	}
	return "tests"
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }
