// Package chaos is `qianma drill`: rehearse every row of the failure table on a
// running province, and read one page that says what held.
//
// The packages below it are the parts: world (the province from outside), fault
// (what can be done to it, and undone), agent (who does it and takes it back),
// traffic, model, check, drill (the engine) and report. This one only parses
// and prints.
package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"

	"qianma/chaos/agent"
	"qianma/chaos/drill"
	"qianma/chaos/drills"
	"qianma/chaos/fault"
	"qianma/chaos/report"
	"qianma/chaos/world"
	"qianma/cluster/mishap"
	"qianma/cluster/problem"
)

// Command is `qianma drill`.
type Command struct {
	List     List     `cmd:"" help:"List the drills: what a province survives."`
	Faults   Faults   `cmd:"" help:"List what can be done to a province."`
	Show     Show     `cmd:"" help:"Print a drill file."`
	Validate Validate `cmd:"" help:"Check a drill file; reports every fault in it."`
	Plan     Plan     `cmd:"" help:"Say exactly what a drill would do now, and undo. Changes nothing."`
	Run      Run      `cmd:"" help:"Run a drill."`
	Suite    Suite    `cmd:"" help:"Run a set of drills: ci (eight), nightly (all but the longest) or game-day (all)."`
	Abort    Abort    `cmd:"" help:"End the drill that runs; what it did is undone."`
	Recover  Recover  `cmd:"" help:"Undo whatever a drill has left behind, and prove it."`
	Status   Status   `cmd:"" help:"Say what is in force now."`
	History  History  `cmd:"" help:"List the reports of this province."`
	Compare  Compare  `cmd:"" help:"Put two reports side by side."`
	Table    Table    `cmd:"" help:"Write the page over all reports: the failure table as measured."`
	Lever    Lever    `cmd:"" help:"Stop all drills and refuse new ones, or let them run again."`
	Agent    Agent    `cmd:"" hidden:"" help:"Bring one fault and take it away."`
}

// Where is which province a drill is about.
type Where struct {
	Data string `help:"Data directory of the province." default:"./data" placeholder:"DIR" type:"path" env:"QIANMA_DATA"`
}

func (w Where) home() agent.Home { return agent.At(w.Data) }

// verdict is a drill that did not hold, as an exit code.
type verdict struct {
	report.Verdict
	text string
}

func (v verdict) Error() string { return v.text }

// ExitCode is what the process ends with.
func (v verdict) ExitCode() int { return v.Code() }

// List is `qianma drill list`.
type List struct{}

// Run prints a line for each drill.
func (*List) Run(k *kong.Context) error {
	all, err := drill.All()
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(k.Stdout, 0, 4, 2, ' ', 0)
	for _, d := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\n", d.Name, d.Duration().Round(time.Second), d.Says)
	}
	return t.Flush()
}

// Faults is `qianma drill faults`.
type Faults struct{}

// Run prints the catalogue.
func (*Faults) Run(k *kong.Context) error {
	t := tabwriter.NewWriter(k.Stdout, 0, 4, 2, ' ', 0)
	for _, name := range fault.Names() {
		f := fault.Catalogue[name]
		if f.Needs != "" {
			f.Says += " (needs " + f.Needs + ")"
		}
		fmt.Fprintf(t, "%s\t%s\n", name, f.Says)
	}
	fmt.Fprintln(t, "\npoints of a panic:")
	for _, p := range mishap.PointNames() {
		fmt.Fprintf(t, "%s\t%s\n", p, mishap.Points[p])
	}
	fmt.Fprintln(t, "\njobs to omit:")
	for _, j := range mishap.JobNames() {
		fmt.Fprintf(t, "%s\t%s\n", j, mishap.Jobs[j])
	}
	return t.Flush()
}

// Show is `qianma drill show`.
type Show struct {
	Name string `arg:""`
}

