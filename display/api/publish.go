package api

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"qianma/cluster/intake"
	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/display/colour"
	"qianma/display/displaypb"
	"qianma/display/rules"
)

// publish is POST /v1/rule-sets: rules as data, from a date on. Two people
// answer for them.
func (a *API) publish(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		RuleSet  jsontext.Value `json:"rule_set"`
		Operator string         `json:"operator"`
		Approver string         `json:"approver"`
		Source   string         `json:"source"`
		At       time.Time      `json:"at"`
	}
	o, err := read(r, &in)
	if err != nil {
		return err
	}
	document := in.RuleSet.Clone()
	if err := document.Canonicalize(); err != nil { // one set of rules, one fact, however it was spaced
		return problem.New(problem.Malformed, "the rule set is not JSON", "see GET /v1/rule-sets for one that is")
	}
	rs, err := colour.ParseRuleSet(document)
	if err != nil {
		return problem.New(rules.CodeDocument, "the rule set has faults: "+err.Error(), "correct them; GET /v1/rule-sets shows one that is in force")
	}
	one := row{Row: intake.Row{Shard: rules.RuleSetShard, Command: displaypb.Append(nil, &displaypb.RuleSetPublished{
		Name: rs.Name, Version: rs.Version, EffectiveFrom: rs.EffectiveFrom.UnixMilli(), At: or(in.At, a.now()),
		Operator: in.Operator, Approver: in.Approver, Source: in.Source, Document: document,
	})}}
	return a.submitOne(w, r, o, one)
}

// shownRuleSet is a rule set with who published it.
type shownRuleSet struct {
	ID            string          `json:"id,omitempty"` // none: built in
	Ref           string          `json:"ref"`
	EffectiveFrom string          `json:"effective_from"`
	Active        bool            `json:"active"`
	Contested     bool            `json:"contested"` // two documents were published as this version
	Operator      string          `json:"operator,omitempty"`
	Approver      string          `json:"approver,omitempty"`
	Source        string          `json:"source,omitempty"`
	PublishedAt   string          `json:"published_at,omitempty"`
	RuleSet       json.RawMessage `json:"rule_set"`
}

// showRuleSets is GET /v1/rule-sets: all there are, in the order in which they
// come into force.
func (a *API) showRuleSets(w http.ResponseWriter, r *http.Request) error {
	v, stale, err := a.view(r.Context(), rules.RuleSetShard)
	if err != nil {
		return err
	}
	published := rules.RuleSets(v)
	if err := v.Close(); err != nil {
		return err
	}
	document, err := json.Marshal(builtin)
	if err != nil {
		return err
	}
	shown := []shownRuleSet{{Ref: builtin.Ref(), EffectiveFrom: moment(builtin.EffectiveFrom.UnixMilli()), RuleSet: document}}
	sets := []*colour.RuleSet{builtin}
	for _, p := range published {
		if rs, err := colour.ParseRuleSet(p.Fact.Document); err == nil { // else of a newer build: shown, never in force here
			sets = append(sets, rs)
		}
		shown = append(shown, shownRuleSet{
			ID: p.ID.String(), Ref: ruleRef(p.Fact.Name, p.Fact.Version), EffectiveFrom: moment(p.Fact.EffectiveFrom), Contested: p.Contested,
			Operator: p.Fact.Operator, Approver: p.Fact.Approver, Source: p.Fact.Source, PublishedAt: moment(p.Fact.At), RuleSet: p.Fact.Document,
		})
	}
	active := colour.Active(sets, a.now()).Ref()
	for i := range shown { // of contested ones, the first is in force
		if shown[i].Ref == active {
			shown[i].Active = true
			break
		}
	}
	return web.WriteJSON(w, http.StatusOK, struct {
		RuleSets []shownRuleSet `json:"rule_sets"`
		Stale    bool           `json:"stale"`
	}{shown, stale})
}
