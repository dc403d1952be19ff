// Package ops holds the commands that act on a running province: down,
// processes, kill, stop, start, restart, pause, resume, hold and release. They
// are thin: the supervisor does what is asked and answers when the operating
// system shows that it is done.
package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"qianma/cluster/problem"
	"qianma/services/qianma/internal/control"
	"qianma/services/qianma/internal/province"
	"qianma/services/qianma/internal/term"
)

// callMax bounds every call to the supervisor; it is a little more than the
// supervisor allows itself.
const callMax = 65 * time.Second

// Pick chooses processes on the command line.
type Pick struct {
	province.Flags
	Names     []string `arg:"" optional:"" name:"process" help:"Names, such as unicom-nucleic-1."`
	Carrier   string   `help:"All of this carrier." placeholder:"NAME"`
	Subsystem string   `help:"All of this subsystem." placeholder:"NAME"`
	All       bool     `help:"Everything."`
}

// selectors are what was picked; picking nothing is refused, because everything
// is never meant by saying nothing.
func (p Pick) selectors() ([]control.Selector, error) {
	if len(p.Names) == 0 && p.Carrier == "" && p.Subsystem == "" && !p.All {
		return nil, problem.New(problem.Invalid, "nothing was picked", "name processes, or use --carrier, --subsystem or --all")
	}
	if len(p.Names) == 0 {
		return []control.Selector{{Carrier: p.Carrier, Subsystem: p.Subsystem}}, nil
	}
	var out []control.Selector
	for _, name := range p.Names {
		out = append(out, control.Selector{Name: name, Carrier: p.Carrier, Subsystem: p.Subsystem})
	}
	return out, nil
}

// client reaches the supervisor of the province that the flags name.
func client(f province.Flags) (*control.Client, error) {
	data := f.Data
	if f.Endpoints != "" {
		p, err := f.Find(context.Background())
		if err != nil {
			return nil, err
		}
		data = p.Data
	}
	if data == "" || len(f.Endpoint) > 0 {
		return nil, problem.New(problem.Invalid, "endpoints lead to no supervisor", "run the command where the province's data directory is, with --data DIR")
	}
	if _, err := os.Stat(province.Layout(data).Topology()); errors.Is(err, os.ErrNotExist) {
		return nil, problem.New(problem.NotFound, "there is no province in "+data, "name its directory with --data DIR, or make one with: qianma up --data "+data)
	}
	return control.NewClient(data), nil
}

// act applies a verb to what was picked and prints what became of it.
func act(ctx context.Context, out *term.Output, pick Pick, v control.Verb) error {
	c, err := client(pick.Flags)
	if err != nil {
		return err
	}
	sels, err := pick.selectors()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	var faults []error
	for _, sel := range sels {
		ps, err := c.DoEach(ctx, sel, v)
		faults = append(faults, err)
		for _, p := range ps {
			out.Printf("%s  %s\n", p.Name, Words(out, p))
		}
	}
	return errors.Join(faults...)
}

// Words is a process's state as people read it.
func Words(out *term.Output, p control.Process) string {
	tone := map[control.State]term.Tone{
		control.Ready: term.Good, control.Starting: term.Warn, control.Unready: term.Warn, control.Stopping: term.Warn,
		control.Paused: term.Bad, control.Backoff: term.Bad, control.Held: term.Bad,
	}[p.State]
	s := out.Paint(tone, string(p.State))
	if p.PID != 0 {
		return s
	}
	if p.Reason != "" {
		s += " (" + p.Reason + ")"
	}
	return s
}

// The verbs. Each answers when the process is in the state that was asked for.
type (
	// Kill ends processes as a crash would.
	Kill struct {
		Pick
		Hold bool `help:"Also hold off restarts, until release."`
	}
	// Stop asks processes to leave; they stay down.
	Stop struct{ Pick }
	// Start starts what is down, now.
	Start struct{ Pick }
	// Restart stops and starts.
	Restart struct{ Pick }
	// Pause freezes processes with SIGSTOP.
	Pause struct{ Pick }
	// Resume thaws them.
	Resume struct{ Pick }
)

