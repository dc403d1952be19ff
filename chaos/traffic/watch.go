package traffic

import (
	"bufio"
	"bytes"
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"qianma/chaos/model"
	"qianma/chaos/world"
)

// Change is something that was seen of the system.
type Change struct {
	At   time.Duration `json:"at"` // on the history's clock
	What string        `json:"what"`
}

// Watch notes every change of a process's state and of every leader.
type Watch struct {
	w    *world.World
	h    *model.History
	ctx  context.Context // ends with the watch
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex // protects the fields below
	last    map[string]string
	changes []Change
}

const watchEvery = 250 * time.Millisecond

// Look starts watching; Close stops it.
func Look(w *world.World, h *model.History) *Watch {
	o := &Watch{w: w, h: h, last: map[string]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	o.ctx, o.stop = ctx, cancel
	o.wg.Go(func() { o.run(ctx, o.states) })
	o.wg.Go(func() { o.run(ctx, o.leaders) })
	return o
}

func (o *Watch) run(ctx context.Context, look func(context.Context)) {
	for {
		look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(watchEvery):
		}
	}
}

func (o *Watch) states(ctx context.Context) {
	r, err := o.w.Report(ctx)
	if err != nil {
		return
	}
	for _, p := range r.Processes {
		o.see(p.Name, p.State)
	}
}

func (o *Watch) leaders(ctx context.Context) {
	for _, carrier := range o.w.Topology.Carriers {
		for _, subsystem := range []string{"nucleic", "vaccine", "display"} {
			if l := o.w.Leader(ctx, carrier, subsystem, 0); ctx.Err() == nil {
				o.see("leader of "+subsystem+" at "+carrier, l)
			}
		}
	}
}

func (o *Watch) see(what, now string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	was, ok := o.last[what]
	o.last[what] = now
	if ok && was != now {
		if now == "" {
			now = "nobody"
		}
		o.changes = append(o.changes, Change{o.h.Now(), what + ": " + now})
	}
}

// Gauge also notes when a gauge of a process leaves zero, and when it is back:
// that is how the system tells of what no client feels. It must not be called
// after Close.
func (o *Watch) Gauge(process, name string) {
	what := name + " of " + process
	o.see(what, atZero)
	o.wg.Go(func() {
		o.run(o.ctx, func(ctx context.Context) {
			if raw, err := o.w.Text(ctx, process, "/metrics"); err == nil {
				o.see(what, reading(raw, name))
			}
		})
	})
}

const atZero, offZero = "0", "not 0"

func reading(raw []byte, name string) string {
	if metric(raw, name) == 0 {
		return atZero
	}
	return offZero
}

// Close stops watching, waits, and returns what was seen. It is safe to call
// twice.
func (o *Watch) Close() []Change {
	o.stop()
	o.wg.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changes
}

// Usage is what a process holds.
type Usage struct {
	Goroutines float64 `json:"goroutines"`
	RSS        float64 `json:"rss"`
}

// Usages asks every process what it holds. One that does not answer is left
// out.
func Usages(ctx context.Context, w *world.World) map[string]Usage {
	out := map[string]Usage{}
	for _, p := range w.Topology.Processes {
		raw, err := w.Text(ctx, p.Name, "/metrics")
		if err != nil {
			continue
		}
		out[p.Name] = Usage{metric(raw, "go_goroutines"), metric(raw, "process_resident_memory_bytes")}
	}
	return out
}

func metric(raw []byte, name string) float64 {
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			v, err := strconv.ParseFloat(rest, 64)
			if err == nil {
				return v
			}
		}
	}
	return 0
}
