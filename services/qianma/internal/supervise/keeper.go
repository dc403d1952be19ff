package supervise

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"qianma/services/qianma/internal/control"
)

// keeper keeps one process. Its goroutine alone starts the process and sees it
// end; verbs change what is wanted, send signals, and wait for the facts.
type keeper struct {
	s    *Supervisor
	spec Spec
	wake chan struct{} // capacity 1: something that due looks at has changed

	mu        sync.Mutex // protects the fields below
	wanted    bool
	atOnce    bool // the next start waits for nothing
	launching bool // between the decision to start and the process or the failure
	asked     bool // the running process was asked to leave: its end is no death
	died      bool // since somebody last started it: holds apply
	notBefore time.Time
	fails     int // deaths in a row without a steady time between
	restarts  int
	state     control.State
	since     time.Time
	reason    string
	child     *child
	dir       os.FileInfo // of the data directory the process was started on
	sample    usage
	sampled   time.Time
	cores     float64
}

func newKeeper(s *Supervisor, spec Spec) *keeper {
	k := &keeper{s: s, spec: spec, wake: make(chan struct{}, 1), state: control.Pending, since: s.clock.Now()}
	if spec.Idle {
		k.state = control.Stopped
	}
	return k
}

func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// begin makes a process wanted that nobody has started yet.
func (k *keeper) begin() {
	k.mu.Lock()
	k.wanted = true
	k.mu.Unlock()
	k.poke()
}

// adopt takes over the process if it runs.
func (k *keeper) adopt(running map[string]Identity) {
	id, ok := running[k.spec.Name]
	if !ok {
		return
	}
	c, err := adopt(k.s.ctx, id)
	if err != nil {
		return // it ended while we looked
	}
	k.wanted = true
	k.enter(c)
	k.say(slog.LevelInfo, fmt.Sprintf("runs already (pid %d): adopted", c.PID))
}

// run is the keeper's life.
func (k *keeper) run() {
	if c := k.current(); c != nil {
		k.attend(c)
	}
	for k.due() {
		c, err := k.launch()
		if err != nil {
			k.down("cannot be started: " + err.Error())
			continue
		}
		k.attend(c)
	}
}

// due blocks until the process should be started; false: never again.
func (k *keeper) due() bool {
	for {
		start, wait := k.decide()
		if start {
			return true
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = k.s.clock.After(wait)
		}
		select {
		case <-timer:
		case <-k.wake:
		case <-k.s.ctx.Done():
			return false
		}
	}
}

// decide says whether to start now, and if not, after how long to ask again (0:
// only when woken).
func (k *keeper) decide() (start bool, wait time.Duration) {
	held, until := k.s.held(k.spec)
	now := k.s.clock.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case !k.wanted:
		if k.state != control.Pending {
			k.enterLocked(control.Stopped)
		}
		return false, 0
	case k.atOnce:
		k.launching = true
		return true, 0
	case k.died && held:
		k.enterLocked(control.Held)
		if until.IsZero() {
			return false, 0
		}
		return false, max(time.Millisecond, until.Sub(now))
	case now.Before(k.notBefore):
		k.enterLocked(control.Backoff)
		return false, k.notBefore.Sub(now)
	}
	k.launching = true
	return true, 0
}

// launch prepares and starts the process.
func (k *keeper) launch() (*child, error) {
	k.mu.Lock()
	k.atOnce, k.asked = false, false
	k.mu.Unlock()
	if k.spec.Prepare != nil {
		if err := k.spec.Prepare(); err != nil {
			return nil, err
		}
	}
	c, err := spawn(&k.spec)
	if err != nil {
		return nil, err
	}
	k.enter(c)
	return c, nil
}

// enter notes the process that now runs.
func (k *keeper) enter(c *child) {
	dir, _ := os.Stat(k.spec.Dir)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.child, k.dir, k.sample, k.cores = c, dir, usage{}, 0
	k.launching = false
	k.atOnce = false // whoever asked while it was being started has it now
	k.enterLocked(control.Starting)
}

// enterLocked moves to a state; the first moment in it is kept.
func (k *keeper) enterLocked(state control.State) {
	if k.state == state {
		return
	}
	k.state, k.since = state, k.s.clock.Now()
	k.s.change()
}

// attend watches the process until it ends, and judges its end.
func (k *keeper) attend(c *child) {
	var probe sync.WaitGroup
	probe.Go(func() { k.probe(c) })
	defer probe.Wait()
	select {
	case <-c.gone:
		k.ended(c)
	case <-k.s.ctx.Done():
	}
}

// ended judges the end of a process: what was asked for is no death.
func (k *keeper) ended(c *child) {
	k.mu.Lock()
	asked := k.asked || !k.wanted
	steady := k.s.clock.Now().Sub(c.started) >= k.s.tune.Steady
	if steady {
		k.fails = 0
	}
	if asked {
		k.child, k.reason, k.asked = nil, "", false
		k.enterLocked(control.Stopped)
	}
	k.mu.Unlock()
	_ = c.process.Release()
	if asked {
		k.say(slog.LevelInfo, "stopped")
		return
	}
	reason := c.exit
	if last := lastWords(k.spec.Log); c.left && last != "" {
		reason += ": " + last
	}
	k.down(reason)
}

// down notes a death, or a start that failed, and sets the next try.
func (k *keeper) down(reason string) {
	held, _ := k.s.held(k.spec)
	k.mu.Lock()
	wait := backoff(k.fails, k.s.tune.BackoffMin, k.s.tune.BackoffMax, rand.Float64())
	k.fails++
	k.restarts++
	k.died, k.child, k.launching, k.reason = true, nil, false, reason
	k.notBefore = k.s.clock.Now().Add(wait)
	state, next := control.Backoff, "starts again in "+wait.Round(10*time.Millisecond).String()
	if held {
		state, next = control.Held, "a hold keeps it down"
	}
	k.enterLocked(state)
	k.s.change() // also when it was in this state before: a try has failed
	k.mu.Unlock()
	k.say(slog.LevelWarn, reason+"; "+next)
}

// backoff is how long to wait after n deaths in a row before this one: doubled
// each time up to a bound, then spread by a quarter to either side (r in
// [0,1)), so that what died together does not come back together.
func backoff(n int, least, most time.Duration, r float64) time.Duration {
	wait := most
	if n < 30 && least<<n < most {
		wait = least << n
	}
	return wait*3/4 + time.Duration(r*float64(wait)/2)
}

func (k *keeper) current() *child {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.child
}

// snapshot is the process as strangers see it.
func (k *keeper) snapshot() control.Process {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := control.Process{
		Name: k.spec.Name, Carrier: k.spec.Carrier, Subsystem: k.spec.Subsystem,
		State: k.state, Since: k.since, Restarts: k.restarts, Reason: k.reason,
		CPU: k.cores, HTTP: k.spec.HTTP, Log: k.spec.Log, Dir: k.spec.Dir,
	}
	if k.child == nil {
		return p
	}
	p.PID, p.Started = k.child.PID, k.child.started
	if u, err := inspect(p.PID); err == nil && u.Ticks == k.child.Ticks {
		p.RSS, p.CPUTime = u.rss, u.cpu.Seconds()
		if u.stopped {
			p.State = control.Paused
		}
	}
	return p
}

func (k *keeper) say(level slog.Level, text string) {
	k.s.log.Log(k.s.ctx, level, k.spec.Name+" "+text, "process", k.spec.Name)
}
