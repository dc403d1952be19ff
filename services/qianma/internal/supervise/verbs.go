package supervise

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"
	"time"

	"qianma/cluster/problem"
	"qianma/services/qianma/internal/control"
)

// killMax is how long a killed process may take to be gone.
const killMax = 10 * time.Second

// Do applies a verb to one process and returns when the system shows that it
// was done, or with an error when ctx ended first.
func (s *Supervisor) Do(ctx context.Context, name string, v control.Verb) (control.Process, error) {
	k := s.find(name)
	if k == nil {
		return control.Process{}, problem.New(problem.NotFound, "no process is called "+name, "qianma processes lists the names")
	}
	err := s.apply(ctx, k, v)
	return k.snapshot(), err
}

// DoEach applies a verb to all processes picked at the same time.
func (s *Supervisor) DoEach(ctx context.Context, sel control.Selector, v control.Verb) ([]control.Process, error) {
	picked := s.pick(sel)
	if len(picked) == 0 {
		return nil, problem.New(problem.NotFound, "no process matches "+sel.String(), "qianma processes lists names, carriers and subsystems")
	}
	faults := make([]error, len(picked))
	var wg sync.WaitGroup
	for i, k := range picked {
		wg.Go(func() { faults[i] = s.apply(ctx, k, v) })
	}
	wg.Wait()
	out := make([]control.Process, len(picked))
	for i, k := range picked {
		out[i] = k.snapshot()
	}
	return out, errors.Join(faults...)
}

func (s *Supervisor) apply(ctx context.Context, k *keeper, v control.Verb) error {
	switch v {
	case control.Kill:
		return k.kill(ctx)
	case control.Stop:
		return k.stop(ctx)
	case control.Start:
		return k.start(ctx)
	case control.Restart:
		return k.restart(ctx)
	case control.Pause:
		return k.freeze(ctx, syscall.SIGSTOP, true)
	case control.Resume:
		return k.freeze(ctx, syscall.SIGCONT, false)
	}
	return problem.New(problem.Unsupported, "there is no verb "+string(v), "use kill, stop, start, restart, pause or resume")
}

// kill ends the process as a crash would. What is down already is fine.
func (k *keeper) kill(ctx context.Context) error {
	c := k.current()
	if c == nil {
		return nil
	}
	if err := c.signal(syscall.SIGKILL); err != nil {
		return err
	}
	return k.settled(ctx, c)
}

// stop asks the process to leave, and makes it when it does not or when ctx
// ends first. It stays down until it is started.
func (k *keeper) stop(ctx context.Context) error {
	k.mu.Lock()
	k.wanted, k.atOnce = false, false
	k.mu.Unlock()
	k.poke()
	c := k.settle(true)
	if c == nil {
		return nil
	}
	return k.leave(ctx, c)
}

// restart is stop and start in one, without the wait of a death.
func (k *keeper) restart(ctx context.Context) error {
	if c := k.settle(true); c != nil {
		if err := k.leave(ctx, c); err != nil {
			return err
		}
	}
	return k.start(ctx)
}

// settle waits out a start that is under way, which is bounded by the time it
// takes to write a few files and fork, and returns the process that runs; when
// asked is true its end will be no death.
func (k *keeper) settle(asked bool) *child {
	var c *child
	_ = k.s.until(k.s.ctx, func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.launching {
			return false
		}
		c = k.child
		if asked && c != nil {
			k.asked = true
		}
		return true
	})
	return c
}

// leave asks, waits, insists, and returns when the process has gone.
func (k *keeper) leave(ctx context.Context, c *child) error {
	k.mu.Lock()
	if k.child == c {
		k.enterLocked(control.Stopping)
	}
	k.mu.Unlock()
	// One that is paused would only read the request when resumed.
	if err := errors.Join(c.signal(syscall.SIGTERM), c.signal(syscall.SIGCONT)); err != nil {
		return err
	}
	select {
	case <-c.gone:
	case <-ctx.Done():
		_ = c.signal(syscall.SIGKILL)
	case <-k.s.clock.After(k.s.tune.Grace):
		_ = c.signal(syscall.SIGKILL)
	}
	// A killed process is gone as soon as the kernel has torn it down; only a
	// disk that hangs can hold it longer than this.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), killMax)
	defer cancel()
	return k.settled(bounded, c)
}

