// Package check judges the history of a drill: what a system that keeps its
// word could have answered, and what it could not.
//
// Each check says how much it looked at, so that one that looked at nothing
// can be told from one that found nothing. A check that has found the word
// broken names the first few operations by number. Checks are held to plants:
// histories with one lie each, every one of which must be found.
package check

import (
	"fmt"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"qianma/chaos/model"
)

// Names of the checks, stable.
const (
	Lost         = "lost"         // what was acknowledged can be read at both carriers
	Linearizable = "linearizable" // each tube inside a carrier
	Receipts     = "receipts"     // claim no more than was reached, and no address twice
	Repeats      = "repeats"      // the same request again gets the same receipt
	Monotonic    = "monotonic"    // no reader goes back without being told
	StaleGreen   = "stale_green"  // no old colour without being told
	Equal        = "equal"        // both carriers and all replicas hold the same
	Resources    = "resources"    // memory and goroutines are back to normal
)

// Names lists them all.
var Names = []string{Lost, Linearizable, Receipts, Repeats, Monotonic, StaleGreen, Equal, Resources}

// Finding is what a check found.
type Finding struct {
	Name   string   `json:"name"`
	Looked int      `json:"looked"` // at so many operations
	Broken int      `json:"broken"` // so many times the word was broken
	First  []string `json:"first,omitempty"`
	Unsure string   `json:"unsure,omitempty"` // why the check could not decide
}

const firstFew = 10

func (f *Finding) found(format string, args ...any) {
	f.Broken++
	if len(f.First) < firstFew {
		f.First = append(f.First, fmt.Sprintf(format, args...))
	}
}

// History runs every check that needs nothing but the history. owed is the
// level from which on an acknowledged test may not be lost: where a carrier's
// disks are destroyed, that is replicated.
func History(h *model.History, owed model.Level) []Finding {
	return []Finding{checkLost(h, owed), checkLinearizable(h), checkReceipts(h), checkRepeats(h, owed), checkMonotonic(h), checkStaleGreen(h)}
}

// solveMax bounds the search for an order. A history that is too hard is
// reported as undecided.
const solveMax = 30 * time.Second

func checkLinearizable(h *model.History) Finding {
	f := Finding{Name: Linearizable}
	ops := model.TubeOps(h)
	f.Looked = len(ops)
	for _, part := range model.Tube.Partition(ops) {
		one := model.Tube
		one.Partition = nil
		switch porcupine.CheckOperationsTimeout(one, part, solveMax) {
		case porcupine.Illegal:
			f.found("no order explains the %d operations of a tube that began at %s", len(part), time.Duration(part[0].Call).Round(time.Millisecond))
		case porcupine.Unknown:
			f.Unsure = "the search for an order took too long"
		}
	}
	return f
}

// member is one test in the probes' tubes.
type member struct {
	tube string
	n    int
}

// checkLost is set-full: every acknowledged member stands in the last read of
// its tube at every carrier, in every read of its own carrier that began after
// the acknowledgement, and no read shows a member that nobody sent.
func checkLost(h *model.History, owed model.Level) Finding {
	f := Finding{Name: Lost}
	acked := map[member]time.Duration{}
	home := map[string]string{}
	for _, op := range h.Ops {
		reached := owed != model.Replicated || op.Receipt != nil && op.Receipt.Level == owed
		if op.Kind == model.Register && op.Tube != "" && op.Outcome == model.OK && reached {
			acked[member{op.Tube, op.Member}] = op.End
			home[op.Tube] = op.Carrier
		}
	}
	f.Looked = len(acked)
	missing := map[member]bool{}
	for i, op := range h.Ops {
		if op.Kind != model.Read || op.Outcome != model.OK {
			continue
		}
		if op.Strange > 0 {
			f.found("read %d shows %d members that nobody sent", i, op.Strange)
		}
		for n := range 64 {
			m := member{op.Tube, n}
			at, ok := acked[m]
			due := op.Final || !op.Stale && op.Carrier == home[op.Tube] && op.Start > at
			if ok && due && op.Members>>n&1 == 0 && !missing[m] {
				missing[m] = true
				f.found("member %d of tube %s was acknowledged at %s; read %d at %s does not show it", n, op.Tube, at.Round(time.Millisecond), i, op.Carrier)
			}
		}
	}
	return f
}

// checkReceipts holds receipts to what they claim: no address is given to two
// different requests, and what is replicated can be read at the other carrier.
func checkReceipts(h *model.History) Finding {
	f := Finding{Name: Receipts}
	type place struct {
		origin string
		seq    uint64
	}
	whose := map[place]string{}
	replicated := map[member]time.Duration{}
	home := map[string]string{}
	for i, op := range h.Ops {
		r := op.Receipt
		if r == nil || op.Outcome != model.OK {
			continue
		}
		f.Looked++
		if r.First > r.Last || r.Origin == "" && r.Last > 0 {
			f.found("receipt of operation %d names no place", i)
			continue
		}
		for seq := max(r.First, 1); seq <= r.Last; seq++ {
			p := place{r.Origin, seq}
			if other, ok := whose[p]; ok && other != op.Key {
				f.found("operation %d was given %s %d, which another request had", i, p.origin, p.seq)
			}
			whose[p] = op.Key
		}
		if r.Level == model.Replicated && op.Kind == model.Register {
			m := member{op.Tube, op.Member}
			if at, ok := replicated[m]; !ok || op.End < at {
				replicated[m] = op.End
			}
			home[op.Tube] = op.Carrier
		}
	}
	f.claims(h, replicated, home)
	return f
}

