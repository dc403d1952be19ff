package drill

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"qianma/chaos/check"
	"qianma/chaos/traffic"
)

// Growth that is not called normal. A process has about a hundred goroutines
// and less than 100 MiB; what a request leaves behind shows a thousandfold.
const (
	moreGoroutines = 100
	moreMemory     = 128 << 20
)

// calmMax is how long after the quiet period a process may take to let go.
const calmMax = time.Minute

// resources holds memory and goroutines after the quiet period to those before.
func (r *run) resources(ctx context.Context) check.Finding {
	f := check.Finding{Name: check.Resources, Unsure: "nobody was asked in time"}
	settle(ctx, calmMax, func(ctx context.Context) []string {
		g := grown(r.before, traffic.Usages(ctx, r.w))
		if ctx.Err() == nil { // else nobody had the time to answer
			f = g
		}
		return g.First
	})
	return f
}

// grown compares what each process holds with what it held. One that says
// nothing any more may hold anything.
func grown(was, now map[string]traffic.Usage) check.Finding {
	f := check.Finding{Name: check.Resources}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		a, b := was[name], now[name]
		f.Looked++
		_, answers := now[name]
		switch {
		case !answers:
			f.Broken++
			f.First = append(f.First, name+" does not say what it holds")
		case b.Goroutines > 2*a.Goroutines+moreGoroutines || b.RSS > 2*a.RSS+moreMemory:
			f.Broken++
			f.First = append(f.First, fmt.Sprintf("%s: goroutines %.0f, before %.0f; memory %.0f MiB, before %.0f", name, b.Goroutines, a.Goroutines, b.RSS/(1<<20), a.RSS/(1<<20)))
		}
	}
	return f
}
