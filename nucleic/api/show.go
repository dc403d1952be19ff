package api

import (
	"bytes"
	"net/http"
	"slices"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/nucleic/nucleicpb"
	"qianma/nucleic/rules"
)

// freshness says how much of the truth an answer is.
type freshness struct {
	// AsOf is the time of the newest entry the answer contains; null before
	// the first.
	AsOf *string `json:"as_of"`
	// Stale: no majority could vouch that this is all that was acknowledged.
	Stale bool `json:"stale"`
}

func fresh(asOf int64, stale bool) freshness {
	return freshness{moment(asOf / int64(time.Millisecond)), stale}
}

type tubeAnswer struct {
	Tube        string             `json:"tube"`
	Pool        string             `json:"pool"`
	Outcome     string             `json:"outcome"`
	Revision    uint32             `json:"revision"`
	SampledAt   *string            `json:"sampled_at"`
	ReceivedAt  *string            `json:"received_at"`
	ReportedAt  *string            `json:"reported_at"`
	Opened      *openedAnswer      `json:"opened"`
	Sealed      *sealedAnswer      `json:"sealed"`
	Boxes       []boxedAnswer      `json:"boxes"`
	Receptions  []receptionAnswer  `json:"receptions"`
	Members     []memberAnswer     `json:"members"`
	Results     []resultAnswer     `json:"results"`
	Corrections []correctionAnswer `json:"corrections"`
	Conflicts   []string           `json:"conflicts"`
	freshness
}

type openedAnswer struct {
	Pool     string  `json:"pool"`
	Site     string  `json:"site"`
	OpenedAt *string `json:"opened_at"`
	Operator string  `json:"operator"`
}

type sealedAnswer struct {
	SealedAt *string `json:"sealed_at"`
	Operator string  `json:"operator"`
	Count    uint32  `json:"count"`
}

type boxedAnswer struct {
	Box      string  `json:"box"`
	PackedAt *string `json:"packed_at"`
	Operator string  `json:"operator"`
}

type receptionAnswer struct {
	Lab        string  `json:"lab"`
	Box        string  `json:"box,omitempty"`
	ReceivedAt *string `json:"received_at"`
	Operator   string  `json:"operator"`
}

type memberAnswer struct {
	Person       string   `json:"person"`
	Live         bool     `json:"live"`
	Revision     uint32   `json:"revision"`
	Voided       uint32   `json:"voided_revision"`
	Pool         string   `json:"pool,omitempty"`
	Site         string   `json:"site,omitempty"`
	SampledAt    *string  `json:"sampled_at"`
	RegisteredAt *string  `json:"registered_at"`
	Channel      string   `json:"channel,omitempty"`
	Operator     string   `json:"operator,omitempty"`
	Device       string   `json:"device,omitempty"`
	Division     string   `json:"division,omitempty"`
	Flags        []string `json:"flags"`
}

type resultAnswer struct {
	Lab        string  `json:"lab"`
	Revision   uint32  `json:"revision"`
	Outcome    string  `json:"outcome"`
	ReceivedAt *string `json:"received_at"`
	TestedAt   *string `json:"tested_at"`
	ReportedAt *string `json:"reported_at"`
	Method     string  `json:"method"`
	Operator   string  `json:"operator"`
	Voided     bool    `json:"voided"`
}

type correctionAnswer struct {
	Of          string  `json:"of"` // "registration" or "result"
	Person      string  `json:"person,omitempty"`
	Revision    uint32  `json:"revision"`
	Lab         string  `json:"lab,omitempty"`
	Outcome     string  `json:"outcome,omitempty"`
	RebindTo    string  `json:"rebind_to,omitempty"`
	CorrectedAt *string `json:"corrected_at"`
	Operator    string  `json:"operator"`
	Reason      string  `json:"reason"`
}

// showTube shows everything held of a tube: void, contradicted and all.
func (a *API) showTube(w http.ResponseWriter, r *http.Request) error {
	code := []byte(r.PathValue("tube"))
	v, stale, err := a.view(r.Context(), rules.ShardOf(code, a.proposer.Shards()))
	if err != nil {
		return err
	}
	defer v.Close()
	t, ok := rules.ReadTube(v, code)
	if !ok {
		return problem.New(problem.NotFound, "nothing is held of this tube here", "check its code; what was sent to the other carrier arrives within moments while the line is up")
	}
	out := answerTube(t)
	out.freshness = fresh(v.AsOf(), stale)
	return web.WriteJSON(w, http.StatusOK, out)
}

