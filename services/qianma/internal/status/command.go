package status

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"qianma/services/qianma/internal/control"
	"qianma/services/qianma/internal/ops"
	"qianma/services/qianma/internal/province"
	"qianma/services/qianma/internal/term"
)

// Command is `qianma status`.
type Command struct {
	province.Flags
	Output string        `short:"o" help:"text or json." enum:"text,json" default:"text"`
	Watch  bool          `short:"w" help:"Look again and again."`
	Every  time.Duration `help:"How often --watch looks." default:"2s"`
	Check  bool          `help:"Exit with 1 when the province is not healthy."`
}

// unhealthy is the exit code of --check.
type unhealthy struct{}

func (unhealthy) Error() string { return "the province is not healthy" }

// Run implements the command.
func (c *Command) Run(ctx context.Context, out *term.Output) error {
	p, err := c.Find(ctx)
	if err != nil {
		return err
	}
	for {
		r := Gather(ctx, p)
		if err := c.show(out, r); err != nil {
			return err
		}
		if !c.Watch {
			if c.Check && !r.Healthy {
				return unhealthy{}
			}
			return nil
		}
		select {
		case <-time.After(c.Every):
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Command) show(out *term.Output, r Report) error {
	if c.Output == "json" {
		enc := json.NewEncoder(out.Out)
		if !c.Watch { // watched, each look is one line
			enc.SetIndent("", "  ")
		}
		return enc.Encode(r)
	}
	lines := Lines(out, r)
	if c.Watch && out.TTY {
		out.Repaint(lines)
		return nil
	}
	for _, line := range lines {
		out.Println(line)
	}
	return nil
}

// Lines is the report for people.
func Lines(out *term.Output, r Report) []string {
	lines := []string{headline(out, r), ""}
	lines = append(lines, processes(out, r)...)
	if len(r.Origins) > 0 {
		lines = append(append(lines, ""), origins(out, r)...)
	}
	if len(r.Breakers) > 0 {
		lines = append(append(lines, ""), breakers(out, r)...)
	}
	return lines
}

func headline(out *term.Output, r Report) string {
	ready, wanted := 0, 0
	for _, p := range r.Processes {
		if p.State != string(control.Stopped) {
			wanted++
		}
		if p.Ready {
			ready++
		}
	}
	verdict := out.Paint(term.Good, "healthy")
	if !r.Healthy {
		verdict = out.Paint(term.Bad, "not healthy")
	}
	s := fmt.Sprintf("%s: %s, %d of %d processes ready", r.Province, verdict, ready, wanted)
	switch {
	case r.Supervisor != nil:
		s += fmt.Sprintf("; supervisor %d for %s; %s", r.Supervisor.PID, ops.Ago(r.Supervisor.Since), ops.HoldWords(r.Supervisor.Holds))
	case r.Data != "":
		s += "; " + out.Paint(term.Warn, "no supervisor: nothing is restarted (qianma up takes over what runs)")
	}
	return s
}

func processes(out *term.Output, r Report) []string {
	var rows [][]string
	for _, p := range r.Processes {
		rows = append(rows, []string{
			p.Name, state(out, p), role(p), ops.Count(topTerm(p)), ops.Count(applied(p)), lag(out, p),
			ops.Count(p.Restarts), ops.Ago(p.Started), ops.Mebibytes(p.RSS), cores(p), note(out, p),
		})
	}
	return out.Lines([]string{"PROCESS", "STATE", "ROLE", ">TERM", ">APPLIED", ">LAG", ">RESTARTS", ">UP", ">MIB", ">CORES", "NOTE"}, rows)
}

// state is what the process says of itself where it answers, else what its
// supervisor says.
func state(out *term.Output, p Process) string {
	switch {
	case p.Ready:
		return out.Paint(term.Good, "ready")
	case p.Answers:
		return out.Paint(term.Warn, "not ready")
	case p.State == string(control.Stopped):
		return out.Paint(term.Faint, p.State)
	case p.State == string(control.Ready):
		return out.Paint(term.Bad, "silent")
	}
	return out.Paint(term.Bad, p.State)
}

// role is "leader", "follower", or, with several shards, those it leads.
func role(p Process) string {
	var leads []string
	for _, s := range p.Shards {
		if s.Role == "leader" {
			leads = append(leads, fmt.Sprint(s.Shard))
		}
	}
	switch {
	case p.Backbone != nil && p.Backbone.Etcd.Leader:
		return "leader" // of etcd
	case p.Backbone != nil:
		return "follower"
	case len(p.Shards) == 0:
		return "-"
	case len(p.Shards) == 1:
		return p.Shards[0].Role
	case len(leads) == 0:
		return "follower"
	}
	return fmt.Sprintf("leads %s of %d", strings.Join(leads, ","), len(p.Shards))
}

func topTerm(p Process) uint64 {
	var n uint64
	for _, s := range p.Shards {
		n = max(n, s.Term)
	}
	return n
}

func applied(p Process) uint64 {
	var n uint64
	for _, s := range p.Shards {
		n += s.Applied
	}
	return n
}

func lag(out *term.Output, p Process) string {
	switch {
	case p.Marks == nil:
		return "-"
	case p.Lag == 0:
		return "0"
	}
	return out.Paint(term.Warn, fmt.Sprint(p.Lag))
}

func cores(p Process) string {
	if p.CPU == 0 && p.Restarts == 0 && p.RSS == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", p.CPU)
}

// note is why a process is not as it should be.
func note(out *term.Output, p Process) string {
	var bad []string
	for _, c := range p.Checks {
		if !c.OK {
			bad = append(bad, strings.TrimSuffix(c.Name+": "+c.Detail, ": "))
		}
	}
	if p.Backbone != nil {
		bad = append(bad, strain(p.Backbone)...)
	}
	if len(bad) == 0 && !p.Ready && p.Reason != "" {
		bad = []string{p.Reason}
	}
	return out.Paint(term.Faint, strings.Join(bad, "; "))
}

// lineQuiet is two heartbeats of a backbone: one of three holds the line for
// all, and what the others hear over it proves it.
const lineQuiet = 10_000

// strain is what a backbone is short of.
func strain(b *Backbone) (bad []string) {
	if !b.NATS.Running {
		bad = append(bad, "no NATS")
	}
	if !b.Etcd.Ready {
		bad = append(bad, "no etcd")
	}
	for _, l := range b.Links {
		if !l.Connected && l.QuietMS > lineQuiet {
			bad = append(bad, "no line to "+l.Other)
		}
	}
	for _, s := range b.NATS.Streams {
		if s.Lag > 0 {
			bad = append(bad, fmt.Sprintf("%s is %d behind", s.Name, s.Lag))
		}
	}
	return bad
}

func origins(out *term.Output, r Report) []string {
	var rows [][]string
	for _, o := range r.Origins {
		level := fmt.Sprintf("%d of %d", o.Level, o.Holders)
		if o.Level < o.Holders {
			level = out.Paint(term.Warn, level)
		}
		rows = append(rows, []string{o.Origin, fmt.Sprint(o.Newest), level, behind(o)})
	}
	return out.Lines([]string{"ORIGIN", ">FACTS", ">HELD BY", "BEHIND"}, rows)
}

// behind names who lacks how many, the worst first.
func behind(o Origin) string {
	type lag struct {
		name string
		n    uint64
	}
	var lags []lag
	for name, n := range o.Lag {
		lags = append(lags, lag{name, n})
	}
	slices.SortFunc(lags, func(a, b lag) int {
		return cmp.Or(cmp.Compare(b.n, a.n), strings.Compare(a.name, b.name))
	})
	var out []string
	for _, l := range lags {
		out = append(out, fmt.Sprintf("%s %d", l.name, l.n))
	}
	return strings.Join(out, ", ")
}

func breakers(out *term.Output, r Report) []string {
	var rows [][]string
	for _, b := range r.Breakers {
		rows = append(rows, []string{b.Process, b.Peer, b.Kind, out.Paint(term.Bad, b.State), b.Fallback})
	}
	return out.Lines([]string{"BREAKER OF", "PEER", "CALLS", "STATE", "FALLBACK"}, rows)
}
