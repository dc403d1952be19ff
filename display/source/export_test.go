package source

import pb "qianma/middle-store/middlestorepb"

// Linger is what lies between two calls at least.
const Linger = linger

// Waiting is how many persons' questions have not left yet.
func (s *Source) Waiting() int {
	s.batch.mu.Lock()
	defer s.batch.mu.Unlock()
	return len(s.batch.waiting)
}

// JoinsOnce asks about one person twice while nothing leaves.
func JoinsOnce() bool {
	b := &batcher{index: map[pb.PersonID]*flight{}, kick: make(chan struct{}, 1), full: make(chan struct{}, 1)}
	first, second := b.join(pb.PersonID{1}), b.join(pb.PersonID{1})
	return first == second && len(b.take()) == 1 && len(b.take()) == 0
}

// HedgesOf spends what is saved at first, then tries to hedge each of n
// questions.
func HedgesOf(n int) (saved, later int) {
	b := newBudget()
	for b.spend() {
		saved++
	}
	for range n {
		if b.earn(); b.spend() {
			later++
		}
	}
	return saved, later
}
