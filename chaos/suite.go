package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"qianma/chaos/agent"
	"qianma/chaos/drill"
	"qianma/chaos/fault"
	"qianma/chaos/report"
	"qianma/chaos/wire"
	"qianma/chaos/world"
)

// Suite is `qianma drill suite`.
type Suite struct {
	Name   string   `arg:"" help:"ci (eight), nightly (all but the longest) or game-day (all)." enum:"ci,nightly,game-day"`
	Data   string   `help:"Data directory of a running province; empty: one is brought up for the suite and taken down again." type:"path"`
	Seed   uint64   `help:"Of every drill." default:"1"`
	Report string   `help:"Directory of the reports and of the page over them." default:"./drill-reports" type:"path"`
	Only   []string `help:"Only these drills of the suite."`
	Whole  bool     `help:"Fail when a drill cannot be run on this machine, in place of saying why not." env:"CI"`
}

// ci are the drills of the short suite, in order: every row of the failure
// table that fits, and the canary.
var ci = []string{
	"kill-one-nucleic-node", "pause-nucleic-leader", "all-of-nucleic", "middle-store-of-one-carrier", "broker-of-one-carrier", "line-between-carriers", "canary",
	"harmed-packets",
}

// nightMax is the longest drill of a night; a game day has all of them.
const nightMax = 5 * time.Minute

// stands are the provinces that drills need: what the one lacks the other has.
var stands = []struct {
	links string // of `qianma up`
	able  func() error
	takes func(d *drill.Drill) bool
}{
	{"proxied", func() error { return nil }, func(d *drill.Drill) bool { return d.Needs != fault.Namespaces }},
	{"namespaces", wire.Able, func(d *drill.Drill) bool { return d.Needs == fault.Namespaces }},
}

// Run runs the suite and writes the page over it. Drills that need carriers in
// network namespaces run on a province of their own, after the others.
func (c *Suite) Run(ctx context.Context, k *kong.Context) error {
	list, err := c.drills()
	if err != nil {
		return err
	}
	worst := report.Held
	for _, s := range stands {
		part := slices.DeleteFunc(slices.Clone(list), func(d *drill.Drill) bool { return !s.takes(d) })
		why := s.able()
		if c.Data != "" {
			why = c.lacks(part)
		}
		switch {
		case len(part) == 0:
			continue
		case why != nil:
			fmt.Fprintf(k.Stdout, "not run: %s: %v\n", names(part), why)
			if c.Whole {
				return errors.New("the suite is to be whole, and a part of it cannot be run here")
			}
			continue
		}
		for _, share := range shares(part) {
			v, err := c.part(ctx, k, s.links, share)
			if err != nil {
				return err
			}
			worst = report.Worse(worst, v)
		}
	}
	if err := writeTable(c.Report); err != nil {
		return err
	}
	fmt.Fprintf(k.Stdout, "%d drills, worst: %s; %s\n", len(list), worst, filepath.Join(c.Report, "index.html"))
	if worst != report.Held {
		return verdict{worst, "suite " + c.Name + ": " + string(worst)}
	}
	return nil
}

func names(list []*drill.Drill) string {
	var out []string
	for _, d := range list {
		out = append(out, d.Name)
	}
	return strings.Join(out, ", ")
}

// lacks says what the province that is named does not have for these drills.
func (c *Suite) lacks(part []*drill.Drill) error {
	w, err := world.Open(c.Data)
	if err != nil {
		return err
	}
	defer w.Close()
	for _, d := range part {
		if err := fault.Meets(w, d.Needs); err != nil {
			return err
		}
	}
	return nil
}

// shares are the drills that may follow one another on a province of the
// suite's own. A canary breaks it in earnest, unless it only lies to the
// checkers, and perhaps for good: it has one to itself.
func shares(list []*drill.Drill) (out [][]*drill.Drill) {
	var well []*drill.Drill
	for _, d := range list {
		if d.MustFail != "" && d.Plant == "" {
			out = append(out, []*drill.Drill{d})
		} else {
			well = append(well, d)
		}
	}
	if len(well) > 0 {
		out = slices.Insert(out, 0, well)
	}
	return out
}

