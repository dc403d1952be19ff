package ops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"qianma/cluster/problem"
	"qianma/cluster/topology"
	"qianma/services/qianma/internal/control"
	"qianma/services/qianma/internal/province"
	"qianma/services/qianma/internal/supervise"
	"qianma/services/qianma/internal/term"
)

// Down stops a province: through its supervisor, or, when that is gone, by
// asking the processes themselves in the same order.
type Down struct {
	province.Flags
	Wait time.Duration `help:"Longest wait for everything to have left." default:"90s"`
}

// Run implements the command.
func (c *Down) Run(ctx context.Context, out *term.Output) error {
	cl, err := client(c.Flags)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	if err = cl.Shutdown(ctx); errors.Is(err, syscall.ECONNRESET) {
		err = cl.Shutdown(ctx) // it was killed while we spoke: now it is known to be gone
	}
	switch {
	case problem.Is(err, control.NotRunning):
	case err != nil:
		return err
	default:
		out.Println("asked the supervisor to stop everything")
		if err := gone(ctx, out, cl); err != nil {
			return err
		}
	}
	l, err := province.At(c.Data)
	if err != nil {
		return err
	}
	left, err := sweep(ctx, out, l)
	if err != nil {
		return err
	}
	if err := province.Dismantle(l); err != nil {
		return err
	}
	if left == 0 {
		out.Println("nothing of this province runs any more")
	}
	return nil
}

// gone waits until the supervisor has left, and tells how many it still waits
// for.
func gone(ctx context.Context, out *term.Output, cl *control.Client) error {
	last := -1
	for {
		r, err := cl.Processes(ctx, control.Selector{})
		if problem.Is(err, control.NotRunning) {
			return nil
		}
		if err == nil {
			if n := count(r.Processes); n != last {
				last = n
				out.Printf("%d still run\n", n)
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return problem.Wrap(ctx.Err(), problem.Unavailable, "the province has not stopped in time", "look with: qianma processes")
		}
	}
}

func count(ps []control.Process) int {
	n := 0
	for _, p := range ps {
		if p.PID != 0 {
			n++
		}
	}
	return n
}

// sweep stops the processes that no supervisor keeps, doors before cellar, and
// returns how many are left.
func sweep(ctx context.Context, out *term.Output, l province.Layout) (int, error) {
	t, err := topology.Load(l.Topology())
	if err != nil {
		return 0, err
	}
	running, err := supervise.Find(province.Configs(l, t))
	if err != nil || len(running) == 0 {
		return 0, err
	}
	out.Printf("no supervisor keeps %s: stopping them\n", strings.Join(names(running), ", "))
	for stage := province.StageLast; stage >= 0; stage-- {
		ids := map[string]supervise.Identity{}
		for name, id := range running {
			subsystem := name // of the links, which are in no topology
			if p, ok := t.Find(name); ok {
				subsystem = p.Subsystem
			}
			if province.Stage(subsystem) == stage {
				ids[name] = id
			}
		}
		if err := end(ctx, ids); err != nil {
			return 0, err
		}
	}
	running, err = supervise.Find(province.Configs(l, t))
	return len(running), err
}

// patience is how long a process may take to leave before it is killed.
const patience = 15 * time.Second

// end asks the processes to leave, and kills those that do not.
func end(ctx context.Context, ids map[string]supervise.Identity) error {
	for _, id := range ids {
		_ = id.Signal(syscall.SIGTERM)
		_ = id.Signal(syscall.SIGCONT)
	}
	deadline := time.Now().Add(patience)
	for name, id := range ids {
		for id.Alive() {
			if time.Now().After(deadline) {
				_ = id.Signal(os.Kill)
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("%s has not left: %w", name, ctx.Err())
			}
		}
	}
	return nil
}

func names[V any](m map[string]V) []string {
	var out []string
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