// claims looks for what is replicated at the carrier it was not sent to.
func (f *Finding) claims(h *model.History, replicated map[member]time.Duration, home map[string]string) {
	for i, op := range h.Ops {
		if op.Kind != model.Read || op.Outcome != model.OK || op.Stale || op.Carrier == home[op.Tube] {
			continue
		}
		for n := range 64 {
			at, ok := replicated[member{op.Tube, n}]
			if ok && op.Start > at && op.Members>>n&1 == 0 {
				f.found("member %d of tube %s was called replicated; read %d at %s, after that, does not show it", n, op.Tube, i, op.Carrier)
			}
		}
	}
}

// checkRepeats holds every answer to one key to the same place. A request that
// is repeated inside its carrier is not done twice.
//
// Keys live and die with a carrier's disks. Where those are destroyed, the life
// of the carrier that comes after gives a repeat an address of its own: the
// fact is the same by its content, and a set holds it once. A second address in
// the same life is never owed to anybody.
func checkRepeats(h *model.History, owed model.Level) Finding {
	f := Finding{Name: Repeats}
	type asked struct{ key, carrier string }
	first := map[asked]model.Receipt{}
	for i, op := range h.Ops {
		if op.Key == "" || op.Receipt == nil || op.Outcome != model.OK {
			continue
		}
		k := asked{op.Key, op.Carrier}
		was, ok := first[k]
		if !ok {
			first[k] = op.Receipt.Address()
			continue
		}
		f.Looked++
		if owed == model.Replicated && anotherLife(was.Origin, op.Receipt.Origin) {
			first[k] = op.Receipt.Address()
			continue
		}
		if was != op.Receipt.Address() {
			f.found("operation %d repeats a request and was given %s %d-%d; before it was %s %d-%d", i,
				op.Receipt.Origin, op.Receipt.First, op.Receipt.Last, was.Origin, was.First, was.Last)
		}
	}
	return f
}

// anotherLife reports whether two origins are the same shard of the same
// carrier in different lives of its disks.
func anotherLife(a, b string) bool {
	i, k := strings.LastIndexByte(a, '/'), strings.LastIndexByte(b, '/')
	return i > 0 && k > 0 && a[:i] == b[:k] && a != b
}

// checkMonotonic follows each reader, who sends back what it has seen: it is
// never shown less without the answer saying so.
func checkMonotonic(h *model.History) Finding {
	f := Finding{Name: Monotonic}
	type reader struct{ client, person int }
	last := map[reader]model.View{}
	for i, op := range h.Ops {
		if op.Kind != model.Show || op.View == nil || op.Outcome != model.OK {
			continue
		}
		f.Looked++
		r, v := reader{op.Client, op.Person}, *op.View
		was, ok := last[r]
		if back := ok && (v.Sampled < was.Sampled || v.Sampled == was.Sampled && rank(v.Status) < rank(was.Status)); back {
			if !v.Behind && !v.Stale {
				f.found("answer %d takes a reader back from %s sampled at %d to %s sampled at %d", i, was.Status, was.Sampled, v.Status, v.Sampled)
			}
			continue
		}
		last[r] = v
	}
	return f
}

// rank orders what can be said of one test: a result is more than waiting.
func rank(status string) int {
	switch status {
	case "", "none":
		return 0
	case "pending":
		return 1
	}
	return 2
}

// slack is what lies between an acknowledgement and the stamp on the data that
// contains it, on one machine's clock.
const slack = 50 * time.Millisecond

// checkStaleGreen holds every answer to the time it states: a result that a
// carrier had acknowledged before that time is in the answer, or the answer says that it
// is stale; nobody under a restriction is shown another colour without a word
// about its age, and never green.
func checkStaleGreen(h *model.History) Finding {
	f := Finding{Name: StaleGreen}
	type fact struct {
		carrier string
		acked   int64 // Unix ms
		sampled int64
	}
	facts := map[int][]fact{}
	restricted := map[int]struct {
		from   time.Duration
		colour string
	}{}
	for _, op := range h.Ops {
		switch {
		case op.Person == 0 || op.Outcome != model.OK:
		case op.Kind == model.Result: // a test without one is not what a code is about
			facts[op.Person] = append(facts[op.Person], fact{op.Carrier, h.Wall(op.End + slack), op.Sampled})
		case op.Kind == model.Restrict:
			restricted[op.Person] = struct {
				from   time.Duration
				colour string
			}{op.End, op.Colour}
		}
	}
	for i, op := range h.Ops {
		if op.Kind != model.Show || op.View == nil || op.Outcome != model.OK {
			continue
		}
		f.Looked++
		told := op.View.Stale || op.View.Behind
		if r, ok := restricted[op.Person]; ok && op.Start > r.from && op.View.Colour != r.colour && (!told || op.View.Colour == "green") {
			f.found("answer %d shows %s to a person restricted to %s since %s", i, op.View.Colour, r.colour, r.from.Round(time.Millisecond))
		}
		if told {
			continue
		}
		for _, x := range facts[op.Person] {
			if op.View.AsOf[x.carrier] > x.acked && op.View.Sampled < x.sampled {
				f.found("answer %d says it knows all of %s as of %d and lacks a result acknowledged by %d", i, x.carrier, op.View.AsOf[x.carrier], x.acked)
				break
			}
		}
	}
	return f
}