// part runs drills on one province and returns the worst verdict.
func (c *Suite) part(ctx context.Context, k *kong.Context, links string, part []*drill.Drill) (report.Verdict, error) {
	worst := report.Held
	data, down, err := c.province(ctx, k, links)
	if err != nil {
		return worst, err
	}
	defer down()
	for _, d := range part {
		rep, err := c.rehearse(ctx, k, d, data)
		if err != nil {
			return worst, err
		}
		v := rep.Judged()
		worst = report.Worse(worst, v)
		if v != rep.Verdict {
			fmt.Fprintf(k.Stdout, "  as a canary: %s\n", v)
		}
	}
	return worst, nil
}

// tries is how often a drill of a suite is begun at most.
const tries = 2

// rehearse runs a drill and prints what came of it. One that came to no verdict,
// because a machine that is busy with other things was not ready for it in time,
// is run once more; what was judged stands.
func (c *Suite) rehearse(ctx context.Context, k *kong.Context, d *drill.Drill, data string) (*report.Report, error) {
	for try := 1; ; try++ {
		rep, err := rehearse(ctx, d, data, c.Seed, filepath.Join(c.Report, d.Name), says(k.Stderr, true))
		if err != nil {
			return nil, err
		}
		summary(k.Stdout, rep)
		if try == tries || ctx.Err() != nil || !inVain(rep, agent.At(data)) {
			return rep, nil
		}
		fmt.Fprintln(k.Stdout, "  it came to no verdict: once more")
	}
}

// inVain reports whether a drill came to no verdict although nobody ended it.
func inVain(r *report.Report, home agent.Home) bool {
	_, err := os.Stat(home.Abort())
	told := err == nil || home.Engaged()
	return !told && (r.Verdict == report.Refused || r.Verdict == report.Aborted)
}

func (c *Suite) drills() ([]*drill.Drill, error) {
	all, err := drill.All()
	if err != nil {
		return nil, err
	}
	byName := map[string]*drill.Drill{}
	var names []string
	for _, d := range all {
		byName[d.Name] = d
		if c.Name == "game-day" || d.Duration() <= nightMax {
			names = append(names, d.Name)
		}
	}
	if c.Name == "ci" {
		names = ci
	}
	if len(c.Only) > 0 {
		names = c.Only
	}
	var out []*drill.Drill
	for _, n := range names {
		d := byName[n]
		if d == nil {
			return nil, fmt.Errorf("there is no drill %q", n)
		}
		out = append(out, d)
	}
	// Canaries last: what one does to a province may be more than it survives.
	slices.SortStableFunc(out, func(a, b *drill.Drill) int {
		switch canary := a.MustFail != ""; {
		case canary == (b.MustFail != ""):
			return 0
		case canary:
			return 1
		}
		return -1
	})
	return out, nil
}

// upMax and downMax bound bringing the suite's own province up, and taking it
// down.
const (
	upMax   = 5 * time.Minute
	downMax = 3 * time.Minute
)

// province is the one that is named, or one of the suite's own.
func (c *Suite) province(ctx context.Context, k *kong.Context, links string) (data string, down func(), err error) {
	if c.Data != "" {
		return c.Data, func() {}, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "qianma-suite-*")
	if err != nil {
		return "", nil, err
	}
	data = filepath.Join(dir, "data")
	down = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downMax)
		defer cancel()
		cmd := exec.CommandContext(ctx, self, "down", "--data", data)
		cmd.Stdout, cmd.Stderr = k.Stderr, k.Stderr
		if cmd.Run() == nil {
			_ = os.RemoveAll(dir)
		}
	}
	cmd := exec.CommandContext(ctx, self, "up", "--detach", "--wait", upMax.String(), "--links", links, "--data", data)
	cmd.Stdout, cmd.Stderr = k.Stderr, k.Stderr
	if err := cmd.Run(); err != nil {
		down()
		return "", nil, errors.Join(errors.New("the suite's own province did not come up"), err)
	}
	return data, down, nil
}