// Run prints the file as it is written.
func (c *Show) Run(k *kong.Context) error {
	raw, err := drills.Files.ReadFile(c.Name + ".yaml")
	if err != nil {
		return problem.Wrap(err, problem.NotFound, "there is no drill "+c.Name, "qianma drill list names them")
	}
	_, err = k.Stdout.Write(raw)
	return err
}

// Validate is `qianma drill validate`.
type Validate struct {
	File string `arg:"" type:"existingfile"`
}

// Run reads the file.
func (c *Validate) Run(k *kong.Context) error {
	d, err := drill.Load(c.File)
	if err == nil {
		steps := fmt.Sprintf("%d steps", len(d.Steps))
		if d.Mix != nil {
			steps = d.Mix.String()
		}
		fmt.Fprintf(k.Stdout, "%s: %s in %s\n", d.Name, steps, d.Duration())
	}
	return err
}

// Plan is `qianma drill plan`.
type Plan struct {
	Where
	Name string `arg:"" help:"Name or file of a drill."`
	Seed uint64 `default:"1"`
}

// Run prints what would be done.
func (c *Plan) Run(ctx context.Context, k *kong.Context) error {
	d, err := drill.Load(c.Name)
	if err != nil {
		return err
	}
	w, err := world.Open(c.Data)
	if err != nil {
		return err
	}
	defer w.Close()
	d = d.Drawn(c.Seed, w.Topology.Carriers)
	plans, err := d.Plan(ctx, w, c.Seed)
	if err != nil {
		return verdict{report.Refused, err.Error()}
	}
	for i, p := range plans {
		printPlan(k.Stdout, w, i, d.Steps[i], p)
	}
	return nil
}

func printPlan(out io.Writer, w *world.World, i int, s drill.Step, p fault.Plan) {
	fmt.Fprintf(out, "%d. at %s: %s %s, for %s\n   targets: %s\n", i+1, s.At, s.Fault, s.Target, s.For, strings.Join(p.Targets, " "))
	part := func(name string, list []fault.Action) {
		for _, a := range list {
			fmt.Fprintf(out, "   %s: %s\n", name, a)
		}
	}
	part("do", p.Inject)
	part("undo", p.Undo)
	part("shown by", p.Verify)
	lines, _ := drill.Left(w, p.Down)
	for _, l := range lines {
		fmt.Fprintf(out, "   quorum of %s\n", l)
	}
}

// Run is `qianma drill run`.
type Run struct {
	Where
	Name   string        `arg:"" help:"Name or file of a drill."`
	Seed   uint64        `help:"Of every choice; 0: by chance."`
	Runs   int           `help:"Run it so often, each time with the next seed, and say what all came to." default:"1"`
	For    time.Duration `help:"Traffic after the last fault, in place of the drill's own."`
	Report string        `help:"Directory of the report; empty: a new one under DATA/drills/reports." type:"path"`
	Watch  bool          `help:"Say what happens while it does."`
	Output string        `short:"o" enum:"text,json" default:"text"`
}

// Run runs it.
func (c *Run) Run(ctx context.Context, k *kong.Context) error {
	d, err := drill.Load(c.Name)
	if err != nil {
		return err
	}
	if c.For > 0 {
		d.After = fault.Duration(c.For)
	}
	if c.Runs > 1 {
		return c.often(ctx, k, d)
	}
	rep, err := rehearse(ctx, d, c.Data, c.Seed, c.Report, says(k.Stderr, c.Watch))
	if err != nil {
		return err
	}
	if c.Output == "json" {
		enc := json.NewEncoder(k.Stdout)
		enc.SetIndent("", " ")
		err = enc.Encode(rep)
	} else {
		summary(k.Stdout, rep)
	}
	return errors.Join(err, outcome(rep))
}

