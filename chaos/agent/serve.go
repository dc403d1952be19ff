package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"qianma/chaos/fault"
	"qianma/chaos/world"
	"qianma/cluster/problem"
)

// Word is what an agent says, one line of JSON each.
type Word struct {
	Said  string    `json:"said"` // journalled, injecting, injected, undone, failed
	At    time.Time `json:"at"`
	Error string    `json:"error,omitempty"`
}

// What the drill says to its agent: a line each.
const (
	stay = "stay" // the drill lives
	undo = "undo" // take the fault away now
)

// Bounds of an agent.
const (
	Lease   = 10 * time.Second // without a word from the drill
	undoMax = 3 * time.Minute  // for taking away and the proof
	leverAt = 500 * time.Millisecond
)

// Serve is an agent: it reads the plan, and then the drill's words, from in,
// and says on out what it has done. It returns when the fault is gone, or with
// an error when that could not be shown; the journal then stays.
func Serve(ctx context.Context, data string, in io.Reader, out io.Writer) error {
	// A terminal's interrupt is for the drill; a plain kill means: undo.
	ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), syscall.SIGTERM)
	defer stop()
	signal.Ignore(os.Interrupt, syscall.SIGHUP, syscall.SIGPIPE)
	lines := bufio.NewReader(in)
	first, err := lines.ReadBytes('\n')
	if err != nil {
		return nil // the drill died before it asked for anything
	}
	var p fault.Plan
	if err := json.Unmarshal(first, &p); err != nil {
		return err
	}
	w, err := world.Open(data)
	if err != nil {
		return err
	}
	defer w.Close()
	a := &agent{home: At(w.Data), w: w, plan: p, out: json.NewEncoder(out)}
	return a.run(ctx, lines)
}

type agent struct {
	home Home
	w    *world.World
	plan fault.Plan
	out  *json.Encoder
}

// say tells the drill; a drill that is gone hears nothing, and that is fine.
func (a *agent) say(what string, err error) {
	word := Word{Said: what, At: time.Now()}
	if err != nil {
		word.Error = err.Error()
	}
	_ = a.out.Encode(word)
}

func (a *agent) run(ctx context.Context, lines *bufio.Reader) error {
	if a.home.Engaged() {
		err := problem.New(problem.Conflict, "the lever is pulled: no drill may run", "qianma drill lever release")
		a.say("failed", err)
		return err
	}
	j, err := write(a.home, a.plan)
	if err != nil {
		a.say("failed", err)
		return err
	}
	a.say("journalled", nil)
	held, end := context.WithCancel(ctx)
	defer end()
	go a.listen(lines, end) // ends with the pipe, and the process with it
	injected := make(chan error, 1)
	go func() { injected <- a.inject(held) }()
	failed := a.hold(held, end, injected)
	return a.takeAway(j, failed)
}

func (a *agent) inject(ctx context.Context) error {
	a.say("injecting", nil)
	return fault.ActAll(ctx, a.w, a.plan.Inject)
}

// hold keeps the fault until the lease ends, the lever is pulled or the
// injection fails. It returns when the injection has stopped, with its error.
func (a *agent) hold(ctx context.Context, end func(), injected <-chan error) error {
	lever := time.NewTicker(leverAt)
	defer lever.Stop()
	running := injected
	for {
		select {
		case err := <-running:
			running = nil
			if err == nil {
				a.say("injected", nil)
				continue
			}
			end()
			return err
		case <-ctx.Done():
			if running != nil {
				<-running // what was interrupted is undone like the rest
			}
			return nil
		case <-lever.C:
			if a.home.Engaged() {
				end()
			}
		}
	}
}

// listen renews the lease with every word, and ends it when there is none.
func (a *agent) listen(lines *bufio.Reader, end func()) {
	lease := time.AfterFunc(Lease, end)
	defer lease.Stop()
	defer end()
	for {
		line, err := lines.ReadString('\n')
		if err != nil || line == undo+"\n" {
			return
		}
		lease.Reset(Lease)
	}
}

func (a *agent) takeAway(j *journal, failed error) error {
	ctx, cancel := context.WithTimeout(context.Background(), undoMax)
	defer cancel()
	if err := fault.TakeAway(ctx, a.w, a.plan); err != nil {
		j.leave()
		err = errors.Join(failed, err)
		a.say("failed", err)
		return err
	}
	if err := j.done(); err != nil {
		a.say("failed", err)
		return err
	}
	a.say("undone", failed)
	return nil
}
