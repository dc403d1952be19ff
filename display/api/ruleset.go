package api

import (
	"context"
	"sync"
	"sync/atomic"

	"qianma/display/colour"
	"qianma/display/displaypb"
	"qianma/display/rules"
)

// ruleSets keeps the parsed rule sets beside the replica that holds them. It
// looks for new ones once a second of use; parsing happens once for each.
type ruleSets struct {
	api   *API
	mu    sync.Mutex
	known atomic.Pointer[[]*colour.RuleSet]
	next  atomic.Int64 // when to look again, Unix ms
	byID  map[displaypb.ID]*colour.RuleSet
}

const ruleSetPace = 1000 // milliseconds

var builtin = colour.Builtin()

// active is the rule set in force at a moment.
func (s *ruleSets) active(ctx context.Context, now int64) *colour.RuleSet {
	if now >= s.next.Load() && s.mu.TryLock() {
		s.look(ctx)
		s.next.Store(now + ruleSetPace)
		s.mu.Unlock()
	}
	known := s.known.Load()
	if known == nil {
		return builtin
	}
	return colour.Active(*known, now)
}

// look reads what this replica holds. A replica that cannot be read leaves
// what was known in force.
func (s *ruleSets) look(ctx context.Context) {
	v, err := s.api.Proposer.View(ctx, rules.RuleSetShard, false)
	if err != nil {
		return
	}
	published := rules.RuleSets(v)
	if v.Close() != nil {
		return
	}
	sets := []*colour.RuleSet{builtin}
	byID := make(map[displaypb.ID]*colour.RuleSet, len(published))
	for i := range published {
		p := &published[i]
		rs, ok := s.byID[p.ID]
		if !ok {
			if rs, err = colour.ParseRuleSet(p.Fact.Document); err != nil {
				s.api.Logger.Error("a published rule set is not understood by this build and is left out", "fact", p.ID.String(), "error", err)
				continue
			}
		}
		byID[p.ID] = rs
		sets = append(sets, rs)
	}
	s.byID = byID
	s.known.Store(&sets)
}