func says(out io.Writer, aloud bool) func(string, ...any) {
	if !aloud {
		return nil
	}
	return func(format string, args ...any) {
		fmt.Fprintf(out, "%s %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
	}
}

func rehearse(ctx context.Context, d *drill.Drill, data string, seed uint64, out string, say func(string, ...any)) (*report.Report, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	return d.Run(ctx, drill.Options{Data: data, Seed: seed, Out: out, Agent: []string{self, "drill", "agent", "--data", data}, Say: say})
}

func outcome(r *report.Report) error {
	if r.Verdict == report.Held {
		return nil
	}
	return verdict{r.Verdict, r.Name + ": " + string(r.Verdict)}
}

func summary(out io.Writer, r *report.Report) {
	fmt.Fprintf(out, "%s: %s (seed %d)\n", r.Name, r.Verdict, r.Seed)
	for _, w := range r.Why {
		fmt.Fprintf(out, "  %s\n", w)
	}
	if r.Verdict == report.Refused || r.Verdict == report.Aborted {
		return
	}
	fmt.Fprintf(out, "  first sign %.0f ms, through again %.0f ms, longest write gap %.0f ms\n", r.DetectedMS, r.RecoveredMS, r.LongestWriteGap)
	fmt.Fprintf(out, "  uploads %.3f%%, displays %.3f%% (p99 %.0f ms); lost %d, repeated %d, silently stale %d\n", r.UploadSuccess, r.DisplaySuccess, r.DisplayP99, r.Lost, r.Repeated, r.StaleGreen)
	fmt.Fprintf(out, "  equal %.0f ms after; undo shown by the system: %v\n", r.ConvergedMS, r.UndoVerified)
}

// Abort is `qianma drill abort`.
type Abort struct{ Where }

// Run leaves word for the drill that runs.
func (c *Abort) Run() error {
	return errors.Join(c.home().Make(), os.WriteFile(c.home().Abort(), []byte(time.Now().Format(time.RFC3339)+"\n"), 0o644))
}

// Recover is `qianma drill recover`.
type Recover struct {
	Where
	Verify bool `help:"Only say what is left; change nothing."`
}

// Run undoes what is left: first by the journals, then by what the system
// itself shows.
func (c *Recover) Run(ctx context.Context, k *kong.Context) error {
	w, err := world.Open(c.Data)
	if err != nil {
		return err
	}
	defer w.Close()
	if !c.Verify {
		undone, err := agent.Recover(ctx, w)
		for _, id := range undone {
			fmt.Fprintf(k.Stdout, "undone: %s\n", id)
		}
		if err = errors.Join(err, agent.Sweep(ctx, w)); err != nil {
			return verdict{report.Stuck, err.Error()}
		}
	}
	left, err := agent.Leftovers(ctx, w)
	if err != nil {
		return err
	}
	left = append(left, agent.Open(agent.At(w.Data))...)
	if len(left) > 0 {
		return verdict{report.Stuck, "left: " + strings.Join(left, "; ")}
	}
	fmt.Fprintln(k.Stdout, "nothing is left of any drill")
	return nil
}

// Status is `qianma drill status`.
type Status struct{ Where }

// Run says what is in force.
func (c *Status) Run(ctx context.Context, k *kong.Context) error {
	w, err := world.Open(c.Data)
	if err != nil {
		return err
	}
	defer w.Close()
	if c.home().Engaged() {
		fmt.Fprintln(k.Stdout, "the lever is pulled")
	}
	for _, id := range agent.Open(c.home()) {
		fmt.Fprintf(k.Stdout, "in force: %s\n", id)
	}
	left, err := agent.Leftovers(ctx, w)
	for _, l := range left {
		fmt.Fprintln(k.Stdout, l)
	}
	if err == nil && len(left) == 0 {
		fmt.Fprintln(k.Stdout, "the province shows no fault")
	}
	return err
}

// History is `qianma drill history`.
type History struct{ Where }

// Run prints a line for each report, oldest first.
func (c *History) Run(k *kong.Context) error {
	all, err := history(c.home().Reports())
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(k.Stdout, 0, 4, 2, ' ', 0)
	for _, e := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\tseed %d\t%s\n", e.Start.UTC().Format("2006-01-02 15:04:05"), e.Name, e.Verdict, e.Seed, filepath.Dir(e.Page))
	}
	return t.Flush()
}

