package loadtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"qianma/loadtest/cost"
	"qianma/loadtest/internal/crash"
	"qianma/loadtest/population"
	"qianma/loadtest/report"
)

// mostGenerators are more than one machine has use for.
const mostGenerators = 64

// refuse notes what cannot be asked for together.
func (c *RunCommand) refuse(f *faults) {
	f.want(c.Generators >= 1 && c.Generators <= mostGenerators, "generators", c.Generators, fmt.Sprintf("from 1 to %d", mostGenerators))
	f.want(c.Part < max(1, c.Parts), "part", c.Part, fmt.Sprintf("below the %d --parts: they count from 0", c.Parts))
	if c.Generators > 1 && c.Target != "qianma" {
		f.add("--generators is %d: each would start a %s of its own, leave it out with --target %s", c.Generators, c.Target, c.Target)
	}
	if c.Closed > 0 && c.Closed < c.Generators {
		f.add("--closed is %d: that leaves some of %d generators nothing to keep in flight, give each at least one", c.Closed, c.Generators)
	}
	if c.Closed > 0 && (c.Profile == "surge" || c.Profile == "midnight") {
		f.add("--closed is %d: %s is a shape of arrivals, and the answers would set the pace", c.Closed, c.Profile)
	}
}

// share is what of n falls to this generator, where n is one each at least.
func (c *RunCommand) share(n int) int {
	if n <= 0 || c.Parts <= 1 {
		return n
	}
	return max(1, (n+int(c.Parts-c.Part)-1)/int(c.Parts))
}

// kept are the files that a run leaves in its directory.
var kept = []string{"result.json", "report.html", "ledger"}

// emptied removes an earlier run's files from a directory, so that nothing of
// it is taken for this run's.
func emptied(dir string) error {
	var errs []error
	for _, name := range kept {
		if err := os.Remove(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

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
	c.Draw = cmp.Or(c.Draw, newDraw(c.Seed, uint64(start.UnixMicro())))
	o.Say(fmt.Sprintf("%d generators begin at %s; each says every %d s how it goes", c.Generators, start.UTC().Format("15:04:05"), every))
	dirs, err := c.children(ctx, self, start, o.Say)
	watch.Close()
	if err != nil {
		return nil, err
	}
	bill := drawUp(meter)
	res, l, err := mergeParts(dirs)
	if err != nil {
		return nil, err
	}
	var unkept error // a full disk costs the files, not the figures
	if l != nil {
		unkept = l.Save(filepath.Join(c.Out, "ledger"))
	}
	res.Machine = machine
	res.Settings["command"] = o.Command // not that of a part, which nobody typed
	_, res.Seconds = watch.seen()
	halted := ctx.Err() != nil
	if ours != nil && l != nil && !halted {
		bill.settle(ctx, watch, meter)
	}
	bill.join(res)
	if ours != nil && l != nil {
		ours.read(context.WithoutCancel(ctx), res.Facts)
	}
	var unread error
	if l != nil && halted {
		noteCut(res, c.Out)
	} else if l != nil && c.ReadBack >= 0 {
		how := Reading{Sample: c.ReadBack, Settle: c.Settle, Say: o.Say}
		unread = noteUnread(Check(ctx, o.System, l, how, res), res, c.Out)
	}
	res.Headline()
	judge(res, o.Objectives)
	return res, errors.Join(unkept, unread, Publish(res, c.Out))
}

// children runs the generators and returns where each left its result.
func (c *RunCommand) children(ctx context.Context, self string, start time.Time, say func(string)) ([]string, error) {
	var dirs []string
	errs := make([]error, c.Generators)
	var wg sync.WaitGroup
	var one sync.Mutex
	for i := range c.Generators {
		dir := filepath.Join(c.Out, "generator-"+strconv.Itoa(i+1))
		dirs = append(dirs, dir)
		if errs[i] = emptied(dir); errs[i] != nil {
			continue
		}
		args := append(c.again(), "--generators=1", "--unmetered", "--read-back=-1", "--out="+dir,
			"--part="+strconv.Itoa(i), "--parts="+strconv.Itoa(c.Generators), "--output=json",
			"--start-at="+strconv.FormatInt(start.UnixMilli(), 10), "--tube-base="+itoa(population.TubeBase(start)))
		said := &relay{one: &one, say: say, name: "generator " + strconv.Itoa(i+1)}
		wg.Go(func() {
			defer crash.Guard()
			errs[i] = generate(ctx, self, args, said)
		})
	}
	wg.Wait()
	return dirs, errors.Join(errs...)
}

// generate runs one generator, which judges nothing: only the joint result is.
func generate(ctx context.Context, self string, args []string, said *relay) error {
	cmd := exec.CommandContext(ctx, self, append([]string{"load", "run"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 2 * time.Minute
	cmd.Stderr = said
	// One that was interrupted and ended well has left a report that says so.
	if err := cmd.Run(); err != nil && (ctx.Err() == nil || cmd.ProcessState == nil || !cmd.ProcessState.Success()) {
		return fmt.Errorf("%s ended with %w: %s", said.name, err, bytes.TrimSpace(said.last))
	}
	return nil
}

// relay passes on what a generator says, a line at a time, and keeps the end of
// it for an error. Several may share a say: they take turns.
type relay struct {
	one  *sync.Mutex
	say  func(string)
	name string
	line []byte // that has not ended
	last []byte
}

const relayKeeps = 4 << 10

// Write takes what was said.
func (r *relay) Write(p []byte) (int, error) {
	r.last = append(r.last, p...)
	r.last = r.last[max(0, len(r.last)-relayKeeps):]
	r.line = append(r.line, p...)
	for {
		line, rest, ended := bytes.Cut(r.line, []byte("\n"))
		if !ended {
			r.line = r.line[max(0, len(r.line)-relayKeeps):]
			return len(p), nil
		}
		r.one.Lock()
		r.say(r.name + ": " + string(line))
		r.one.Unlock()
		r.line = rest
	}
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
	flag := func(name string, set bool) {
		if set {
			args = append(args, "--"+name)
		}
	}
	flag("poisson", c.Poisson)
	flag("quiet", c.Quiet)
	flag("pprof", c.Pprof)
	add("warm", c.Warm.String())
	add("draw", itoa(c.Draw))
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
	add("mix", c.Mix)
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
	flag("shared", c.Shared)
	flag("spread", c.Spread)
	flag("roam", c.Roam)
	add("quantum", c.Quantum.String())
	add("gather", c.Gather.String())
	add("timeout", c.Timeout.String())
	add("patience", c.Patience.String())
	add("tries", strconv.Itoa(c.Tries))
	return args
}
