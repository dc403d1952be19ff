package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"qianma/chaos/fault"
	"qianma/chaos/wire"
	"qianma/chaos/world"
)

// Hand is the drill's end of one agent.
type Hand struct {
	Plan fault.Plan

	cmd    *exec.Cmd
	in     io.WriteCloser
	words  chan Word
	stop   chan struct{} // the lease is no longer renewed
	ended  sync.Once
	wg     sync.WaitGroup
	stderr strings.Builder

	Injecting time.Time // when the first action began
	Injected  time.Time // when the last was done
	Undone    time.Time // when the system had shown that it is gone
}

// Raise starts an agent as a process that outlives us and returns when it has
// brought the fault, or the longer part of it: a fault that takes long to
// bring is reported when it begins.
func Raise(ctx context.Context, command []string, p fault.Plan) (*Hand, error) {
	h := &Hand{Plan: p, words: make(chan Word, 8), stop: make(chan struct{})}
	h.cmd = exec.Command(command[0], command[1:]...)
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	h.cmd.Stderr = &h.stderr
	in, err := h.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	h.in = in
	h.wg.Go(func() { h.read(out) })
	h.wg.Go(h.renew)
	if err := json.NewEncoder(in).Encode(p); err != nil {
		return h, errors.Join(err, h.Undo(ctx))
	}
	return h, h.until(ctx, "injecting")
}

func (h *Hand) read(out io.Reader) {
	defer close(h.words)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var w Word
		if json.Unmarshal(lines.Bytes(), &w) == nil {
			h.words <- w
		}
	}
}

// renew keeps the lease alive until the fault is to go.
func (h *Hand) renew() {
	tick := time.NewTicker(Lease / 10)
	defer tick.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-tick.C:
			if _, err := io.WriteString(h.in, stay+"\n"); err != nil {
				return
			}
		}
	}
}

// until hears the agent out up to a word.
func (h *Hand) until(ctx context.Context, word string) error {
	for {
		select {
		case w, ok := <-h.words:
			if !ok {
				return fmt.Errorf("the agent ended before it had %s the fault %s", word, strings.TrimSpace(h.stderr.String()))
			}
			h.note(w)
			if w.Said == "failed" {
				return fmt.Errorf("%s: %s", h.Plan.ID, w.Error)
			}
			if w.Said == word {
				return nil
			}
			if w.Said == "undone" { // it has given up, or was made to, and told us before we asked
				return fmt.Errorf("%s was undone before its time: %s", h.Plan.ID, w.Error)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (h *Hand) note(w Word) {
	switch w.Said {
	case "injecting":
		h.Injecting = w.At
	case "injected":
		h.Injected = w.At
	case "undone":
		h.Undone = w.At
	}
}

// Done waits until the fault has been brought whole.
func (h *Hand) Done(ctx context.Context) error {
	if !h.Injected.IsZero() {
		return nil
	}
	return h.until(ctx, "injected")
}

// Undo has the fault taken away and returns when the system has shown that it
// is gone. It is safe to call twice.
func (h *Hand) Undo(ctx context.Context) error {
	var err error
	h.ended.Do(func() {
		close(h.stop)
		_, _ = io.WriteString(h.in, undo+"\n")
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoMax+Lease)
		defer cancel()
		if h.Undone.IsZero() {
			err = h.until(bounded, "undone")
		}
		_ = h.in.Close()
		for range h.words { // to the end of what it says
			continue
		}
		h.wg.Wait()
		err = errors.Join(err, h.cmd.Wait())
	})
	return err
}

// Recover undoes every fault whose agent is dead, and then asks the system
// itself, which needs no journal, for what no drill should have left.
func Recover(ctx context.Context, w *world.World) (undone []string, err error) {
	home := At(w.Data)
	left, err := orphans(home)
	for j, p := range left {
		if e := fault.TakeAway(ctx, w, p); e != nil {
			j.leave()
			err = errors.Join(err, fmt.Errorf("%s: %w", p.ID, e))
			continue
		}
		undone = append(undone, p.ID)
		err = errors.Join(err, j.done())
	}
	return undone, err
}

// Marked is how the rules and holds of a drill are told from others: holds of
// drills always run out, and their rules carry a name that begins so.
const Marked = "drill-"

// Leftovers asks the system itself what is not as it should be between
// drills. It knows no journal.
func Leftovers(ctx context.Context, w *world.World) (out []string, err error) {
	r, err := w.Report(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range r.Processes {
		if p.State == "paused" || p.State == "held" {
			out = append(out, p.Name+" is "+p.State)
		}
	}
	for _, h := range r.Holds {
		if !h.Until.IsZero() {
			out = append(out, "a hold keeps "+h.Name+" down")
		}
	}
	for _, p := range r.Processes {
		for _, id := range w.Orders(ctx, p.Name) {
			out = append(out, p.Name+" is under the order "+id)
		}
	}
	rules, err := w.Rules(ctx)
	for _, x := range rules {
		if strings.HasPrefix(x.ID, Marked) {
			out = append(out, "the rule "+x.ID+" is on the links")
		}
	}
	harmed, e := harmful(ctx, w)
	for _, r := range harmed {
		out = append(out, "packets that leave "+r.From+" are harmed")
	}
	return out, errors.Join(err, e)
}

// Sweep takes away what Leftovers finds.
func Sweep(ctx context.Context, w *world.World) error {
	r, err := w.Report(ctx)
	if err != nil {
		return err
	}
	for _, h := range r.Holds {
		if !h.Until.IsZero() && h.Name != "" {
			err = errors.Join(err, w.Release(ctx, h.Name))
		}
	}
	for _, p := range r.Processes {
		for _, id := range w.Orders(ctx, p.Name) {
			err = errors.Join(err, w.Withdraw(ctx, p.Name, id))
		}
		switch p.State {
		case "paused":
			err = errors.Join(err, w.Do(ctx, p.Name, "resume"))
		case "held":
			err = errors.Join(err, w.Do(ctx, p.Name, "start"))
		}
	}
	rules, e := w.Rules(ctx)
	err = errors.Join(err, e)
	for _, x := range rules {
		if strings.HasPrefix(x.ID, Marked) {
			err = errors.Join(err, w.RemoveRule(ctx, x.ID))
		}
	}
	harmed, e := harmful(ctx, w)
	err = errors.Join(err, e)
	for _, r := range harmed {
		err = errors.Join(err, w.Wire().Remove(ctx, r))
	}
	return err
}

// harmful are the rules on packets: nobody but a drill puts any there.
func harmful(ctx context.Context, w *world.World) ([]wire.Rule, error) {
	if w.Wire() == nil {
		return nil, nil
	}
	return w.Wire().Rules(ctx)
}

// Pulled reports whether the lever is pulled, as a problem.
func Pulled(h Home) error {
	if !h.Engaged() {
		return nil
	}
	by, _ := os.ReadFile(h.Lever())
	return fmt.Errorf("the lever is pulled (%s): no drill may run until: qianma drill lever release", strings.TrimSpace(string(by)))
}