// history is every report in a directory, those of many runs (often.go) a level
// deeper than the others. What cannot be read is no report.
func history(dir string) ([]report.Entry, error) {
	var all []report.Entry
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // nobody has drilled here yet
		}
		if err != nil || d.Name() != "report.json" {
			return err
		}
		if r, err := report.Load(path); err == nil {
			all = append(all, report.Entry{Report: r, Page: filepath.Join(filepath.Dir(path), "report.html")})
		}
		return nil
	})
	slices.SortFunc(all, func(a, b report.Entry) int { return a.Start.Compare(b.Start) })
	return all, err
}

// Compare is `qianma drill compare`.
type Compare struct {
	A string `arg:"" help:"report.json or its directory."`
	B string `arg:""`
}

// Run prints the stable figures of both.
func (c *Compare) Run(k *kong.Context) error {
	a, err := report.Load(c.A)
	if err != nil {
		return err
	}
	b, err := report.Load(c.B)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(k.Stdout, 0, 4, 2, ' ', 0)
	row := func(name string, x, y any) { fmt.Fprintf(t, "%s\t%v\t%v\n", name, x, y) }
	row("", c.A, c.B)
	row("name", a.Name, b.Name)
	row("verdict", a.Verdict, b.Verdict)
	row("seed", a.Seed, b.Seed)
	row("detected_ms", a.DetectedMS, b.DetectedMS)
	row("recovered_ms", a.RecoveredMS, b.RecoveredMS)
	row("longest_write_gap_ms", a.LongestWriteGap, b.LongestWriteGap)
	row("upload_success", a.UploadSuccess, b.UploadSuccess)
	row("display_success", a.DisplaySuccess, b.DisplaySuccess)
	row("display_p99_ms", a.DisplayP99, b.DisplayP99)
	row("lost", a.Lost, b.Lost)
	row("repeated", a.Repeated, b.Repeated)
	row("stale_green", a.StaleGreen, b.StaleGreen)
	row("converged_ms", a.ConvergedMS, b.ConvergedMS)
	return t.Flush()
}

// Table is `qianma drill table`.
type Table struct {
	Where
	Out string `arg:"" help:"Directory with a report of each drill; the page is written into it." type:"path"`
}

// Run writes index.html and table.md over the reports in a directory.
func (c *Table) Run(k *kong.Context) error { return writeTable(c.Out) }

func writeTable(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*", "report.json"))
	if err != nil {
		return err
	}
	var all []report.Entry
	for _, p := range paths {
		r, err := report.Load(p)
		if err != nil {
			return err
		}
		all = append(all, report.Entry{Report: r, Page: filepath.Base(filepath.Dir(p)) + "/report.html"})
	}
	raw, err := report.Table(all)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "index.html"), raw, 0o644),
		os.WriteFile(filepath.Join(dir, "table.md"), report.Markdown(all), 0o644))
}

// Lever is `qianma drill lever`.
type Lever struct {
	Engage  Engage  `cmd:"" help:"Stop all drills and refuse new ones."`
	Release Release `cmd:"" help:"Let drills run again."`
}

// Engage is `qianma drill lever engage`.
type Engage struct {
	Where
	By string `help:"Who pulls it." default:"ops"`
}

// Run pulls the lever.
func (c *Engage) Run() error {
	return errors.Join(c.home().Make(), os.WriteFile(c.home().Lever(), fmt.Appendf(nil, "%s, %s\n", c.By, time.Now().Format(time.RFC3339)), 0o644))
}

// Release is `qianma drill lever release`.
type Release struct{ Where }

// Run lets drills run again.
func (c *Release) Run() error {
	err := os.Remove(c.home().Lever())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Agent is what a drill starts beside the target.
type Agent struct{ Where }

// Run serves one fault.
func (c *Agent) Run(ctx context.Context) error { return agent.Serve(ctx, c.Data, os.Stdin, os.Stdout) }
