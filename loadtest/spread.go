package loadtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"qianma/loadtest/cost"
	"qianma/loadtest/internal/crash"
	"qianma/loadtest/population"
	"qianma/loadtest/report"
)

// spread makes the run with several generator processes, which begin at one
// instant with their share each, and joins what they found. This process
// meters the system and audits the joint ledger.
func (c *RunCommand) spread(ctx context.Context, o Options) (*report.Result, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	meter, err := cost.Begin(cost.With(o.System.Processes))
	if err != nil {
		return nil, err
	}
	machine := report.ThisMachine(c.Out)
	watch := observe(meter, o.System.Endpoints, o.System.Carriers)
	defer watch.Close()
	var ours *books
	if o.System.Endpoints != nil && !o.Shared {
		ours = openBooks(ctx, watch)
	}
	start := time.Now().Add(2 * time.Second)
	dirs, err := c.children(ctx, self, start)
	watch.Close()
	if err != nil {
		return nil, err
	}
	if err := meter.Sample(); err != nil {
		return nil, err
	}
	res, l, err := mergeParts(dirs)
	if err != nil {
		return nil, err
	}
	res.Machine, res.BusyCPU = machine, meter.Machine().Seconds()
	generators := res.Roles
	res.Roles = append(slices.Clone(generators), meter.Usage()...)
	_, res.Seconds = watch.seen()
	res.Settled, res.SettledS = nil, -1
	if ours != nil && l != nil {
		if res.SettledS, err = settle(ctx, watch, meter); err != nil {
			return nil, err
		}
		res.Settled = append(generators, meter.Usage()...)
		ours.read(ctx, res.Facts)
	}
	if l != nil {
		if err := l.Save(filepath.Join(c.Out, "ledger")); err != nil {
			return nil, err
		}
		if c.ReadBack >= 0 {
			if err := Check(ctx, o.System, l, c.ReadBack, c.Settle, res); err != nil {
				return nil, err
			}
		}
	}
	res.Headline()
	res.Judge(o.Objectives)
	return res, Publish(res, c.Out)
}

// children runs the generators and returns where each left its result.
func (c *RunCommand) children(ctx context.Context, self string, start time.Time) ([]string, error) {
	var dirs []string
	errs := make([]error, c.Generators)
	var wg sync.WaitGroup
	for i := range c.Generators {
		dir := filepath.Join(c.Out, "generator-"+strconv.Itoa(i+1))
		dirs = append(dirs, dir)
		args := append(c.again(), "--generators=1", "--quiet", "--unmetered", "--read-back=-1", "--out="+dir,
			"--part="+strconv.Itoa(i), "--parts="+strconv.Itoa(c.Generators), "--output=json",
			"--start-at="+strconv.FormatInt(start.UnixMilli(), 10), "--tube-base="+itoa(population.TubeBase(start)))
		wg.Go(func() {
			defer crash.Guard()
			errs[i] = generate(ctx, self, args)
		})
	}
	wg.Wait()
	return dirs, errors.Join(errs...)
}

// generate runs one generator. A missed objective is not its business: only
// the joint result is judged.
func generate(ctx context.Context, self string, args []string) error {
	cmd := exec.CommandContext(ctx, self, append([]string{"load", "run"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 2 * time.Minute
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && (exit.ExitCode() == report.Missed || exit.ExitCode() == report.InvalidRun) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("a generator ended with %w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
}

// again is the command line that makes the same run.
func (c *RunCommand) again() []string {
	args := []string{c.Profile}
	add := func(name, value string) { args = append(args, "--"+name+"="+value) }
	f := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	add("rate", f(c.Rate))
	add("displays", f(c.Displays))
	add("duration", c.Duration.String())
	if c.Plan != "" {
		add("plan", c.Plan)
	}
	if c.Poisson {
		args = append(args, "--poisson")
	}
	add("people", strconv.FormatUint(uint64(c.People), 10))
	if len(c.Carriers) > 0 {
		add("carriers", strings.Join(c.Carriers, ","))
	}
	for _, s := range c.Split {
		add("split", f(s))
	}
	add("ack", c.Ack)
	add("seed", itoa(c.Seed))
	add("batch", strconv.Itoa(c.Batch))
	add("format", c.Format)
	add("booths", strconv.Itoa(c.Booths))
	add("positive", f(c.Positive))
	add("zipf", f(c.Zipf))
	add("cold", f(c.Cold))
	add("watch", f(c.Watch))
	add("wave", c.Wave.String())
	add("closed", strconv.Itoa(c.Closed))
	add("data", c.Data)
	if c.Endpoints != "" {
		add("endpoints", c.Endpoints)
	}
	add("connections", strconv.Itoa(c.Connections))
	if c.Shared {
		args = append(args, "--shared")
	}
	if c.Spread {
		args = append(args, "--spread")
	}
	add("gather", c.Gather.String())
	add("timeout", c.Timeout.String())
	add("tries", strconv.Itoa(c.Tries))
	return args
}
