package wire

import (
	"math/rand/v2"
	"sync"
	"time"
)

// parcel is a packet and when it is to arrive.
type parcel struct {
	at     time.Time
	packet []byte
}

// shape decides what becomes of each packet that leaves one carrier. It is
// safe for concurrent use. The same seed and the same packets at the same times
// mean the same harm.
type shape struct {
	mu    sync.Mutex // protects the fields below
	rule  *Rule
	rand  *rand.Rand
	free  time.Time // when the rate lets the next packet go
	harm  Harm
	clock func() time.Time
}

func newShape(from string, clock func() time.Time) *shape {
	return &shape{harm: Harm{From: from}, clock: clock}
}

// set puts a rule in force; nil: none.
func (s *shape) set(r *Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rule, s.free = r, time.Time{}
	if r != nil {
		s.rand = rand.New(rand.NewPCG(r.Seed, 0x9ac4e7))
	}
}

// now is the rule in force; nil: none.
func (s *shape) now() *Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current()
}

func (s *shape) current() *Rule {
	if s.rule != nil && !s.rule.Until.IsZero() && s.clock().After(s.rule.Until) {
		s.rule = nil
	}
	return s.rule
}

func (s *shape) counts() Harm {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.harm
}

// pass says when a packet arrives, how often, and in which state. It may change
// the packet's bytes and keep them.
func (s *shape) pass(packet []byte) []parcel {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.harm.Packets++
	now, r := s.clock(), s.current()
	if r == nil {
		return []parcel{{now, packet}}
	}
	if s.hit(r.Loss) {
		s.harm.Lost++
		return nil
	}
	out := []parcel{{s.due(now, r, len(packet)), packet}}
	if s.hit(r.Duplicate) {
		s.harm.Duplicated++
		out = append(out, parcel{s.due(now, r, len(packet)), append([]byte(nil), packet...)})
	}
	if s.hit(r.Corrupt) && len(packet) > 0 {
		s.harm.Corrupted++
		packet[s.rand.IntN(len(packet))] ^= 1 << s.rand.IntN(8)
	}
	return out
}

func (s *shape) hit(share float64) bool { return share > 0 && s.rand.Float64() < share }

// due is when a packet arrives: after its delay, unless it overtakes, and not
// before the rate lets it.
func (s *shape) due(now time.Time, r *Rule, size int) time.Time {
	at := now
	switch {
	case s.hit(r.Reorder):
		s.harm.Reordered++
	case r.Delay > 0:
		s.harm.Delayed++
		at = at.Add(r.Delay)
		if r.Jitter > 0 {
			at = at.Add(time.Duration(s.rand.Int64N(int64(2*r.Jitter+1))) - r.Jitter)
		}
	}
	if r.BytesRate > 0 {
		if s.free.Before(now) {
			s.free = now
		}
		s.free = s.free.Add(time.Duration(size) * time.Second / time.Duration(r.BytesRate))
		if s.free.After(at) {
			at = s.free
		}
	}
	return at
}

func (s *shape) overflowed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.harm.Overflowed++
}
