package loadtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"qianma/loadtest/hist"
	"qianma/loadtest/ledger"
	"qianma/loadtest/report"
)

// FindMaxCommand is `qianma load find-max`.
type FindMaxCommand struct {
	Shape
	Reach
	Limits
	Probe     time.Duration `help:"How long each try lasts." default:"20s"`
	Confirm   int           `help:"Runs that must hold at the rate that is reported." default:"3"`
	Tolerance float64       `help:"How close to the highest rate to come." default:"0.05"`
	Ceiling   float64       `help:"Never offer more than this; 0: no ceiling."`
	Out       string        `help:"Directory for the results; empty: a new one under DATA/load."`
	Output    string        `short:"o" help:"What is printed: ${enum}." enum:"text,json" default:"text"`
	Quiet     bool          `short:"q" help:"No live view."`
}

// Run searches.
func (c *FindMaxCommand) Run(ctx context.Context, k *kong.Context) (err error) {
	defer ending(k.Stderr, &err)
	defer unheard()()
	if c.Out == "" {
		c.Out = filepath.Join(c.Data, "load", "max-"+c.Profile+"-"+time.Now().UTC().Format("20060102-150405.000"))
	}
	system, stop, err := c.open(&c.Shape)
	if err != nil {
		return err
	}
	defer stop()
	view := newLive(k.Stderr, c.Quiet)
	start := c.Rate
	if start == 0 {
		start = usual[c.Profile] / 4
	}
	found, err := FindMax(Search{Start: start, Ceiling: c.Ceiling, Floor: fewest / (c.Probe - c.Warm).Seconds(),
		Tolerance: c.Tolerance, Confirm: c.Confirm}, c.tries(ctx, system, view))
	view.done()
	switch {
	case err != nil && ctx.Err() == nil:
		found.listTried(k.Stderr) // minutes of figures, whatever ended the search
		return err
	case err != nil:
		found.interrupt()
	}
	return c.print(k, found)
}

// tries makes the runs of a search, each into a directory of its own and each
// when the system has done with the one before.
func (c *FindMaxCommand) tries(ctx context.Context, system System, view *live) func(rate float64) (*report.Result, error) {
	run := RunCommand{Shape: c.Shape, Reach: c.Reach, Limits: c.Limits, Parts: 1}
	run.Duration = c.Probe
	n := 0
	return func(rate float64) (*report.Result, error) {
		n++
		one := run
		one.Rate, one.Out = rate, filepath.Join(c.Out, fmt.Sprintf("%02d-%.0f", n, rate))
		o, err := one.options(system)
		if err != nil {
			return nil, err
		}
		if o.Draw > 0 { // a draw that was given: other people are asked in each try all the same
			o.Draw = newDraw(o.Draw, uint64(n))
		}
		o.Live = view.show
		if note, err := rest(ctx, o.System, c.Shared); err != nil {
			return nil, err
		} else if note != "" {
			o.System.Notes = append(slices.Clone(system.Notes), note)
		}
		res, _, err := Run(ctx, o)
		if err == nil {
			err = one.unread(res) // nothing was proved of the rate, and nobody is there to try the next one at
		}
		if ctx.Err() != nil {
			return nil, ctx.Err() // what was interrupted says nothing of the rate
		}
		if err == nil {
			view.say(fmt.Sprintf("%.0f/s: %s", rate, strings.SplitN(res.Text(false), "\n", 3)[1]))
		}
		return res, err
	}
}

// fewest is how many operations a try must offer to be judged: of fewer, the 99th
// percentile is the slowest one.
const fewest = 100

// refuse notes what leaves nothing to search for.
func (c *FindMaxCommand) refuse(f *faults) {
	if c.Plan != "" {
		f.add("--plan is %s: find-max looks for a rate, and a plan gives the rates; leave it out, or use qianma load run", c.Plan)
	}
	if c.Closed > 0 {
		f.add("--closed is %d: find-max offers rates, and the answers would set the pace; leave it out, or use qianma load run", c.Closed)
	}
	if c.Profile == "midnight" || c.Profile == "preload" {
		f.add("%s is of all the people, whatever the rate: find-max cannot search it", c.Profile)
	}
}