// Run implements the command.
func (c *Kill) Run(ctx context.Context, out *term.Output) error {
	if c.Hold {
		if err := (&Hold{Pick: c.Pick}).Run(ctx, out); err != nil {
			return err
		}
	}
	return act(ctx, out, c.Pick, control.Kill)
}

// Run implements the command.
func (c *Stop) Run(ctx context.Context, out *term.Output) error {
	return act(ctx, out, c.Pick, control.Stop)
}

// Run implements the command.
func (c *Start) Run(ctx context.Context, out *term.Output) error {
	return act(ctx, out, c.Pick, control.Start)
}

// Run implements the command.
func (c *Restart) Run(ctx context.Context, out *term.Output) error {
	return act(ctx, out, c.Pick, control.Restart)
}

// Run implements the command.
func (c *Pause) Run(ctx context.Context, out *term.Output) error {
	return act(ctx, out, c.Pick, control.Pause)
}

// Run implements the command.
func (c *Resume) Run(ctx context.Context, out *term.Output) error {
	return act(ctx, out, c.Pick, control.Resume)
}

// Hold keeps what dies from being started again.
type Hold struct {
	Pick
	For time.Duration `help:"Let go by itself after this long." placeholder:"DURATION"`
}

// Run implements the command.
func (c *Hold) Run(ctx context.Context, out *term.Output) error {
	return holds(ctx, out, c.Pick, func(ctx context.Context, cl *control.Client, sel control.Selector) ([]control.Hold, error) {
		return cl.Hold(ctx, sel, c.For)
	})
}

// Release ends holds.
type Release struct{ Pick }

// Run implements the command.
func (c *Release) Run(ctx context.Context, out *term.Output) error {
	return holds(ctx, out, c.Pick, func(ctx context.Context, cl *control.Client, sel control.Selector) ([]control.Hold, error) {
		return cl.Release(ctx, sel)
	})
}

func holds(ctx context.Context, out *term.Output, pick Pick,
	do func(context.Context, *control.Client, control.Selector) ([]control.Hold, error)) error {
	c, err := client(pick.Flags)
	if err != nil {
		return err
	}
	sels, err := pick.selectors()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	var left []control.Hold
	for _, sel := range sels {
		if left, err = do(ctx, c, sel); err != nil {
			return err
		}
	}
	out.Println(HoldWords(left))
	return nil
}

// HoldWords says which restarts are held off.
func HoldWords(holds []control.Hold) string {
	if len(holds) == 0 {
		return "no restarts are held off"
	}
	s := "restarts held off:"
	for _, h := range holds {
		s += " " + h.String()
		if !h.Until.IsZero() {
			s += fmt.Sprintf(" (until %s)", h.Until.Local().Format(time.TimeOnly))
		}
	}
	return s
}

// Processes lists what the supervisor keeps.
type Processes struct {
	province.Flags
	Output string `short:"o" help:"text or json." enum:"text,json" default:"text"`
}

// Run implements the command.
func (c *Processes) Run(ctx context.Context, out *term.Output) error {
	cl, err := client(c.Flags)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	r, err := cl.Processes(ctx, control.Selector{})
	if err != nil {
		return err
	}
	if c.Output == "json" {
		enc := json.NewEncoder(out.Out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	var rows [][]string
	for _, p := range r.Processes {
		rows = append(rows, []string{p.Name, Words(out, p), Count(p.PID), Count(p.Restarts), Ago(p.Since), Mebibytes(p.RSS), Cores(p)})
	}
	out.Table([]string{"PROCESS", "STATE", ">PID", ">RESTARTS", ">FOR", ">MIB", ">CORES"}, rows)
	out.Println()
	out.Println(HoldWords(r.Holds))
	return nil
}

// Count is a number in a table; nothing is a dash.
func Count[T ~int | ~int64 | ~uint64](n T) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// Ago is how long ago a moment was, in the two units that matter.
func Ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := max(0, time.Since(t))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// Mebibytes is a size in a table.
func Mebibytes(n int64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint((n + 1<<19) >> 20)
}

// Cores is the CPU a process uses.
func Cores(p control.Process) string {
	if p.PID == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", p.CPU)
}
