package machinetest

import (
	"qianma/cluster/machine"
)

// Reporter is the part of testing.T and rapid.T that a check needs.
type Reporter interface {
	Helper()
	Fatalf(format string, args ...any)
}

// FoldAll folds the facts in order into an empty store and returns it. A fact
// that the machine does not understand is left out, as the floor sets it
// aside. resets names the positions before which the machine loses its caches.
func FoldAll(m machine.Machine, facts [][]byte, resets map[int]bool) *Mem {
	mem := NewMem()
	for i, f := range facts {
		if resets[i] {
			m.Reset()
		}
		_ = m.Fold(mem, append([]byte(nil), f...))
	}
	return mem
}

// SameState fails unless folding both lists leaves the same keys and values.
// Give it one set of facts in two orders, with and without repetition: that is
// the property every machine owes. Each list gets a machine of its own.
func SameState(t Reporter, factory func() machine.Machine, a, b [][]byte, resets map[int]bool) {
	t.Helper()
	x := FoldAll(factory(), a, nil)
	y := FoldAll(factory(), b, resets)
	if key := x.Diff(y); key != "" {
		va, oka := x.Get([]byte(key))
		vb, okb := y.Get([]byte(key))
		t.Fatalf("states differ at key %x:\n one order %v %x\n other     %v %x", key, oka, va, okb, vb)
	}
}

// SplitState fails unless two stores that each folded a part of the facts by
// themselves, and then what the other had, end in the same state. It is what
// two carriers do while the line between them is cut and after it heals.
func SplitState(t Reporter, factory func() machine.Machine, facts [][]byte, left func(i int) bool) {
	t.Helper()
	var a, b [][]byte
	for i, f := range facts {
		if left(i) {
			a = append(a, f)
		} else {
			b = append(b, f)
		}
	}
	one := append(append([][]byte(nil), a...), b...)
	two := append(append([][]byte(nil), b...), a...)
	SameState(t, factory, one, two, nil)
}
