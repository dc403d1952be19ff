package feed

import (
	"context"
	"time"

	"qianma/cluster/fact"
)

// source is a Peer with what the follower remembers of it.
type source struct {
	Peer
	told    map[fact.Origin]uint64 // how far it was when last asked
	asking  bool                   // a catalog call is under way
	retryAt time.Duration          // not asked before then, after a failure
	delay   time.Duration
}

func (s *source) answered() { s.delay, s.retryAt = 0, 0 }

// speaksFor says whether the source's word that nothing newer exists counts:
// only the origin's own carrier can know, and of it only who vouches.
func (s *source) speaksFor(o fact.Origin) bool { return s.Carrier == "" || s.Carrier == o.Carrier }

// failed lets a source rest.
func (f *Follower) failed(s *source, now time.Duration, call string, err error) {
	f.count.Faults++
	if s.delay == 0 {
		f.cfg.Logger.Warn("a source did not answer; trying others", "feed", f.cfg.Name, "source", s.Name, "call", call, "err", err)
	}
	s.delay = min(max(2*s.delay, f.cfg.RetryMin), f.cfg.RetryMax)
	s.retryAt = now + s.delay
}

// polling says whether any topic depends on sources alone.
func (f *Follower) polling() bool {
	if f.cfg.Broker == nil {
		return true
	}
	for _, l := range f.lines {
		if !l.subscribed || l.stalled {
			return true
		}
	}
	return false
}

// watch asks, when it is time, one source of each carrier how far it is, each
// time another, so that neither a lagging nor a lying one is the only witness.
func (f *Follower) watch(ctx context.Context, now time.Duration) {
	if now < f.watchAt {
		return
	}
	f.watchAt = now + f.pace()
	f.look()
	for _, t := range f.order {
		t.sweep()
		if t.needs() && !t.pulling && t.due == 0 {
			t.tried = nil
			t.arm(now + f.cfg.StallDelay)
		}
	}
	asked := map[string]bool{}
	f.rounds++
	for i := range f.sources {
		s := f.sources[(f.rounds+i)%len(f.sources)]
		if !asked[s.Carrier] && !s.asking && now >= s.retryAt {
			asked[s.Carrier] = true
			f.ask(ctx, s)
		}
	}
}

// pace is the time between two rounds. Polling slows down while it finds
// nothing.
func (f *Follower) pace() time.Duration {
	if !f.polling() {
		return f.cfg.WatchInterval
	}
	f.quiet++
	return min(f.cfg.PollInterval+f.cfg.PollInterval*time.Duration(f.quiet)/8, max(f.cfg.WatchInterval/2, f.cfg.PollInterval))
}

// ask starts a catalog call.
func (f *Follower) ask(ctx context.Context, s *source) {
	s.asking = true
	asked := f.cfg.Clock.Now() // the time: what a source vouches for is told to people
	f.call(ctx, func(ctx context.Context) func(time.Duration) {
		told, err := s.Source.Catalog(ctx)
		return func(now time.Duration) {
			s.asking = false
			if err != nil {
				f.failed(s, now, "catalog", err)
				return
			}
			s.answered()
			f.compare(s, told, asked, now)
		}
	})
}

// call runs do beside the loop and gives the loop what do returns.
func (f *Follower) call(ctx context.Context, do func(context.Context) func(now time.Duration)) {
	f.wg.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, f.cfg.CallTimeout)
		defer cancel()
		apply := do(bounded)
		select {
		case f.results <- apply:
		case <-ctx.Done():
		}
	})
}

// compare holds what a source told against what the sink holds.
func (f *Follower) compare(s *source, told fact.Catalog, asked time.Time, now time.Duration) {
	vouched := told.Since(asked)
	for o, m := range told.Marks {
		if !f.cfg.Want(o) {
			continue
		}
		t := f.track(o)
		s.told[o] = m.Seq
		t.known, t.want = max(t.known, m.Seq), max(t.want, m.Seq)
		switch {
		case m.Seq > t.tail.Seq:
			f.behind(t, now)
		case m.Seq == t.held.Seq && m.Digest != t.held.Digest:
			f.diverged(t, s, m, now)
			continue
		case m.Seq == t.held.Seq:
			delete(t.barred, s)
		}
		if s.speaksFor(o) && t.held.Seq >= t.known && vouched.After(t.confirmed) {
			t.confirmed = vouched
		}
	}
}