func (c *FindMaxCommand) print(k *kong.Context, f Found) error {
	if c.Output == "json" {
		if err := json.NewEncoder(k.Stdout).Encode(f); err != nil {
			return err
		}
		return f.Verdict()
	}
	if f.Interrupted {
		f.listTried(k.Stdout)
	}
	if f.Code != report.Held {
		return f.Verdict()
	}
	fmt.Fprintf(k.Stdout, "%.0f %s/s held the objectives in %s of %s", f.Rate, f.Confirmed[0].Unit, report.Several(int64(len(f.Confirmed)), "run"), c.Probe)
	if f.AtCeiling {
		fmt.Fprint(k.Stdout, "; held at the ceiling: more was not tried")
	}
	fmt.Fprintln(k.Stdout)
	for _, r := range f.Confirmed {
		fmt.Fprintln(k.Stdout, "  "+r.Line())
	}
	return nil
}

// Verdict is nil for a search that found a rate, else an error that carries
// the exit code.
func (f *Found) Verdict() error {
	switch f.Code {
	case report.Held:
		return nil
	case report.LedgerBroke:
		return verdict{f.Code, fmt.Sprintf("the ledger was broken at %.0f/s: the search ended there; its report says which tests", f.Tried[len(f.Tried)-1].Rate)}
	case report.InvalidRun:
		if f.Interrupted {
			return verdict{f.Code, "the search was interrupted: " + f.soFar()}
		}
		return verdict{f.Code, fmt.Sprintf("no rate held the objectives, and at the lowest, %.0f/s, it was the generator that could not keep up: give it more of the machine", f.Lowest)}
	}
	return verdict{f.Code, fmt.Sprintf("no rate held the objectives; the lowest tried was %.0f/s, and one below %.3g/s would say nothing", f.Lowest, f.Floor)}
}

// listTried prints every try and how it ended.
func (f *Found) listTried(w io.Writer) {
	for _, t := range f.Tried {
		fmt.Fprintf(w, "  %.0f/s: %s\n", t.Rate, t.Why)
	}
}

// soFar is what an interrupted search had come to.
func (f *Found) soFar() string {
	var best float64
	for _, t := range f.Tried {
		if t.Held {
			best = max(best, t.Rate)
		}
	}
	switch {
	case len(f.Tried) == 0:
		return "no rate had been tried"
	case best == 0:
		return "no rate had held in " + f.tries()
	}
	return fmt.Sprintf("the highest rate that had held in %s was %.0f/s, and it was not confirmed", f.tries(), best)
}

func (f *Found) tries() string {
	if len(f.Tried) == 1 {
		return "1 try"
	}
	return fmt.Sprintf("%d tries", len(f.Tried))
}

// CompareCommand is `qianma load compare A B`.
type CompareCommand struct {
	A      string `arg:"" help:"result.json, its directory, or several separated by commas."`
	B      string `arg:"" help:"The same, to be compared with A."`
	Output string `short:"o" help:"What is printed: ${enum}." enum:"text,json" default:"text"`
}

// Run compares.
func (c *CompareCommand) Run(k *kong.Context) (err error) {
	defer ending(k.Stderr, &err)
	a, err := loadAll(c.A)
	if err != nil {
		return err
	}
	b, err := loadAll(c.B)
	if err != nil {
		return err
	}
	if err := ofOneProfile(slices.Concat(a, b)); err != nil {
		return err
	}
	cmp := report.Compare(c.A, a, c.B, b)
	if c.Output == "json" {
		return json.NewEncoder(k.Stdout).Encode(cmp)
	}
	fmt.Fprint(k.Stdout, cmp.Text())
	return nil
}

// ofOneProfile refuses results whose figures are of different things. They were
// named on the command line, so it is that which is wrong.
func ofOneProfile(rs []*report.Result) error {
	for _, r := range rs {
		if r.Profile != rs[0].Profile {
			return misuse{fmt.Errorf("a %s run and a %s run cannot be compared: name results of one profile", rs[0].Profile, r.Profile)}
		}
	}
	return nil
}

