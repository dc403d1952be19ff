package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"qianma/cluster/footprint"
)

// child is a running process: one that we started, or one that we adopted.
type child struct {
	Identity
	started time.Time
	process *os.Process
	gone    chan struct{} // closed when it has ended
	exit    string        // how it ended, in words; read after gone
	left    bool          // it ended by itself, with an exit code; read after gone
}

// timerSlack is how late the timers of a process may be. Nothing in a province
// is due to a millisecond; loadtest/BASELINE.md has what it is worth.
const timerSlack = time.Millisecond

// spawn starts a process that outlives us if it must: a session of its own,
// nothing on its standard input, its output straight into the log file.
func spawn(spec *Spec) (*child, error) {
	log, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	argv := slices.Concat(spec.Wrap, []string{spec.Path}, spec.Args, []string{"--config", spec.ConfigFile})
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = filepath.Dir(spec.Log)
	cmd.Env = append(os.Environ(), spec.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := footprint.Unhurried(timerSlack, cmd.Start); err != nil {
		return nil, err
	}
	c := &child{process: cmd.Process, started: time.Now(), gone: make(chan struct{})}
	c.PID = cmd.Process.Pid
	if spec.Nice > 0 {
		footprint.GiveWay(c.PID, spec.Nice)
	}
	if u, err := inspect(c.PID); err == nil {
		c.Ticks = u.Ticks
	}
	go func() {
		defer close(c.gone)
		c.exit, c.left = describe(cmd.Wait(), cmd.ProcessState)
	}()
	return c, nil
}

// describe says in words how a child of ours ended.
func describe(err error, s *os.ProcessState) (words string, left bool) {
	if s == nil {
		return fmt.Sprintf("could not be waited for: %v", err), false
	}
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return "killed by " + unix.SignalName(ws.Signal()), false
	}
	return fmt.Sprintf("left with exit code %d", s.ExitCode()), true
}

// adopt takes over a process that an earlier supervisor started. Its exit
// code goes to whoever inherited it, so only the fact of its end is known.
func adopt(ctx context.Context, id Identity) (*child, error) {
	p, err := id.open()
	if err != nil {
		return nil, err
	}
	wait, err := watch(p)
	if err != nil {
		return nil, errors.Join(err, p.Release())
	}
	if !id.Alive() { // the pid may have changed hands before we watched it
		return nil, errors.Join(os.ErrProcessDone, wait.Close(), p.Release())
	}
	c := &child{Identity: id, started: id.Started(), process: p, gone: make(chan struct{}), exit: "ended"}
	stop := context.AfterFunc(ctx, func() { wait.Close() })
	go func() {
		defer close(c.gone)
		defer stop()
		defer wait.Close()
		wait.readable()
	}()
	return c, nil
}

// pidfd is a file that becomes readable when its process ends.
type pidfd struct{ *os.File }

func watch(p *os.Process) (pidfd, error) {
	fd, err := unix.PidfdOpen(p.Pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return pidfd{}, os.NewSyscallError("pidfd_open", err)
	}
	return pidfd{os.NewFile(uintptr(fd), "pidfd")}, nil
}

// readable blocks until the process has ended or the file is closed.
func (f pidfd) readable() {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, _ := unix.Poll(p, 0)
		return n > 0
	})
}

// signal sends sig; a process that has ended is no error.
func (c *child) signal(sig syscall.Signal) error {
	err := c.process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
