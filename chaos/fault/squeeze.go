package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"qianma/chaos/world"
)

func init() {
	enter(Fault{Name: "cpu-starvation", Says: "processes get only a share of one CPU (a cgroup's quota)", plan: squeezing("cpu")})
	enter(Fault{Name: "memory-pressure", Says: "processes may take only so many more bytes of memory, cached files among them (a cgroup's limit); the kernel may end them", plan: squeezing("memory")})
}

// Squeeze is a cgroup of its own for one process.
type Squeeze struct {
	Controller string `json:"controller"` // cpu, memory
	Group      string `json:"group"`      // its name
	Limit      int64  `json:"limit"`      // microseconds of CPU in each tenth of a second; bytes
}

// period is the time of which a share is allowed, in microseconds.
const period = 100_000

func squeezing(controller string) func(*Plan, Spec, Targets) error {
	return func(p *Plan, s Spec, t Targets) error {
		limit := int64(s.Bytes)
		if controller == "cpu" {
			limit = int64(s.Share * period)
		}
		if limit <= 0 || s.For == 0 {
			return fmt.Errorf("%s needs for, and how much is left: share (of one CPU) or bytes (of memory)", s.Fault)
		}
		for _, name := range t.Names() {
			q := &Squeeze{controller, p.ID + "-" + name, limit}
			p.inject(Action{Do: "squeeze", On: name, Squeeze: q}, Action{Do: "squeezed", On: name, Squeeze: q})
			p.undo(Action{Do: "unsqueeze", On: name, Squeeze: q}, Action{Do: "start", On: name})
			p.verify(Action{Do: "unsqueezed", On: name, Squeeze: q}, Action{Do: "ready", On: name, For: comeback})
		}
		p.Down = t.Names() // it may well serve nobody meanwhile
		return t.needProcesses()
	}
}

// hierarchies are where cgroups are mounted: each controller by itself, or all
// in one.
const hierarchies = "/sys/fs/cgroup"

// cgroup is the directory of a squeeze and the one its process comes from,
// which is where the supervisor is: whatever it starts is there too.
type cgroup struct {
	dir, home string
	unified   bool
}

func (q *Squeeze) find(ctx context.Context, w *world.World) (cgroup, error) {
	r, err := w.Report(ctx)
	if err != nil {
		return cgroup{}, err
	}
	pid := "self"
	if r.PID > 0 {
		pid = strconv.Itoa(r.PID)
	}
	raw, err := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
	if err != nil {
		return cgroup{}, err
	}
	unified := ""
	for line := range strings.Lines(string(raw)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) < 3 {
			continue
		}
		if part[1] == q.Controller {
			home := filepath.Join(hierarchies, q.Controller, part[2])
			return cgroup{dir: filepath.Join(home, q.Group), home: home}, nil
		}
		if part[0] == "0" {
			unified = part[2]
		}
	}
	can, err := os.ReadFile(filepath.Join(hierarchies, "cgroup.subtree_control"))
	if err != nil || !strings.Contains(" "+strings.TrimSpace(string(can))+" ", " "+q.Controller+" ") {
		return cgroup{}, fmt.Errorf("no cgroup controls %s here: it needs root and a kernel with that controller", q.Controller)
	}
	// A group that holds processes can hand no controller on, so ours is
	// beside theirs.
	return cgroup{dir: filepath.Join(hierarchies, q.Group), home: filepath.Join(hierarchies, unified), unified: true}, nil
}

// limits are the files to write, in order, and what to write into them.
func (q *Squeeze) limits(unified bool) [][2]string {
	n := strconv.FormatInt(q.Limit, 10)
	switch {
	case q.Controller == "cpu" && unified:
		return [][2]string{{"cpu.max", n + " " + strconv.Itoa(period)}}
	case q.Controller == "cpu":
		return [][2]string{{"cpu.cfs_period_us", strconv.Itoa(period)}, {"cpu.cfs_quota_us", n}}
	case unified:
		return [][2]string{{"memory.max", n}}
	}
	return [][2]string{{"memory.limit_in_bytes", n}}
}

func squeeze(ctx context.Context, w *world.World, a Action) error {
	g, err := a.Squeeze.find(ctx, w)
	if err != nil {
		return err
	}
	p, err := w.Process(ctx, a.On)
	if err != nil || p.PID == 0 {
		return errors.Join(err, fmt.Errorf("%s does not run", a.On))
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("no cgroup can be made here: %w", err)
	}
	for _, x := range a.Squeeze.limits(g.unified) {
		if err := os.WriteFile(filepath.Join(g.dir, x[0]), []byte(x[1]), 0o644); err != nil {
			return err
		}
	}
	return enterGroup(g.dir, p.PID)
}

// enterGroup puts a process with all its threads into a cgroup.
func enterGroup(dir string, pid int) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
}

// squeezed asks the kernel whether the process is in its group and the limit
// stands.
func squeezed(ctx context.Context, w *world.World, a Action) error {
	g, err := a.Squeeze.find(ctx, w)
	if err != nil {
		return err
	}
	for _, x := range a.Squeeze.limits(g.unified) {
		raw, err := os.ReadFile(filepath.Join(g.dir, x[0]))
		if err != nil {
			return err
		}
		got := strings.TrimSpace(string(raw))
		if n, err := strconv.ParseInt(got, 10, 64); got != x[1] && (err != nil || n > a.Squeeze.Limit) { // memory is rounded down to pages
			return fmt.Errorf("%s of %s is %s", x[0], a.Squeeze.Group, got)
		}
	}
	p, err := w.Process(ctx, a.On)
	if err != nil {
		return err
	}
	if in, err := groupHas(p.PID, a.Squeeze.Group); err != nil || !in {
		return errors.Join(err, fmt.Errorf("%s is not in the cgroup %s", a.On, a.Squeeze.Group))
	}
	return nil
}

func groupHas(pid int, group string) (bool, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	return strings.Contains(string(raw), "/"+group+"\n"), err
}

// leaveMax bounds the wait for a group to be empty.
const leaveMax = 5 * time.Second

// unsqueeze lets whoever is in the group go back, and takes it away.
func unsqueeze(ctx context.Context, w *world.World, a Action) error {
	g, err := a.Squeeze.find(ctx, w)
	if err != nil {
		return err
	}
	return until(ctx, Duration(leaveMax), func(context.Context) error {
		raw, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		var faults []error
		for _, text := range strings.Fields(string(raw)) {
			pid, err := strconv.Atoi(text)
			if err == nil {
				err = enterGroup(g.home, pid)
			}
			faults = append(faults, err)
		}
		return errors.Join(append(faults, err, os.Remove(g.dir))...)
	})
}

// unsqueezed asks the kernel whether the group is gone.
func unsqueezed(ctx context.Context, w *world.World, a Action) error {
	g, err := a.Squeeze.find(ctx, w)
	if err != nil {
		return err
	}
	if _, err := os.Stat(g.dir); !errors.Is(err, os.ErrNotExist) {
		return errors.Join(err, fmt.Errorf("the cgroup %s is still there", a.Squeeze.Group))
	}
	return nil
}
