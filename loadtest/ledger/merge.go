package ledger

import "fmt"

// Merge joins the ledgers of the generators of one run.
func Merge(parts []*Ledger) (*Ledger, error) {
	if len(parts) == 0 {
		return nil, fmt.Errorf("no ledgers to merge")
	}
	head := parts[0].Head
	out := New(head)
	out.Head.Stride, out.Head.Part = 1, 0
	for _, l := range parts {
		h := l.Head
		if !h.Start.Equal(head.Start) || h.TubeBase != head.TubeBase || h.Seed != head.Seed || h.People != head.People || h.Stride != head.Stride {
			return nil, fmt.Errorf("the ledgers of %s and %s are not of one run", head.Run, h.Run)
		}
		for i := range uint32(l.n) {
			e := *l.At(i)
			e.Tube = uint32(h.TubeNumber(e.Tube) - h.TubeBase)
			out.Add(e)
		}
	}
	return out, nil
}
