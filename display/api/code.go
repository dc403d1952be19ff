package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/mishap"
	"qianma/cluster/web"
	"qianma/display/colour"
	"qianma/display/displaypb"
	"qianma/display/rules"
	"qianma/display/source"
	"qianma/display/token"
	pb "qianma/middle-store/middlestorepb"
)

// What an answer and a token are worth again.
const (
	// answerLife is how long a plain answer is given again: new facts show
	// within it, and a crowd that looks at one person costs one lookup.
	answerLife = 300 // milliseconds
	// tokenLeft is the least a token given again still has to live.
	tokenLeft = 20 // seconds
	// keepEvery is how often an unchanged person is written to the last-known
	// copy, so that its age there stays of use.
	keepEvery = 10 * 60 * 1000 // milliseconds
	// sureWait bounds the wait for restrictions a reader has seen elsewhere.
	sureWait = 200 * time.Millisecond
)

// showCode is GET /v1/code: what a phone shows. It answers whatever is dead.
func (a *API) showCode(w http.ResponseWriter, r *http.Request) error {
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	now := a.now()
	if q.plain() {
		if body := a.Cache.answer(&q, now); body != nil {
			web.WriteRaw(w, http.StatusOK, body)
			return nil
		}
	}
	c := codes.Get().(*code)
	defer codes.Put(c)
	if err := a.make(r.Context(), c, &q, now); err != nil {
		return err
	}
	web.WriteRaw(w, http.StatusOK, c.body)
	return nil
}

// answer is a plain answer that is still worth giving to this reader.
func (c *Cache) answer(q *asked, now int64) []byte {
	got, ok := c.answers.Get(q.person)
	if !ok || now >= got.until {
		return nil
	}
	if q.seenRaw != "" && q.seenRaw != got.seen && (got.facts < q.seen.facts || !got.marks.Covers(q.seen.marks)) {
		return nil
	}
	return got.body
}

// code is one answer under construction. It is used again and again, so that
// a code costs few allocations.
type code struct {
	rules    *colour.RuleSet
	source   source.Answer
	state    rules.State
	in       colour.Input
	verdict  colour.Verdict
	online   signed
	offline  signed
	picture  string
	seen     []byte
	carriers []colour.Carrier
	body     []byte
}

// signed is a token with its end, in Unix seconds.
type signed struct {
	text    string
	expires int64
}

var codes = sync.Pool{New: func() any { return new(code) }}

// make finds out, judges, signs and writes one answer. It fails only when the
// caller has gone.
func (a *API) make(ctx context.Context, c *code, q *asked, now int64) error {
	c.rules = a.rules.active(ctx, now)
	c.source = a.Source.Get(ctx, pb.PersonID(q.person), q.seen.marks)
	others, applies := a.Others(a.shardOf(q.person)) // before the state is read: it may only have grown since
	heard, behind := a.readState(ctx, &c.state, q)
	c.in.OthersAsOf, c.in.OthersMissing = 0, applies && others.IsZero()
	if applies && !others.IsZero() {
		c.in.OthersAsOf = min(others.UnixMilli(), now)
	}
	if err := a.conclude(ctx, c, q, now, heard, behind); err != nil {
		return err
	}
	c.picture = ""
	if q.qr {
		c.picture = a.picture(ctx, c.online.text)
	}
	c.seen = c.appendSeen(c.seen[:0], q.seen)
	c.body = a.appendAnswer(c.body[:0], c, q, now)
	if q.plain() && !c.in.Behind {
		a.remember(c, q.person, now)
	}
	return nil
}

// turns is how many codes are concluded at a time for each processor. Five
// hundred that became ready together would else hold up for a tenth of a second
// whatever the process has to do beside them: the next question to the middle
// store, which has a limit of time, and its replica's word to the others.
const turns = 4