func loadAll(list string) ([]*report.Result, error) {
	var out []*report.Result
	for path := range strings.SplitSeq(list, ",") {
		r, err := report.Load(path)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// MergeCommand is `qianma load merge DIR...`, for generators that were started
// by hand on several machines with --part.
type MergeCommand struct {
	Parts []string `arg:"" help:"Result directories of the generators."`
	Reach
	Limits
	Out    string `help:"Directory for the merged result." required:""`
	Output string `short:"o" help:"What is printed: ${enum}." enum:"text,json" default:"text"`
	Quiet  bool   `short:"q" help:"No live view."`
}

// Run merges, and reads the joint ledger back.
func (c *MergeCommand) Run(ctx context.Context, k *kong.Context) (err error) {
	defer ending(k.Stderr, &err)
	res, l, err := mergeParts(c.Parts)
	if err != nil {
		return err
	}
	if l != nil && c.ReadBack >= 0 {
		shape := Shape{Carriers: l.Head.Carriers, Seed: l.Head.Seed, People: l.Head.People}
		system, stop, err := c.open(&shape)
		if err != nil {
			return err
		}
		defer stop()
		if err := Check(ctx, system, l, Reading{Sample: c.ReadBack, Settle: c.Settle, Say: newLive(k.Stderr, c.Quiet).say}, res); err != nil {
			return err
		}
	}
	res.Headline()
	judge(res, c.objectives(res.Profile))
	return (&RunCommand{Out: c.Out, Output: c.Output}).print(k, res, Publish(res, c.Out))
}

// mergeParts reads the results and, where there are any, the ledgers.
func mergeParts(dirs []string) (*report.Result, *ledger.Ledger, error) {
	var results []*report.Result
	var ledgers []*ledger.Ledger
	for _, dir := range dirs {
		r, err := report.Load(dir)
		if err != nil {
			return nil, nil, err
		}
		results = append(results, r)
		if r.Settings["ledger"] != true {
			continue
		}
		l, err := ledger.Load(filepath.Join(dir, "ledger"))
		if err != nil {
			return nil, nil, err
		}
		ledgers = append(ledgers, l)
	}
	res, err := report.Merge(results)
	if err != nil || len(ledgers) == 0 {
		return res, nil, err
	}
	l, err := ledger.Merge(ledgers)
	return res, l, err
}

// CheckCommand is `qianma load check LEDGER`.
type CheckCommand struct {
	Ledger string `arg:"" help:"The ledger file of a run, or its directory."`
	Reach
	Output string `short:"o" help:"What is printed: ${enum}." enum:"text,json" default:"text"`
}

// Run reads the ledger back.
func (c *CheckCommand) Run(ctx context.Context, k *kong.Context) (err error) {
	defer ending(k.Stderr, &err)
	l, err := ledger.Load(c.Ledger)
	if err != nil {
		var dir error
		if l, dir = ledger.Load(filepath.Join(c.Ledger, "ledger")); dir != nil {
			return err
		}
	}
	l.Later = true
	shape := Shape{Carriers: l.Head.Carriers, Seed: l.Head.Seed, People: l.Head.People}
	system, stop, err := c.open(&shape)
	if err != nil {
		return err
	}
	defer stop()
	res := &report.Result{Profile: "check", Valid: true, Visible: hist.New()}
	how := Reading{Sample: c.ReadBack, Settle: c.Settle, Say: newLive(k.Stderr, false).say}
	if err := Check(ctx, system, l, how, res); err != nil {
		return err
	}
	res.Lost, res.Wrong, res.Repeated, res.RepeatedChecked = res.Ledger.Lost, res.Ledger.Wrong, res.Ledger.Repeated, res.Ledger.RepeatedChecked
	if c.Output == "json" {
		if err := json.NewEncoder(k.Stdout).Encode(res.Ledger); err != nil {
			return err
		}
		return Outcome(res)
	}
	fmt.Fprintln(k.Stdout, res.Ledger.Text(l.Head.Carriers))
	for _, f := range res.Ledger.First {
		fmt.Fprintf(k.Stdout, "  %s: test %d, tube %d, at %s %s\n", f.What, f.Test, f.Tube, f.Carrier, f.Seen)
	}
	return Outcome(res)
}
