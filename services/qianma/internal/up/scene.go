package up

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"qianma/services/qianma/internal/control"
	"qianma/services/qianma/internal/province"
	"qianma/services/qianma/internal/term"
)

// scene shows a province coming up, running and going down. On a terminal it
// paints one block in place; elsewhere it writes a plain line for each fact.
type scene struct {
	out    *term.Output
	events <-chan string
	began  time.Time
	ready  map[string]bool // told already
	block  []string
}

func newScene(out *term.Output, events <-chan string, began time.Time) *scene {
	return &scene{out: out, events: events, began: began, ready: map[string]bool{}}
}

// say writes a line that stays, above what is painted.
func (s *scene) say(line string) {
	line = s.out.Paint(term.Faint, time.Now().Format(time.TimeOnly)) + "  " + line
	if !s.out.TTY || len(s.block) == 0 {
		s.out.Println(line)
		return
	}
	s.out.Repaint([]string{line})
	s.out.Keep()
	s.out.Repaint(s.block)
}

// beat is how often the clock on the screen moves.
const beat = 200 * time.Millisecond

// untilReady shows progress until every wanted process is ready, the wait is
// over, or ctx ends.
func (s *scene) untilReady(ctx context.Context, report func() control.Report, changed func() <-chan struct{}, wait time.Duration, home province.Layout) {
	late := time.After(wait)
	for {
		change := changed()
		r := report()
		s.progress(r)
		if allReady(r) {
			s.clear()
			s.welcome(r, home)
			return
		}
		select {
		case <-change:
		case line := <-s.events:
			s.say(line)
		case <-time.After(beat):
		case <-late:
			s.clear()
			s.say(notReady(report()).Error())
			s.say("it is kept running, and whatever becomes ready counts: qianma status looks at it")
			return
		case <-ctx.Done():
			s.clear()
			return
		}
	}
}

// untilEnd tells what happens until ctx ends.
func (s *scene) untilEnd(ctx context.Context) {
	for {
		select {
		case line := <-s.events:
			s.say(line)
		case <-ctx.Done():
			return
		}
	}
}

// untilClosed tells what happens until everything has stopped.
func (s *scene) untilClosed(done <-chan error) error {
	for {
		select {
		case line := <-s.events:
			s.say(line)
		case err := <-done:
			for len(s.events) > 0 {
				s.say(<-s.events)
			}
			return err
		}
	}
}

func (s *scene) clear() {
	if len(s.block) > 0 {
		s.out.Repaint(nil)
		s.block = nil
	}
}

// progress shows how far things are.
func (s *scene) progress(r control.Report) {
	for _, p := range r.Processes {
		if p.State == control.Ready && !s.ready[p.Name] {
			s.ready[p.Name] = true
			if !s.out.TTY {
				s.out.Printf("%6.1fs  %s ready\n", time.Since(s.began).Seconds(), p.Name)
			}
		}
	}
	if s.out.TTY {
		s.block = s.picture(r)
		s.out.Repaint(s.block)
	}
}

// picture is one line for each carrier, and one for what is being waited for.
func (s *scene) picture(r control.Report) []string {
	var rows [][]string
	for _, carrier := range province.Carriers {
		row := []string{s.out.Paint(term.Bold, carrier)}
		for _, subsystem := range province.Subsystems {
			row = append(row, s.gauge(r.Processes, carrier, subsystem))
		}
		rows = append(rows, row)
	}
	lines := s.out.Lines(make([]string, len(province.Subsystems)+1), rows)[1:]
	waits := ""
	for _, p := range r.Processes {
		if p.State != control.Ready && p.State != control.Stopped && p.State != control.Pending {
			waits = "waiting for " + p.Name + ": " + p.Reason
			break
		}
	}
	return append(lines, s.out.Paint(term.Faint, fmt.Sprintf("%5.1fs  %s", time.Since(s.began).Seconds(), waits)))
}

// gauge is "nucleic ●●○": words and shapes say what the colour says.
func (s *scene) gauge(ps []control.Process, carrier, subsystem string) string {
	var dots strings.Builder
	ready, all := 0, 0
	for _, p := range ps {
		if p.Carrier != carrier || p.Subsystem != subsystem {
			continue
		}
		all++
		switch {
		case p.State == control.Ready:
			ready++
			dots.WriteString("●")
		case p.State.Running():
			dots.WriteString("◐")
		default:
			dots.WriteString("○")
		}
	}
	tone := term.Warn
	if ready == all {
		tone = term.Good
	}
	return subsystem + " " + s.out.Paint(tone, dots.String())
}

func allReady(r control.Report) bool {
	return !slices.ContainsFunc(r.Processes, func(p control.Process) bool {
		return p.State != control.Ready && p.State != control.Stopped
	})
}

// welcome is the table of endpoints.
func (s *scene) welcome(r control.Report, home province.Layout) {
	n := 0
	for _, p := range r.Processes {
		if p.State == control.Ready {
			n++
		}
	}
	s.out.Printf("\n%s: %d processes in %.1f s\n\n", s.out.Paint(term.Good, "ready"), n, time.Since(s.began).Seconds())
	var rows [][]string
	for _, carrier := range province.Carriers {
		for _, subsystem := range province.Subsystems {
			var urls []string
			for _, p := range r.Processes {
				if p.Carrier == carrier && p.Subsystem == subsystem && p.State == control.Ready {
					urls = append(urls, "http://"+p.HTTP)
				}
			}
			if len(urls) > 0 {
				rows = append(rows, []string{carrier, subsystem, strings.Join(urls, "  ")})
			}
		}
	}
	s.out.Table([]string{"CARRIER", "SUBSYSTEM", "HTTP"}, rows)
	s.out.Printf("\nendpoints  %s\nlogs       %s\nlook       qianma status --data %s\nstop       Ctrl-C, or qianma down --data %s\n\n",
		home.Endpoints(), home.Logs(), home, home)
}