// conclude judges and signs: what a code costs most of. A caller that has gone
// by the time its turn comes costs nothing.
func (a *API) conclude(ctx context.Context, c *code, q *asked, now, heard int64, behind bool) error {
	select {
	case a.turns <- struct{}{}:
		defer func() { <-a.turns }()
	case <-ctx.Done():
		return ctx.Err()
	}
	c.judge(now, heard, behind)
	cached, _ := a.Cache.tokens.Get(q.person)
	a.signOnline(c, q.person, &cached, now)
	a.keep(c, q.person, &cached, now)
	a.Cache.tokens.Put(q.person, cached, len(cached.text))
	c.offline = signed{}
	if q.offline {
		c.offline = a.sign(token.Offline, c, q.person, now)
	}
	return nil
}

// readState reads what this replica holds about a person: as of when, and
// whether the reader has seen more of it elsewhere.
func (a *API) readState(ctx context.Context, s *rules.State, q *asked) (heard int64, behind bool) {
	shard := a.shardOf(q.person)
	if at := a.Heard(shard); !at.IsZero() {
		heard = at.UnixMilli()
	}
	if s.Peek(a.Proposer, shard, displaypb.Person(q.person)) != nil {
		return 0, true
	}
	if s.Facts < q.seen.facts {
		sure, cancel := context.WithTimeout(ctx, sureWait)
		defer cancel()
		if a.readNewest(sure, s, q.person) && s.Facts < q.seen.facts {
			return heard, true
		}
		behind = s.Facts < q.seen.facts
		// The newest could not be read: what there is, is better than nothing.
		if behind && s.Peek(a.Proposer, shard, displaypb.Person(q.person)) != nil {
			return 0, true
		}
	}
	return heard, behind
}

// readNewest reads every acknowledged write, or says that it cannot.
func (a *API) readNewest(ctx context.Context, s *rules.State, p identity.Person) bool {
	s.Reset()
	v, err := a.Proposer.View(ctx, a.shardOf(p), true)
	if err != nil {
		return false
	}
	s.Read(v, displaypb.Person(p))
	return v.Close() == nil
}

// judge turns what was found out into a verdict.
func (c *code) judge(now, heard int64, behind bool) {
	in := &c.in
	*in = colour.Input{
		Now: now, Restrictions: in.Restrictions[:0], Declarations: c.state.Declarations, Tests: in.Tests[:0], Carriers: c.carriers[:0],
		Known: c.source.Kind != source.None, LastKnown: c.source.Kind == source.LastKnown,
		Behind: behind || c.source.Behind, RestrictionsAsOf: heard, OthersAsOf: in.OthersAsOf, OthersMissing: in.OthersMissing,
	}
	for i := range c.state.Held {
		if h := &c.state.Held[i]; h.ReleasedAt == 0 && !mishap.ShowRestriction.Omitted() {
			in.Restrictions = append(in.Restrictions, restrictionOf(&h.Fact))
		}
	}
	if c.source.Person != nil {
		for i := range c.source.Person.Tubes {
			in.Tests = append(in.Tests, testOf(&c.source.Person.Tubes[i]))
		}
		for i := range c.source.Batch.Freshness {
			if f := &c.source.Batch.Freshness[i]; f.Subsystem == "nucleic" {
				in.Carriers = append(in.Carriers, colour.Carrier{Name: f.Carrier, AsOf: min(f.AsOf, now)})
			}
		}
	}
	c.carriers = in.Carriers
	c.rules.Evaluate(in, &c.verdict)
}

func restrictionOf(f *displaypb.Restricted) colour.Restriction {
	r := colour.Restriction{Cause: colour.Code(f.Cause.String()), Level: colour.Level(f.Level), From: f.From, Until: f.Until, Source: f.Source}
	if f.Rule != "" {
		r.Rule = ruleRef(f.Rule, f.RuleVersion)
	}
	return r
}

// skew is how far the clocks of a booth and a lab may be apart: a result
// tested earlier than that before the swab cannot be about it.
const skew = int64(time.Hour / time.Millisecond)

func testOf(t *pb.Tube) colour.Test {
	out := colour.Test{Single: t.Pool == 1, Pool: t.Pool, Sampled: t.SampledAt, Received: t.ReceivedAt, Reported: t.ReportedAt}
	switch {
	case t.Conflict || t.Outcome != pb.OutcomePending && t.TestedAt != 0 && t.TestedAt < t.SampledAt-skew:
		out.Outcome = colour.OutcomeConflict
	case t.Outcome <= pb.OutcomeInvalid:
		out.Outcome = colour.Outcome(t.Outcome)
	default: // an outcome of a newer build: nothing that proves anything
		out.Outcome = colour.OutcomeInconclusive
	}
	return out
}

