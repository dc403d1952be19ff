package mishap

import (
	"maps"
	"slices"
	"sync/atomic"
)

// Job is a kind of work of which a process can be made to leave some pieces out
// in silence, as a build with a fault in it would. The names are stable.
type Job string

// The jobs.
const (
	FoldFact        Job = "fold-fact"
	PublishFacts    Job = "publish-facts"
	ShowRestriction Job = "show-restriction"
)

// Jobs says what is left out, and what is pretended.
var Jobs = map[Job]string{
	FoldFact:        "a middle store takes a fact in, its mark moves on, and what it shows lacks the fact",
	PublishFacts:    "facts are noted as published, the broker has not been given them",
	ShowRestriction: "a restriction is held, and a code is shown as if it were not",
}

// JobNames are the jobs in order.
func JobNames() []Job { return slices.Sorted(maps.Keys(Jobs)) }

// omission is an order to leave pieces of a job out, and how many have come by.
type omission struct {
	every uint64
	seen  atomic.Uint64
}

// Omitted reports whether an order has this piece of the work left out. Like a
// point it costs one load where nothing is ordered.
func (j Job) Omitted() bool {
	k := armed.Load()
	return k != nil && k.omits(j)
}

func (k *Kit) omits(j Job) bool {
	f := k.force.Load()
	if f == nil {
		return false
	}
	o := f.jobs[j]
	return o != nil && o.seen.Add(1)%o.every == 0
}