// behind sees to a pull: at once for history and while the broker does not
// deliver, else only if the broker has not brought the blocks a little later.
func (f *Follower) behind(t *track, now time.Duration) {
	if t.settled && t.liveExpected() {
		t.arm(now + f.cfg.StallDelay)
		return
	}
	t.arm(now)
}

// pull starts the pulls that are due and still needed.
func (f *Follower) pull(ctx context.Context, now time.Duration) {
	ready, _ := f.waiting()
	for _, t := range f.order {
		if t.pulling || t.due == 0 || now < t.due {
			continue
		}
		t.due = 0
		if !t.needs() {
			t.settled = true
			continue
		}
		if ready >= f.cfg.BufferBytes || f.pulls >= f.cfg.PullsMax {
			t.arm(now + f.cfg.GapDelay)
			continue
		}
		if t.settled && len(t.ahead) == 0 && t.liveExpected() {
			t.line.stalled = true // the broker had its time
			f.watchAt = now
		}
		f.pullFrom(ctx, t, f.choose(t, now), now)
	}
}

// choose picks the source to pull from: the first that is known to hold more,
// else the first that might.
func (f *Follower) choose(t *track, now time.Duration) *source {
	var maybe *source
	for _, s := range f.sources {
		if t.tried[s] || now < s.retryAt || now < t.barred[s] {
			continue
		}
		if s.told[t.origin] > t.tail.Seq {
			return s
		}
		if maybe == nil {
			maybe = s
		}
	}
	return maybe
}

// pullFrom starts one pull. With nobody to ask, the next round of watch sees
// to it again.
func (f *Follower) pullFrom(ctx context.Context, t *track, s *source, now time.Duration) {
	if s == nil {
		return
	}
	t.pulling = true
	f.pulls++
	f.count.Pulls++
	after := t.tail.Seq
	f.call(ctx, func(ctx context.Context) func(time.Duration) {
		blocks, err := s.Source.Pull(ctx, t.origin, after, f.cfg.PullBytes)
		return func(now time.Duration) {
			t.pulling = false
			f.pulls--
			t.arm(now) // look again at once: there is more, or another to ask
			if err != nil {
				f.failed(s, now, "pull", err)
				return
			}
			s.answered()
			f.pulled(t, s, blocks, now)
		}
	})
}

// pulled takes in what a source answered.
func (f *Follower) pulled(t *track, s *source, blocks []fact.Block, now time.Duration) {
	before := t.tail.Seq
	for _, b := range blocks {
		if b.Origin != t.origin {
			break // a broken source: the rest of its answer is not believed
		}
		_, ahead := f.waiting()
		if t.offer(item{b, false}, f.cfg.BufferBytes-ahead) != refused {
			continue
		}
		if t.tail == t.held {
			f.diverged(t, s, b.Mark(), now)
		}
		t.reset(t.held) // what waited may have been wrong: start from what is held
		return
	}
	t.sweep()
	if t.tail.Seq <= before {
		t.try(s)
		return
	}
	f.quiet = 0
	delete(t.barred, s)
	if SizeOf(blocks) >= f.cfg.PullBytes/2 {
		t.want = max(t.want, t.tail.Seq+1) // a full answer: there may be more
	}
}

// diverged reports that a source (nil: the sink itself) contradicts what is
// held, once until they agree again, and leaves the source alone for a while.
func (f *Follower) diverged(t *track, s *source, told fact.Mark, now time.Duration) {
	_, known := t.barred[s]
	if t.barred == nil {
		t.barred = map[*source]time.Duration{}
	}
	t.barred[s] = now + f.cfg.BarDelay
	if known {
		return
	}
	d := Divergence{Origin: t.origin, Held: t.held, Told: told, Source: "sink"}
	if s != nil {
		d.Source = s.Name
	}
	f.count.Divergences++
	f.cfg.Logger.Error("two stores that should be equal are not", "feed", f.cfg.Name, "divergence", d.String())
	f.cfg.OnDivergence(d)
}