// content is all of a verdict that a token states beside its times.
func content(v *colour.Verdict) (n uint32, flags token.Flags) {
	if v.Stale {
		flags |= token.Stale
	}
	if v.Managed {
		flags |= token.Managed
	}
	return uint32(v.Level)<<16 | uint32(v.Colour)<<8 | uint32(flags), flags
}

// signOnline gives the person's token again while it says the same and has
// enough of its minute left; else it signs a new one.
func (a *API) signOnline(c *code, p identity.Person, cached *cachedToken, now int64) {
	says, _ := content(&c.verdict)
	if cached.content == says && cached.expires-now/1000 >= tokenLeft {
		c.online = signed{cached.text, cached.expires}
		return
	}
	c.online = a.sign(token.Online, c, p, now)
	cached.text, cached.expires, cached.content = c.online.text, c.online.expires, says
}

// sign issues a token. When the key cannot be used (a module that is away),
// the code is shown without one: a colour in words is better than none.
func (a *API) sign(kind token.Kind, c *code, p identity.Person, now int64) signed {
	_, flags := content(&c.verdict)
	issued := now / 1000
	claims := token.Claims{
		Kind: kind, Issuer: a.Carrier, Subject: token.Subject(p, issued), Colour: token.Colour(c.verdict.Colour), Level: uint8(c.verdict.Level),
		Issued: issued, Expires: issued + int64(kind.Life()/time.Second), AsOf: c.verdict.AsOf / 1000, Flags: flags,
	}
	text, err := token.Sign(a.Keys.now(issued).signer, claims)
	if err != nil {
		a.Logger.Error("a token could not be signed", "error", err)
		return signed{}
	}
	return signed{text, claims.Expires}
}

// keep writes what a store answered to the last-known copy when it is news,
// or when the copy has grown old.
func (a *API) keep(c *code, p identity.Person, cached *cachedToken, now int64) {
	if c.source.Kind != source.MiddleStore && c.source.Kind != source.OtherCarrier {
		return
	}
	if d := digest(c.source.Person); d != cached.kept || now-cached.keptAt > keepEvery {
		a.Source.Keep(pb.PersonID(p), &c.source)
		cached.kept, cached.keptAt = d, now
	}
}

// digest tells one state of a person from another (FNV-1a); it is no proof.
func digest(p *pb.Person) uint64 {
	h := uint64(14695981039346656037)
	mix := func(v int64) { h = (h ^ uint64(v)) * 1099511628211 }
	for i := range p.Tubes {
		t := &p.Tubes[i]
		mix(t.SampledAt)
		mix(t.ReceivedAt)
		mix(t.ReportedAt)
		mix(int64(t.Outcome) + 16*int64(t.Revision))
		if t.Conflict {
			mix(1)
		}
	}
	mix(int64(p.Doses.Count))
	mix(int64(p.Doses.LastDay))
	return h
}

// appendSeen writes what the reader has seen now: this answer, and whatever it
// saw before. An answer that is older than that must not make it forget, or the
// next one like it would not be called older.
func (c *code) appendSeen(dst []byte, before seen) []byte {
	marks := before.marks
	if c.source.Batch != nil {
		marks = c.source.Batch.Marks
		if !marks.Covers(before.marks) {
			marks = marks.Merge(before.marks)
		}
	}
	return appendSeen(dst, marks, max(c.state.Facts, before.facts))
}

// remember keeps the answer for those who ask in the next moment.
func (a *API) remember(c *code, p identity.Person, now int64) {
	got := cachedAnswer{body: append([]byte(nil), c.body...), until: now + answerLife, seen: string(c.seen), facts: c.state.Facts}
	if c.source.Batch != nil {
		got.marks = c.source.Batch.Marks
	}
	a.Cache.answers.Put(p, got, len(got.body)+len(got.seen))
}
