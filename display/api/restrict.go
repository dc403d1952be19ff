package api

import (
	"bytes"
	"net/http"
	"slices"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/display/colour"
	"qianma/display/displaypb"
	"qianma/display/rules"
)

// restriction is a row of POST /v1/restrictions. Level and end may be left
// out: then they are what the rule set in force says for the reason.
type restriction struct {
	who
	Level       string    `json:"level"`
	Reason      string    `json:"reason"`
	Evidence    string    `json:"evidence"`
	Rule        string    `json:"rule"`
	RuleVersion uint32    `json:"rule_version"`
	Operator    string    `json:"operator"`
	Approver    string    `json:"approver"`
	Source      string    `json:"source"`
	Scope       string    `json:"scope"`
	From        time.Time `json:"from"`
	Until       time.Time `json:"until"`
	At          time.Time `json:"at"`
	Reference   string    `json:"reference"`
}

// restrict is POST /v1/restrictions.
func (a *API) restrict(w http.ResponseWriter, r *http.Request) error {
	var in restriction
	o, err := read(r, &in)
	if err != nil {
		return err
	}
	now := a.now()
	return a.submitOne(w, r, o, a.restriction(&in, a.rules.active(r.Context(), now), now))
}

// restrictBatch is POST /v1/restrictions/batch.
func (a *API) restrictBatch(w http.ResponseWriter, r *http.Request) error {
	o, err := web.WriteOptions(r)
	if err != nil {
		return err
	}
	now := a.now()
	rs := a.rules.active(r.Context(), now)
	var rows []row
	err = web.EachRow(r, MaxRows, func(_ int, raw []byte) error {
		var in restriction
		if err := web.Decode(raw, &in); err != nil {
			rows = append(rows, refused(problem.From(err)))
			return nil
		}
		rows = append(rows, a.restriction(&in, rs, now))
		return nil
	})
	if err != nil {
		return err
	}
	return a.submit(w, r, o, rows)
}

func (a *API) restriction(in *restriction, rs *colour.RuleSet, now int64) row {
	person, _, bad := a.known(&in.who)
	if bad != nil {
		return refused(bad)
	}
	cause, ok := displaypb.ParseCause(in.Reason)
	if !ok {
		return refused(explain(rules.CodeCause))
	}
	f := &displaypb.Restricted{
		Person: displaypb.Person(person), Cause: cause, Evidence: in.Evidence, Rule: in.Rule, RuleVersion: in.RuleVersion,
		Operator: in.Operator, Approver: in.Approver, Source: in.Source, Scope: in.Scope,
		From: or(in.From, now), At: or(in.At, now), Reference: in.Reference,
	}
	level, lasts, stated := rs.For(in.Reason)
	if in.Level != "" {
		if level, ok = colour.ParseLevel(in.Level); !ok {
			return refused(explain(rules.CodeLevel))
		}
	}
	if in.Until.IsZero() && !stated {
		return refused(explain(rules.CodePeriod))
	}
	f.Level, f.Until = displaypb.Level(level), or(in.Until, f.From+lasts.Milliseconds())
	if f.Scope == "" {
		f.Scope = "province"
	}
	out := a.rowOf(f)
	out.place = "/v1/restrictions?person=" + person.String() + "#" + displaypb.IDOf(out.Command).String()
	return out
}

// release is POST /v1/releases: it lifts the restrictions it names.
func (a *API) release(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		who
		Restrictions []string  `json:"restrictions"`
		Reason       string    `json:"reason"`
		Evidence     string    `json:"evidence"`
		Rule         string    `json:"rule"`
		RuleVersion  uint32    `json:"rule_version"`
		Operator     string    `json:"operator"`
		Approver     string    `json:"approver"`
		Source       string    `json:"source"`
		At           time.Time `json:"at"`
	}
	o, err := read(r, &in)
	if err != nil {
		return err
	}
	person, _, bad := a.known(&in.who)
	if bad != nil {
		return bad
	}
	f := &displaypb.Released{
		Person: displaypb.Person(person), Reason: in.Reason, Evidence: in.Evidence, Rule: in.Rule, RuleVersion: in.RuleVersion,
		Operator: in.Operator, Approver: in.Approver, Source: in.Source, At: or(in.At, a.now()),
	}
	for _, s := range in.Restrictions {
		id, err := displaypb.ParseID(s)
		if err != nil {
			return explain(codeInvalidFact)
		}
		f.Restrictions = append(f.Restrictions, id)
	}
	slices.SortFunc(f.Restrictions, func(a, b displaypb.ID) int { return bytes.Compare(a[:], b[:]) })
	return a.submitOne(w, r, o, a.rowOf(f))
}

// shownRestriction is a restriction with what became of it.
type shownRestriction struct {
	ID         string `json:"id"`
	State      string `json:"state"` // in_force, not_begun, ended, released
	Level      string `json:"level"`
	Reason     string `json:"reason"`
	Evidence   string `json:"evidence"`
	Rule       string `json:"rule,omitempty"`
	Operator   string `json:"operator"`
	Approver   string `json:"approver,omitempty"`
	Source     string `json:"source"`
	Scope      string `json:"scope"`
	From       string `json:"from"`
	Until      string `json:"until"`
	At         string `json:"at"`
	Reference  string `json:"reference,omitempty"`
	ReleasedAt string `json:"released_at,omitempty"`
	ReleasedBy string `json:"released_by,omitempty"`
}

// showRestrictions is GET /v1/restrictions: everything that was ever imposed
// on a person, with who did it and why, so that it can be appealed.
func (a *API) showRestrictions(w http.ResponseWriter, r *http.Request) error {
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	v, stale, err := a.view(r.Context(), a.shardOf(q.person))
	if err != nil {
		return err
	}
	var s rules.State
	s.Read(v, displaypb.Person(q.person))
	if err := v.Close(); err != nil {
		return err
	}
	now := a.now()
	shown := []shownRestriction{}
	for i := range s.Held {
		shown = append(shown, show(&s.Held[i], now))
	}
	return web.WriteJSON(w, http.StatusOK, struct {
		Person       identity.Person    `json:"person"`
		Restrictions []shownRestriction `json:"restrictions"`
		Stale        bool               `json:"stale"`
	}{q.person, shown, stale})
}

func show(h *rules.Held, now int64) shownRestriction {
	f := &h.Fact
	out := shownRestriction{
		ID: h.ID.String(), State: "in_force", Level: colour.Level(f.Level).String(), Reason: f.Cause.String(), Evidence: f.Evidence,
		Operator: f.Operator, Approver: f.Approver, Source: f.Source, Scope: f.Scope,
		From: moment(f.From), Until: moment(f.Until), At: moment(f.At), Reference: f.Reference,
	}
	switch {
	case h.ReleasedAt != 0:
		out.State, out.ReleasedAt, out.ReleasedBy = "released", moment(h.ReleasedAt), h.ReleasedBy.String()
	case now < f.From:
		out.State = "not_begun"
	case now >= f.Until:
		out.State = "ended"
	}
	if f.Rule != "" {
		out.Rule = ruleRef(f.Rule, f.RuleVersion)
	}
	return out
}
