package world

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// owes says which subsystems' facts the processes of each hold.
var owes = map[string][]string{
	"nucleic": {"nucleic"}, "vaccine": {"vaccine"}, "display": {"display"}, "middlestore": {"nucleic", "vaccine"},
}

// Unequal asks every process that owes facts how far it is and says what
// differs; nothing means that all of both carriers hold the same. A process
// that does not answer may hold anything: that is a difference.
func (w *World) Unequal(ctx context.Context) []string {
	var holders []string
	for _, p := range w.Topology.Processes {
		if owes[p.Subsystem] != nil {
			holders = append(holders, p.Name)
		}
	}
	answers := make([]*Marks, len(holders))
	var wg sync.WaitGroup
	for i, name := range holders {
		wg.Go(func() {
			if m, err := w.Marks(ctx, name); err == nil {
				answers[i] = &m
			}
		})
	}
	wg.Wait()
	return w.compare(holders, answers)
}

func (w *World) compare(holders []string, answers []*Marks) (out []string) {
	furthest := map[string]Mark{}
	for i, a := range answers {
		if a == nil {
			out = append(out, holders[i]+" does not answer")
			continue
		}
		for origin, m := range a.Origins {
			if m.Seq > furthest[origin].Seq {
				furthest[origin] = m
			}
		}
	}
	for _, origin := range slices.Sorted(maps.Keys(furthest)) {
		part := strings.Split(origin, "/")
		for i, a := range answers {
			p, _ := w.Topology.Find(holders[i])
			if a == nil || len(part) < 2 || !slices.Contains(owes[p.Subsystem], part[1]) {
				continue
			}
			if have, want := a.Origins[origin], furthest[origin]; have != want {
				out = append(out, difference(p.Name, origin, have, want))
			}
		}
	}
	return out
}

func difference(name, origin string, have, want Mark) string {
	if have.Seq == want.Seq {
		return fmt.Sprintf("%s holds other facts of %s at the same addresses", name, origin)
	}
	return fmt.Sprintf("%s is %d facts of %s behind", name, want.Seq-have.Seq, origin)
}
