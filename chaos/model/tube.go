package model

import (
	"fmt"
	"math"

	"github.com/anishathalye/porcupine"
)

// Tube is the sequential truth about one tube at one carrier: a set that
// members are added to. A read shows exactly the members added before it.
// States, inputs and outputs are plain values.
var Tube = porcupine.Model{
	Partition: byTube,
	Init:      func() any { return uint64(0) },
	Step: func(state, in, out any) (bool, any) {
		s, i := state.(uint64), in.(step)
		if i.read {
			return out.(uint64) == s, s
		}
		return true, s | 1<<i.member
	},
	DescribeOperation: func(in, out any) string {
		i := in.(step)
		if i.read {
			return fmt.Sprintf("read %b", out)
		}
		return fmt.Sprintf("add %d", i.member)
	},
	DescribeState: func(state any) string { return fmt.Sprintf("%b", state) },
}

// step is one operation on a tube.
type step struct {
	tube   string
	read   bool
	member int
}

// TubeOps are the operations that a tube's model speaks about. What may have
// been done at any later time has no end; what was surely not done, and what
// says of itself that it is stale, is left out.
func TubeOps(h *History) []porcupine.Operation {
	var out []porcupine.Operation
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Tube == "" || op.Outcome == Refused {
			continue
		}
		o := porcupine.Operation{ClientId: op.Client, Call: int64(op.Start), Return: int64(op.End)}
		switch {
		case op.Kind == Register:
			o.Input = step{op.Carrier + "/" + op.Tube, false, op.Member}
			if op.Outcome == Unknown {
				o.Return = math.MaxInt64
			}
		case op.Kind == Read && op.Outcome == OK && !op.Stale:
			o.Input, o.Output = step{op.Carrier + "/" + op.Tube, true, 0}, op.Members
		default:
			continue
		}
		out = append(out, o)
	}
	return out
}

// byTube cuts a history into one for each tube at each carrier. A tube that
// nobody wrote at a carrier is filled from the other one and has no order
// there.
func byTube(ops []porcupine.Operation) [][]porcupine.Operation {
	at := map[string]int{}
	var out [][]porcupine.Operation
	written := map[string]bool{}
	for _, o := range ops {
		if s := o.Input.(step); !s.read {
			written[s.tube] = true
		}
	}
	for _, o := range ops {
		tube := o.Input.(step).tube
		if !written[tube] {
			continue
		}
		i, ok := at[tube]
		if !ok {
			i = len(out)
			at[tube] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], o)
	}
	return out
}
