package middlestore

import (
	"time"

	"qianma/cluster/fact"
	"qianma/cluster/feed"
	"qianma/middle-store/middlestorepb"
)

// account is what is known, at one moment, of how far the store is.
type account struct {
	now    time.Time
	lags   []feed.Lag
	newest map[fact.Origin]time.Time // of the newest folded block, restarts included
}

// group is one subsystem at one carrier.
type group struct{ carrier, subsystem string }

// wanted is a group that the topology has, and how many shards it is cut into.
type wanted struct {
	group
	shards int
}

// standing is what the origins of a group come to.
type standing struct {
	shards map[uint16]life // the newest incarnation of each
	behind uint64
	newest time.Time
	// late bounds the age where facts are known to be missing: nothing newer
	// than this is claimed.
	late time.Time
}

// life is one incarnation of a shard.
type life struct {
	incarnation uint64
	asOf        time.Time
	confirmed   bool
}

// standings groups what is known by carrier and subsystem.
func (a account) standings() map[group]*standing {
	out := map[group]*standing{}
	for i := range a.lags {
		l := &a.lags[i]
		g := group{l.Origin.Carrier, l.Origin.Subsystem}
		s := out[g]
		if s == nil {
			s = &standing{shards: map[uint16]life{}}
			out[g] = s
		}
		s.add(a.asOf(l), a.sane(a.newest[l.Origin]), l)
	}
	return out
}

// ahead is how far another machine's clock may be before ours without being
// called wrong.
const ahead = 5 * time.Second

// sane is a time that was stamped elsewhere, if it can be one: a fact of the
// future was stamped by a clock that is wrong, or ours is, and it would look
// young for as long as the clocks differ.
func (a account) sane(t time.Time) time.Time {
	if t.After(a.now.Add(ahead)) {
		return time.Time{}
	}
	return t
}

// asOf is feed.Lag.AsOf without what cannot be true.
func (a account) asOf(l *feed.Lag) time.Time {
	stamped, confirmed := a.sane(l.Stamp), a.sane(l.Confirmed)
	if confirmed.After(stamped) {
		return confirmed
	}
	return stamped
}

// add takes one origin into account. The age of a shard is that of its newest
// incarnation, unless an older one is known to be incomplete here.
func (s *standing) add(asOf, newest time.Time, l *feed.Lag) {
	if newest.After(asOf) {
		asOf = newest
	}
	if newest.After(s.newest) {
		s.newest = newest
	}
	if l.Known > l.Held {
		s.behind += l.Known - l.Held
		if s.late.IsZero() || asOf.Before(s.late) {
			s.late = asOf
		}
	}
	if held, ok := s.shards[l.Origin.Shard]; !ok || l.Origin.Incarnation >= held.incarnation {
		s.shards[l.Origin.Shard] = life{l.Origin.Incarnation, asOf, !l.Confirmed.IsZero()}
	}
}

// asOf is the moment before which everything of the group is folded: the
// oldest of its shards. Zero: not known of some shard.
func (s *standing) asOf(shards int) time.Time {
	var oldest time.Time
	if len(s.shards) < shards {
		return oldest
	}
	first := true
	for _, l := range s.shards {
		if first || l.asOf.Before(oldest) {
			oldest, first = l.asOf, false
		}
	}
	if s.behind > 0 && s.late.Before(oldest) {
		return s.late
	}
	return oldest
}

// freshness says of every group how new it is here. What is not known is left
// at zero: it must not look young.
func (a account) freshness(want []wanted) []middlestorepb.Freshness {
	known := a.standings()
	out := make([]middlestorepb.Freshness, 0, len(want))
	for _, w := range want {
		f := middlestorepb.Freshness{Carrier: w.carrier, Subsystem: w.subsystem}
		if s := known[w.group]; s != nil {
			f.AsOf, f.Newest, f.Behind = millis(s.asOf(w.shards)), millis(s.newest), s.behind
		}
		out = append(out, f)
	}
	return out
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// complete reports whether the store holds all there is: every group's own
// carrier has said that nothing is missing here or, when some do not answer in
// time (late), each subsystem has been heard of at one carrier at least, and
// nothing is known to be missing.
func (a account) complete(want []wanted, late bool) bool {
	known := a.standings()
	heard, silent := map[string]bool{}, map[string]bool{}
	for _, w := range want {
		switch s := known[w.group]; {
		case s != nil && s.behind > 0:
			return false
		case s != nil && s.confirmed(w.shards):
			heard[w.subsystem] = true
		default:
			silent[w.subsystem] = true
		}
	}
	for sub := range silent {
		if !late || !heard[sub] {
			return false
		}
	}
	return true
}

func (s *standing) confirmed(shards int) bool {
	for _, l := range s.shards {
		if !l.confirmed {
			return false
		}
	}
	return len(s.shards) >= shards
}
