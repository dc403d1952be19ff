package up

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"qianma/cluster/problem"
	"qianma/services/qianma/internal/control"
	"qianma/services/qianma/internal/province"
	"qianma/services/qianma/internal/term"
)

// detach leaves a supervisor behind in a session of its own, and watches over
// its control socket until the province is ready.
func (c *Command) detach(ctx context.Context, out *term.Output, data string) error {
	l := province.Layout(data)
	if err := os.MkdirAll(l.Logs(), 0o755); err != nil {
		return err
	}
	words := l.SupervisorLog() + ".out"
	cmd, err := background(words)
	if err != nil {
		return err
	}
	left := make(chan error, 1)
	go func() { left <- cmd.Wait() }()
	if err := c.follow(ctx, out, data, cmd.Process.Pid, left); err != nil {
		var early *leftEarly
		if errors.As(err, &early) {
			raw, _ := os.ReadFile(words)
			fmt.Fprint(out.Err, string(raw))
		}
		return err
	}
	return nil
}

// background starts this very command again, without a terminal.
func background(words string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f, err := os.Create(words)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command(self, append(slices.Clone(os.Args[1:]), "--background")...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, cmd.Start()
}

// leftEarly is a supervisor that ended before its province was ready. It has
// said why.
type leftEarly struct{ code int }

func (e *leftEarly) Error() string { return "the supervisor left before the province was ready" }

// ExitCode is the supervisor's own.
func (e *leftEarly) ExitCode() int { return max(1, e.code) }

// follow shows the progress of the supervisor with that pid.
func (c *Command) follow(ctx context.Context, out *term.Output, data string, pid int, left <-chan error) error {
	cl := control.NewClient(data)
	s := newScene(out, nil, time.Now())
	late := time.After(c.Wait)
	for {
		r, err := cl.Processes(ctx, control.Selector{})
		if err == nil && r.PID == pid {
			s.progress(r)
			if allReady(r) {
				s.clear()
				s.welcome(r, province.Layout(data))
				return nil
			}
		}
		select {
		case <-time.After(beat):
		case err := <-left:
			s.clear()
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return &leftEarly{exit.ExitCode()}
			}
			return &leftEarly{}
		case <-late:
			s.clear()
			return notReady(r)
		case <-ctx.Done():
			s.clear()
			return problem.Wrap(ctx.Err(), problem.Unavailable, "stopped watching; the province goes on coming up", "qianma status looks at it, qianma down stops it")
		}
	}
}

// notReady says what is not ready, and why.
func notReady(r control.Report) error {
	var who []string
	for _, p := range r.Processes {
		if p.State != control.Ready && p.State != control.Stopped {
			who = append(who, strings.TrimSuffix(fmt.Sprintf("%s is %s: %s", p.Name, p.State, p.Reason), ": "))
		}
	}
	if len(who) == 0 {
		return problem.New(problem.Unavailable, "the supervisor does not answer", "look at logs/supervisor.log in the data directory")
	}
	return problem.New(problem.Unavailable, fmt.Sprintf("not ready in time: %s", strings.Join(who, "; ")), "look at the logs of these processes, in logs/ of the data directory")
}