// settled waits until the process has gone and its keeper has seen it.
func (k *keeper) settled(ctx context.Context, c *child) error {
	return k.s.until(ctx, func() bool { return k.current() != c })
}

// start starts the process now, whatever kept it down, and returns when it runs.
func (k *keeper) start(ctx context.Context) error {
	if k.s.isClosing() {
		return problem.New(problem.Unavailable, "the province is being taken down", "wait, then: qianma up")
	}
	k.mu.Lock()
	old := k.child
	if old != nil && k.state != control.Stopping {
		k.mu.Unlock()
		return nil
	}
	k.wanted, k.atOnce, k.died, k.fails = true, true, false, 0
	tries := k.restarts
	k.mu.Unlock()
	k.poke()
	var failed error
	err := k.s.until(ctx, func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.child == nil && k.restarts > tries {
			failed = problem.New(problem.Unavailable, k.spec.Name+" "+k.reason, "look at "+k.spec.Log)
		}
		return k.child != nil && k.child != old || failed != nil
	})
	return errors.Join(err, failed)
}

// freeze pauses or resumes, and returns when /proc shows it.
func (k *keeper) freeze(ctx context.Context, sig syscall.Signal, stopped bool) error {
	c := k.current()
	if c == nil {
		return problem.New(problem.Unavailable, k.spec.Name+" does not run", "start it first: qianma start "+k.spec.Name)
	}
	if err := c.signal(sig); err != nil {
		return err
	}
	for {
		u, err := inspect(c.PID)
		if err != nil || u.Ticks != c.Ticks || u.stopped == stopped {
			k.s.change()
			return nil
		}
		select {
		case <-c.gone:
			return nil
		case <-k.s.clock.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Hold keeps the processes picked down after they die, for d or, when d is 0,
// until Release. What runs goes on running.
func (s *Supervisor) Hold(sel control.Selector, d time.Duration) []control.Hold {
	h := control.Hold{Selector: sel}
	if d > 0 {
		h.Until = s.clock.Now().Add(d)
	}
	s.mu.Lock()
	s.holds = slices.DeleteFunc(s.holds, func(o control.Hold) bool { return o.Selector == sel })
	s.holds = append(s.holds, h)
	s.mu.Unlock()
	s.log.Info("restarts of " + sel.String() + " are held off")
	return s.wakeAll()
}

// Release ends every hold on nothing but what the selector picks; the empty
// selector ends them all. What died meanwhile is started.
func (s *Supervisor) Release(sel control.Selector) []control.Hold {
	s.mu.Lock()
	s.holds = slices.DeleteFunc(s.holds, func(h control.Hold) bool { return s.covers(sel, h.Selector) })
	s.mu.Unlock()
	s.log.Info("restarts of " + sel.String() + " are allowed again")
	return s.wakeAll()
}

// covers reports whether everything b picks is picked by a too.
func (s *Supervisor) covers(a, b control.Selector) bool {
	for _, k := range s.pick(b) {
		if !a.Match(k.spec.Name, k.spec.Carrier, k.spec.Subsystem) {
			return false
		}
	}
	return true
}

func (s *Supervisor) wakeAll() []control.Hold {
	for _, k := range s.keepers {
		k.poke()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holdsNow()
}

// holdsNow drops what has run out. The caller holds the lock.
func (s *Supervisor) holdsNow() []control.Hold {
	now := s.clock.Now()
	s.holds = slices.DeleteFunc(s.holds, func(h control.Hold) bool {
		return !h.Until.IsZero() && !now.Before(h.Until)
	})
	return slices.Clone(s.holds)
}

// held reports whether a hold is on the process, and when the next one of a
// bounded kind runs out (zero: never by itself).
func (s *Supervisor) held(spec Spec) (held bool, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.holdsNow() {
		if !h.Match(spec.Name, spec.Carrier, spec.Subsystem) {
			continue
		}
		held = true
		if !h.Until.IsZero() && (until.IsZero() || h.Until.Before(until)) {
			until = h.Until
		}
	}
	return held, until
}

func (s *Supervisor) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}