func answerTube(t *rules.Tube) tubeAnswer {
	out := tubeAnswer{
		Tube: string(t.Code), Pool: t.Pool().String(), Outcome: t.Verdict.Outcome.String(), Revision: t.Verdict.Revision,
		SampledAt: moment(firstSampled(t)), ReceivedAt: moment(receivedAt(t)), ReportedAt: moment(t.Verdict.ReportedAt),
		Boxes:      each(t.Boxes, answerBoxed),
		Receptions: each(t.Receptions, answerReception), Members: each(t.Members, answerMember),
		Results: each(t.Results, answerResult), Corrections: each(t.Corrections, answerCorrection),
		Conflicts: append([]string{}, rules.ConflictNames(t.Conflicts)...),
	}
	if m := t.Opened; m != nil {
		out.Opened = &openedAnswer{m.Pool.String(), string(m.Site), moment(m.OpenedAt), string(m.Operator)}
	}
	if m := t.Sealed; m != nil {
		out.Sealed = &sealedAnswer{moment(m.SealedAt), string(m.Operator), m.Count}
	}
	return out
}

// each is never nil, so that answers show an empty list as one.
func each[T, U any](list []T, fn func(*T) U) []U {
	out := make([]U, len(list))
	for i := range list {
		out[i] = fn(&list[i])
	}
	return out
}

func firstSampled(t *rules.Tube) (first int64) {
	for i := range t.Members {
		if m := &t.Members[i]; m.Live && (first == 0 || m.SampledAt < first) {
			first = m.SampledAt
		}
	}
	return first
}

// receivedAt is when the lab says it received the tube: in its result, else at
// its door.
func receivedAt(t *rules.Tube) int64 {
	at := t.Verdict.ReceivedAt
	for i := range t.Receptions {
		if m := &t.Receptions[i]; at == 0 || (t.Verdict.ReceivedAt == 0 && m.ReceivedAt < at) {
			at = m.ReceivedAt
		}
	}
	return at
}

func answerBoxed(m *nucleicpb.Boxed) boxedAnswer {
	return boxedAnswer{string(m.Box), moment(m.PackedAt), string(m.Operator)}
}

func answerReception(m *nucleicpb.LabReceived) receptionAnswer {
	return receptionAnswer{string(m.Lab), string(m.Box), moment(m.ReceivedAt), string(m.Operator)}
}

func answerMember(m *rules.Member) memberAnswer {
	out := memberAnswer{
		Person: personOf(m.Person), Live: m.Live, Voided: m.Voided, SampledAt: moment(m.SampledAt), RegisteredAt: moment(m.DoorAt),
		Site: string(m.Site), Operator: string(m.Operator), Device: string(m.Device), Division: string(m.Division),
		Flags: append([]string{}, identity.Flags(m.Flags).Strings()...),
	}
	if m.Pool != nucleicpb.PoolUnknown { // else only a correction has come so far
		out.Revision, out.Pool, out.Channel = m.Rev(), m.Pool.String(), m.Channel.String()
	}
	return out
}

func personOf(p []byte) string {
	if len(p) != len(identity.Person{}) {
		return ""
	}
	return identity.Person(p).String()
}

func answerResult(m *rules.Result) resultAnswer {
	return resultAnswer{
		string(m.Lab), m.Revision, m.Outcome.String(), moment(m.ReceivedAt), moment(m.TestedAt), moment(m.ReportedAt),
		string(m.Method), string(m.Operator), m.Voided,
	}
}

func answerCorrection(m *nucleicpb.Corrected) correctionAnswer {
	out := correctionAnswer{
		Of: "result", Revision: m.Revision, Lab: string(m.Lab),
		CorrectedAt: moment(m.CorrectedAt), Operator: string(m.Operator), Reason: string(m.Reason),
	}
	if len(m.Person) == 0 {
		out.Outcome = m.Outcome.String()
		return out
	}
	out.Of, out.Person = "registration", personOf(m.Person)
	if bound, ok := m.Bound(); ok {
		out.RebindTo = personOf(bound.Person)
	}
	return out
}

type boxAnswer struct {
	Box        string            `json:"box"`
	Count      int               `json:"count"`
	Tubes      []string          `json:"tubes"`
	Receptions []receptionAnswer `json:"receptions"`
	freshness
}

// showBox gathers a box from every shard.
func (a *API) showBox(w http.ResponseWriter, r *http.Request) error {
	box := []byte(r.PathValue("box"))
	var all rules.Box
	var asOf int64
	known, stale := false, false
	for shard := range a.proposer.Shards() {
		v, old, err := a.view(r.Context(), shard)
		if err != nil {
			return err
		}
		part, ok := rules.ReadBox(v, box)
		asOf, known, stale = max(asOf, v.AsOf()), known || ok, stale || old
		_ = v.Close()
		all.Tubes = append(all.Tubes, part.Tubes...)
		if len(all.Receptions) < len(part.Receptions) { // every shard is told of a reception
			all.Receptions = part.Receptions
		}
	}
	if !known {
		return problem.New(problem.NotFound, "nothing is held of this box here", "check its code; what was sent to the other carrier arrives within moments while the line is up")
	}
	slices.SortFunc(all.Tubes, bytes.Compare)
	return web.WriteJSON(w, http.StatusOK, boxAnswer{
		string(box), len(all.Tubes), each(all.Tubes, func(t *[]byte) string { return string(*t) }),
		each(all.Receptions, answerReception), fresh(asOf, stale),
	})
}
