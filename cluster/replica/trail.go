package replica

import (
	"sort"
	"sync"

	"qianma/cluster/fact"
)

// trail remembers the newest marks of the own origin, to compare with others'.
// It is written by the goroutine that applies, before what it says is published.
type trail struct {
	mu    sync.Mutex
	marks []fact.Mark // ascending
}

const trailMax = 1024

func (t *trail) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.marks = t.marks[:0]
}

func (t *trail) add(m fact.Mark) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.marks) == 2*trailMax {
		t.marks = append(t.marks[:0], t.marks[trailMax:]...)
	}
	t.marks = append(t.marks, m)
}

// at is the mark that ends in seq, where one is remembered.
func (t *trail) at(seq uint64) (m fact.Mark, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.find(seq)
	if i == len(t.marks) || t.marks[i].Seq != seq {
		return m, false
	}
	return t.marks[i], true
}

func (t *trail) find(seq uint64) int {
	return sort.Search(len(t.marks), func(i int) bool { return t.marks[i].Seq >= seq })
}

// agrees is true where nothing is known: before the trail begins.
func (t *trail) agrees(m fact.Mark) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.marks) == 0 || m.Seq < t.marks[0].Seq {
		return true
	}
	i := t.find(m.Seq)
	return i < len(t.marks) && t.marks[i] == m
}
